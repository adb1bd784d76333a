import { assertEquals, assertThrows } from "@std/assert";
import { ArgumentError } from "../../core/mod.ts";
import { scriptedVm } from "../../core/testing/mod.ts";
import { fwCfg, FwCfgItem, type FwCfgKernel, type FwCfgOptions, KernelItem } from "./mod.ts";

/** Reads `count` bytes of item `key` of a machine with `cpus` vCPUs. */
function readItem(
  key: number,
  count: number,
  options: FwCfgOptions = {},
  cpus = 1,
  memory = 0x9_5000,
): number[] {
  using machine = scriptedVm({ plugins: [fwCfg(options)], cpus, memory });
  const { pio } = machine.vm;
  pio.write(0x510, 2, key);
  return Array.from({ length: count }, () => pio.read(0x511, 1));
}

Deno.test("fw_cfg: the machine's items, and zeros behind them", () => {
  const text = (characters: string) => Array.from(characters, (c) => c.charCodeAt(0));
  assertEquals(readItem(FwCfgItem.SIGNATURE, 5), [...text("QEMU"), 0]);
  assertEquals(readItem(FwCfgItem.ID, 5), [1, 0, 0, 0, 0]);
  assertEquals(readItem(FwCfgItem.RAM_SIZE, 9), [0x00, 0x50, 0x09, 0, 0, 0, 0, 0, 0]);
  assertEquals(readItem(FwCfgItem.NB_CPUS, 3, {}, 3), [3, 0, 0]);
  assertEquals(readItem(FwCfgItem.MAX_CPUS, 3, {}, 3), [3, 0, 0]);
  assertEquals(readItem(FwCfgItem.FILE_DIR, 4), [0, 0, 0, 0]);
  assertEquals(readItem(0x4321, 2), [0, 0]);
});

Deno.test("fw_cfg: selecting begins an item anew", () => {
  using machine = scriptedVm({ plugins: [fwCfg()] });
  const { pio } = machine.vm;
  for (let round = 0; round < 2; round++) {
    pio.write(0x510, 2, FwCfgItem.SIGNATURE);
    assertEquals(pio.read(0x511, 1), "Q".charCodeAt(0));
    assertEquals(pio.read(0x511, 1), "E".charCodeAt(0));
  }
  // Neither a byte written nor the selector read changes where the reading is.
  pio.write(0x510, 1, 5);
  pio.write(0x511, 1, 5);
  assertEquals(pio.read(0x510, 1), 0xff);
  assertEquals(pio.read(0x511, 1), "M".charCodeAt(0));
});

Deno.test("fw_cfg: items of one's own, also instead of the machine's", () => {
  const items = new Map([[0x8000, Uint8Array.of(1, 2)], [FwCfgItem.NB_CPUS, Uint8Array.of(7)]]);
  assertEquals(readItem(0x8000, 3, { items }), [1, 2, 0]);
  assertEquals(readItem(FwCfgItem.NB_CPUS, 2, { items }), [7, 0]);
});

Deno.test("fw_cfg: keys that cannot be are refused", () => {
  for (const key of [-1, 0x1_0000, 0.5]) {
    assertThrows(() => fwCfg({ items: new Map([[key, Uint8Array.of()]]) }), ArgumentError);
  }
});

const ascii = (text: string): number[] => Array.from(text, (c) => c.charCodeAt(0));

Deno.test("fw_cfg: a directory lists the files by name, and their keys hold them", () => {
  const files = new Map([["etc/b", Uint8Array.of(1, 2, 3)], ["etc/a", Uint8Array.of(9)]]);
  const described = (size: number, key: number, name: string): number[] => [
    ...[0, 0, 0, size, 0, key, 0, 0],
    ...ascii(name.padEnd(56, "\0")),
  ];
  assertEquals(readItem(FwCfgItem.FILE_DIR, 133, { files }), [
    ...[0, 0, 0, 2],
    ...described(1, 0x20, "etc/a"),
    ...described(3, 0x21, "etc/b"),
    0,
  ]);
  assertEquals(readItem(0x20, 2, { files }), [9, 0]);
  assertEquals(readItem(0x21, 4, { files }), [1, 2, 3, 0]);
  const longest = "x".repeat(55);
  assertEquals(readItem(0x20, 1, { files: new Map([[longest, Uint8Array.of(4)]]) }), [4]);
  for (const name of ["", `${longest}x`, "\u00e4", "a\0b"]) {
    assertThrows(() => fwCfg({ files: new Map([[name, Uint8Array.of()]]) }), ArgumentError, name);
  }
});

