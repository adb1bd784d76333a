/**
 * Between 80-bit reals and the formats in memory: single and double precision, integers, packed BCD
 * (SDM vol. 1, 4.2, 4.7, 8.2 and 8.5.1).
 *
 * @module
 */
import type { Fn, I, L } from "../microcode/header/signature.ts";
import type { X87Routines } from "./header.ts";
import { S } from "../state/cpu_state.ts";
import {
  type FunctionBuilder,
  type I32,
  i32,
  I32T,
  type I64,
  i64,
  I64T,
  type ModuleBuilder,
} from "../wasm/mod.ts";
import { unpack } from "./arithmetic.ts";
import {
  BIAS,
  EXPONENT,
  exponentOf,
  Flag,
  INTEGER_BIT,
  isInfinity,
  isNan,
  isSignalling,
  isZero,
  QUIET_BIT,
  type Real,
  resultOf,
  returnReal,
  SIGN,
  signOf,
} from "./format.ts";
import { isOdd } from "./nan.ts";
import { DISCARD, type Round, Step } from "./round.ts";
import { pairOf, type Wide } from "./wide.ts";

/** A binary format of memory. */
interface Format {
  /** Bits of the whole. */
  readonly bits: 32 | 64;
  /** Bits of the fraction. */
  readonly fraction: number;
  /** Bits of the 80-bit significand that it has no room for. */
  readonly discard: number;
  /** Exponent of infinity. */
  readonly top: number;
}

const SINGLE: Format = { bits: 32, fraction: 23, discard: DISCARD.SINGLE, top: 0xff };
const DOUBLE: Format = { bits: 64, fraction: 52, discard: DISCARD.DOUBLE, top: 0x7ff };
/** What a denormal of `format` has as exponent where 1 has the bias of 80-bit reals, less 1. */
const rebias = ({ top }: Format): number => BIAS - (top >> 1);

/** First number that 18 decimal digits are too few for. */
const BCD_LIMIT = 10n ** 18n;
/** The packed BCD indefinite: FFFF C000 0000 0000 0000h. */
const BCD_INDEFINITE: { readonly low: bigint; readonly high: number } = {
  low: 0xc000n << 48n,
  high: 0xffff,
};

/**
 * Conversions. Those that yield reals leave the exceptions with them; those to memory formats leave the
 * exceptions in bits 63:32 of the second result, and bits 79:64 of what has 80 bits in 15:0.
 */
export interface Convert {
  /** `(value)`: a signed integer. */
  readonly fromInteger: Fn<readonly [L], L>;
  /** `(significand, word)`: in single precision. */
  readonly narrow32: Fn<readonly [L, I], L>;
  /** `(significand, word)`: in double precision. */
  readonly narrow64: Fn<readonly [L, I], L>;
  /** `(significand, word, bits, control)`: as a signed integer of `bits`. */
  readonly toInteger: Fn<readonly [L, I, I, I], L>;
  /** `(significand, word)`: as ten bytes of packed BCD. */
  readonly toBcd: Fn<readonly [L, I], L>;
  /** `(significand, word, control)`: the magnitude as an integer; the second result is a `Step`. */
  readonly magnitude: Fn<readonly [L, I, I], L>;
}

