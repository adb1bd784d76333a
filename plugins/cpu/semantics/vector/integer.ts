/**
 * Packed integer operations on 128 bits, SSE2 to SSE4.2 (APM vol. 4; SDM vol. 2).
 *
 * Each is a function of the values alone, so that SSE, both halves of AVX2, and MMX take the same. Those
 * of {@linkcode LANEWISE} compute every lane of the result from the same lane of the operands: on the
 * low 64 bits of vectors they do what the MMX form does. The rest move bytes between lanes and depend on
 * the width.
 *
 * @module
 */
import type { V128, VectorBinary } from "../../wasm/mod.ts";
import { v128Lanes, v128Of } from "../../wasm/mod.ts";
import { ZERO } from "./unit.ts";

/** What an operation makes of two vectors of 128 bits. */
export type Binary = (a: V128, b: V128) => V128;
/** What an operation makes of one. */
export type Unary = (a: V128) => V128;

const plain = (name: VectorBinary): Binary => (a, b) => a.binary(name, b);

/** Bytes of a shuffle that takes the lanes of `bytes` with these numbers; 16 / bytes and up are of b. */
export function laneBytes(bytes: number, lanes: readonly number[]): number[] {
  return lanes.flatMap((lane) => Array.from({ length: bytes }, (_, k) => lane * bytes + k));
}

const shuffled = (bytes: number, lanes: readonly number[]): Binary => {
  const indices = laneBytes(bytes, lanes);
  return (a, b) => a.shuffle(b, indices);
};

/** Lanes 0 to `count` − 1 (or those of the upper half) of both operands in turn. */
function interleaved(bytes: number, high: boolean): Binary {
  const count = 16 / bytes;
  const first = high ? count / 2 : 0;
  const lanes = Array.from({ length: count }, (_, k) => first + (k >> 1) + (k & 1) * count);
  return shuffled(bytes, lanes);
}

/** High halves of the products of words, given how the products are made. */
const highWords = (low: VectorBinary, high: VectorBinary): Binary => {
  const odd = laneBytes(2, [1, 3, 5, 7, 9, 11, 13, 15]);
  return (a, b) => a.binary(low, b).shuffle(a.binary(high, b), odd);
};

/** Low doublewords of each quadword, as a vector of doublewords whose upper half repeats the lower. */
const evenDoublewords = (a: V128): V128 => a.shuffle(a, laneBytes(4, [0, 2, 0, 2]));

const sumOfDifferences: Binary = (a, b) => {
  const difference = a.binary("i8x16.max_u", b).binary("i8x16.sub", a.binary("i8x16.min_u", b));
  const words = difference.unary("i16x8.extadd_pairwise_i8x16_u");
  const pairs = words.binary("i16x8.add", words.shift("i32x4.shr_u", 16));
  const quads = pairs.binary("i16x8.add", pairs.shift("i64x2.shr_u", 32));
  return quads.and(v128Of(64, 0xffff));
};

/** PMULHRSW: bits 30:15 of the product, rounded. Only −1 × −1 does not saturate as Q15 does. */
const roundedHigh: Binary = (a, b) => {
  const product = a.binary("i16x8.q15mulr_sat_s", b);
  const least = v128Of(16, 0x8000);
  const both = a.binary("i16x8.eq", least).and(b.binary("i16x8.eq", least));
  return product.xor(both);
};

/** PMADDUBSW: unsigned bytes of a times signed bytes of b, pairs added with signed saturation. */
const multiplyAddBytes: Binary = (a, b) => {
  const even = a.and(v128Of(16, 0xff))
    .binary("i16x8.mul", b.shift("i16x8.shl", 8).shift("i16x8.shr_s", 8));
  const odd = a.shift("i16x8.shr_u", 8).binary("i16x8.mul", b.shift("i16x8.shr_s", 8));
  return even.binary("i16x8.add_sat_s", odd);
};

/** PSIGN: a, −a or 0 by the sign of b. */
const signed = (shape: "i8x16" | "i16x8" | "i32x4"): Binary => (a, b) => {
  const negative = ZERO.binary(`${shape}.gt_s`, b);
  const negated = a.xor(negative).binary(`${shape}.sub`, negative);
  return negated.andNot(b.binary(`${shape}.eq`, ZERO));
};

