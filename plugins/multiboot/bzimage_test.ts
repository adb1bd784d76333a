import { assertEquals, assertThrows } from "@std/assert";
import { ArgumentError } from "../../core/mod.ts";
import { scriptedVm } from "../../core/testing/mod.ts";
import { ImageError } from "../flat/mod.ts";
import { bzImage, type BzImageOptions } from "./bzimage.ts";

const MIB = 2 ** 20;

interface Fixture {
  readonly version?: number;
  readonly flags?: number;
  readonly extended?: number;
  readonly address?: number;
  readonly initSize?: number;
  readonly sectors?: number;
  readonly initrdMost?: number;
}

const KERNEL = Uint8Array.from({ length: 0x600 }, (_, i) => i & 0xff);

/** A bzImage with a setup part of so many sectors and the code above behind it. */
function file(fixture: Fixture = {}): Uint8Array {
  const { sectors = 2, version = 0x20f, address = 2 * MIB, initSize = 0x4000 } = fixture;
  const setup = (1 + (sectors || 4)) * 512;
  const bytes = new Uint8Array(setup + KERNEL.length);
  const view = new DataView(bytes.buffer);
  bytes[0x1f1] = sectors;
  view.setUint16(0x1fe, 0xaa55, true);
  bytes.set([0xeb, 0x66], 0x200);
  bytes.set(new TextEncoder().encode("HdrS"), 0x202);
  view.setUint16(0x206, version, true);
  bytes[0x211] = fixture.flags ?? 1;
  view.setUint32(0x22c, fixture.initrdMost ?? 0x7fff_ffff, true);
  view.setUint16(0x236, fixture.extended ?? 1, true);
  view.setUint32(0x238, 2047, true);
  view.setBigUint64(0x258, BigInt(address), true);
  view.setUint32(0x260, initSize, true);
  bytes.set(KERNEL, setup);
  return bytes;
}

function load(fixture: Fixture = {}, options: BzImageOptions = {}, memory = 8 * MIB) {
  const machine = scriptedVm({ memory, images: [bzImage(file(fixture), options)] });
  const { vm, vcpu, vendor } = machine;
  const state = vendor.getSystemState(vcpu);
  const parameters = Number(vcpu.regs.rsi);
  const read = (gpa: number, length: number): Uint8Array => {
    const bytes = new Uint8Array(length);
    vm.memory.read(gpa, bytes);
    return bytes;
  };
  return { vm, vcpu, state, parameters, read, [Symbol.dispose]: () => machine[Symbol.dispose]() };
}

Deno.test("the kernel is entered in 64-bit mode, 200h behind its beginning", () => {
  using m = load();
  assertEquals(m.read(2 * MIB, KERNEL.length), KERNEL);
  assertEquals([m.vcpu.regs.rip, m.state.efer, m.state.cr0 & 1n << 31n], [
    BigInt(2 * MIB + 0x200),
    0x500n,
    1n << 31n,
  ]);
  const { cs, ds, ss, gdt } = m.state;
  assertEquals([cs.selector, ds.selector, ss.selector, gdt.limit], [0x10, 0x18, 0x18, 31]);
  // The descriptors are those that the registers hold: a guest may load the selectors again.
  const table = new DataView(m.read(Number(gdt.base), 32).buffer);
  assertEquals(table.getBigUint64(0x10, true), 0x00af_9b00_0000_ffffn);
  assertEquals(table.getBigUint64(0x18, true), 0x00cf_9300_0000_ffffn);
});

Deno.test("one without 64-bit entry is entered in protected mode", () => {
  for (const [fixture, options] of [[{ extended: 0 }, {}], [{}, { entry: 32 }]] as const) {
    using m = load(fixture, options);
    assertEquals([m.vcpu.regs.rip, m.state.efer, m.state.cr0], [BigInt(2 * MIB), 0n, 0x11n]);
    assertEquals([m.state.cs.selector, m.state.cs.attributes & 0x600], [0x10, 0x400]);
    assertEquals([m.vcpu.regs.rbp, m.vcpu.regs.rdi, m.vcpu.regs.rbx], [0n, 0n, 0n]);
  }
  using old = load({ version: 0x206 });
  assertEquals([old.vcpu.regs.rip, old.read(MIB, 4)], [BigInt(MIB), KERNEL.slice(0, 4)]);
});

