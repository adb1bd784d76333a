/**
 * FPREM, FPREM1, FRNDINT, FSCALE and FXTRACT (SDM vol. 2A).
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
  type I64,
  i64,
  I64T,
  type ModuleBuilder,
} from "../wasm/mod.ts";
import { denormalFlag, unpack } from "./arithmetic.ts";
import type { Convert } from "./convert.ts";
import {
  BIAS,
  EXPONENT,
  exponentOf,
  Flag,
  INDEFINITE,
  INTEGER_BIT,
  isInfinity,
  isZero,
  type Real,
  returnReal,
  signOf,
  Status,
} from "./format.ts";
import { defineBinary, defineUnary, indefinite, isOdd, type Nan } from "./nan.ts";
import { type Round, Step } from "./round.ts";

/** Those operations, on reals. */
export interface Remainder {
  /** `(a, b, nearest)`: what is left of `a`; the condition codes stand among the flags. */
  readonly remainder: Fn<readonly [L, I, L, I, I], L>;
  /** `(a)`: rounded to an integer. */
  readonly roundToInteger: Fn<readonly [L, I], L>;
  /** `(a, b)`: a × 2^b, b truncated. */
  readonly scale: Fn<readonly [L, I, L, I], L>;
  /** `(a)`: the significand as a number from 1 to 2. */
  readonly fractionOf: Fn<readonly [L, I], L>;
  /** `(a)`: the exponent as a number. */
  readonly exponentPart: Fn<readonly [L, I], L>;
}

/** Exponents further apart than this are reduced in several steps. */
const FULL_REDUCTION = 64;
/** Scales beyond this overflow or underflow whatever is scaled. */
const GREATEST_SCALE = 0x1_0000;

