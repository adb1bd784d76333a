import { assertEquals } from "@std/assert";
import { type HostMemory, Memslot } from "../../core/mod.ts";
import { FlatMemory } from "../../core/testing/mod.ts";
import { NestedPageTables } from "./nested_paging.ts";

/** What the tables translate `gpa` to and whether it may be written; `undefined` if it is not there. */
function walk(memory: HostMemory, root: number, gpa: number): [number, boolean] | undefined {
  let table = root;
  for (let level = 4; level > 0; level--) {
    const index = Math.floor(gpa / 2 ** (12 + 9 * (level - 1))) % 512;
    const entry = Number(memory.readU64(table + 8 * index));
    if ((entry & 1) === 0) return undefined;
    const large = level === 2 && (entry & 0x80) !== 0;
    const size = large ? 2 ** 21 : 2 ** 12;
    if (level === 1 || large) {
      return [Math.floor(entry / size) * size + gpa % size, (entry & 2) !== 0];
    }
    table = Math.floor(entry / 4096) * 4096;
  }
}

Deno.test("a private page is mapped and taken away, and its neighbours stay", () => {
  const memory = new FlatMemory(2 ** 18);
  const tables = new NestedPageTables(memory);
  const slot = new Memslot({
    name: "rom",
    gpa: 0xfee0_1000,
    size: 0x1000,
    hpa: 0x2_3000,
    readonly: true,
  }, "");
  tables.map(slot, 0xfee0_1abc);
  tables.mapPage(0xfee0_0123, 0x1_2000, true);
  assertEquals(walk(memory, tables.root, 0xfee0_0800), [0x1_2800, true]);
  assertEquals(walk(memory, tables.root, 0xfee0_1004), [0x2_3004, false]);
  tables.unmapPage(0xfee0_0fff);
  assertEquals(walk(memory, tables.root, 0xfee0_0800), undefined);
  assertEquals(walk(memory, tables.root, 0xfee0_1004), [0x2_3004, false]);
  // Where nothing is mapped there is nothing to take away.
  tables.unmapPage(0x1234_5000);
  tables.free();
  assertEquals(memory.used, 0);
});
