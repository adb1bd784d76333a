import { assertEquals } from "@std/assert";
import { FlatMemory } from "../../core/testing/mod.ts";
import { MsrPermissionMap, msrpmBit } from "./permission_maps.ts";

Deno.test("each range of MSRs has its quarter of the map (APM vol. 2, 15.11)", () => {
  const rows: [msr: number, byte: number, bit: number][] = [
    [0x0000_0000, 0x000, 0],
    [0x0000_0802, 0x200, 4],
    [0x0000_0808, 0x202, 0],
    [0x0000_080b, 0x202, 6],
    [0x0000_0830, 0x20c, 0],
    [0x0000_0832, 0x20c, 4],
    [0x0000_083f, 0x20f, 6],
    [0x0000_1fff, 0x7ff, 6],
    [0xc000_0000, 0x800, 0],
    [0xc000_1fff, 0xfff, 6],
    [0xc001_0000, 0x1000, 0],
    [0xc001_011b, 0x1046, 6],
    [0xc001_1fff, 0x17ff, 6],
  ];
  for (const [msr, byte, bit] of rows) {
    assertEquals(msrpmBit(msr), 8 * byte + bit, msr.toString(16));
  }
  for (const msr of [0x2000, 0xbfff_ffff, 0xc000_2000, 0xc001_2000]) {
    assertEquals(msrpmBit(msr), -1);
  }
});

Deno.test("reads and writes of an MSR are intercepted apart, and its neighbours are left alone", () => {
  const memory = new FlatMemory(2 ** 16);
  const map = new MsrPermissionMap(memory);
  for (const msr of [0x82f, 0x830, 0x831]) {
    assertEquals([map.intercepts(msr, false), map.intercepts(msr, true)], [true, true]);
  }
  map.set(0x830, true, false);
  assertEquals(memory.readU8(map.hpa + 0x20c), 0b1111_1101);
  map.set(0x830, false, true);
  assertEquals(memory.readU8(map.hpa + 0x20c), 0b1111_1110);
  assertEquals([map.intercepts(0x830, false), map.intercepts(0x830, true)], [false, true]);
  assertEquals(map.intercepts(0x831, false), true);
  assertEquals(map.intercepts(0x2000, true), true);
  map.free();
  assertEquals(memory.used, 0);
});
