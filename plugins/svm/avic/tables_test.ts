import { assertEquals } from "@std/assert";
import { FlatMemory } from "../../../core/testing/mod.ts";
import { LogicalEntry, LogicalIdTable, logicalIndex, PhysicalIdTable } from "./tables.ts";

Deno.test("the physical table takes a page for each 512 IDs (APM vol. 2, 15.29.4.2)", () => {
  for (const [maxId, bytes] of [[254, 0x1000], [511, 0x1000], [512, 0x2000], [4095, 0x8000]]) {
    const memory = new FlatMemory(2 ** 17);
    const table = new PhysicalIdTable(memory, maxId!);
    assertEquals(memory.used, bytes, `${maxId}`);
    table.set(maxId!, 0x1234_5abc, 0xc000_0001);
    assertEquals(memory.readU64(table.hpa + 8 * maxId!), 0xc000_0001_1234_5abcn);
    assertEquals([table.low(maxId!), table.high(maxId!)], [0x1234_5abc, 0xc000_0001]);
    assertEquals(table.high(0), 0);
    table.free();
    assertEquals(memory.used, 0);
  }
});

const FLAT = 0xffff_ffff;
const CLUSTER = 0x0fff_ffff;

Deno.test("flat logical IDs: the index is the number of the bit", () => {
  for (let bit = 0; bit < 8; bit++) assertEquals(logicalIndex(1 << (24 + bit), FLAT), bit);
  for (const id of [0, 3, 0x81, 0xff]) assertEquals(logicalIndex(id << 24, FLAT), -1, `${id}`);
});

Deno.test("cluster logical IDs: four for each of fifteen clusters", () => {
  for (let cluster = 0; cluster < 15; cluster++) {
    for (let bit = 0; bit < 4; bit++) {
      assertEquals(logicalIndex(((cluster << 4) | (1 << bit)) << 24, CLUSTER), 4 * cluster + bit);
    }
    for (const member of [0, 3, 5, 15]) {
      assertEquals(logicalIndex(((cluster << 4) | member) << 24, CLUSTER), -1);
    }
  }
  assertEquals(logicalIndex(0xf1 << 24, CLUSTER), -1);
});

Deno.test("an entry of the logical table is a valid bit and an ID", () => {
  const memory = new FlatMemory(2 ** 14);
  const table = new LogicalIdTable(memory);
  table.set(59, 0xfe);
  assertEquals(memory.readU32(table.hpa + 236), LogicalEntry.VALID + 0xfe);
  assertEquals(table.get(58), 0);
  table.clear(59);
  assertEquals(table.get(59), 0);
  table.free();
  assertEquals(memory.used, 0);
});