/** Operations of two vectors, lane by lane. */
export const LANEWISE: Readonly<Record<string, Binary>> = {
  PADDB: plain("i8x16.add"),
  PADDW: plain("i16x8.add"),
  PADDD: plain("i32x4.add"),
  PADDQ: plain("i64x2.add"),
  PADDSB: plain("i8x16.add_sat_s"),
  PADDSW: plain("i16x8.add_sat_s"),
  PADDUSB: plain("i8x16.add_sat_u"),
  PADDUSW: plain("i16x8.add_sat_u"),
  PSUBB: plain("i8x16.sub"),
  PSUBW: plain("i16x8.sub"),
  PSUBD: plain("i32x4.sub"),
  PSUBQ: plain("i64x2.sub"),
  PSUBSB: plain("i8x16.sub_sat_s"),
  PSUBSW: plain("i16x8.sub_sat_s"),
  PSUBUSB: plain("i8x16.sub_sat_u"),
  PSUBUSW: plain("i16x8.sub_sat_u"),
  PMULLW: plain("i16x8.mul"),
  PMULLD: plain("i32x4.mul"),
  PMULHW: highWords("i32x4.extmul_low_i16x8_s", "i32x4.extmul_high_i16x8_s"),
  PMULHUW: highWords("i32x4.extmul_low_i16x8_u", "i32x4.extmul_high_i16x8_u"),
  PMULHRSW: roundedHigh,
  PMADDWD: plain("i32x4.dot_i16x8_s"),
  PMADDUBSW: multiplyAddBytes,
  PMULUDQ: (a, b) => evenDoublewords(a).binary("i64x2.extmul_low_i32x4_u", evenDoublewords(b)),
  PMULDQ: (a, b) => evenDoublewords(a).binary("i64x2.extmul_low_i32x4_s", evenDoublewords(b)),
  PSADBW: sumOfDifferences,
  PAVGB: plain("i8x16.avgr_u"),
  PAVGW: plain("i16x8.avgr_u"),
  PMINUB: plain("i8x16.min_u"),
  PMINSB: plain("i8x16.min_s"),
  PMINSW: plain("i16x8.min_s"),
  PMINUW: plain("i16x8.min_u"),
  PMINSD: plain("i32x4.min_s"),
  PMINUD: plain("i32x4.min_u"),
  PMAXUB: plain("i8x16.max_u"),
  PMAXSB: plain("i8x16.max_s"),
  PMAXSW: plain("i16x8.max_s"),
  PMAXUW: plain("i16x8.max_u"),
  PMAXSD: plain("i32x4.max_s"),
  PMAXUD: plain("i32x4.max_u"),
  PCMPEQB: plain("i8x16.eq"),
  PCMPEQW: plain("i16x8.eq"),
  PCMPEQD: plain("i32x4.eq"),
  PCMPEQQ: plain("i64x2.eq"),
  PCMPGTB: plain("i8x16.gt_s"),
  PCMPGTW: plain("i16x8.gt_s"),
  PCMPGTD: plain("i32x4.gt_s"),
  PCMPGTQ: plain("i64x2.gt_s"),
  PAND: plain("v128.and"),
  PANDN: (a, b) => b.andNot(a),
  POR: plain("v128.or"),
  PXOR: plain("v128.xor"),
  PSIGNB: signed("i8x16"),
  PSIGNW: signed("i16x8"),
  PSIGND: signed("i32x4"),
};

/** Packed logic by the names that are for floating point. */
export const FLOAT_LOGIC: Readonly<Record<string, Binary>> = Object.fromEntries(
  ["AND", "ANDN", "OR", "XOR"].flatMap((name) =>
    ["PS", "PD"].map((type) => [name + type, LANEWISE[`P${name}`]!])
  ),
);

/** Horizontal operation: on lanes 0, 2, … and lanes 1, 3, … of both operands, those of a first. */
const horizontal = (bytes: 2 | 4, name: VectorBinary): Binary => {
  const count = 32 / bytes;
  const every = (first: number): readonly number[] =>
    Array.from({ length: count / 2 }, (_, k) => 2 * k + first);
  const even = shuffled(bytes, every(0));
  const odd = shuffled(bytes, every(1));
  return (a, b) => even(a, b).binary(name, odd(a, b));
};

/** Bit 7 of an index makes a zero, as swizzle does of 16 and up; bits 6:4 do not count. */
const shuffleBytes: Binary = (a, b) => a.binary("i8x16.swizzle", b.and(v128Of(8, 0x8f)));

