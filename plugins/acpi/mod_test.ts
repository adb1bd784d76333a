/**
 * The tables as an operating system finds them.
 */

import { assert, assertEquals, assertThrows } from "@std/assert";
import { type Plugin, PluginError } from "../../core/mod.ts";
import { scriptedVm } from "../../core/testing/mod.ts";
import { acpiPm } from "../acpipm/mod.ts";
import { hpet } from "../hpet/mod.ts";
import { i8042 } from "../i8042/mod.ts";
import { pci } from "../pci/mod.ts";
import { pic } from "../pic/mod.ts";
import { rtc } from "../rtc/mod.ts";
import { acpi, ACPI_BASE, ACPI_SIZE } from "./mod.ts";

const BOARD = (): Plugin[] => [acpiPm(), hpet(), i8042(), pci(), pic(), rtc()];

interface Tables {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  /** Tables by their signatures: their place in {@linkcode Tables.bytes} and their length. */
  readonly found: ReadonlyMap<string, readonly [at: number, length: number]>;
}

const sum = (bytes: Uint8Array): number => bytes.reduce((total, byte) => total + byte, 0) & 0xff;
const ascii = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);

/** Finds all tables from the root pointer on, through both lists, with their checksums right. */
function find(plugins: readonly Plugin[], cpus: number | readonly number[] = 1): Tables {
  using machine = scriptedVm({ plugins: [...plugins, acpi()], cpus });
  const { mmio } = machine.vm;
  const bytes = new Uint8Array(ACPI_SIZE);
  const view = new DataView(bytes.buffer);
  for (let i = 0; i < ACPI_SIZE; i += 4) view.setUint32(i, mmio.read(ACPI_BASE + i, 4), true);
  assertEquals(ascii(bytes.subarray(0, 8)), "RSD PTR ");
  assertEquals([sum(bytes.subarray(0, 20)), sum(bytes.subarray(0, 36)), bytes[15]], [0, 0, 2]);
  const found = new Map<string, readonly [number, number]>();
  const table = (address: number): readonly [number, number] => {
    const at = address - ACPI_BASE;
    const length = view.getUint32(at + 4, true);
    const signature = ascii(bytes.subarray(at, at + 4));
    if (signature !== "FACS") assertEquals(sum(bytes.subarray(at, at + length)), 0, signature);
    found.set(signature, [at, length]);
    return [at, length];
  };
  const [rsdt, rsdtLength] = table(view.getUint32(16, true));
  const [xsdt, xsdtLength] = table(Number(view.getBigUint64(24, true)));
  const list = Array.from(
    { length: (rsdtLength - 36) / 4 },
    (_, i) => view.getUint32(rsdt + 36 + 4 * i, true),
  );
  const wide = Array.from(
    { length: (xsdtLength - 36) / 8 },
    (_, i) => Number(view.getBigUint64(xsdt + 36 + 8 * i, true)),
  );
  assertEquals(wide, list);
  for (const address of list) {
    const [at] = table(address);
    if (ascii(bytes.subarray(at, at + 4)) !== "FACP") continue;
    table(view.getUint32(at + 36, true));
    table(view.getUint32(at + 40, true));
  }
  return { bytes, view, found };
}

const at = (tables: Tables, signature: string): number => {
  const place = tables.found.get(signature);
  assert(place !== undefined, `no ${signature}`);
  return place[0];
};

Deno.test("a whole board has all tables", () => {
  const { found } = find(BOARD());
  assertEquals([...found.keys()].sort(), ["APIC", "DSDT", "FACP", "FACS", "HPET", "RSDT", "XSDT"]);
});

Deno.test("what is not there is not described", () => {
  const { found } = find([]);
  assertEquals([...found.keys()].sort(), ["APIC", "RSDT", "XSDT"]);
  const tables = find([acpiPm()]);
  const fadt = at(tables, "FACP");
  assertEquals(tables.view.getUint16(fadt + 109, true), 0x05, "no keyboard controller");
  assertEquals(tables.view.getUint32(fadt + 112, true) & 1 << 10, 0, "no reset register");
  assertEquals(tables.bytes[fadt + 108], 0, "no century");
});

Deno.test("the fixed description table has the registers of the plugins", () => {
  const tables = find([acpiPm({ base: 0x1800, timerBits: 24 }), ...BOARD().slice(1)]);
  const { view, bytes } = tables;
  const fadt = at(tables, "FACP");
  assertEquals(view.getUint16(fadt + 46, true), 9);
  assertEquals([56, 64, 76].map((offset) => view.getUint32(fadt + offset, true)), [
    0x1800,
    0x1804,
    0x1808,
  ]);
  assertEquals([...bytes.subarray(fadt + 88, fadt + 92)], [4, 2, 0, 4]);
  assertEquals([view.getUint16(fadt + 109, true), bytes[fadt + 108]], [0x07, 0x32]);
  const flags = view.getUint32(fadt + 112, true);
  assertEquals([flags >> 8 & 1, flags >> 10 & 1], [0, 1]);
  // The reset register: a byte at port CF9h.
  assertEquals([...bytes.subarray(fadt + 116, fadt + 120)], [1, 8, 0, 1]);
  assertEquals([Number(view.getBigUint64(fadt + 120, true)), bytes[fadt + 128]], [0xcf9, 6]);
  assertEquals(at(tables, "FACS") % 64, 0);
  const wide = find(BOARD());
  assertEquals(wide.view.getUint32(at(wide, "FACP") + 112, true) >> 8 & 1, 1);
});

