/**
 * Conversions of floating point: WebAssembly's where it is certain, software for the rest.
 *
 * @module
 */
import { S } from "../../state/cpu_state.ts";
import {
  type I32,
  i32,
  type I64,
  splat,
  splat64,
  type V128,
  v128Of,
  V128T,
} from "../../wasm/mod.ts";
import { DOUBLE, type Format, Mxcsr, Rounding, roundingControl, SINGLE } from "../float/format.ts";
import { mxcsrAllows } from "../float/attempt.ts";
import { allOf, below, laneOf, normal, plain, zeros } from "../float/lanes.ts";
import { begin, finish } from "../float/part.ts";
import { Doubles, floats, Singles } from "../float/references.ts";
import { VectorConversions } from "../float/vector_convert.ts";
import type { Instruction } from "../instruction.ts";
import { laneBytes } from "./integer.ts";
import { ZERO } from "./unit.ts";

/** How a value is rounded: by MXCSR, or towards zero. */
export type Towards = "mxcsr" | "zero";

function rounding(i: Instruction, towards: Towards): I32 {
  return towards === "zero" ? i32(Rounding.ZERO) : roundingControl(i.f);
}

/** 1 where PE is set and masked, so that it does not matter whether a result is exact. */
function inexactAllowed(i: Instruction): I32 {
  return S.mxcsr.get(i.f).and(Mxcsr.PM | Mxcsr.PE).eq(Mxcsr.PM | Mxcsr.PE);
}

/** `certain` in WebAssembly, else in software; `software` is given the function's part. */
function either(
  i: Instruction,
  certain: I32,
  result: V128,
  software: () => V128,
): V128 {
  return i.f.choose(V128T, certain, () => result, () => {
    i.spill();
    return software();
  }, "likely");
}

/** Four singles, or two doubles, to integers of 32 bits. */
export function toIntegers(
  i: Instruction,
  format: Format,
  towards: Towards,
  a: V128,
  part: number,
): V128 {
  const { f } = i;
  const convert = format.bits === 32
    ? VectorConversions.singlesToIntegers
    : VectorConversions.doublesToIntegers;
  if (towards !== "zero") {
    i.spill();
    return f.call(convert, a, rounding(i, towards), part);
  }
  const count = format.bits === 32 ? 4 : 2;
  const fits = plain(format, a).and(below(format, 31, a));
  const result = format.bits === 32
    ? a.unary("i32x4.trunc_sat_f32x4_s")
    : a.unary("i32x4.trunc_sat_f64x2_s_zero");
  const certain = inexactAllowed(i).and(allOf(format, fits, count));
  return either(i, certain, result, () => f.call(convert, a, Rounding.ZERO, part));
}

/** Four integers of 32 bits to singles. */
export function integersToSingles(i: Instruction, a: V128, part: number): V128 {
  return either(
    i,
    mxcsrAllows(i.f),
    a.unary("f32x4.convert_i32x4_s"),
    () => i.f.call(VectorConversions.integersToSingles, a, part),
  );
}

/** The lower two singles to doubles. */
export function singlesToDoubles(i: Instruction, a: V128, part: number): V128 {
  return either(
    i,
    allOf(SINGLE, plain(SINGLE, a), 2),
    a.unary("f64x2.promote_low_f32x4"),
    () => i.f.call(VectorConversions.singlesToDoubles, a, part),
  );
}

/** Two doubles to the lower two singles. */
export function doublesToSingles(i: Instruction, a: V128, part: number): V128 {
  const result = a.unary("f32x4.demote_f64x2_zero");
  const sound = normal(SINGLE, result).or(zeros(SINGLE, result));
  const operands = allOf(DOUBLE, normal(DOUBLE, a).or(zeros(DOUBLE, a)), 2);
  // A zero that is none of the operand would be an underflow.
  const both = zeros(DOUBLE, a);
  const wide = both.shuffle(both, laneBytes(4, [0, 2, 0, 2]));
  const same = zeros(SINGLE, result).xor(wide).not();
  return either(
    i,
    mxcsrAllows(i.f).and(operands).and(allOf(SINGLE, sound.and(same), 2)),
    result,
    () => i.f.call(VectorConversions.doublesToSingles, a, part),
  );
}

/** The lowest single as the lowest double, or the other way; the rest is of no use. */
export function toOther(i: Instruction, from: Format, a: V128): V128 {
  const { f } = i;
  if (from.bits === 32) {
    return either(
      i,
      allOf(SINGLE, plain(SINGLE, a), 1),
      a.unary("f64x2.promote_low_f32x4"),
      () => alone(i, () => ZERO.withLane64(0, f.call(Singles.toOther, laneOf(SINGLE, a, 0)))),
    );
  }
  const result = a.unary("f32x4.demote_f64x2_zero");
  return either(
    i,
    mxcsrAllows(i.f).and(allOf(DOUBLE, normal(DOUBLE, a), 1))
      .and(allOf(SINGLE, normal(SINGLE, result), 1)),
    result,
    () => alone(i, () => ZERO.withLane64(0, f.call(Doubles.toOther, laneOf(DOUBLE, a, 0)))),
  );
}

/** One value in software, with the exceptions that it meets. */
function alone<T>(i: Instruction, compute: () => T): T {
  begin(i.f, i32(0));
  const result = compute();
  i.f.call(finish);
  return result;
}

/** The lowest value to an integer of `bits`. */
export function toInteger(
  i: Instruction,
  format: Format,
  towards: Towards,
  bits: number,
  a: V128,
): I64 {
  const { f } = i;
  const software = (): V128 => {
    const value = alone(
      i,
      () => f.call(floats(format).toInteger, laneOf(format, a, 0), bits, rounding(i, towards)),
    );
    return splat64(value);
  };
  if (towards !== "zero" || bits === 64) {
    i.spill();
    return software().lane64(0);
  }
  const fits = plain(format, a).and(below(format, 31, a));
  const result = format.bits === 32
    ? a.unary("i32x4.trunc_sat_f32x4_s")
    : a.unary("i32x4.trunc_sat_f64x2_s_zero");
  const certain = inexactAllowed(i).and(allOf(format, fits, 1));
  return either(i, certain, result, software).lane64(0).and(0xffff_ffff);
}

/** Two to the 32nd, as a double. */
const HIGH_HALF = 0x41f0_0000_0000_0000n;

/** A signed integer of `bits` as the lowest value; the rest is of no use. */
export function fromInteger(i: Instruction, format: Format, bits: number, value: I64): V128 {
  const { f } = i;
  if (format.bits === 64 && bits === 32) {
    return splat("i32x4", value.wrap()).unary("f64x2.convert_low_i32x4_s");
  }
  const software = (): V128 =>
    alone(i, () => ZERO.withLane64(0, f.call(floats(format).fromInteger, value)));
  if (format.bits === 32) {
    if (bits === 64) {
      i.spill();
      return software();
    }
    const single = splat("i32x4", value.wrap()).unary("f32x4.convert_i32x4_s");
    return either(i, mxcsrAllows(i.f), single, software);
  }
  // Both halves are exact, so that their sum is rounded once.
  const both = splat64(value);
  const high = both.shift("i64x2.shr_u", 32).unary("f64x2.convert_low_i32x4_s")
    .binary("f64x2.mul", v128Of(64, HIGH_HALF));
  const low = both.unary("f64x2.convert_low_i32x4_u");
  return either(i, mxcsrAllows(i.f), high.binary("f64x2.add", low), software);
}