/** A bzImage with one sector of setup code behind the first, and 1000 bytes of kernel. */
function bzImage(version: number, flags: number): Uint8Array {
  const bytes = new Uint8Array(1024 + 1000).fill(0xcc, 1024);
  const view = new DataView(bytes.buffer);
  bytes[0x1f1] = 1;
  view.setUint32(0x202, 0x5372_6448, true);
  view.setUint16(0x206, version, true);
  bytes[0x211] = flags;
  view.setUint32(0x22c, 0x37ff_ffff, true);
  return bytes;
}

Deno.test("fw_cfg: a kernel is handed out in parts, with its header filled in", () => {
  const kernel = {
    image: bzImage(0x207, 1),
    commandLine: "quiet",
    initrd: new Uint8Array(5000).fill(7),
  };
  const item = (key: number, count: number): number[] =>
    readItem(key, count, { kernel }, 1, 2 ** 24);
  const number = (key: number): number =>
    item(key, 4).reduce((sum, byte, k) => sum + byte * 256 ** k, 0);
  assertEquals(number(KernelItem.KERNEL_ADDRESS), 0x10_0000);
  assertEquals(number(KernelItem.KERNEL_SIZE), 1000);
  assertEquals(item(KernelItem.KERNEL_DATA, 1001), [...Array(1000).fill(0xcc), 0]);
  const initrdAt = number(KernelItem.INITRD_ADDRESS);
  assertEquals(initrdAt, 2 ** 24 - 2 ** 18 - 8192);
  assertEquals(number(KernelItem.INITRD_SIZE), 5000);
  assertEquals(item(KernelItem.INITRD_DATA, 2), [7, 7]);
  assertEquals(number(KernelItem.COMMAND_LINE_SIZE), 6);
  assertEquals(item(KernelItem.COMMAND_LINE_DATA, 6), [...ascii("quiet"), 0]);
  assertEquals(number(KernelItem.SETUP_SIZE), 1024);
  const setup = new DataView(Uint8Array.from(item(KernelItem.SETUP_DATA, 1024)).buffer);
  assertEquals(setup.getUint8(0x210), 0xb0);
  assertEquals(setup.getUint8(0x211), 0x81);
  assertEquals(setup.getUint16(0x224, true), 0xfe00);
  assertEquals(setup.getUint32(0x228, true), number(KernelItem.COMMAND_LINE_ADDRESS));
  assertEquals(setup.getUint32(0x218, true), initrdAt);
  assertEquals(setup.getUint32(0x21c, true), 5000);
  assertEquals(kernel.image[0x210], 0);
});

Deno.test("fw_cfg: kernels that cannot be started so are refused", () => {
  const image = bzImage(0x207, 1);
  fwCfg({ kernel: { image } });
  const refused = (kernel: FwCfgKernel, message: string): void => {
    assertThrows(() => fwCfg({ kernel }), ArgumentError, message);
  };
  refused({ image: new Uint8Array(2000) }, "no bzImage");
  refused({ image: bzImage(0x201, 1) }, "2.02");
  refused({ image: bzImage(0x207, 0) }, "2.02");
  refused({ image, commandLine: "a\0b" }, "NUL");
  const kernel = { image, initrd: new Uint8Array(2 ** 20) };
  const read = () => readItem(KernelItem.INITRD_ADDRESS, 4, { kernel }, 1, 2 ** 21);
  assertThrows(read, Error, "too many for the memory");
});
