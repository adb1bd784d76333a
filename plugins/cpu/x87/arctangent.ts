/**
 * FPATAN: the angle of a point, by the inverse tangent of the smaller of its coordinates over the
 * greater (SDM vol. 2A, table 3-30). The error is less than 0.51 units in the last place.
 *
 * @module
 */
import type { Fn, I, L } from "../microcode/header/signature.ts";
import { i32, I32T, i64, I64T, type ModuleBuilder } from "../wasm/mod.ts";
import { denormalFlag, unpack } from "./arithmetic.ts";
import { arctangents, arctangentSeries, FRACTION, QUARTER_PI } from "./constants.ts";
import { BIAS, isInfinity, isZero, returnReal, SIGN, signOf } from "./format.ts";
import { defineBinary, type Nan } from "./nan.ts";
import {
  addPair,
  below,
  belowOne,
  constantPair,
  fractionOf,
  type Long,
  multiplyLong,
  normalize,
  polynomial,
  product,
  selectPair,
  type Series,
  subtractPair,
} from "./series.ts";
import type { Transcendental } from "./transcendental.ts";
import { type Pair, pairOf, returnPair, type Wide } from "./wide.ts";

/** Steps of the table. */
const PARTS = 16;
/** Powers of t², where t is at most 1/32: 32^−26 is 2^−130. */
const TERMS = 13;
/** Numbers below 1/32 have less than this as exponent, and need no table. */
const TABLE_FROM = BIAS - 5;

/** A multiple of π / 4 as a long number. */
function quarters(count: number): Long {
  const value = QUARTER_PI * BigInt(count);
  const over = value.toString(2).length - 1 - Number(FRACTION);
  return {
    ...constantPair(over > 0 ? value >> BigInt(over) : value << BigInt(-over)),
    exponent: i32(BIAS + over),
  };
}

/** Defines the function for `(y, x)`. */
export function defineArctangent(
  module: ModuleBuilder,
  wide: Wide,
  series: Series,
  nan: Nan,
  { give }: Transcendental,
): Fn<readonly [L, I, L, I], L> {
  const coefficients = arctangentSeries(TERMS);
  const table = arctangents(PARTS);

  // By the nearest sixteenth c: arctan z = arctan c + arctan t with t = (z − c) / (1 + z c).
  /** `(high, low)`: the inverse tangent of a fraction from 1/32 on, as a value. */
  const byTable = module.define("x87.arctangentByTable", [I64T, I64T], I64T, (f, high, low) => {
    const nearest = high.shrU(59).add(1).shrU(1);
    const fromHigh = f.variable(I64T, 0);
    const fromLow = f.variable(I64T, 0);
    f.switch(
      nearest.wrap(),
      table.map((angle) => () => {
        const pair = constantPair(angle);
        fromHigh.set(pair.high);
        fromLow.set(pair.low);
      }),
      () => f.unreachable(),
    );
    // Everything is halved, for c may be 1.
    const half = pairOf(f, f.call(wide.shiftRight, high, low, 1));
    const c: Pair = { high: nearest.shl(59), low: i64(0) };
    const less = below(half, c);
    const numerator = selectPair(less, subtractPair(c, half), subtractPair(half, c));
    const sixteenth = pairOf(f, f.call(wide.shiftRight, half.high, half.low, 4));
    const times = pairOf(f, f.call(wide.multiply, sixteenth.low, nearest));
    const zc: Pair = { high: sixteenth.high.mul(nearest).add(times.high), low: times.low };
    const denominator = addPair({ high: i64(1n << 63n), low: i64(0) }, zc);
    const t = pairOf(
      f,
      f.call(series.quotient, numerator.high, numerator.low, denominator.high, denominator.low),
    );
    const sum = polynomial(f, series, product(f, series, t, t), coefficients, 1);
    const angle = product(f, series, sum, t);
    const from: Pair = { high: fromHigh.get(), low: fromLow.get() };
    const result = selectPair(less, subtractPair(from, angle), addPair(from, angle));
    returnPair(f, result.high, result.low);
  });

  return defineBinary(module, "x87.arctangent", nan, (f, y, x) => {
    const sign = signOf(y);
    const left = signOf(x);
    const flags = denormalFlag(y, x);
    const result = ({ high, low, exponent }: Long): void =>
      f.return(f.call(give, sign, exponent, high, low, flags));
    /** Returns a multiple of π / 4, by the sign of x. */
    const multiple = (right: number, other: number): void => {
      f.if(left, () => result(quarters(other)));
      if (right === 0) returnReal(f, i64(0), y.word.and(SIGN), flags);
      else result(quarters(right));
    };
    f.if(isInfinity(y), () => {
      f.if(isInfinity(x), () => multiple(1, 3));
      result(quarters(2));
    });
    f.if(isInfinity(x).or(isZero(y)), () => multiple(0, 4));
    f.if(isZero(x), () => result(quarters(2)));

    const a = unpack(f, y);
    const b = unpack(f, x);
    const sameExponent = a.exponent.get().eq(b.exponent.get());
    const equal = sameExponent.and(a.significand.get().eq(b.significand.get()));
    f.if(equal, () => multiple(1, 3));
    const steep = a.exponent.get().gtS(b.exponent.get()).or(
      sameExponent.and(a.significand.get().gtU(b.significand.get())),
    );
    const small = steep.select(b.significand.get(), a.significand.get());
    const great = steep.select(a.significand.get(), b.significand.get());
    const distance = a.exponent.get().sub(b.exponent.get());
    const exponent = steep.select(i32(0).sub(distance), distance).add(BIAS);
    // The dividend is halved, so that it is smaller than the divisor.
    const ratio = pairOf(
      f,
      f.call(series.quotient, small.shrU(1), small.shl(63), great, 0),
    );
    const z = normalize(f, wide, ratio, exponent);
    const fraction = fractionOf(f, wide, z);
    const high = f.variable(I64T, 0);
    const low = f.variable(I64T, 0);
    const size = f.variable(I32T, 0);
    const keep = (found: Long): void => {
      high.set(found.high);
      low.set(found.low);
      size.set(found.exponent);
    };
    f.if(z.exponent.geS(TABLE_FROM), () => {
      const angle = pairOf(f, f.call(byTable, fraction.high, fraction.low));
      keep(normalize(f, wide, angle, i32(BIAS)));
    }, () => {
      const square = product(f, series, fraction, fraction);
      const sum = belowOne(polynomial(f, series, square, coefficients, 1));
      keep(multiplyLong(f, wide, series, z, normalize(f, wide, sum, i32(BIAS))));
    });
    const angle: Long = { high: high.get(), low: low.get(), exponent: size.get() };
    f.if(steep.or(left).eqz(), () => result(angle));
    // Otherwise it is taken from π, or from or to π / 2; all of it halved once more.
    const whole = fractionOf(f, wide, angle);
    const half = pairOf(f, f.call(wide.shiftRight, whole.high, whole.low, 2));
    const quarter = constantPair(QUARTER_PI);
    const from = selectPair(steep, quarter, constantPair(2n * QUARTER_PI));
    const added = steep.and(left);
    const total = selectPair(added, addPair(from, half), subtractPair(from, half));
    result(normalize(f, wide, total, i32(BIAS + 1)));
  });
}
