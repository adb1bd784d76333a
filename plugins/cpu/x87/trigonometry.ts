/**
 * FSIN, FCOS and FPTAN.
 *
 * An argument is reduced by the number of 66 bits that both vendors' processors have for π (SDM vol. 1,
 * 8.3.8: 4 × 0.C90FDAA22168C234Ch), and exactly so: results agree with silicon for large arguments as
 * well, and are as far from the sine of the argument itself as they are there. What follows is a
 * polynomial in fractions of 128 bits, so that the error of a result is less than 0.51 units in the last
 * place beyond that.
 *
 * @module
 */
import type { Fn, I, L } from "../microcode/header/signature.ts";
import {
  type FunctionBuilder,
  type I32,
  i32,
  I32T,
  I64T,
  type ModuleBuilder,
} from "../wasm/mod.ts";
import { unpack } from "./arithmetic.ts";
import { trigonometric } from "./constants.ts";
import { BIAS, exponentOf, type Real, signOf } from "./format.ts";
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
  type Series,
  subtractPair,
} from "./series.ts";
import type { Transcendental } from "./transcendental.ts";
import { type Pair, pairOf, type Wide } from "./wide.ts";

/** π / 2 of 66 bits: two words, 65 bits of them behind the point. */
const HALF_PI: bigint = 0x3_243f_6a88_85a3_08d3n;
const HALF_PI_FRACTION = 65;
/** Least exponent of an argument that has to be reduced: π / 4 lies between 1/2 and 1. */
const REDUCED = BIAS - 1;
/** Powers of r² up to r²⁶: 0.79^26 / 26! is 2^−97. */
const TERMS = 13;

/** Which function. */
export const Trigonometric = { SINE: 0, COSINE: 1, TANGENT: 2 } as const;

/** Defines the function for `(function, significand, word)` of a finite argument below 2^63, not 0. */
export function defineTrigonometry(
  module: ModuleBuilder,
  wide: Wide,
  series: Series,
  { give }: Transcendental,
): Fn<readonly [I, L, I], L> {
  const sines = trigonometric(true, TERMS);
  const cosines = trigonometric(false, TERMS);
  const halfPi = constantPair(HALF_PI);

  /** r × the series of sin r / r. */
  const sineOf = (f: FunctionBuilder, r: Long, square: Pair): Long => {
    const sum = belowOne(polynomial(f, series, square, sines, 1));
    return multiplyLong(f, wide, series, r, normalize(f, wide, sum, i32(BIAS)));
  };
  const cosineOf = (f: FunctionBuilder, square: Pair): Long =>
    normalize(f, wide, belowOne(polynomial(f, series, square, cosines, 1)), i32(BIAS));

  return module.define(
    "x87.trigonometricOfReduced",
    [I32T, I64T, I32T],
    I64T,
    (f, which, significand, word) => {
      const real: Real = { significand, word };
      const { significand: normal, exponent } = unpack(f, real);
      const high = f.variable(I64T, normal.get());
      const low = f.variable(I64T, 0);
      const size = f.variable(I32T, exponent.get());
      const sign = f.variable(I32T, signOf(real));
      const quadrant = f.variable(I32T, 0);
      f.if(exponentOf(real).geU(REDUCED), () => {
        // In units of the last place of π / 2: doubled and reduced for each place of the exponent.
        const restHigh = f.variable(I64T, 0);
        const rest = f.variable(I64T, normal.get());
        const left = f.variable(I32T, exponentOf(real).sub(BIAS + 63 - HALF_PI_FRACTION));
        const current = (): Pair => ({ high: restHigh.get(), low: rest.get() });
        const set = ({ high, low }: Pair): void => {
          restHigh.set(high);
          rest.set(low);
        };
        f.while(() => left.get(), () => {
          const doubled = addPair(current(), current());
          set(doubled);
          const fits = below(doubled, halfPi).eqz();
          quadrant.set(quadrant.get().shl(1).or(fits));
          f.if(fits, () => set(subtractPair(doubled, halfPi)));
          left.set(left.get().sub(1));
        });
        const other = subtractPair(halfPi, current());
        f.if(below(other, current()), () => {
          set(other);
          sign.set(sign.get().xor(1));
          quadrant.set(quadrant.get().add(1));
        });
        const r = normalize(f, wide, current(), i32(BIAS + 127 - HALF_PI_FRACTION));
        high.set(r.high);
        low.set(r.low);
        size.set(r.exponent);
      });
      // r is not 0: a number of 64 bits is no multiple of one of 66 bits that is odd.
      const r: Long = { high: high.get(), low: low.get(), exponent: size.get() };
      const fraction = fractionOf(f, wide, r);
      const square = product(f, series, fraction, fraction);
      const negative = signOf(real);
      // The sign of r with that of the argument taken out again.
      const turned = sign.get().xor(negative);
      const odd = quadrant.get().and(1);
      const upper = quadrant.get().shrU(1).and(1);
      const result = (minus: I32, value: Long): void =>
        f.return(f.call(give, minus, value.exponent, value.high, value.low, 0));
      f.if(which.eq(Trigonometric.TANGENT), () => {
        const sine = sineOf(f, r, square);
        const cosine = cosineOf(f, square);
        const divide = (n: Long, d: Long): void => {
          // The dividend is halved, so that it is smaller than the divisor.
          const halved = pairOf(f, f.call(wide.shiftRight, n.high, n.low, 1));
          const found = pairOf(
            f,
            f.call(series.quotient, halved.high, halved.low, d.high, d.low),
          );
          const exponent = n.exponent.sub(d.exponent).add(BIAS);
          result(sign.get().xor(odd), normalize(f, wide, found, exponent));
        };
        f.if(odd, () => divide(cosine, sine));
        divide(sine, cosine);
      });
      // sin x for x = n π/2 + r is sin r, cos r, −sin r, −cos r by n; cos x is one ahead.
      const cosine = which.eq(Trigonometric.COSINE);
      f.if(odd.xor(cosine), () => {
        // The cosine does not mind the sign of r; that of the argument turns a sine.
        const minus = cosine.select(upper, upper.xor(negative));
        result(minus, cosineOf(f, square));
      });
      const minus = cosine.select(turned.xor(upper).xor(1), turned.xor(upper).xor(negative));
      result(minus, sineOf(f, r, square));
    },
  );
}
