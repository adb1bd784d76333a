import { assertEquals } from "@std/assert";
import { ExitCounts, Key } from "./counts.ts";

type Row = [what: number, lo: number, hi: number, ripLo: number, ripHi: number, count: number];

function rows(counts: ExitCounts): Row[] {
  const found: Row[] = [];
  counts.forEach((...row) => found.push(row));
  return found.sort((a, b) => (a.join() < b.join() ? -1 : 1));
}

Deno.test("counters agree with a map, over several growths", () => {
  const counts = new ExitCounts(1 << 16);
  const expected = new Map<string, number>();
  let seed = 12345;
  const random = (limit: number) => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return Math.floor(seed / 2 ** 32 * limit);
  };
  for (let i = 0; i < 50_000; i++) {
    const row = [random(40), random(3), random(2), 0xffff_0000 + random(300), random(2) * 2 ** 31];
    const [what, lo, hi, ripLo, ripHi] = row as [number, number, number, number, number];
    counts.add(what, lo, hi, ripLo, ripHi);
    expected.set(row.join(), (expected.get(row.join()) ?? 0) + 1);
  }
  const found = new Map(rows(counts).map((row) => [row.slice(0, 5).join(), row[5]]));
  assertEquals(found, expected);
});

Deno.test("each part of the key tells counters apart", () => {
  const counts = new ExitCounts(100);
  const base = [1, 2, 3, 4, 5] as const;
  counts.add(...base);
  for (let k = 0; k < 5; k++) {
    const other = [...base] as [number, number, number, number, number];
    other[k] = 9;
    counts.add(...other);
    counts.add(...other);
  }
  assertEquals(rows(counts).map((row) => row[5]).sort(), [1, 2, 2, 2, 2, 2]);
});

Deno.test("words are taken modulo 2^32 and shown unsigned", () => {
  const counts = new ExitCounts(100);
  counts.add(0, -1, 0xffff_ffff, 0x8000_0000, -2);
  counts.add(0, 0xffff_ffff, -1, -0x8000_0000, 0xffff_fffe);
  assertEquals(rows(counts), [[0, 0xffff_ffff, 0xffff_ffff, 0x8000_0000, 0xffff_fffe, 2]]);
});

Deno.test("beyond the capacity, RIPs and then targets are counted together", () => {
  const counts = new ExitCounts(2);
  counts.add(7, 1, 0, 100, 0);
  counts.add(7, 1, 0, 101, 0);
  for (const rip of [102, 103, 104]) counts.add(7, 1, 0, rip, 0);
  counts.add(7, 2, 0, 100, 0);
  for (const target of [3, 4, 5]) counts.add(7, target, 0, 100, 0);
  // What has a counter still counts there.
  counts.add(7, 1, 0, 100, 0);
  const any = 7 | Key.ANY_RIP;
  assertEquals(
    new Set(rows(counts).map((row) => row.join())),
    new Set([
      [7, 1, 0, 100, 0, 2].join(),
      [7, 1, 0, 101, 0, 1].join(),
      [any, 1, 0, 0, 0, 3].join(),
      [any, 2, 0, 0, 0, 1].join(),
      [any | Key.ANY_TARGET, 0, 0, 0, 0, 3].join(),
    ]),
  );
});

Deno.test("clear() forgets", () => {
  const counts = new ExitCounts(2);
  counts.add(1, 0, 0, 0, 0);
  counts.add(2, 0, 0, 0, 0);
  counts.clear();
  assertEquals(rows(counts), []);
  counts.add(3, 0, 0, 0, 0);
  counts.add(4, 0, 0, 0, 0);
  assertEquals(rows(counts).length, 2);
  assertEquals(rows(counts)[0]?.[0], 3);
});