/** Operations of two vectors in which lanes move. */
export const LANE_MOVING: Readonly<Record<string, Binary>> = {
  PACKSSWB: plain("i8x16.narrow_i16x8_s"),
  PACKUSWB: plain("i8x16.narrow_i16x8_u"),
  PACKSSDW: plain("i16x8.narrow_i32x4_s"),
  PACKUSDW: plain("i16x8.narrow_i32x4_u"),
  PUNPCKLBW: interleaved(1, false),
  PUNPCKLWD: interleaved(2, false),
  PUNPCKLDQ: interleaved(4, false),
  PUNPCKLQDQ: interleaved(8, false),
  PUNPCKHBW: interleaved(1, true),
  PUNPCKHWD: interleaved(2, true),
  PUNPCKHDQ: interleaved(4, true),
  PUNPCKHQDQ: interleaved(8, true),
  UNPCKLPS: interleaved(4, false),
  UNPCKLPD: interleaved(8, false),
  UNPCKHPS: interleaved(4, true),
  UNPCKHPD: interleaved(8, true),
  PSHUFB: shuffleBytes,
  PHADDW: horizontal(2, "i16x8.add"),
  PHADDD: horizontal(4, "i32x4.add"),
  PHADDSW: horizontal(2, "i16x8.add_sat_s"),
  PHSUBW: horizontal(2, "i16x8.sub"),
  PHSUBD: horizontal(4, "i32x4.sub"),
  PHSUBSW: horizontal(2, "i16x8.sub_sat_s"),
};

/** PHMINPOSUW: the least word, and in the next one its number, the lowest of equals. */
const leastWord: Unary = (a) => {
  // Numbers stand below the words, so that the least of the pairs is the one wanted.
  const numbers = v128Lanes(16, [0, 1, 2, 3, 4, 5, 6, 7]);
  const low = numbers.shuffle(a, interleavedBytes(0));
  const high = numbers.shuffle(a, interleavedBytes(4));
  const four = low.binary("i32x4.min_u", high);
  const two = four.binary("i32x4.min_u", four.shuffle(four, laneBytes(4, [2, 3, 2, 3])));
  const one = two.binary("i32x4.min_u", two.shuffle(two, laneBytes(4, [1, 1, 1, 1])));
  return one.shuffle(ZERO, laneBytes(2, [1, 0, 8, 8, 8, 8, 8, 8]));
};

function interleavedBytes(first: number): number[] {
  return laneBytes(2, [0, 1, 2, 3].flatMap((k) => [first + k, 8 + first + k]));
}

/** Operations of one vector. */
export const UNARY: Readonly<Record<string, Unary>> = {
  PABSB: (a) => a.unary("i8x16.abs"),
  PABSW: (a) => a.unary("i16x8.abs"),
  PABSD: (a) => a.unary("i32x4.abs"),
  PHMINPOSUW: leastWord,
  MOVSLDUP: (a) => a.shuffle(a, laneBytes(4, [0, 0, 2, 2])),
  MOVSHDUP: (a) => a.shuffle(a, laneBytes(4, [1, 1, 3, 3])),
  MOVDDUP: (a) => a.shuffle(a, laneBytes(8, [0, 0])),
};

const byteToWord = (a: V128, sign: "s" | "u"): V128 => a.unary(`i16x8.extend_low_i8x16_${sign}`);
const wordToDoubleword = (a: V128, sign: "s" | "u"): V128 =>
  a.unary(`i32x4.extend_low_i16x8_${sign}`);
const doublewordToQuadword = (a: V128, sign: "s" | "u"): V128 =>
  a.unary(`i64x2.extend_low_i32x4_${sign}`);

const extensions = (prefix: string, sign: "s" | "u"): Record<string, Unary> => {
  const word: Unary = (a) => byteToWord(a, sign);
  const doubleword: Unary = (a) => wordToDoubleword(a, sign);
  const quadword: Unary = (a) => doublewordToQuadword(a, sign);
  return {
    [`${prefix}BW`]: word,
    [`${prefix}BD`]: (a) => doubleword(word(a)),
    [`${prefix}BQ`]: (a) => quadword(doubleword(word(a))),
    [`${prefix}WD`]: doubleword,
    [`${prefix}WQ`]: (a) => quadword(doubleword(a)),
    [`${prefix}DQ`]: quadword,
  };
};

/** PMOVSX and PMOVZX: the low lanes of a vector, widened. */
export const EXTENSIONS: Readonly<Record<string, Unary>> = {
  ...extensions("PMOVSX", "s"),
  ...extensions("PMOVZX", "u"),
};
