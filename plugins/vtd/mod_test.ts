import { assertEquals, assertThrows } from "@std/assert";
import { ArgumentError } from "../../core/mod.ts";
import { FlatMemory } from "../../core/testing/mod.ts";
import { Irte, postedEntry, remappedEntry, Vtd } from "./mod.ts";

const DEVICE = 0x0108;

/** A unit with a table of four entries, a descriptor, and what it tells. */
function unit() {
  const memory = new FlatMemory(2 ** 16);
  const told: string[] = [];
  const vtd = new Vtd(memory, {
    interrupt: (device, handle, destination, vector) =>
      void told.push(`interrupt ${device} ${handle} ${destination} ${vector}`),
    notify: (destination, vector) => void told.push(`notify ${destination} ${vector}`),
  });
  const [table, descriptor] = [memory.alloc(4096), memory.alloc(4096)];
  vtd.setTable(table, 4);
  const set = (handle: number, words: readonly number[]) =>
    words.forEach((word, k) => memory.writeU32(table + 16 * handle + 4 * k, word));
  return { memory, vtd, told, descriptor, set };
}

Deno.test("entries have the fields where the specification has them", () => {
  const entry = { deviceId: 0xabcd, descriptor: 0x000a_bcde_f123_4040, vector: 0x5a };
  // 23:16 vector, 15 IM, 14 URG, 0 P; 63:38 and 127:96 address; 83:82 SVT, 79:64 SID.
  assertEquals(postedEntry(entry), [0x005a_8001, 0xf123_4040, 0x0004_abcd, 0x000a_bcde]);
  assertEquals(postedEntry({ ...entry, urgent: true })[0], 0x005a_8001 | Irte.URGENT);
  const remapped = remappedEntry({ deviceId: 0xabcd, destination: 0x9876_5432, vector: 0xff });
  assertEquals(remapped, [0x00ff_0001, 0x9876_5432, 0x0004_abcd, 0]);
});

Deno.test("a remapped interrupt goes to the host, if the entry is the device's", () => {
  const { vtd, told, set } = unit();
  set(2, remappedEntry({ deviceId: DEVICE, destination: 7, vector: 0x41 }));
  assertEquals(vtd.signal(DEVICE, 2), true);
  assertEquals(told.splice(0), [`interrupt ${DEVICE} 2 7 ${0x41}`]);
  // Another device, an entry that is not present, a handle beyond the table.
  assertEquals([vtd.signal(DEVICE + 1, 2), vtd.signal(DEVICE, 1), vtd.signal(DEVICE, 4)], [
    false,
    false,
    false,
  ]);
  // Without verification anybody may.
  const [first, second] = remappedEntry({ deviceId: 0, destination: 7, vector: 0x41 });
  set(3, [first, second, 0, 0]);
  assertEquals([vtd.signal(DEVICE + 1, 3), told.length], [true, 1]);
  // Level-triggered ones are not carried out.
  set(3, [first | 0x10, second, 0, 0]);
  assertEquals(vtd.signal(DEVICE, 3), false);
  vtd.setTable(undefined);
  assertEquals([vtd.signal(DEVICE, 2), vtd.table], [false, undefined]);
});

Deno.test("a posted one is requested in the descriptor, and notified once", () => {
  const { vtd, told, set, memory, descriptor } = unit();
  const control = (value: number): void => memory.writeU32(descriptor + 32, value);
  memory.writeU32(descriptor + 36, 0x1234);
  control(0xf2 << 16);
  for (const vector of [0x10, 0x3f, 0xff]) {
    set(0, postedEntry({ deviceId: DEVICE, descriptor, vector }));
    assertEquals(vtd.signal(DEVICE, 0), true);
    assertEquals((memory.readU8(descriptor + (vector >> 3)) >> (vector & 7)) & 1, 1);
  }
  // ON is set by the first.
  assertEquals(told.splice(0), [`notify ${0x1234} ${0xf2}`]);
  assertEquals(memory.readU32(descriptor + 32), (0xf2 << 16) | 1);
  // Suppressed: noted, no more. Urgent: notified all the same.
  control((0xf1 << 16) | 2);
  vtd.signal(DEVICE, 0);
  assertEquals([told.length, memory.readU32(descriptor + 32)], [0, (0xf1 << 16) | 2]);
  set(0, postedEntry({ deviceId: DEVICE, descriptor, vector: 0x51, urgent: true }));
  vtd.signal(DEVICE, 0);
  assertEquals(told, [`notify ${0x1234} ${0xf1}`]);
  assertEquals(memory.readU32(descriptor + 32), (0xf1 << 16) | 3);
});

Deno.test("a table has a power of two of entries, at most 65536", () => {
  const { vtd } = unit();
  for (const entries of [0, 1, 3, 131072, 2.5]) {
    assertThrows(() => vtd.setTable(0x1000, entries), ArgumentError, String(entries));
  }
});
