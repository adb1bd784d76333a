import { assert, assertEquals } from "@std/assert";
import { hashOf, perfectHash } from "./perfect_hash.ts";

Deno.test("a perfect hash tells its keys apart, and is hardly wider than they need", () => {
  for (let count = 2; count <= 32; count++) {
    for (const step of [4, 5, 16, 0x1000]) {
      const keys = Array.from(
        { length: count },
        (_, k) => (0xffff_f000 + k * step + (k & 3)) >>> 0,
      );
      const hash = perfectHash(keys);
      assert(hash !== undefined, `${count} keys, ${step} apart`);
      assertEquals(new Set(keys.map((key) => hashOf(hash, key))).size, count);
      assert(2 ** (32 - hash.shift) <= 8 * count);
      for (const key of keys) assert(hashOf(hash, key) < 2 ** (32 - hash.shift));
    }
  }
});

Deno.test("there is no perfect hash of equal keys", () => {
  assertEquals(perfectHash([1, 2, 3, 1]), undefined);
});
