import { assertEquals } from "@std/assert";
import { CODE_BITS, MICRO_OPS } from "../state/layout.ts";
import { CodePages } from "./code_pages.ts";

const PAGE = 0x1000;
/** Pages of guest memory that the tests have code in: two, one behind the other. */
const FIRST = 0x9000;

function numbers(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 0x1_0000_0000) * below);
  };
}

Deno.test("which blocks a store meets, and which pieces are marked, is right for random code", () => {
  const memory = new ArrayBuffer(MICRO_OPS);
  const bytes = new Uint8Array(memory);
  const marked = (address: number): boolean =>
    (bytes[CODE_BITS + (address >>> 12) * 16 + ((address & (PAGE - 1)) >> 8)]! >>
        ((address >>> 5) & 7) & 1) !== 0;
  for (let seed = 1; seed <= 20; seed++) {
    const random = numbers(seed);
    const pages = new CodePages(memory, 1);
    const known = new Map<number, { code: number; length: number }>();
    const watched = new Map<number, number>();
    const meets = (code: number, length: number, from: number, to: number): boolean =>
      code < to && from < code + length;
    for (let step = 0; step < 400; step++) {
      const kind = random(8);
      const code = FIRST + random(2) * PAGE + random(PAGE);
      const length = Math.min(1 + random(90), PAGE - (code & (PAGE - 1)));
      const blocks = [...known.keys()];
      if (kind < 3) {
        const block = step * 64;
        known.set(block, { code, length });
        pages.add(block, code, length);
      } else if (kind === 3 && blocks.length > 0) {
        const block = blocks[random(blocks.length)]!;
        pages.remove(block, known.get(block)!.code >>> 12, false);
        known.delete(block);
      } else if (kind === 4 && !watched.has(code)) {
        watched.set(code, length);
        pages.watch(code, length);
      } else if (kind === 5 && watched.size > 0) {
        const [address] = watched.keys();
        watched.delete(address!);
        pages.unwatch(address!);
      }
      const at = FIRST + random(2 * PAGE - 16);
      const size = 1 + random(16);
      const page = at >>> 12;
      const end = Math.min(at + size, (page + 1) * PAGE);
      const expected = [...known].filter(([, block]) => meets(block.code, block.length, at, end))
        .map(([block]) => block);
      assertEquals(
        [...pages.covering(page, at, size)].sort((a, b) => a - b),
        expected.sort((a, b) => a - b),
        `seed ${seed}, step ${step}`,
      );
      const piece = at & ~31;
      const places = [
        ...known.values(),
        ...[...watched].map(([address, length]) => ({ code: address, length })),
      ];
      assertEquals(
        marked(at),
        places.some(({ code, length }) => meets(code, length, piece, piece + 32)),
        `seed ${seed}, step ${step}: mark of ${at.toString(16)}h`,
      );
    }
    pages.clear();
    for (const [address] of watched) pages.unwatch(address);
    for (let at = FIRST; at < FIRST + 2 * PAGE; at += 32) assertEquals(marked(at), false);
  }
});

Deno.test("a page where code is written again and again stays marked until it cools", () => {
  const memory = new ArrayBuffer(MICRO_OPS);
  const bytes = new Uint8Array(memory);
  const marks = (): number[] => [...bytes.subarray(CODE_BITS + 9 * 16, CODE_BITS + 10 * 16)];
  const pages = new CodePages(memory, 1);
  pages.add(64, FIRST + 40, 10);
  pages.add(128, FIRST + 80, 10);
  pages.remove(128, 9, true);
  assertEquals(marks().slice(0, 2), [2, 0]);
  pages.remove(64, 9, true);
  assertEquals([marks()[0], pages.covering(9, FIRST + 40, 4)], [2, []]);
  pages.add(192, FIRST + 300, 10);
  pages.cool(9);
  assertEquals(marks().slice(0, 2), [0, 2]);
  pages.remove(192, 9, true);
  pages.cool(9);
  assertEquals(marks(), new Array(16).fill(0));
});
