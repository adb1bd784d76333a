import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { Prng } from "./prng.ts";

Deno.test("Prng is xoshiro128**", () => {
  // Worked by hand from the algorithm's definition, state 1, 2, 3, 4.
  const prng = Prng.ofState(1, 2, 3, 4);
  assertEquals([prng.next(), prng.next(), prng.next()], [11520, 0, 5927040]);
});

Deno.test("Prng repeats itself from a seed and differs between seeds and streams", () => {
  const draw = (seed: number, stream: number): number[] => {
    const prng = new Prng(seed, stream);
    return Array.from({ length: 8 }, () => prng.next());
  };
  assertEquals(draw(7, 1), draw(7, 1));
  assertNotEquals(draw(7, 1), draw(8, 1));
  assertNotEquals(draw(7, 1), draw(7, 2));
});

Deno.test("Prng.below() reaches every number below its bound and none above", () => {
  const prng = new Prng(1, 1);
  const seen = new Set(Array.from({ length: 1000 }, () => prng.below(10)));
  assertEquals([...seen].sort(), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
});

Deno.test("Prng.next64() fills both halves", () => {
  const prng = new Prng(1, 1);
  const values = Array.from({ length: 64 }, () => prng.next64());
  assert(values.some((value) => value >> 63n === 1n));
  assert(values.every((value) => value >> 64n === 0n));
});