Deno.test("the firmware control structure can be written, nothing else; a reset clears it", () => {
  using machine = scriptedVm({ plugins: [...BOARD(), acpi()] });
  const { vm } = machine;
  const { mmio } = vm;
  let facs = ACPI_BASE;
  while (mmio.read(facs, 4) !== 0x5343_4146) facs += 64;
  assertEquals(mmio.read(facs + 12, 4), 0);
  mmio.write(facs + 12, 4, 0x9_abcd, 0);
  mmio.write(facs + 18, 1, 0x55, 0);
  mmio.write(facs - 4, 4, 0x1234_5678, 0);
  mmio.write(facs + 64, 4, 0x1234_5678, 0);
  const near = [-4, 12, 16, 64].map((offset) => mmio.read(facs + offset, 4));
  assertEquals([near[1], near[2]], [0x9_abcd, 0x55_0000]);
  assert(near[0] !== 0x1234_5678 && near[3] !== 0x1234_5678);
  vm.reset();
  assertEquals(mmio.read(facs + 12, 4), 0);
});

Deno.test("the interrupt controllers: every vCPU, and lines that are not as on an ISA bus", () => {
  const tables = find(BOARD(), [0, 2, 254, 255, 300]);
  const { view, bytes } = tables;
  const [madt, length] = tables.found.get("APIC") ?? [0, 0];
  assertEquals([view.getUint32(madt + 36, true), view.getUint32(madt + 40, true)], [
    0xfee0_0000,
    1,
  ]);
  const entries: number[][] = [];
  for (let i = madt + 44; i < madt + length; i += bytes[i + 1] as number) {
    entries.push([...bytes.subarray(i, i + (bytes[i + 1] as number))]);
  }
  const of = (type: number) => entries.filter(([first]) => first === type);
  assertEquals(of(0).map((entry) => entry[3]), [0, 2, 254]);
  assertEquals(of(9).map((entry) => (entry[4] as number) | (entry[5] as number) << 8), [255, 300]);
  assertEquals(of(4), [[4, 6, 0xff, 0, 0, 1]]);
  assertEquals([of(1), of(2)], [[], []], "without an I/O APIC");
});

/** The names of a definition block, with what is at the packages' and devices' insides. */
function names(bytes: Uint8Array, from: number, to: number, prefix = ""): string[] {
  const found: string[] = [];
  let i = from;
  const counted = (): number => {
    const start = i;
    const lead = bytes[i++] as number;
    const more = lead >> 6;
    let length = more === 0 ? lead & 0x3f : lead & 0x0f;
    for (let k = 0; k < more; k++) length |= (bytes[i++] as number) << (4 + 8 * k);
    return start + length;
  };
  const path = (): string => {
    if (bytes[i] === 0x5c) i++;
    const text = ascii(bytes.subarray(i, i + 4));
    i += 4;
    return text;
  };
  const skip = (): string => {
    const code = bytes[i++] as number;
    if (code <= 1) return String(code);
    const size = [1, 2, 4, 0, 8][code - 0x0a];
    if (size !== undefined && size > 0) {
      i += size;
      return "integer";
    }
    assert(code === 0x11 || code === 0x12, `object ${code.toString(16)}`);
    const end = counted();
    const count = code === 0x12 ? `package of ${bytes[i]}` : "buffer";
    i = end;
    return count;
  };
  while (i < to) {
    const code = bytes[i++] as number;
    if (code === 0x08) {
      found.push(`${prefix}${path()}: ${skip()}`);
      continue;
    }
    if (code === 0x5b) assertEquals(bytes[i++], 0x82);
    else assertEquals(code, 0x10);
    const end = counted();
    const name = path();
    found.push(`${prefix}${name}`, ...names(bytes, i, end, `${prefix}${name}.`));
    i = end;
  }
  assertEquals(i, to);
  return found;
}

Deno.test("the definition block can be taken apart to its end", () => {
  const tables = find(BOARD());
  const [dsdt, length] = tables.found.get("DSDT") ?? [0, 0];
  const list = names(tables.bytes, dsdt + 36, dsdt + length);
  assertEquals(list.slice(0, 8), [
    "_S3_: package of 4",
    "_S5_: package of 4",
    "_SB_",
    "_SB_.PCI0",
    "_SB_.PCI0._HID: integer",
    "_SB_.PCI0._UID: 0",
    "_SB_.PCI0._CRS: buffer",
    "_SB_.PCI0._PRT: package of 128",
  ]);
  const devices = list.filter((name) => !name.includes(":")).map((name) => name.split(".").at(-1));
  assertEquals(devices, ["_SB_", "PCI0", "ISA_", "RTC_", "KBD_", "HPET"]);
});

Deno.test("vCPUs that are added are described", () => {
  using machine = scriptedVm({ plugins: [acpi()] });
  const { vm } = machine;
  const firstTable = (): number => vm.mmio.read(vm.mmio.read(ACPI_BASE + 0x18, 4) + 36, 4);
  const madtLength = (): number => vm.mmio.read(firstTable() + 4, 4);
  const one = madtLength();
  vm.addVcpu(7);
  assertEquals(madtLength(), one + 8);
});

Deno.test("more vCPUs than there is room for are an error that says so", () => {
  const cpus = Array.from({ length: 4096 }, (_, id) => 1000 + id);
  assertThrows(() => find([], cpus), PluginError, "65536 bytes");
});
