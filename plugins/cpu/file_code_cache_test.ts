import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import { FileCodeCache } from "./file_code_cache.ts";

const KEYS = ["ab", "01", "f7"].map((two) => two.repeat(32));
const CODE = KEYS.map((_, k) => Uint8Array.from({ length: 20 + k }, (_, n) => 7 * n + k));

/** Runs `test` with the path of a file that holds the three pieces. */
async function withFile(test: (path: string) => void): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    const cache = new FileCodeCache(`${folder}/code`);
    for (const [k, key] of KEYS.entries()) cache.put(key, CODE[k]!);
    cache.save();
    test(`${folder}/code`);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test("what was put and saved is there again, and nothing else is in the folder", () =>
  withFile((path) => {
    const cache = new FileCodeCache(path);
    for (const [k, key] of KEYS.entries()) assertEquals(cache.get(key), CODE[k]);
    assertEquals(cache.get("00".repeat(32)), undefined);
    const names = Array.from(Deno.readDirSync(path.slice(0, -"/code".length)), ({ name }) => name);
    assertEquals(names, ["code"]);
  }));

Deno.test("what was used longest ago goes first, from the file as well", () =>
  withFile((path) => {
    const cache = new FileCodeCache(path, 50);
    // Of the three, 20, 21 and 22 bytes, the first had no room.
    assertEquals(cache.get(KEYS[0]!), undefined);
    assertEquals(cache.get(KEYS[1]!), CODE[1]);
    const more = "55".repeat(32);
    cache.put(more, new Uint8Array(28));
    cache.save();
    const again = new FileCodeCache(path);
    assertEquals([...KEYS, more].map((key) => again.get(key)?.length), [
      undefined,
      21,
      undefined,
      28,
    ]);
  }));

Deno.test("a file with one byte changed, wherever, yields what was put, or nothing", () =>
  withFile((path) => {
    const file = Deno.readFileSync(path);
    let lost = 0;
    for (let at = 0; at < file.length; at += 3) {
      Deno.writeFileSync(path, file.map((byte, k) => k === at ? byte ^ 0x10 : byte));
      const cache = new FileCodeCache(path);
      for (const [k, key] of KEYS.entries()) {
        const code = cache.get(key);
        if (code === undefined) lost++;
        else assertEquals(code, CODE[k], `byte ${at}`);
      }
    }
    assert(lost >= file.length / 3);
  }));

Deno.test("a file cut off anywhere yields what is whole", () =>
  withFile((path) => {
    const file = Deno.readFileSync(path);
    for (let length = 0; length < file.length; length += 3) {
      Deno.writeFileSync(path, file.subarray(0, length));
      const cache = new FileCodeCache(path);
      const there = KEYS.filter((key) => cache.get(key) !== undefined).length;
      const whole = [60, 61, 62].filter((_, k, sizes) =>
        length >= 8 + sizes.slice(0, k + 1).reduce((sum, size) => sum + size, 0)
      ).length;
      assertEquals(there, whole, `${length} bytes`);
    }
  }));

Deno.test("a file that cannot be read is an empty one; one that cannot be written says so", () => {
  const cache = new FileCodeCache("/nowhere/at/all");
  assertEquals(cache.get(KEYS[0]!), undefined);
  cache.save();
  cache.put(KEYS[0]!, CODE[0]!);
  assertEquals(cache.get(KEYS[0]!), CODE[0]);
  assertThrows(() => cache.save(), Deno.errors.NotFound);
});

Deno.test("a file that holds something else says so, and is left alone", () =>
  withFile((path) => {
    const other = new TextEncoder().encode("a disk, or whatever was meant\n");
    Deno.writeFileSync(path, other);
    const cache = new FileCodeCache(path);
    assertMatch(cache.problem ?? "", /no cache of compiled code/);
    cache.put(KEYS[0]!, CODE[0]!);
    assertThrows(() => cache.save(), Error, "no cache of compiled code");
    assertEquals(Deno.readFileSync(path), other);
    const folder = new FileCodeCache(path.slice(0, -"/code".length));
    assert(folder.problem !== undefined);
    assertEquals(new FileCodeCache(`${path}2`).problem, undefined);
  }));
