import { assertEquals, assertThrows } from "@std/assert";
import { ArgumentError } from "../../core/mod.ts";
import { scriptedVm } from "../../core/testing/mod.ts";
import { ImageError } from "../flat/mod.ts";
import { elfFile, type ElfFixture } from "./fixture_test.ts";
import { loadImage } from "./load.ts";
import { pvh, pvhLoader } from "./pvh.ts";

const MIB = 2 ** 20;
const CODE = Uint8Array.from({ length: 64 }, (_, i) => i);

/** A table with a note of somebody else's, and Xen's entry point. */
function notes(entry: number, owner = "Xen\0", type = 18): Uint8Array {
  const bytes = new Uint8Array(64);
  const view = new DataView(bytes.buffer);
  const note = (at: number, name: string, kind: number, value: number): void => {
    view.setUint32(at, name.length, true);
    view.setUint32(at + 4, 4, true);
    view.setUint32(at + 8, kind, true);
    bytes.set(new TextEncoder().encode(name), at + 12);
    view.setUint32(at + 12 + Math.ceil(name.length / 4) * 4, value, true);
  };
  note(0, "GNU\0", 18, 0xdead_beef);
  note(20, owner, type, entry);
  return bytes.subarray(0, 40);
}

function file(bits: 32 | 64, table: Uint8Array, more: Partial<ElfFixture> = {}): Uint8Array {
  const segments = [
    { physical: MIB, bytes: CODE, size: 0x1000 },
    { physical: 0, bytes: table, type: 4 },
  ];
  return elfFile({ bits, segments, ...more });
}

Deno.test("an executable with the note is entered at it, in protected mode", () => {
  for (const bits of [32, 64] as const) {
    const bytes = file(bits, notes(MIB + 0x20));
    using machine = scriptedVm({ memory: 4 * MIB, images: [loadImage(bytes)] });
    const { vcpu, vendor, vm } = machine;
    const { cr0, cr4, efer, cs } = vendor.getSystemState(vcpu);
    assertEquals([vcpu.regs.rip, cr0, cr4, efer], [BigInt(MIB + 0x20), 0x11n, 0n, 0n]);
    assertEquals([cs.base, cs.limit, vm.memory.readU8(MIB + 5)], [0n, 0xffff_ffff, 5]);
    assertEquals(vm.memory.readU32(Number(vcpu.regs.rbx)), 0x336e_c578);
  }
});

Deno.test("the start information has memory map, command line and modules", () => {
  const modules = [{ bytes: new Uint8Array([1, 2, 3]), text: "first" }, { bytes: CODE }];
  const image = pvh(file(64, notes(MIB)), { commandLine: "quiet", modules });
  using machine = scriptedVm({ memory: 4 * MIB, images: [image] });
  const { memory } = machine.vm;
  const at = Number(machine.vcpu.regs.rbx);
  const u64 = (gpa: number) => Number(memory.readU64(gpa));
  const text = (gpa: number): string => {
    let found = "";
    for (let i = gpa; memory.readU8(i) !== 0; i++) found += String.fromCharCode(memory.readU8(i));
    return found;
  };
  assertEquals([memory.readU32(at + 4), memory.readU32(at + 12)], [1, 2]);
  assertEquals([text(u64(at + 24)), u64(at + 32)], ["quiet", 0]);
  const list = u64(at + 16);
  assertEquals([u64(list) % 4096, u64(list) >= MIB + 0x1000, u64(list + 8)], [0, true, 3]);
  assertEquals([text(u64(list + 16)), memory.readU8(u64(list) + 1)], ["first", 2]);
  assertEquals([u64(list + 32) - u64(list), u64(list + 40), text(u64(list + 48))], [4096, 64, ""]);
  const map = Array.from({ length: memory.readU32(at + 48) }, (_, i) => {
    const entry = u64(at + 40) + 24 * i;
    return [u64(entry), u64(entry + 8), memory.readU32(entry + 16)];
  });
  assertEquals(map, [[0, 0xa_0000, 1], [0xa_0000, 0x6_0000, 2], [MIB, 3 * MIB, 1]]);
});

Deno.test("only Xen's note of that type makes an executable one for PVH", () => {
  assertEquals(pvhLoader.recognizes(file(64, notes(MIB))), true);
  for (const table of [notes(MIB, "Xen"), notes(MIB, "Xen\0", 6), new Uint8Array(4)]) {
    assertEquals(pvhLoader.recognizes(file(64, table)), false);
    assertThrows(() => pvh(file(64, table)), ImageError, "XEN_ELFNOTE_PHYS32_ENTRY");
  }
  assertEquals(pvhLoader.recognizes(CODE), false);
  assertEquals(pvhLoader.recognizes(file(64, notes(MIB)).subarray(0, 40)), false);
});

Deno.test("what makes no sense is refused", () => {
  assertThrows(() => pvh(file(32, notes(3 * MIB))), ImageError, "300000h is not in a segment");
  assertThrows(() => pvh(file(32, notes(MIB)), { commandLine: "\0" }), ArgumentError, "a NUL");
});
