/**
 * Floating-point formats, MXCSR, and numbers taken apart (APM vol. 1, 4.4; SDM vol. 1, 4.2 and 10.2).
 *
 * A value of either format is an i64 here, in whose low bits it stands. Taken apart it is a sign, a
 * biased exponent `e` and a significand whose leading one is bit 62: the value is
 * significand · 2^(e − bias − 62). Denormals get the exponent they would have, which is 0 or less.
 *
 * @module
 */
import { S } from "../../state/cpu_state.ts";
import { type FunctionBuilder, type I32, i32, I32T, type I64, i64, I64T } from "../../wasm/mod.ts";

/** Bits of MXCSR. */
export const Mxcsr = {
  IE: 0x1,
  DE: 0x2,
  ZE: 0x4,
  OE: 0x8,
  UE: 0x10,
  PE: 0x20,
  /** The six exceptions. */
  EXCEPTIONS: 0x3f,
  /** What is met before anything is computed: IE, DE and ZE. */
  BEFORE: 0x7,
  DAZ: 0x40,
  /** Shift of the masks: bit n + 7 masks exception n. */
  MASKS: 7,
  OM: 0x400,
  UM: 0x800,
  PM: 0x1000,
  /** Shift of the rounding control (2 bits). */
  RC: 13,
  FTZ: 0x8000,
} as const;

/** Rounding control. */
export const Rounding = { NEAREST: 0, DOWN: 1, UP: 2, ZERO: 3 } as const;

/** Position of the leading one. */
export const LEADING = 62;

/** A format. */
export interface Format {
  /** Bits of a value. */
  readonly bits: 16 | 32 | 64;
  /** Bits of the fraction. */
  readonly fraction: number;
  /** The greatest exponent, that of infinities and NaNs. */
  readonly most: number;
  /** Exponent bias. */
  readonly bias: number;
  /** The sign bit. */
  readonly sign: bigint;
  /** All bits but the sign. */
  readonly magnitude: bigint;
  /** Positive infinity. */
  readonly infinity: bigint;
  /** The bit that makes a NaN a quiet one. */
  readonly quiet: bigint;
  /** The NaN of an invalid operation: negative and quiet. */
  readonly indefinite: bigint;
}

function format(bits: 16 | 32 | 64, fraction: number): Format {
  const width = BigInt(bits);
  const most = (1 << (bits - 1 - fraction)) - 1;
  const infinity = BigInt(most) << BigInt(fraction);
  const sign = 1n << (width - 1n);
  const quiet = 1n << BigInt(fraction - 1);
  return {
    bits,
    fraction,
    most,
    bias: most >> 1,
    sign,
    magnitude: sign - 1n,
    infinity,
    quiet,
    indefinite: sign | infinity | quiet,
  };
}

/** Half precision, which is converted alone. */
export const HALF: Format = format(16, 10);
/** Single precision. */
export const SINGLE: Format = format(32, 23);
/** Double precision. */
export const DOUBLE: Format = format(64, 52);

/** Notes exceptions. */
export function note(f: FunctionBuilder, exceptions: I32 | number): void {
  S.laneExceptions.or(f, exceptions);
}

/** Rounding control as MXCSR has it. */
export function roundingControl(f: FunctionBuilder): I32 {
  return S.mxcsr.get(f).shrU(Mxcsr.RC).and(3);
}

/** 1 for a NaN. */
export function isNan({ magnitude, infinity }: Format, a: I64): I32 {
  return a.and(magnitude).gtU(infinity);
}

/** 1 for a signalling NaN. */
export function isSignalling(format: Format, a: I64): I32 {
  return isNan(format, a).and(a.and(format.quiet).eqz());
}

/** 1 for a denormal. */
export function isDenormal({ magnitude, fraction }: Format, a: I64): I32 {
  // A zero becomes the greatest of all.
  return a.and(magnitude).sub(1).ltU((1n << BigInt(fraction)) - 1n);
}

/** 1 for a zero. */
export function isZero({ magnitude }: Format, a: I64): I32 {
  return a.and(magnitude).eqz();
}

/** 1 for an infinity. */
export function isInfinity({ magnitude, infinity }: Format, a: I64): I32 {
  return a.and(magnitude).eq(infinity);
}

/** 0 or 1. */
export function signOf({ bits }: Format, a: I64): I32 {
  return a.shrU(bits - 1).wrap();
}

/** A sign (0 or 1) in its place. */
export function signBit({ bits }: Format, sign: I32): I64 {
  return sign.extendU().shl(bits - 1);
}

/** The operand, but a zero of its sign for a denormal where MXCSR.DAZ is set. */
export function input(f: FunctionBuilder, format: Format, a: I64): I64 {
  const flushed = S.mxcsr.has(f, Mxcsr.DAZ).and(isDenormal(format, a));
  return flushed.select(a.and(format.sign), a);
}

/** Notes DE if one of the operands is denormal. */
export function noteDenormals(f: FunctionBuilder, format: Format, ...operands: I64[]): void {
  const any = operands.map((a) => isDenormal(format, a)).reduce((a, b) => a.or(b));
  note(f, any.mul(Mxcsr.DE));
}

/**
 * Returns from the function if an operand is a NaN: the first one that is, made quiet. A signalling NaN
 * is invalid.
 */
export function returnNan(f: FunctionBuilder, format: Format, ...operands: I64[]): void {
  const any = operands.map((a) => isNan(format, a)).reduce((a, b) => a.or(b));
  f.if(
    any,
    () => {
      const invalid = operands.map((a) => isSignalling(format, a)).reduce((a, b) => a.or(b));
      note(f, invalid.mul(Mxcsr.IE));
      const last = operands[operands.length - 1]!;
      const chosen = operands.slice(0, -1).reduceRight(
        (rest, a) => isNan(format, a).select(a, rest),
        last,
      );
      f.return(chosen.or(format.quiet));
    },
    undefined,
    "unlikely",
  );
}

/** Returns the indefinite NaN from the function, invalid, if `condition` is non-zero. */
export function returnInvalid(f: FunctionBuilder, format: Format, condition: I32): void {
  f.if(
    condition,
    () => {
      note(f, Mxcsr.IE);
      f.return(i64(format.indefinite));
    },
    undefined,
    "unlikely",
  );
}

/** A number taken apart. */
export interface Parts {
  /** Biased exponent. */
  readonly exponent: I32;
  /** Significand; 0 for a zero. */
  readonly significand: I64;
}

/** Takes a finite number apart. */
export function takeApart(f: FunctionBuilder, format: Format, a: I64): Parts {
  const { fraction, most } = format;
  const low = a.and((1n << BigInt(fraction)) - 1n);
  const field = a.shrU(fraction).wrap().and(most);
  const exponent = f.variable(I32T, field);
  const significand = f.variable(
    I64T,
    low.or(1n << BigInt(fraction)).shl(LEADING - fraction),
  );
  f.if(
    field.eqz(),
    () => {
      const shift = low.clz().sub(1);
      significand.set(low.shl(shift));
      exponent.set(i32(LEADING + 1 - fraction).sub(shift.wrap()));
    },
    undefined,
    "unlikely",
  );
  return { exponent: exponent.get(), significand: significand.get() };
}

/** `a` shifted right by `count` (0 or more), whose lowest bit is set if a bit that is lost was. */
export function shiftRightSticky(a: I64, count: I32): I64 {
  const by = count.extendU();
  const lost = a.shl(i64(0).sub(by)).ne(0).and(count.ne(0)).extendU();
  return count.gtU(63).select(a.ne(0).extendU(), a.shrU(by).or(lost));
}
