import { assertEquals, assertThrows } from "@std/assert";
import { ArgumentError } from "../../core/mod.ts";
import { scriptedVm } from "../../core/testing/mod.ts";
import { ImageError, type ImageOptions } from "../flat/mod.ts";
import { elfFile } from "./fixture_test.ts";
import { loadImage } from "./load.ts";
import { multiboot2 } from "./multiboot2.ts";

const MIB = 2 ** 20;

/** A tag of the header: type, flags, 32-bit fields. */
type Tag = readonly [type: number, flags: number, ...fields: number[]];
const END: Tag = [0, 0];

/** A header with these tags, and code behind it up to 256 bytes. */
function kernel(tags: readonly Tag[] = [END], architecture = 0): Uint8Array {
  const bytes = new Uint8Array(256).fill(0x90);
  const view = new DataView(bytes.buffer);
  let at = 16;
  for (const [type, flags, ...fields] of tags) {
    view.setUint16(at, type, true);
    view.setUint16(at + 2, flags, true);
    view.setUint32(at + 4, 8 + 4 * fields.length, true);
    fields.forEach((field, i) => view.setUint32(at + 8 + 4 * i, field, true));
    at += Math.ceil((8 + 4 * fields.length) / 8) * 8;
  }
  const sum = 0xe852_50d6 + architecture + at;
  [0xe852_50d6, architecture, at, -sum >>> 0].forEach((v, i) => view.setUint32(4 * i, v, true));
  return bytes;
}

const elf = (bytes: Uint8Array, bits: 32 | 64 = 32): Uint8Array =>
  elfFile({ bits, segments: [{ physical: MIB, bytes, size: 0x2000 }] });

function load(file: Uint8Array, options: ImageOptions = {}) {
  const machine = scriptedVm({ memory: 4 * MIB, images: [loadImage(file, options)] });
  const { vm, vcpu, vendor } = machine;
  const info = Number(vcpu.regs.rbx);
  const tags = new Map<number, Uint8Array[]>();
  const end = info + vm.memory.readU32(info);
  for (let at = info + 8; at < end;) {
    const size = vm.memory.readU32(at + 4);
    const content = new Uint8Array(size - 8);
    vm.memory.read(at + 8, content);
    const type = vm.memory.readU32(at);
    tags.set(type, [...tags.get(type) ?? [], content]);
    at += Math.ceil(size / 8) * 8;
  }
  return {
    vm,
    vcpu,
    state: vendor.getSystemState(vcpu),
    info,
    tags,
    [Symbol.dispose]: () => machine[Symbol.dispose](),
  };
}

const text = (bytes: Uint8Array | undefined): string => new TextDecoder().decode(bytes);

Deno.test("an ELF executable with the header is entered in protected mode", () => {
  for (const bits of [32, 64] as const) {
    using m = load(elf(kernel(), bits));
    assertEquals([m.vcpu.regs.rip, m.vcpu.regs.rax], [BigInt(MIB + 12), 0x36d7_6289n]);
    assertEquals([m.state.cr0, m.state.efer, m.info % 8], [0x11n, 0n, 0]);
  }
  using other = load(elf(kernel([[3, 0, MIB + 0x80], END])));
  assertEquals(other.vcpu.regs.rip, BigInt(MIB + 0x80));
});

Deno.test("a file of any format goes where its tags say", () => {
  using m = load(kernel([[2, 0, MIB, MIB, 0, MIB + 0x1000], [3, 0, MIB + 0x70], END]));
  assertEquals([m.vcpu.regs.rip, m.vm.memory.readU32(MIB)], [BigInt(MIB + 0x70), 0xe852_50d6]);
  using whole = load(kernel([[2, 0, MIB, 0xffff_ffff, 0, 0], [3, 0, MIB + 0x70], END]));
  assertEquals(whole.vm.memory.readU32(MIB), 0xe852_50d6);
});

Deno.test("the information has command line, loader, modules and memory", () => {
  const modules = [{ bytes: new Uint8Array([7, 8]), text: "one" }, { bytes: new Uint8Array(9) }];
  using m = load(elf(kernel()), { commandLine: "a=b", modules });
  assertEquals([...m.tags.keys()], [1, 2, 3, 4, 6, 0]);
  assertEquals([text(m.tags.get(1)?.[0]), text(m.tags.get(2)?.[0])], ["a=b\0", "trapline\0"]);
  const [one, two] = m.tags.get(3) ?? [];
  const words = (bytes: Uint8Array | undefined) => new Uint32Array(bytes?.slice(0, 8).buffer ?? []);
  assertEquals([...words(one)], [MIB + 0x2000, MIB + 0x2002]);
  assertEquals([m.vm.memory.readU8(MIB + 0x2001), text(one?.subarray(8))], [8, "one\0"]);
  assertEquals([...words(two)], [MIB + 0x3000, MIB + 0x3009]);
  assertEquals([...words(m.tags.get(4)?.[0])], [640, 3 * 1024]);
  const map = new DataView(m.tags.get(6)?.[0]?.buffer ?? new ArrayBuffer(0));
  assertEquals([map.getUint32(0, true), map.byteLength], [24, 8 + 3 * 24]);
  assertEquals([map.getUint32(8 + 48, true), map.getUint32(8 + 64, true)], [MIB, 1]);
});

Deno.test("what it demands and cannot have is refused; what is optional is passed over", () => {
  const refused = (tag: Tag, message: string) =>
    assertThrows(() => multiboot2(elf(kernel([tag, END]))), ImageError, message);
  refused([5, 0, 640, 480, 32], "a video mode");
  refused([1, 0, 1, 6, 15], "information of type 15");
  refused([77, 0], "what tag 77 asks for");
  for (const tag of [[5, 1, 640, 480, 32], [1, 1, 15], [77, 1], [1, 0, 1, 4, 6], [6, 0], [7, 0]]) {
    assertEquals(multiboot2(elf(kernel([tag as unknown as Tag, END]))).name, "kernel.elf");
  }
});

Deno.test("broken files are refused by field", () => {
  const cases: [file: Uint8Array, message: string][] = [
    [new Uint8Array(64), "multiboot 2 header"],
    [kernel([END], 4), "architecture"],
    [kernel([[6, 0]]), "no end tag"],
    [kernel([[2, 0, MIB, MIB, 0, 0], END]), "there is no entry tag"],
    [kernel([[2, 0, MIB, MIB + 4096, 0, 0], [3, 0, MIB], END]), "beyond the file's end"],
    [kernel([[2, 0, MIB + 8, MIB, 0, 0], [3, 0, MIB], END]), "before the file does"],
    [kernel([[2, 0, MIB, MIB, MIB + 0x200, 0], [3, 0, MIB], END]), "beyond the file's end"],
    [kernel([[2, 0, MIB, MIB, 0, MIB + 4], [3, 0, MIB], END]), "before the data's end"],
    [kernel([[2, 0, MIB, MIB, 0, 0], [3, 0, 2 * MIB], END]), "is not in the image"],
  ];
  for (const [file, message] of cases) {
    assertThrows(() => multiboot2(file), ImageError, message);
  }
  assertThrows(() => multiboot2(elf(kernel()), { commandLine: "\0" }), ArgumentError, "a NUL");
});
