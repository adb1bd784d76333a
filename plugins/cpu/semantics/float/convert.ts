/**
 * Conversions of single values in software: between formats, to and from integers (SDM vol. 1, 4.8; APM
 * vol. 1, 4.4).
 *
 * @module
 */
import {
  type FunctionBuilder,
  type I32,
  i32,
  I32T,
  type I64,
  i64,
  I64T,
  type ModuleBuilder,
  reference,
  type TypeToken,
} from "../../wasm/mod.ts";
import type { Fn } from "../unit.ts";
import type { Arithmetic } from "./arithmetic.ts";
import {
  DOUBLE,
  type Format,
  input,
  isNan,
  isSignalling,
  isZero,
  LEADING,
  Mxcsr,
  note,
  noteDenormals,
  Rounding,
  signOf,
  SINGLE,
  takeApart,
} from "./format.ts";

type I = TypeToken<I32>;
type L = TypeToken<I64>;

/** Functions on values of one format. */
export interface Conversions {
  /** `(a, bits, rounding)`: to a signed integer of 32 or 64 bits, zero-extended. */
  readonly toInteger: Fn<[L, I, I], L>;
  /** `(a)`: from a signed integer of 64 bits. */
  readonly fromInteger: Fn<[L], L>;
  /** `(a)`: to the other format. */
  readonly toOther: Fn<[L], L>;
}

/** References to the functions of a format, by a name for it. */
export function declareConversions(name: string): Conversions {
  return {
    toInteger: reference(`float.toInteger.${name}`, [I64T, I32T, I32T], I64T),
    fromInteger: reference(`float.fromInteger.${name}`, [I64T], I64T),
    toOther: reference(`float.toOther.${name}`, [I64T], I64T),
  };
}

/** 1 where rounding goes up from a whole part whose bit 0 is given, by the 64 bits behind the point. */
export function roundsUp(rounding: I32, sign: I32, odd: I32, behind: I64): I32 {
  const half = 1n << 63n;
  const nearest = behind.gtU(half).or(behind.eq(half).and(odd));
  const away = rounding.eq(i32(Rounding.UP).sub(sign)).and(rounding.ne(Rounding.NEAREST))
    .and(behind.ne(0));
  return rounding.eq(Rounding.NEAREST).select(nearest, away);
}

function defineToInteger(
  module: ModuleBuilder,
  format: Format,
  { toInteger }: Conversions,
): void {
  module.body(toInteger, (f, operand, bits, rounding) => {
    const wide = bits.eq(64);
    const least = wide.select(i64(1n << 63n), i64(1n << 31n));
    const invalid = (): void => {
      note(f, Mxcsr.IE);
      f.return(least);
    };
    const a = input(f, format, operand);
    f.if(isZero(format, a), () => f.return(i64(0)));
    const { exponent, significand } = takeApart(f, format, a);
    const power = exponent.sub(format.bias);
    const sign = signOf(format, a);
    // Infinities and NaNs have the greatest exponent.
    f.if(power.geS(63), () => {
      const exact = power.eq(63).and(sign).and(significand.eq(1n << BigInt(LEADING)));
      f.if(exact.and(wide), () => f.return(i64(1n << 63n)));
      invalid();
    });
    const distance = i32(LEADING).sub(power);
    const whole = f.variable(I64T, 0);
    const behind = f.variable(I64T, 1);
    f.if(distance.leU(LEADING + 1), () => {
      const by = distance.extendU();
      whole.set(significand.shrU(by));
      behind.set(distance.eqz().select(i64(0), significand.shl(i64(64).sub(by))));
    });
    const up = roundsUp(rounding, sign, whole.get().wrap().and(1), behind.get());
    const magnitude = whole.get().add(up.extendU());
    // One more is allowed below zero.
    f.if(magnitude.gtU(least.sub(1).add(sign.extendU())), invalid);
    note(f, behind.get().ne(0).mul(Mxcsr.PE));
    const value = sign.select(i64(0).sub(magnitude), magnitude);
    f.return(wide.select(value, value.and(0xffff_ffff)));
  });
}

function defineFromInteger(
  module: ModuleBuilder,
  format: Format,
  { fromInteger }: Conversions,
  { round }: Arithmetic,
): void {
  module.body(fromInteger, (f, a) => {
    f.if(a.eqz(), () => f.return(i64(0)));
    const sign = a.ltS(0);
    const magnitude = sign.select(i64(0).sub(a), a);
    f.if(magnitude.ltS(0), () => {
      f.returnCall(round, sign, i32(format.bias + 63), i64(1n << BigInt(LEADING)));
    });
    const shift = magnitude.clz().sub(1);
    const exponent = i32(format.bias + LEADING).sub(shift.wrap());
    f.returnCall(round, sign, exponent, magnitude.shl(shift));
  });
}

/** A NaN in another format, made quiet, with as much of its fraction as there is room for. */
export function convertNan(f: FunctionBuilder, from: Format, to: Format, a: I64): void {
  f.if(
    isNan(from, a),
    () => {
      note(f, isSignalling(from, a).mul(Mxcsr.IE));
      const sign = signOf(from, a).extendU().shl(to.bits - 1);
      const fraction = a.and((1n << BigInt(from.fraction)) - 1n);
      const moved = to.fraction > from.fraction
        ? fraction.shl(to.fraction - from.fraction)
        : fraction.shrU(from.fraction - to.fraction);
      f.return(sign.or(moved).or(to.infinity | to.quiet));
    },
    undefined,
    "unlikely",
  );
}

function defineToOther(
  module: ModuleBuilder,
  from: Format,
  to: Format,
  { toOther }: Conversions,
  { round }: Arithmetic,
): void {
  module.body(toOther, (f, operand) => {
    const a = input(f, from, operand);
    convertNan(f, from, to, a);
    noteDenormals(f, from, a);
    const sign = signOf(from, a);
    const sign64 = sign.extendU().shl(to.bits - 1);
    f.if(isZero(from, a), () => f.return(sign64));
    f.if(a.and(from.magnitude).eq(from.infinity), () => f.return(sign64.or(to.infinity)));
    const { exponent, significand } = takeApart(f, from, a);
    f.returnCall(round, sign, exponent.sub(from.bias).add(to.bias), significand);
  });
}

/** Gives the functions of both formats their bodies. */
export function defineConversions(
  module: ModuleBuilder,
  single: Arithmetic & Conversions,
  double: Arithmetic & Conversions,
): void {
  defineToInteger(module, SINGLE, single);
  defineToInteger(module, DOUBLE, double);
  defineFromInteger(module, SINGLE, single, single);
  defineFromInteger(module, DOUBLE, double, double);
  defineToOther(module, SINGLE, DOUBLE, single, double);
  defineToOther(module, DOUBLE, SINGLE, double, single);
}
