import { assertEquals, assertThrows } from "@std/assert";
import { ArgumentError, OverlapError } from "./errors.ts";
import { type Range, RangeMap } from "./range_map.ts";

const range = (name: string, base: number, length: number): Range => ({
  name,
  owner: "test",
  base,
  length,
});

Deno.test("every address finds its range or none", () => {
  const map = new RangeMap<Range>("test address", 1000);
  const ranges = [range("c", 50, 10), range("a", 0, 5), range("b", 5, 1), range("d", 999, 1)];
  for (const one of ranges) map.add(one);
  assertEquals(map.ranges.map(({ name }) => name), ["a", "b", "c", "d"]);
  // Each address after each other one: what was found last must not decide.
  for (let i = 0; i < 1000; i += 7) {
    for (const address of [i, 0, 4, 5, 6, 49, 50, 59, 60, 998, 999]) {
      const wanted = ranges.find(({ base, length }) => address >= base && address < base + length);
      assertEquals(map.find(address), wanted, `address ${address}`);
    }
  }
  assertEquals(map.firstIn(6, 44), undefined);
  assertEquals(map.firstIn(6, 45)?.name, "c");
  assertEquals(map.firstIn(3, 100)?.name, "a");
});

Deno.test("a range that was removed is found no more", () => {
  const map = new RangeMap<Range>("test address", 1000);
  const one = range("one", 10, 10);
  map.add(one);
  assertEquals(map.find(15), one);
  map.remove(one);
  map.remove(one);
  assertEquals(map.find(15), undefined);
  map.add(range("other", 15, 1));
  assertEquals(map.find(15)?.name, "other");
});

Deno.test("overlaps are refused on either side, inside and around", () => {
  const map = new RangeMap<Range>("test address", 1000);
  map.add(range("first", 0x64, 16));
  for (const [base, length] of [[90, 11], [115, 1], [115, 50], [105, 2], [90, 50], [100, 16]]) {
    assertThrows(() => map.add(range("second", base ?? 0, length ?? 0)), OverlapError);
  }
  const error = assertThrows(() => map.add(range("second", 0x70, 1)), OverlapError);
  assertEquals(
    error.message,
    'test address: "second" of plugin "test" (70h) overlaps "first" of plugin "test" (64h to 73h)',
  );
  map.add(range("below", 90, 10));
  map.add(range("above", 116, 10));
});

Deno.test("ranges that cannot be are refused", () => {
  const map = new RangeMap<Range>("test address", 1000);
  for (const [base, length] of [[-1, 5], [0, 0], [0.5, 1], [1, NaN], [999, 2], [1000, 1]]) {
    assertThrows(() => map.add(range("bad", base ?? 0, length ?? 0)), ArgumentError);
  }
});

Deno.test("where nothing was found something may come, and go again", () => {
  const map = new RangeMap<Range>("test address", 1000);
  map.add(range("a", 100, 10));
  assertEquals([map.find(50), map.find(500)], [undefined, undefined]);
  const later = range("b", 499, 2);
  map.add(later);
  assertEquals([map.find(498), map.find(500), map.find(501)], [undefined, later, undefined]);
  map.remove(later);
  assertEquals([map.find(500), map.find(105)?.name], [undefined, "a"]);
});