/** Defines them. */
export function defineRemainder(
  module: ModuleBuilder,
  nan: Nan,
  { round }: Round,
  { fromInteger, magnitude }: Convert,
): Remainder {
  const invalid = (f: FunctionBuilder): void =>
    returnReal(f, indefinite(), INDEFINITE.word, Flag.IE);
  /** Rounds to 64 bits, whatever the precision control says, and returns with `flags` besides. */
  const finish = (
    f: FunctionBuilder,
    flags: I32,
    sign: I32,
    exponent: I32,
    significand: I64,
  ): void => {
    const control = S.fpuControl.get(f);
    const result = f.call(round, sign, exponent, significand, 0, 0, EXPONENT, control);
    S.fpuSecond.set(f, S.fpuSecond.get(f).or(flags.extendU().shl(32)));
    f.return(result);
  };

  const remainder = module.define(
    "x87.remainder",
    [I64T, I32T, I64T, I32T, I32T],
    I64T,
    (f, significandA, wordA, significandB, wordB, nearest) => {
      const a: Real = { significand: significandA, word: wordA };
      const b: Real = { significand: significandB, word: wordB };
      f.if(isOdd(a).or(isOdd(b)), () => {
        f.return(f.call(nan.propagate, significandA, wordA, significandB, wordB));
      });
      f.if(isInfinity(a).or(isZero(b)), () => invalid(f));
      const flags = f.variable(I32T, denormalFlag(a, b));
      f.if(isZero(a), () => returnReal(f, significandA, wordA, flags.get()));
      const dividend = unpack(f, a);
      f.if(isInfinity(b), () => {
        finish(f, flags.get(), signOf(a), dividend.exponent.get(), dividend.significand.get());
      });
      const divisor = unpack(f, b);
      const distance = dividend.exponent.get().sub(divisor.exponent.get());
      const by = divisor.significand.get();
      const rest = f.variable(I64T, dividend.significand.get());
      const exponent = f.variable(I32T, dividend.exponent.get());
      const sign = f.variable(I32T, signOf(a));
      const quotient = f.variable(I64T, 0);

      f.if(distance.geS(0), () => {
        const partial = distance.geS(FULL_REDUCTION);
        // So many bits of the quotient are taken at a time.
        const bits = partial.select(distance.and(31).or(32), distance);
        const left = f.variable(I32T, bits);
        const over = f.variable(I64T, 0);
        f.loop((again) => {
          const fits = over.get().or(rest.get().geU(by).extendU());
          rest.set(rest.get().sub(fits.ne(0).select(by, i64(0))));
          quotient.set(quotient.get().shl(1).or(fits));
          f.if(left.get(), () => {
            over.set(rest.get().shrU(63));
            rest.set(rest.get().shl(1));
            left.set(left.get().sub(1));
            f.branch(again);
          });
        });
        exponent.set(dividend.exponent.get().sub(bits));
        f.if(partial, () => flags.set(flags.get().or(Status.C2)));
      });
      const complete = flags.get().and(Status.C2).eqz();
      f.if(nearest.and(complete), () => {
        // Above half of the divisor the next multiple is nearer; at half of it the even one is taken.
        f.if(distance.geS(0), () => {
          const other = by.sub(rest.get());
          const tie = rest.get().eq(other).and(quotient.get().wrap().and(1));
          f.if(rest.get().gtU(other).or(tie), () => {
            rest.set(other);
            sign.set(sign.get().xor(1));
            quotient.set(quotient.get().add(1));
          });
        });
        f.if(distance.eq(-1).and(rest.get().gtU(by)), () => {
          rest.set(by.sub(rest.get().sub(by)));
          sign.set(sign.get().xor(1));
          quotient.set(i64(1));
        });
      });
      f.if(complete, () => {
        const q = quotient.get().wrap();
        const codes = q.and(4).mul(Status.C0 / 4).or(q.and(2).mul(Status.C3 / 2))
          .or(q.and(1).mul(Status.C1));
        flags.set(flags.get().or(codes));
      });
      f.if(rest.get().eqz(), () => returnReal(f, i64(0), signOf(a).shl(15), flags.get()));
      const lead = rest.get().clz();
      finish(
        f,
        flags.get(),
        sign.get(),
        exponent.get().sub(lead.wrap()),
        rest.get().shl(lead),
      );
    },
  );

  const roundToInteger = defineUnary(module, "x87.roundToInteger", nan, (f, a) => {
    f.if(exponentOf(a).geU(BIAS + 63).or(isZero(a)), () => returnReal(f, a.significand, a.word));
    const value = f.call(magnitude, a.significand, a.word, S.fpuControl.get(f));
    const told = S.fpuSecond.get(f).wrap();
    const inexact = told.and(Step.INEXACT).mul(Flag.PE).or(
      told.and(Step.UP).mul(Flag.C1 / Step.UP),
    );
    const flags = inexact.or(denormalFlag(a));
    const result = f.call(fromInteger, value);
    const exponent = S.fpuSecond.get(f).wrap();
    returnReal(f, result, exponent.or(signOf(a).shl(15)), flags);
  });

  const scale = defineBinary(module, "x87.scale", nan, (f, a, b) => {
    const flags = denormalFlag(a, b);
    f.if(isInfinity(b), () => {
      f.if(signOf(b), () => {
        f.if(isInfinity(a), () => invalid(f));
        returnReal(f, i64(0), signOf(a).shl(15), flags);
      });
      f.if(isZero(a), () => invalid(f));
      returnReal(f, i64(INTEGER_BIT), signOf(a).shl(15).or(EXPONENT), flags);
    });
    f.if(isInfinity(a).or(isZero(a)), () => returnReal(f, a.significand, a.word, flags));
    const { significand, exponent } = unpack(f, a);
    const beyond = i32(BIAS + 63).sub(exponentOf(b));
    const by = f.choose(
      I32T,
      exponentOf(b).geU(BIAS + 16),
      () => GREATEST_SCALE,
      () => beyond.geS(64).select(i64(0), b.significand.shrU(beyond.extendU())).wrap(),
    );
    const signed = signOf(b).select(i32(0).sub(by), by);
    finish(f, flags, signOf(a), exponent.get().add(signed), significand.get());
  });

  const fractionOf = defineUnary(module, "x87.fractionOf", nan, (f, a) => {
    f.if(isInfinity(a).or(isZero(a)), () => returnReal(f, a.significand, a.word));
    const { significand: normal } = unpack(f, a);
    returnReal(f, normal.get(), signOf(a).shl(15).or(BIAS), denormalFlag(a));
  });

  const exponentPart = defineUnary(module, "x87.exponentPart", nan, (f, a) => {
    f.if(isInfinity(a), () => returnReal(f, a.significand, EXPONENT));
    f.if(isZero(a), () => {
      returnReal(f, i64(INTEGER_BIT), 0x8000 | EXPONENT, Flag.ZE);
    });
    const { exponent } = unpack(f, a);
    const result = f.call(fromInteger, exponent.get().sub(BIAS).extendS());
    const flags = denormalFlag(a).extendU().shl(32);
    S.fpuSecond.set(f, S.fpuSecond.get(f).or(flags));
    f.return(result);
  });

  return { remainder, roundToInteger, scale, fractionOf, exponentPart };
}
