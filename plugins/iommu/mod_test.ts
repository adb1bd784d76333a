import { assertEquals, assertThrows } from "@std/assert";
import { ArgumentError } from "../../core/mod.ts";
import { FlatMemory } from "../../core/testing/mod.ts";
import { destinationOf, guestEntry, Iommu, Irte, remappedEntry } from "./mod.ts";

const DEVICE = 0x0108;

/** A unit with a table of four entries and a log of four, and what it tells. */
function unit() {
  const memory = new FlatMemory(2 ** 16);
  const told: string[] = [];
  const iommu = new Iommu(memory, {
    interrupt: (device, index, destination, vector) =>
      void told.push(`interrupt ${device} ${index} ${destination} ${vector}`),
    doorbell: (apicId) => void told.push(`doorbell ${apicId}`),
    logged: () => void told.push("log"),
  });
  const [table, log, page] = [memory.alloc(4096), memory.alloc(4096), memory.alloc(4096)];
  iommu.setTable(DEVICE, table, 4);
  iommu.setLog(log, 4);
  const set = (index: number, words: readonly number[]) =>
    words.forEach((word, k) => memory.writeU32(table + 16 * index + 4 * k, word));
  return { memory, iommu, told, log, page, set };
}

Deno.test("an entry in guest mode has the fields where the specification has them", () => {
  const words = guestEntry({
    page: 0x000a_bcde_f123_4000,
    vector: 0x5a,
    tag: 0x1234_5678,
    destination: 0x9876_5432,
    logged: true,
  });
  // 31:8 destination 23:0, 7 GuestMode, 6 IsRun, 0 valid; 63:32 tag.
  assertEquals(words[0], 0x7654_32c1);
  assertEquals(words[1], 0x1234_5678);
  // 51:12 page, 7:0 vector; 63:56 destination 31:24.
  assertEquals(words[2], 0xf123_405a);
  assertEquals(words[3], 0x980a_bcde);
  assertEquals(destinationOf(words[0], words[3]), 0x9876_5432);
  const idle = { page: 0x4000, vector: 0x20, tag: 1, destination: -1 };
  assertEquals(guestEntry({ ...idle, logged: true })[0], Irte.VALID | Irte.GUEST_MODE | 4);
  assertEquals(guestEntry({ ...idle, logged: false })[0], Irte.VALID | Irte.GUEST_MODE);
});

Deno.test("a remapped interrupt goes to the host", () => {
  const { iommu, told, set } = unit();
  set(2, remappedEntry({ destination: 0x1234_5678, vector: 0x41 }));
  assertEquals(iommu.signal(DEVICE, 2), true);
  assertEquals(told, [`interrupt ${DEVICE} 2 ${0x1234_5678} ${0x41}`]);
});

Deno.test("a posted one is set in IRR; who runs gets a doorbell", () => {
  const { iommu, told, set, memory, page } = unit();
  const entry = { page, tag: 7, logged: true };
  for (const vector of [0x10, 0x3f, 0xff]) {
    set(0, guestEntry({ ...entry, vector, destination: 5 }));
    assertEquals(iommu.signal(DEVICE, 0), true);
    assertEquals(memory.readU32(page + 0x200 + 16 * (vector >> 5)), (1 << (vector & 31)) >>> 0);
  }
  assertEquals(told, ["doorbell 5", "doorbell 5", "doorbell 5"]);
});

Deno.test("for one that does not run there is a log entry, if it is asked for", () => {
  const { iommu, told, set, memory, log, page } = unit();
  const entry = { page, vector: 0x51, tag: 0xabcd_0003, destination: -1 };
  set(1, guestEntry({ ...entry, logged: false }));
  iommu.signal(DEVICE, 1);
  assertEquals([told, iommu.logTail], [[], 0]);
  set(1, guestEntry({ ...entry, logged: true }));
  iommu.signal(DEVICE, 1);
  assertEquals([told, iommu.logTail], [["log"], 1]);
  // 31:0 tag, 47:32 device, 63:60 type.
  assertEquals(memory.readU64(log), 0x1000_0108_abcd_0003n);
});

Deno.test("the log is a ring that overflows", () => {
  const { iommu, set, page } = unit();
  set(0, guestEntry({ page, vector: 0x51, tag: 3, destination: -1, logged: true }));
  for (let k = 0; k < 3; k++) iommu.signal(DEVICE, 0);
  assertEquals([iommu.logTail, iommu.logOverflow], [3, false]);
  iommu.signal(DEVICE, 0);
  assertEquals([iommu.logTail, iommu.logOverflow], [3, true]);
  iommu.logHead = 3;
  iommu.signal(DEVICE, 0);
  assertEquals(iommu.logTail, 3);
  iommu.logOverflow = false;
  iommu.signal(DEVICE, 0);
  assertEquals(iommu.logTail, 0);
});

Deno.test("what has no entry is dropped", () => {
  const { iommu, told, set } = unit();
  assertEquals(iommu.signal(DEVICE, 0), false);
  assertEquals(iommu.signal(DEVICE, 4), false);
  assertEquals(iommu.signal(DEVICE + 1, 0), false);
  set(0, remappedEntry({ destination: 0, vector: 0x30 }));
  iommu.setTable(DEVICE, undefined);
  assertEquals(iommu.signal(DEVICE, 0), false);
  assertEquals(told, []);
  assertThrows(() => iommu.setTable(DEVICE, 0, 2049), ArgumentError, "2049 entries");
  assertThrows(() => iommu.setLog(0, 1), ArgumentError, "1 entries");
});
