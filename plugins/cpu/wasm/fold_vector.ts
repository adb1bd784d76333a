/**
 * Constant folding of 128-bit vectors: what operators on integer lanes compute, at build time.
 *
 * A constant of a shuffle becomes a vector of indices by a few of these operators, so that a region holds the
 * indices where the interpreter has the way to them. Floating point is not folded: no constant of an
 * instruction is.
 *
 * @module
 */
import type { VectorBinary, VectorShift } from "./simd_opcodes.ts";

const WIDTH = 128;
const ONES = (1n << 128n) - 1n;

/** A result of two lanes, taken modulo the lane's width; lanes come unsigned, or signed with `_s`. */
type LaneOperation = (a: bigint, b: bigint) => bigint;

const truth = (value: boolean): bigint => value ? -1n : 0n;
const least: LaneOperation = (a, b) => a < b ? a : b;
const most: LaneOperation = (a, b) => a > b ? a : b;

/** By the part of the name behind the shape. */
const LANE_OPERATIONS: Readonly<Record<string, LaneOperation>> = {
  add: (a, b) => a + b,
  sub: (a, b) => a - b,
  mul: (a, b) => a * b,
  eq: (a, b) => truth(a === b),
  gt_s: (a, b) => truth(a > b),
  gt_u: (a, b) => truth(a > b),
  lt_s: (a, b) => truth(a < b),
  lt_u: (a, b) => truth(a < b),
  min_s: least,
  min_u: least,
  max_s: most,
  max_u: most,
  shl: (a, count) => a << count,
  shr_s: (a, count) => a >> count,
  shr_u: (a, count) => a >> count,
};

/** Width of a shape's lanes; `undefined` for those of floating point. */
const LANE_BITS: Readonly<Record<string, number>> = { i8x16: 8, i16x8: 16, i32x4: 32, i64x2: 64 };

function lanewise(name: string, a: bigint, other: (lane: number) => bigint): bigint | undefined {
  const [shape, verb] = name.split(".") as [string, string];
  const bits = LANE_BITS[shape], operation = LANE_OPERATIONS[verb];
  if (bits === undefined || operation === undefined) return undefined;
  const whole = verb.endsWith("_s") ? BigInt.asIntN : BigInt.asUintN;
  let result = 0n;
  for (let at = 0; at < WIDTH; at += bits) {
    const lane = operation(whole(bits, a >> BigInt(at)), whole(bits, other(at)));
    result |= BigInt.asUintN(bits, lane) << BigInt(at);
  }
  return result;
}

const byteAt = (a: bigint, k: number): bigint => (a >> BigInt(8 * k)) & 0xffn;

function bytes(byte: (k: number) => bigint): bigint {
  let result = 0n;
  for (let k = 0; k < WIDTH / 8; k++) result |= byte(k) << BigInt(8 * k);
  return result;
}

/** Result of an operator on two constants; `undefined` if it is not one of integer lanes. */
export function foldVectors(name: VectorBinary, a: bigint, b: bigint): bigint | undefined {
  switch (name) {
    case "v128.and":
      return a & b;
    case "v128.andnot":
      return a & ~b & ONES;
    case "v128.or":
      return a | b;
    case "v128.xor":
      return a ^ b;
    case "i8x16.swizzle":
      return bytes((k) => byteAt(b, k) < 16n ? byteAt(a, Number(byteAt(b, k))) : 0n);
    default:
      return lanewise(name, a, (at) => b >> BigInt(at));
  }
}

/** Result of a shift of a constant; the count is taken modulo the lane's width. */
export function foldVectorShift(name: VectorShift, a: bigint, count: number): bigint | undefined {
  const bits = LANE_BITS[name.split(".", 1)[0]!]!;
  return lanewise(name, a, () => BigInt(count & (bits - 1)));
}

/** Sixteen bytes of two constants. */
export const foldShuffle = (a: bigint, b: bigint, lanes: readonly number[]): bigint =>
  bytes((k) => byteAt(lanes[k]! < 16 ? a : b, lanes[k]! & 15));

/** Bits of `a` where `mask` has ones, of `b` elsewhere. */
export const foldSelect = (a: bigint, b: bigint, mask: bigint): bigint =>
  (a & mask) | (b & ~mask & ONES);

/** All bits. */
export const ALL_ONES: bigint = ONES;
