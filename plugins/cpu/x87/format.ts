/**
 * Words and numbers of the x87 unit (SDM vol. 1, 8.1 and 4.8; APM vol. 1, 6.2 and 6.3).
 *
 * An 80-bit real is a significand of 64 bits, whose bit 63 is the integer bit, and a word of 16 bits:
 * the sign in bit 15, the exponent with a bias of 3FFFh below it. Functions of the unit that yield a
 * real return the significand and leave that word in the second result (`S.fpuSecond`, bits 15:0), with
 * the exceptions found above it (bits 63:32, as in the status word).
 *
 * @module
 */
import { S } from "../state/cpu_state.ts";
import { type FunctionBuilder, type I32, i32, type I64 } from "../wasm/mod.ts";

/** Exceptions and C1, as in the status word. */
export const Flag = {
  /** Invalid operation. */
  IE: 0x01,
  /** Denormal operand. */
  DE: 0x02,
  /** Division by zero. */
  ZE: 0x04,
  /** Overflow. */
  OE: 0x08,
  /** Underflow. */
  UE: 0x10,
  /** Inexact result. */
  PE: 0x20,
  /** Stack fault, which comes with IE. */
  SF: 0x40,
  /** Condition code 1: rounded up, or with SF an overflow of the stack. */
  C1: 0x200,
} as const;

/** Fields of the status word. */
export const Status = {
  FLAGS: 0x3f,
  SUMMARY: 0x80,
  C0: 0x100,
  C1: 0x200,
  C2: 0x400,
  C3: 0x4000,
  CODES: 0x4700,
  TOP: 0x3800,
  BUSY: 0x8000,
} as const;
/** Where TOP begins. */
export const TOP_SHIFT = 11;

/** Fields of the control word; 6 always reads as 1, what is above 12 does not exist. */
export const Control = {
  MASKS: 0x3f,
  PRECISION_SHIFT: 8,
  ROUNDING_SHIFT: 10,
  BITS: 0x1f3f,
  ONE: 0x40,
} as const;

/** Rounding control. */
export const Rounding = { NEAREST: 0, DOWN: 1, UP: 2, ZERO: 3 } as const;

/** What is raised before a result is worked out: unmasked, it leaves the operands as they are. */
export const BEFORE: number = Flag.IE | Flag.DE | Flag.ZE;

/** Exponent of infinities and NaNs, and all of its bits. */
export const EXPONENT = 0x7fff;
export const SIGN = 0x8000;
/** Exponent of 1. */
export const BIAS = 0x3fff;
/** What unmasked overflow takes from the exponent, and unmasked underflow adds to it. */
export const WRAP = 24576;

/** The integer bit, and the bit that tells quiet NaNs from signalling ones. */
export const INTEGER_BIT: bigint = 1n << 63n;
export const QUIET_BIT: bigint = 1n << 62n;
/** The real indefinite: a negative quiet NaN. */
export const INDEFINITE: { readonly significand: bigint; readonly word: number } = {
  significand: INTEGER_BIT | QUIET_BIT,
  word: 0xffff,
};

/** An 80-bit real in the code of a function. */
export interface Real {
  /** Significand. */
  readonly significand: I64;
  /** Sign and exponent; bits 31:16 are 0. */
  readonly word: I32;
}

/** Exponent of a real. */
export function exponentOf({ word }: Real): I32 {
  return word.and(EXPONENT);
}

/** 1 if negative. */
export function signOf({ word }: Real): I32 {
  return word.shrU(15).and(1);
}

/** 1 for a NaN: only with the integer bit, for without it the number is unsupported. */
export function isNan(real: Real): I32 {
  const { significand } = real;
  return exponentOf(real).eq(EXPONENT).and(significand.gtU(INTEGER_BIT));
}

/** 1 for a signalling NaN. */
export function isSignalling(real: Real): I32 {
  return isNan(real).and(real.significand.and(QUIET_BIT).eqz());
}

/** 1 for an infinity. */
export function isInfinity(real: Real): I32 {
  return exponentOf(real).eq(EXPONENT).and(real.significand.eq(INTEGER_BIT));
}

/** 1 for what the 80287 still knew: unnormals, pseudo-infinities and pseudo-NaNs. */
export function isUnsupported(real: Real): I32 {
  return exponentOf(real).ne(0).and(real.significand.geS(0));
}

/** 1 for a zero. */
export function isZero({ word, significand }: Real): I32 {
  return word.and(EXPONENT).eqz().and(significand.eqz());
}

/** 1 for denormals and pseudo-denormals. */
export function isDenormal({ word, significand }: Real): I32 {
  return word.and(EXPONENT).eqz().and(significand.ne(0));
}

/** 1 for a real that is nothing of that kind: finite, not 0, with its integer bit. */
export function isNormal(real: Real): I32 {
  return exponentOf(real).sub(1).ltU(EXPONENT - 1).and(real.significand.ltS(0));
}

/** Returns a real with exceptions. */
export function returnReal(
  f: FunctionBuilder,
  significand: I64,
  word: I32 | number,
  flags: I32 | number = 0,
): void {
  const high = typeof flags === "number" ? i32(flags) : flags;
  const low = typeof word === "number" ? i32(word) : word;
  S.fpuSecond.set(f, high.extendU().shl(32).or(low.extendU()));
  f.return(significand);
}

/** What a function has left besides the value it returned. */
export interface RealResult extends Real {
  /** Exceptions, and C1. */
  readonly flags: I32;
}

/** The real that a call has just returned. */
export function resultOf(f: FunctionBuilder, significand: I64): RealResult {
  const second = S.fpuSecond.get(f);
  return { significand, word: second.wrap().and(0xffff), flags: second.shrU(32).wrap() };
}
