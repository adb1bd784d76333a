/**
 * Packed shifts by one count for all lanes (APM vol. 4).
 *
 * A count that is too large makes zeros, or copies of the sign; WebAssembly takes counts modulo the
 * width of a lane.
 *
 * @module
 */
import { type I32, i32, type I64, i64, splat, type V128, v128Lanes } from "../../wasm/mod.ts";
import type { VectorShift } from "../../wasm/mod.ts";

/** What a shift makes of a vector and a count of 64 bits. */
export type Shift = (a: V128, count: I64) => V128;

const logical = (name: VectorShift, bits: number): Shift => (a, count) => {
  const fits = count.leU(bits - 1);
  return a.shift(name, count.wrap()).and(splat("i32x4", fits.select(i32(-1), i32(0))));
};

const arithmetic = (name: VectorShift, bits: number): Shift => (a, count) =>
  a.shift(name, count.gtU(bits - 1).select(i64(bits - 1), count).wrap());

/** Shifts by mnemonic. */
export const SHIFT: Readonly<Record<string, Shift>> = {
  PSLLW: logical("i16x8.shl", 16),
  PSLLD: logical("i32x4.shl", 32),
  PSLLQ: logical("i64x2.shl", 64),
  PSRLW: logical("i16x8.shr_u", 16),
  PSRLD: logical("i32x4.shr_u", 32),
  PSRLQ: logical("i64x2.shr_u", 64),
  PSRAW: arithmetic("i16x8.shr_s", 16),
  PSRAD: arithmetic("i32x4.shr_s", 32),
};

/** The numbers 0 to 15. */
const INDICES: V128 = v128Lanes(8, Array.from({ length: 16 }, (_, k) => k));

/** At most `most` of an unsigned count. */
const limited = (count: I32, most: number): I32 => count.gtU(most).select(i32(most), count);

/** Bytes `count` (0–255) and up of the 32 bytes `high`:`low`; zeros beyond them. */
export function alignRight(high: V128, low: V128, count: I32): V128 {
  const from = INDICES.binary("i8x16.add", splat("i8x16", limited(count, 32)));
  // An index of 16 or more selects nothing; 16 less of one below 16 is far above.
  const fromHigh = from.binary("i8x16.sub", splat("i8x16", i32(16)));
  return low.binary("i8x16.swizzle", from).or(high.binary("i8x16.swizzle", fromHigh));
}

/** Shifts of the whole register by bytes. */
export const BYTE_SHIFT: Readonly<Record<string, Shift>> = {
  PSRLDQ: (a, count) => {
    const by = splat("i8x16", limited(count.wrap(), 16));
    return a.binary("i8x16.swizzle", INDICES.binary("i8x16.add", by));
  },
  PSLLDQ: (a, count) => {
    const by = splat("i8x16", limited(count.wrap(), 16));
    return a.binary("i8x16.swizzle", INDICES.binary("i8x16.sub", by));
  },
};