/** Defines them. */
export function defineConvert(
  module: ModuleBuilder,
  wide: Wide,
  { round, step }: Round,
  x87: X87Routines,
): Convert {
  const widen = (ref: Fn<readonly [L], L>, format: Format): void =>
    module.body(ref, (f, value) => {
      const sign = value.shrU(format.bits - 1).wrap().and(1).shl(15);
      const exponent = value.shrU(format.fraction).wrap().and(format.top);
      const fraction = value.shl(64 - format.fraction).shrU(1);
      f.if(
        exponent.sub(1).ltU(format.top - 1),
        () => {
          returnReal(f, fraction.or(INTEGER_BIT), sign.or(exponent.add(rebias(format))));
        },
        undefined,
        "likely",
      );
      f.if(exponent.ne(0), () => {
        returnReal(f, fraction.or(INTEGER_BIT), sign.or(EXPONENT));
      });
      f.if(fraction.eqz(), () => returnReal(f, fraction, sign));
      const lead = fraction.clz();
      const normal = i32(rebias(format) + 1).sub(lead.wrap());
      returnReal(f, fraction.shl(lead), sign.or(normal), Flag.DE);
    });

  const narrow = (format: Format): Fn<readonly [L, I], L> =>
    module.define(`x87.narrow${format.bits}`, [I64T, I32T], I64T, (f, significand, word) => {
      const real: Real = { significand, word };
      const sign = signOf(real);
      const finish = (exponent: I32 | number, normal: I64, flags: I32 | number): void => {
        const fraction = normal.shl(1).shrU(64 - format.fraction);
        const high = (typeof exponent === "number" ? i32(exponent) : exponent).extendU();
        const bits = sign.extendU().shl(format.bits - 1).or(high.shl(format.fraction));
        returnReal(f, bits.or(fraction), 0, flags);
      };
      f.if(
        isOdd(real),
        () => {
          f.if(isNan(real), () => {
            finish(format.top, significand.or(QUIET_BIT), isSignalling(real).mul(Flag.IE));
          });
          returnReal(f, i64(-1).shl(format.fraction - 1), 0, Flag.IE);
        },
        undefined,
        "unlikely",
      );
      f.if(isInfinity(real), () => finish(format.top, i64(0), 0));
      f.if(isZero(real), () => finish(0, i64(0), 0));
      const { significand: normal, exponent } = unpack(f, real);
      const rounded = resultOf(
        f,
        f.call(
          round,
          sign,
          exponent.get().sub(rebias(format)),
          normal.get(),
          0,
          format.discard,
          format.top,
          S.fpuControl.get(f),
        ),
      );
      finish(exponentOf(rounded), rounded.significand, rounded.flags);
    });

  widen(x87.widen32, SINGLE);
  widen(x87.widen64, DOUBLE);

  const { fromInteger } = x87;
  module.body(fromInteger, (f, value) => {
    f.if(value.eqz(), () => returnReal(f, value, 0));
    const negative = value.shrU(63);
    const magnitude = negative.ne(0).select(i64(0).sub(value), value);
    const lead = magnitude.clz();
    const exponent = i32(BIAS + 63).sub(lead.wrap());
    returnReal(f, magnitude.shl(lead), exponent.or(negative.wrap().shl(15)));
  });

  module.body(x87.fromBcd, (f, low, high) => {
    // Digits above 9 are undefined by the manuals; each counts as its value.
    const value = f.variable(I64T, 0);
    const digits = (from: I64, count: number): void => {
      const rest = f.variable(I64T, from.shl(64 - 4 * count));
      const left = f.variable(I32T, count);
      f.while(() => left.get(), () => {
        value.set(value.get().mul(10).add(rest.get().shrU(60)));
        rest.set(rest.get().shl(4));
        left.set(left.get().sub(1));
      });
    };
    digits(high, 2);
    digits(low, 16);
    const significand = f.call(fromInteger, value.get());
    const sign = high.and(SIGN);
    S.fpuSecond.set(f, S.fpuSecond.get(f).or(sign));
    f.return(significand);
  });

  const magnitude = module.define(
    "x87.magnitude",
    [I64T, I32T, I32T],
    I64T,
    (f, significand, word, control) => {
      const real: Real = { significand, word };
      const fraction = i32(BIAS + 63).sub(exponentOf(real));
      f.if(fraction.geS(64), () => {
        // Less than 1, or rounded up to it.
        const { low } = pairOf(f, f.call(wide.shiftRight, significand, 0, fraction.extendU()));
        f.return(f.call(step, signOf(real), 0, low, 0, control));
      });
      f.if(fraction.eqz(), () => {
        S.fpuSecond.set(f, 0);
        f.return(significand);
      });
      const kept = f.call(step, signOf(real), significand, 0, fraction, control);
      const carry = S.fpuSecond.get(f).and(Step.CARRY).ne(0);
      const count = fraction.extendU();
      f.return(carry.select(i64(1).shl(i64(64).sub(count)), kept.shrU(count)));
    },
  );

  /** Exceptions of a rounding to an integer. */
  const inexact = (f: FunctionBuilder): I32 => {
    const told = S.fpuSecond.get(f).wrap();
    return told.and(Step.INEXACT).mul(Flag.PE).or(told.and(Step.UP).mul(Flag.C1 / Step.UP));
  };

  const toInteger = module.define(
    "x87.toInteger",
    [I64T, I32T, I32T, I32T],
    I64T,
    (f, significand, word, bits, control) => {
      const real: Real = { significand, word };
      const least = i64(-1).shl(bits.sub(1).extendU());
      const invalid = (condition: I32): void =>
        f.if(condition, () => returnReal(f, least, 0, Flag.IE), undefined, "unlikely");
      invalid(isOdd(real).or(exponentOf(real).gtU(BIAS + 63)));
      const value = f.call(magnitude, significand, word, control);
      const flags = inexact(f);
      const negative = signOf(real);
      const most = i64(0).sub(least).sub(negative.eqz().extendU());
      invalid(value.gtU(most));
      returnReal(f, negative.select(i64(0).sub(value), value), 0, flags);
    },
  );

  const toBcd = module.define("x87.toBcd", [I64T, I32T], I64T, (f, significand, word) => {
    const real: Real = { significand, word };
    const invalid = (condition: I32): void =>
      f.if(condition, () => {
        returnReal(f, i64(BCD_INDEFINITE.low), BCD_INDEFINITE.high, Flag.IE);
      });
    invalid(isOdd(real).or(exponentOf(real).gtU(BIAS + 63)));
    const value = f.variable(I64T, f.call(magnitude, significand, word, S.fpuControl.get(f)));
    const flags = inexact(f);
    invalid(value.get().geU(BCD_LIMIT));
    const digits = (count: number): I64 => {
      const bcd = f.variable(I64T, 0);
      const shift = f.variable(I64T, 0);
      f.while(() => shift.get().ltU(4 * count), () => {
        bcd.set(bcd.get().or(value.get().remU(10).shl(shift.get())));
        value.set(value.get().divU(10));
        shift.set(shift.get().add(4));
      });
      return bcd.get();
    };
    const low = digits(16);
    returnReal(f, low, digits(2).wrap().or(signOf(real).shl(15)), flags);
  });

  return {
    fromInteger,
    narrow32: narrow(SINGLE),
    narrow64: narrow(DOUBLE),
    toInteger,
    toBcd,
    magnitude,
  };
}
