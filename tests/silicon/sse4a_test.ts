/**
 * SSE4A: EXTRQ, INSERTQ, MOVNTSS and MOVNTSD (APM vol. 4).
 */
import { assertEquals } from "@std/assert";
import { Cr4, S } from "../../plugins/cpu/mod.ts";
import { Bench, Place } from "./bench.ts";
import { hex } from "./code.ts";

const VALUE = 0x0123_4567_89ab_cdefn;
const SOURCE = 0xfedc_ba98_7654_3210n;
const UPPER = 0x5555_5555_5555_5555n;
const at = (n: number, half: number): number => S.vectors + 64 * n + 8 * half;

function start(bench: Bench): void {
  bench.long();
  const { state } = bench;
  state.set(S.cr4, state.get(S.cr4) | BigInt(Cr4.OSFXSR));
  bench.processor.refresh();
  state.setAt(at(1, 0), VALUE);
  state.setAt(at(1, 1), UPPER);
  state.setAt(at(9, 0), SOURCE);
  state.setRegister(7, BigInt(Place.DATA));
}

const mask = (length: number): bigint => (1n << BigInt(length === 0 ? 64 : length)) - 1n;
const byte = (value: number): string => value.toString(16).padStart(2, "0");
/** Length and index; the last two reach to bit 63. */
const FIELDS: readonly (readonly [number, number])[] = [
  [0, 0],
  [1, 0],
  [8, 4],
  [13, 21],
  [32, 32],
  [63, 1],
];

for (const tier of [1, 2] as const) {
  const bench = new Bench({ tier });
  const { state } = bench;

  Deno.test(`tier ${tier}: EXTRQ takes a field out, by constants or by a register`, () => {
    for (const [length, index] of FIELDS) {
      const wanted = (VALUE >> BigInt(index)) & mask(length);
      start(bench);
      assertEquals(bench.judge(hex(`66 0f 78 c1 ${byte(length)} ${byte(index)}`)), "ok");
      assertEquals([state.at(at(1, 0)), state.at(at(1, 1))], [wanted, UPPER], `${length} ${index}`);
      start(bench);
      // Bits above do not count.
      state.setAt(at(9, 0), BigInt(length | index << 8) | 0xffff_c0c0n);
      assertEquals(bench.judge(hex("66 41 0f 79 c9")), "ok");
      assertEquals(state.at(at(1, 0)), wanted, `${length} ${index}`);
    }
  });

  Deno.test(`tier ${tier}: INSERTQ puts one in`, () => {
    for (const [length, index] of FIELDS) {
      const place = mask(length) << BigInt(index);
      const wanted = (VALUE & ~place) | ((SOURCE << BigInt(index)) & place);
      start(bench);
      assertEquals(bench.judge(hex(`f2 41 0f 78 c9 ${byte(length)} ${byte(index)}`)), "ok");
      assertEquals(state.at(at(1, 0)), BigInt.asUintN(64, wanted), `${length} ${index}`);
      start(bench);
      state.setAt(at(9, 1), BigInt(length | index << 8) | 0xc0c0n);
      assertEquals(bench.judge(hex("f2 41 0f 79 c9")), "ok");
      assertEquals(state.at(at(1, 0)), BigInt.asUintN(64, wanted), `${length} ${index}`);
    }
  });

  Deno.test(`tier ${tier}: MOVNTSS and MOVNTSD store 4 and 8 bytes, wherever they lie`, () => {
    for (const [text, bytes] of [["f3 0f 2b 4f 01", 4], ["f2 0f 2b 4f 01", 8]] as const) {
      start(bench);
      bench.fill(Place.DATA, 32, 0);
      assertEquals(bench.judge(hex(text)), "ok");
      assertEquals(bench.get64(Place.DATA + 1), VALUE & mask(8 * bytes));
    }
  });
}

Deno.test("registers where memory must be, memory where not, other groups: #UD; so on Intel's", () => {
  const bench = new Bench();
  for (const text of ["66 0f 78 07 01 01", "66 0f 78 c9 01 01", "66 0f 79 07", "f3 0f 2b c1"]) {
    start(bench);
    assertEquals(bench.judge(hex(text)), "#6", text);
  }
  const intel = new Bench({ model: "sapphire-rapids" });
  for (const text of ["66 0f 78 c1 01 01", "66 0f 79 c9", "f2 0f 79 c9", "f3 0f 2b 07"]) {
    start(intel);
    assertEquals(intel.judge(hex(text)), "#6", text);
  }
});
