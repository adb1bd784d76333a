/**
 * Shuffles, blends and selections of lanes by a constant (APM vol. 4).
 *
 * The constant is read at run time in the interpreter, where one handler serves all its values: two bits
 * of it for each lane become indices of bytes by a multiplication that moves them into place.
 *
 * @module
 */
import {
  type I32,
  i32,
  type NarrowShape,
  splat,
  type V128,
  v128Lanes,
  v128Of,
} from "../../wasm/mod.ts";
import { laneBytes } from "./integer.ts";
import { alignRight } from "./shift.ts";
import { ZERO } from "./unit.ts";

/** What an operation makes of two vectors and a constant (0–255). */
export type ByConstant = (a: V128, b: V128, constant: I32) => V128;

/** Bits 2k + 1 and 2k of the constant in doubleword k. */
function twoBitFields(constant: I32): V128 {
  return splat("i32x4", constant).binary("i32x4.mul", v128Lanes(32, [64, 16, 4, 1]))
    .shift("i32x4.shr_u", 6)
    .and(v128Of(32, 3));
}

/** Bit k of the constant as all bits of lane k. */
function bitMask(shape: "i16x8" | "i32x4", constant: I32): V128 {
  const count = shape === "i16x8" ? 8 : 4;
  const bits = v128Lanes(128 / count, Array.from({ length: count }, (_, k) => 1 << k));
  return splat(shape, constant).and(bits).binary(`${shape}.eq`, bits);
}

/** Bits 0 and 1 of the constant as all bits of the two quadwords. */
function quadwordMask(constant: I32): V128 {
  const bits = v128Lanes(64, [1, 2]);
  return splat("i32x4", constant).and(bits).binary("i64x2.eq", bits);
}

/** Byte indices of the doublewords with the numbers in `lanes`. */
export function doublewordIndices(lanes: V128): V128 {
  return lanes.binary("i32x4.mul", v128Of(32, 0x0404_0404))
    .binary("i32x4.add", v128Of(32, 0x0302_0100));
}

/** Doublewords of `a` by the four two-bit fields of the constant. */
const shuffleDoublewords = (a: V128, constant: I32): V128 =>
  a.binary("i8x16.swizzle", doublewordIndices(twoBitFields(constant)));

/** Words 0–3 by the constant, as four words in the low half of a vector. */
function shuffleWords(a: V128, constant: I32): V128 {
  // Each doubleword of the fields becomes a word: its low half is its number.
  const fields = twoBitFields(constant);
  const words = fields.shuffle(fields, laneBytes(2, [0, 2, 4, 6, 0, 2, 4, 6]));
  const indices = words.binary("i16x8.mul", v128Of(16, 0x0202))
    .binary("i16x8.add", v128Of(16, 0x0100));
  return a.binary("i8x16.swizzle", indices);
}

const LOW_HALF = laneBytes(8, [0, 3]);
const HIGH_HALF = laneBytes(8, [0, 2]);

/** Fields 0 and 1 of the constant choose doublewords of a, fields 2 and 3 of b. */
const shuffleSingles: ByConstant = (a, b, constant) => {
  const indices = doublewordIndices(twoBitFields(constant));
  const fromA = a.binary("i8x16.swizzle", indices);
  return fromA.shuffle(b.binary("i8x16.swizzle", indices), LOW_HALF);
};

/** Bit 0 of the constant chooses a quadword of a, bit 1 one of b. */
const shuffleDoubles: ByConstant = (a, b, constant) => {
  const mask = quadwordMask(constant);
  const low = a.shuffle(b, laneBytes(8, [0, 2]));
  const high = a.shuffle(b, laneBytes(8, [1, 3]));
  return high.select(low, mask);
};

/** INSERTPS from a register: one doubleword of b to one of a, and zeros where the constant says. */
export const insertSingle: ByConstant = (a, b, constant) => {
  const lane = constant.shrU(6);
  const value = b.binary("i8x16.swizzle", doublewordIndices(splat("i32x4", lane)));
  return insertDoubleword(a, value, constant);
};

/** INSERTPS from memory, where bits 7:6 do not count: the value is in all doublewords. */
export function insertDoubleword(a: V128, value: V128, constant: I32): V128 {
  const place = splat("i32x4", constant.shrU(4).and(3));
  const mask = place.binary("i32x4.eq", v128Lanes(32, [0, 1, 2, 3]));
  return value.select(a, mask).andNot(bitMask("i32x4", constant));
}

/** Operations of two vectors and a constant. */
export const BY_CONSTANT: Readonly<Record<string, ByConstant>> = {
  SHUFPS: shuffleSingles,
  SHUFPD: shuffleDoubles,
  PALIGNR: (a, b, constant) => alignRight(a, b, constant),
  BLENDPS: (a, b, constant) => b.select(a, bitMask("i32x4", constant)),
  BLENDPD: (a, b, constant) => b.select(a, quadwordMask(constant)),
  PBLENDW: (a, b, constant) => b.select(a, bitMask("i16x8", constant)),
};

/** Operations of one vector and a constant. */
export const UNARY_BY_CONSTANT: Readonly<Record<string, (a: V128, constant: I32) => V128>> = {
  PSHUFD: shuffleDoublewords,
  PSHUFLW: (a, constant) => shuffleWords(a, constant).shuffle(a, LOW_HALF),
  PSHUFHW: (a, constant) => {
    const high = a.shuffle(a, laneBytes(8, [1, 1]));
    return a.shuffle(shuffleWords(high, constant), HIGH_HALF);
  },
};

/** Lane of a vector by a number known at run time, zero-extended; only as many bits count as there are. */
export function laneAt(shape: NarrowShape, a: V128, number: I32): I32 {
  const bytes = shape === "i8x16" ? 1 : shape === "i16x8" ? 2 : 4;
  const first = number.and(16 / bytes - 1).mul(bytes);
  const indices = splat("i8x16", first).binary("i8x16.add", v128Lanes(8, [0, 1, 2, 3]));
  const low = a.binary("i8x16.swizzle", indices);
  return low.lane(shape, 0);
}

/** All bits of the lane of `bits` with the number `number`, of which only as many bits count as there are. */
export function laneMask(bits: 8 | 16 | 32 | 64, number: I32): V128 {
  const count = 128 / bits;
  const lane = number.and(count - 1);
  const bytes = v128Lanes(8, Array.from({ length: 16 }, (_, k) => Math.floor(k * 8 / bits)));
  return splat("i8x16", lane).binary("i8x16.eq", bytes);
}

/** The blends whose mask is in a register: the top bit of each lane of the mask chooses b. */
export const BY_MASK: Readonly<Record<string, (a: V128, b: V128, mask: V128) => V128>> = {
  PBLENDVB: (a, b, mask) => b.select(a, ZERO.binary("i8x16.gt_s", mask)),
  BLENDVPS: (a, b, mask) => b.select(a, mask.shift("i32x4.shr_s", 31)),
  BLENDVPD: (a, b, mask) => b.select(a, mask.shift("i64x2.shr_s", 63)),
};

/** An i32 truth value as all bits of a vector. */
export function allBits(condition: I32): V128 {
  return splat("i32x4", condition.select(i32(-1), i32(0)));
}
