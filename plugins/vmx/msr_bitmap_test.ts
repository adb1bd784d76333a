import { assertEquals } from "@std/assert";
import { FlatMemory } from "../../core/testing/mod.ts";
import { MsrBitmap, msrBitmapBit } from "./msr_bitmap.ts";

Deno.test("an MSR's bits are where the processor looks (SDM vol. 3, 25.6.9)", () => {
  const memory = new FlatMemory(2 ** 16);
  const bitmap = new MsrBitmap(memory);
  memory.fill(bitmap.hpa, 0x1000, 0);
  // First and last of both ranges: byte and bit of reads; writes are 800h bytes behind.
  const places = [[0, 0, 0], [0x1fff, 0x3ff, 7], [0xc000_0000, 0x400, 0], [0xc000_1fff, 0x7ff, 7]];
  for (const [index, byte, bit] of places as [number, number, number][]) {
    bitmap.set(index, true, false);
    assertEquals(memory.readU8(bitmap.hpa + byte), 1 << bit);
    assertEquals([bitmap.intercepts(index, false), bitmap.intercepts(index, true)], [true, false]);
    bitmap.set(index, false, true);
    assertEquals(memory.readU8(bitmap.hpa + byte), 0);
    assertEquals(memory.readU8(bitmap.hpa + 0x800 + byte), 1 << bit);
    bitmap.set(index, false, false);
  }
  for (const index of [0x2000, 0xbfff_ffff, 0xc000_2000, 0xc001_0000]) {
    assertEquals(msrBitmapBit(index), -1);
    bitmap.set(index, false, false);
    assertEquals(bitmap.intercepts(index, false), true);
  }
  bitmap.free();
  assertEquals(memory.used, 0);
});
