/**
 * What is known of the lanes of a vector without looking at them one by one.
 *
 * @module
 */
import { S } from "../../state/cpu_state.ts";
import { FLOAT_CONSTANTS } from "../../state/layout.ts";
import {
  type FunctionBuilder,
  type I32,
  i32,
  type I64,
  splat,
  type V128,
  v128Of,
} from "../../wasm/mod.ts";
import type { VectorBinary } from "../../wasm/mod.ts";
import { DOUBLE, type Format, Mxcsr, note, SINGLE } from "./format.ts";

/** Shape of integer lanes as wide as a format's values. */
const shape = ({ bits }: Format): "i32x4" | "i64x2" => bits === 32 ? "i32x4" : "i64x2";

const compare = (format: Format, operation: "eq" | "gt_s", a: V128, b: V128): V128 =>
  a.binary(`${shape(format)}.${operation}` as VectorBinary, b);

/** The least normal number. */
const leastNormal = ({ fraction }: Format): bigint => 1n << BigInt(fraction);

/** The same value in all lanes. */
interface Repeated {
  readonly format: Format;
  readonly value: bigint;
}

/** Vectors with the same value in all lanes that stand in memory: V8 makes three or four instructions of one. */
const IN_MEMORY: readonly Repeated[] = [SINGLE, DOUBLE].flatMap((format) => [
  { format, value: format.magnitude },
  { format, value: format.infinity },
  { format, value: leastNormal(format) },
  { format, value: leastNormal(format) - 1n },
]);

/** Writes them to `memory`. */
export function writeFloatConstants(memory: Uint8Array): void {
  const view = new DataView(memory.buffer, memory.byteOffset + FLOAT_CONSTANTS);
  for (const [k, { format: { bits }, value }] of IN_MEMORY.entries()) {
    for (let at = 0; at < 16; at += bits / 8) {
      if (bits === 64) view.setBigUint64(16 * k + at, value, true);
      else view.setUint32(16 * k + at, Number(value), true);
    }
  }
}

/** The value in all lanes, to be used with `beside`. */
function constant(format: Format, value: bigint, beside: V128): V128 {
  const k = IN_MEMORY.findIndex((known) => known.format === format && known.value === value);
  const { fn } = beside;
  return k < 0 || fn === undefined
    ? v128Of(format.bits, value)
    : fn.load128(0, FLOAT_CONSTANTS + 16 * k);
}

/** The values without their signs. */
function magnitudes(format: Format, a: V128): V128 {
  return a.and(constant(format, format.magnitude, a));
}

/** All ones in the lanes that hold a NaN. */
export function nans(format: Format, a: V128): V128 {
  return compare(format, "gt_s", magnitudes(format, a), constant(format, format.infinity, a));
}

/** All ones in the lanes that hold a denormal. */
export function denormals(format: Format, a: V128): V128 {
  const magnitude = magnitudes(format, a);
  const least = constant(format, leastNormal(format), a);
  const zero = constant(format, 0n, a);
  return compare(format, "gt_s", least, magnitude).and(compare(format, "gt_s", magnitude, zero));
}

/** All ones in the lanes that hold a normal number or a zero. */
export function plain(format: Format, a: V128): V128 {
  const magnitude = magnitudes(format, a);
  return between(format, leastNormal(format) - 1n, magnitude)
    .or(compare(format, "eq", magnitude, constant(format, 0n, a)));
}

/** All ones in the lanes that hold a normal number above the least one. */
export function normal(format: Format, a: V128): V128 {
  return between(format, leastNormal(format), magnitudes(format, a));
}

/** All ones in the lanes whose magnitude is finite and greater than `bound`. */
function between(format: Format, bound: bigint, magnitude: V128): V128 {
  return compare(format, "gt_s", constant(format, format.infinity, magnitude), magnitude)
    .and(compare(format, "gt_s", magnitude, constant(format, bound, magnitude)));
}

/** All ones in the lanes whose magnitude is below 2^`power`. */
export function below(format: Format, power: number, a: V128): V128 {
  const bound = BigInt(format.bias + power) << BigInt(format.fraction);
  return compare(format, "gt_s", constant(format, bound, a), magnitudes(format, a));
}

/** All ones in the lanes that hold what has no sign. */
export function positive(format: Format, a: V128): V128 {
  return compare(format, "gt_s", a, constant(format, -1n, a));
}

/** All ones in the lanes that hold a zero. */
export function zeros(format: Format, a: V128): V128 {
  return compare(format, "eq", magnitudes(format, a), constant(format, 0n, a));
}

/** 1 if the lowest `lanes` lanes of a mask are all ones. */
export function allOf(format: Format, mask: V128, lanes: number): I32 {
  const wanted = (1 << lanes) - 1;
  return mask.test(`${shape(format)}.bitmask`).and(wanted).eq(wanted);
}

/** 1 if any of the lowest `lanes` lanes of a mask is all ones. */
export function anyOf(format: Format, mask: V128, lanes: I32 | number): I32 {
  const wanted = typeof lanes === "number" ? i32((1 << lanes) - 1) : i32(1).shl(lanes).sub(1);
  return mask.test(`${shape(format)}.bitmask`).and(wanted).ne(0);
}

/** The values, with zeros of their signs for denormals where MXCSR.DAZ is set. */
export function flushed(f: FunctionBuilder, format: Format, a: V128): V128 {
  const daz = splat("i32x4", S.mxcsr.has(f, Mxcsr.DAZ).select(i32(-1), i32(0)));
  const flush = denormals(format, a).and(daz);
  return a.andNot(flush.and(constant(format, format.magnitude, a)));
}

/**
 * Notes what a comparison of the lowest `lanes` lanes meets: IE for NaNs, all or the signalling ones, and
 * DE for denormals in lanes without a NaN.
 */
export function noteCompared(
  f: FunctionBuilder,
  format: Format,
  a: V128,
  b: V128,
  lanes: I32 | number,
  all: I32,
): void {
  const nan = nans(format, a).or(nans(format, b));
  const loud = signalling(format, a).or(signalling(format, b));
  const invalid = anyOf(format, loud, lanes).or(anyOf(format, nan, lanes).and(all));
  const denormal = denormals(format, a).or(denormals(format, b)).andNot(nan);
  note(f, invalid.mul(Mxcsr.IE).or(anyOf(format, denormal, lanes).mul(Mxcsr.DE)));
}

/** All ones in the lanes that hold a signalling NaN. */
export function signalling(format: Format, a: V128): V128 {
  const quiet = constant(format, format.quiet, a);
  const isQuiet = compare(format, "eq", a.and(quiet), quiet);
  return nans(format, a).andNot(isQuiet);
}

/** Lane `k` as a value. */
export const laneOf = ({ bits }: Format, a: V128, k: number): I64 =>
  bits === 64 ? a.lane64(k) : a.lane("i32x4", k).extendU();

/** `a` with `value` in lane `k`. */
export const withLane = ({ bits }: Format, a: V128, k: number, value: I64): V128 =>
  bits === 64 ? a.withLane64(k, value) : a.withLane("i32x4", k, value.wrap());
