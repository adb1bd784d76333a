/**
 * FYL2X, FYL2XP1 and F2XM1 (SDM vol. 2A). Errors are less than 0.51 units in the last place.
 *
 * @module
 */
import type { Fn, I, L } from "../microcode/header/signature.ts";
import { S } from "../state/cpu_state.ts";
import {
  type FunctionBuilder,
  type I32,
  i32,
  I32T,
  i64,
  I64T,
  type ModuleBuilder,
} from "../wasm/mod.ts";
import { denormalFlag, unpack } from "./arithmetic.ts";
import { exponential, logarithmic } from "./constants.ts";
import {
  BIAS,
  EXPONENT,
  exponentOf,
  Flag,
  INTEGER_BIT,
  isInfinity,
  isZero,
  type Real,
  returnReal,
  SIGN,
  signOf,
} from "./format.ts";
import { defineBinary, defineUnary, type Nan } from "./nan.ts";
import type { Round } from "./round.ts";
import {
  addPair,
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
import { addFlags, returnInvalid, type Transcendental } from "./transcendental.ts";
import { type Pair, pairOf, type Wide } from "./wide.ts";

/** Those functions. */
export interface Logarithm {
  /** `(y, x)`: y log2 x. */
  readonly logarithm: Fn<readonly [L, I, L, I], L>;
  /** `(y, x)`: y log2 (x + 1). */
  readonly logarithmOfOneMore: Fn<readonly [L, I, L, I], L>;
  /** `(x)`: 2^x − 1. */
  readonly powerLessOne: Fn<readonly [L, I], L>;
}

/** The square root of 2, as a significand. */
const ROOT_2 = 0xb504_f333_f9de_6484n;
/** Powers of s², where s is at most (√2 − 1) / (√2 + 1): its 44th power is 2^−111. */
const TERMS = 22;
/** Powers of x: (ln 2)^28 / 28! is 2^−112. */
const POWERS = 27;
/** Bits of a logarithm with its integer part that lie behind the point. */
const LOGARITHM_FRACTION = 112;

/** Defines them. */
export function defineLogarithm(
  module: ModuleBuilder,
  wide: Wide,
  series: Series,
  nan: Nan,
  { round }: Round,
  { give }: Transcendental,
): Logarithm {
  const coefficients = logarithmic(TERMS);
  const powers = exponential(POWERS);

  /** 2 artanh s, by log2: its size. */
  const seriesOf = (f: FunctionBuilder, s: Long): Long => {
    const fraction = fractionOf(f, wide, s);
    const square = product(f, series, fraction, fraction);
    const sum = polynomial(f, series, square, coefficients, 0);
    const quarter = multiplyLong(f, wide, series, s, normalize(f, wide, sum, i32(BIAS)));
    return { ...quarter, exponent: quarter.exponent.add(2) };
  };
  /** A quarter of n's significand over d. */
  const quarterOver = (f: FunctionBuilder, n: Long, d: Pair, exponent: I32): Long => {
    const { high, low } = pairOf(f, f.call(wide.shiftRight, n.high, n.low, 1));
    const found = pairOf(f, f.call(series.quotient, high, low, d.high, d.low));
    return normalize(f, wide, found, exponent);
  };
  const times = (f: FunctionBuilder, y: Real, value: Long, minus: I32, flags: I32): void => {
    const { significand, exponent } = unpack(f, y);
    const factor: Long = { high: significand.get(), low: i64(0), exponent: exponent.get() };
    const found = multiplyLong(f, wide, series, value, factor);
    const sign = minus.xor(signOf(y));
    f.return(f.call(give, sign, found.exponent, found.high, found.low, flags));
  };

  /** `(y, high, low, exponent, flags)`: y times the logarithm of `high`.`low`, which is above 0. */
  const ofLong = module.define(
    "x87.logarithmOfLong",
    [I64T, I32T, I64T, I64T, I32T, I32T],
    I64T,
    (f, significandY, wordY, high, low, exponent, flags) => {
      const y: Real = { significand: significandY, word: wordY };
      const one: Pair = { high: i64(INTEGER_BIT), low: i64(0) };
      const m: Pair = { high, low };
      f.if(high.eq(INTEGER_BIT).and(low.eqz()), () => {
        // A power of 2: exact but for the rounding of the product. AMD's processors tell it as inexact.
        const count = exponent.sub(BIAS);
        const minus = count.ltS(0);
        const sign = minus.xor(signOf(y));
        f.if(count.eqz(), () => returnReal(f, i64(0), sign.shl(15), flags));
        const size = minus.select(i32(0).sub(count), count).extendU();
        const lead = size.clz();
        const { significand, exponent: own } = unpack(f, y);
        const whole = pairOf(f, f.call(wide.multiply, size.shl(lead), significand.get()));
        const place = own.get().add(64).sub(lead.wrap());
        const product = normalize(f, wide, whole, place);
        const control = S.fpuControl.get(f);
        const { high: h, low: l } = product;
        const found = f.call(round, sign, product.exponent, h, l, 0, EXPONENT, control);
        addFlags(f, flags.or(Flag.PE));
        f.return(found);
      });
      // Above √2 it is halved, which makes its logarithm negative.
      const great = high.gtU(ROOT_2);
      const halved = pairOf(f, f.call(wide.shiftRight, high, low, 1));
      const zero: Pair = { high: i64(0), low: i64(0) };
      const difference = selectPair(great, subtractPair(zero, m), subtractPair(m, one));
      const n = normalize(f, wide, difference, i32(BIAS).sub(great));
      const quarter: Pair = { high: i64(1n << 62n), low: i64(0) };
      const d = addPair(halved, selectPair(great, one, quarter));
      const fractional = seriesOf(
        f,
        quarterOver(f, n, d, n.exponent.sub(great.eqz())),
      );
      const count = exponent.sub(BIAS).add(great);
      f.if(count.eqz(), () => times(f, y, fractional, great, flags));
      const minus = count.ltS(0);
      const size = minus.select(i32(0).sub(count), count);
      const integer: Pair = {
        high: size.extendU().shl(LOGARITHM_FRACTION - 64),
        low: i64(0),
      };
      const shift = i32(BIAS + 127 - LOGARITHM_FRACTION).sub(fractional.exponent).extendU();
      const rest = pairOf(f, f.call(wide.shiftRight, fractional.high, fractional.low, shift));
      const same = minus.eq(great);
      const total = selectPair(same, addPair(integer, rest), subtractPair(integer, rest));
      times(
        f,
        y,
        normalize(f, wide, total, i32(BIAS + 127 - LOGARITHM_FRACTION)),
        minus,
        flags,
      );
    },
  );

  const infinity = (f: FunctionBuilder, sign: I32, flags: I32 | number): void =>
    returnReal(f, i64(INTEGER_BIT), sign.shl(15).or(EXPONENT), flags);

  const logarithm = defineBinary(module, "x87.logarithm", nan, (f, y, x) => {
    const sign = signOf(y);
    const flags = denormalFlag(y, x);
    f.if(isZero(x), () => {
      f.if(isZero(y), () => returnInvalid(f));
      f.if(isInfinity(y), () => infinity(f, sign.xor(1), 0));
      infinity(f, sign.xor(1), Flag.ZE);
    });
    f.if(signOf(x), () => returnInvalid(f));
    const one = exponentOf(x).eq(BIAS).and(x.significand.eq(INTEGER_BIT));
    const less = exponentOf(x).ltU(BIAS);
    f.if(isInfinity(x), () => {
      f.if(isZero(y), () => returnInvalid(f));
      infinity(f, sign, flags);
    });
    f.if(isInfinity(y), () => {
      f.if(one, () => returnInvalid(f));
      infinity(f, sign.xor(less), flags);
    });
    f.if(isZero(y), () => returnReal(f, i64(0), sign.xor(less).shl(15), flags));
    const { significand, exponent } = unpack(f, x);
    f.return(
      f.call(ofLong, y.significand, y.word, significand.get(), 0, exponent.get(), flags),
    );
  });

  const logarithmOfOneMore = defineBinary(module, "x87.logarithmOfOneMore", nan, (f, y, x) => {
    const minus = signOf(x);
    const sign = signOf(y).xor(minus);
    const flags = denormalFlag(y, x);
    f.if(isInfinity(x), () => {
      f.if(minus.or(isZero(y)), () => returnInvalid(f));
      infinity(f, sign, flags);
    });
    f.if(isInfinity(y), () => {
      f.if(isZero(x), () => returnInvalid(f));
      infinity(f, sign, flags);
    });
    f.if(isZero(x).or(isZero(y)), () => returnReal(f, i64(0), sign.shl(15), flags));
    const { significand, exponent } = unpack(f, x);
    const long: Long = { high: significand.get(), low: i64(0), exponent: exponent.get() };
    f.if(exponentOf(x).geU(BIAS - 2), () => {
      // What has no logarithm is returned, as AMD's processors do; the manuals leave it open.
      f.if(minus.and(exponentOf(x).geU(BIAS)), () => {
        returnReal(f, x.significand, x.word, flags.or(Flag.PE));
      });
      const size = exponentOf(x).gtU(BIAS).select(exponentOf(x), i32(BIAS));
      f.if(size.geU(BIAS + 63), () => {
        f.return(f.call(ofLong, y.significand, y.word, x.significand, 0, size, flags));
      });
      // Both at the exponent of the greater one, and halved, so that the sum has room.
      const one: Pair = {
        high: i64(1n << 62n).shrU(size.sub(BIAS).extendU()),
        low: i64(0),
      };
      const distance = size.add(1).sub(exponentOf(x)).extendU();
      const own = pairOf(f, f.call(wide.shiftRight, x.significand, 0, distance));
      const sum = selectPair(minus, subtractPair(one, own), addPair(one, own));
      const m = normalize(f, wide, sum, size.add(1));
      f.return(f.call(ofLong, y.significand, y.word, m.high, m.low, m.exponent, flags));
    });
    const fraction = fractionOf(f, wide, long);
    // (2 + x) / 4, or (2 + x) / 2 where that is less than a half.
    const quarter = pairOf(f, f.call(wide.shiftRight, fraction.high, fraction.low, 2));
    const half = pairOf(f, f.call(wide.shiftRight, fraction.high, fraction.low, 1));
    const zero: Pair = { high: i64(0), low: i64(0) };
    const one: Pair = { high: i64(INTEGER_BIT), low: i64(0) };
    const d = selectPair(minus, subtractPair(zero, half), addPair(one, quarter));
    const s = quarterOver(f, long, d, exponent.get().sub(minus.eqz()));
    times(f, y, seriesOf(f, s), minus, flags);
  });

  const powerLessOne = defineUnary(module, "x87.powerLessOne", nan, (f, x) => {
    const minus = signOf(x);
    f.if(isZero(x), () => returnReal(f, x.significand, x.word));
    f.if(isInfinity(x), () => {
      f.if(minus, () => returnReal(f, i64(INTEGER_BIT), SIGN | BIAS));
      returnReal(f, x.significand, x.word);
    });
    // Beyond 1 the manuals leave the result open; AMD's processors return the operand.
    f.if(exponentOf(x).geU(BIAS), () => {
      const one = exponentOf(x).eq(BIAS).and(x.significand.eq(INTEGER_BIT));
      f.if(
        one,
        () => returnReal(f, x.significand, minus.select(i32(SIGN | (BIAS - 1)), x.word), Flag.PE),
      );
      returnReal(f, x.significand, x.word, Flag.PE);
    });
    const { significand: normal, exponent } = unpack(f, x);
    const long: Long = { high: normal.get(), low: i64(0), exponent: exponent.get() };
    const fraction = fractionOf(f, wide, long);
    const sum = polynomial(f, series, fraction, powers, minus);
    const found = multiplyLong(f, wide, series, long, normalize(f, wide, sum, i32(BIAS)));
    f.return(f.call(give, minus, found.exponent, found.high, found.low, denormalFlag(x)));
  });

  return { logarithm, logarithmOfOneMore, powerLessOne };
}