Deno.test("the boot parameters have header, command line, RAM disk and memory map", () => {
  const initrd = Uint8Array.from({ length: 5000 }, (_, i) => i % 251);
  using m = load({}, { commandLine: "console=ttyS0", modules: [{ bytes: initrd }] });
  const bytes = m.read(m.parameters, 4096);
  const view = new DataView(bytes.buffer);
  assertEquals(m.parameters % 4096, 0);
  assertEquals([bytes[0x1f1], view.getUint16(0x206, true), bytes[0x210]], [2, 0x20f, 0xff]);
  const line = m.read(view.getUint32(0x228, true), 14);
  assertEquals(new TextDecoder().decode(line), "console=ttyS0\0");
  const [ramdisk, size] = [view.getUint32(0x218, true), view.getUint32(0x21c, true)];
  assertEquals([ramdisk % 4096, size, ramdisk >= 2 * MIB + 0x4000], [0, 5000, true]);
  assertEquals(m.read(ramdisk, size), initrd);
  const map = Array.from({ length: bytes[0x1e8] as number }, (_, i) => {
    const at = 0x2d0 + 20 * i;
    const type = view.getUint32(at + 16, true);
    return [Number(view.getBigUint64(at, true)), Number(view.getBigUint64(at + 8, true)), type];
  });
  assertEquals(map, [
    [0, 0xa_0000, 1],
    [0xa_0000, 0x6_0000, 2],
    [MIB, 7 * MIB, 1],
  ]);
  // What lies behind the header is not the file's.
  assertEquals(bytes.subarray(0x270, 0x2d0).every((byte) => byte === 0), true);
});

Deno.test("a kernel that says 0 has four setup sectors", () => {
  using m = load({ sectors: 0 });
  assertEquals(m.read(2 * MIB, 16), KERNEL.slice(0, 16));
});

Deno.test("broken files are refused by field", () => {
  const cases: [file: Uint8Array, message: string][] = [
    [new Uint8Array(100), "setup header"],
    [file({ version: 0x205 }), "boot protocol 2.05 is older than 2.06"],
    [file({ flags: 0 }), "loadflags (at 211h in the file): bit 0"],
    [file({ sectors: 20 }).subarray(0, 4000), "20 sectors go beyond the file's end"],
    [file().subarray(0, 0x230), "setup_sects"],
  ];
  for (const [bytes, message] of cases) {
    assertThrows(() => bzImage(bytes), ImageError, message);
  }
});

Deno.test("what does not fit is refused when it is loaded", () => {
  assertThrows(() => load({ initSize: 7 * MIB }), ImageError, "the kernel: it needs 200000h");
  const modules = [{ bytes: new Uint8Array(6 * MIB) }];
  assertThrows(() => load({}, { modules }), ImageError, "the initial RAM disk: no room");
  assertThrows(
    () => load({ initrdMost: 2 * MIB }, { modules: [{ bytes: new Uint8Array(1) }] }),
    ImageError,
    "the initial RAM disk would end at 204000h, beyond 200000h",
  );
});

Deno.test("options that it cannot carry are refused", () => {
  const refused = (options: BzImageOptions, message: string, fixture: Fixture = {}) =>
    assertThrows(() => bzImage(file(fixture), options), ArgumentError, message);
  refused({ commandLine: "a\0" }, "a NUL");
  refused({ commandLine: "x".repeat(2048) }, "2048 bytes, of at most 2047");
  refused({ modules: [{ bytes: KERNEL }, { bytes: KERNEL }] }, "one initial RAM disk");
  refused({ entry: 64 }, "no 64-bit entry point", { extended: 0 });
});
