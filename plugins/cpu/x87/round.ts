/**
 * Rounding: from a significand of any length and an exponent of any size to a real of the format
 * (SDM vol. 1, 4.8.4, 4.9.1 and 8.5).
 *
 * Tininess is detected after rounding, as both vendors do.
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
import { Control, EXPONENT, Flag, INTEGER_BIT, returnReal, Rounding, WRAP } from "./format.ts";
import { pairOf, returnPair, type Wide } from "./wide.ts";

/** What a significand is rounded to. */
export interface Target {
  /** Bits of the significand that are given up: 0, 11 or 40. */
  readonly discard: I32;
  /** Exponent of infinity: 7FFFh, 7FFh or FFh. */
  readonly top: I32;
}

/** Bits given up for single and double precision. */
export const DISCARD = { SINGLE: 40, DOUBLE: 11 } as const;

/** What of a control word decides on rounding: precision and rounding control. */
const ROUNDING_MODE: number = 3 << Control.PRECISION_SHIFT | 3 << Control.ROUNDING_SHIFT;
/** 64 bits, to nearest. */
const USUAL_MODE: number = 3 << Control.PRECISION_SHIFT;

/** Rounding functions. */
export interface Round {
  /**
   * `(sign, exponent, high, low, discard, top, control)`: the real nearest to `high`.`low`, whose bit 63 of
   * `high` is set, as the control word says. Subnormal results have exponent 0.
   */
  readonly round: Fn<readonly [I, I, L, L, I, I, I], L>;
  /** `(sign, high, low, discard, control)`: the significand; the second result is a `Step`. */
  readonly step: Fn<readonly [I, L, L, I, I], L>;
  /** `(sign, exponent, high, low)`: the same to the precision that the control word asks for. */
  readonly roundResult: Fn<readonly [I, I, L, L], L>;
}

/** What a rounding step tells besides the significand. */
export const Step = {
  /** It was not exact. */
  INEXACT: 1,
  /** It went away from 0. */
  UP: 2,
  /** It went beyond 64 bits: the significand is 0 and stands for 2^64. */
  CARRY: 4,
} as const;

/** Rounding control of a control word. */
export function roundingOf(control: I32): I32 {
  return control.shrU(Control.ROUNDING_SHIFT).and(3);
}

/** 1 if rounding goes away from 0 (for what is not exact and no tie). */
function away(sign: I32, rounding: I32): I32 {
  const up = rounding.eq(Rounding.UP).and(sign.eqz());
  return rounding.eq(Rounding.DOWN).and(sign).or(up);
}

/** Bits given up under the precision control of `control`; the reserved value is as 64 bits. */
function discardOf(f: FunctionBuilder, control: I32): I32 {
  const precision = control.shrU(Control.PRECISION_SHIFT).and(3);
  return f.choose(I32T, precision.eq(3), () => 0, () =>
    precision.eq(2).select(
      i32(DISCARD.DOUBLE),
      precision.eqz().select(i32(DISCARD.SINGLE), i32(0)),
    ), "likely");
}

/** Defines them. */
export function defineRound(module: ModuleBuilder, wide: Wide): Round {
  const step = module.define(
    "x87.roundStep",
    [I32T, I64T, I64T, I32T, I32T],
    I64T,
    (f, sign, high, low, discard, control) => {
      const count = discard.extendU();
      const unit = i64(1).shl(count);
      const kept = high.and(i64(0).sub(unit));
      // What is given up, with its first bit in bit 63.
      const tail = f.choose(
        I64T,
        discard,
        () => high.shl(i64(64).sub(count)).or(low.ne(0).extendU()),
        () => low,
      );
      const rounding = roundingOf(control);
      const tie = tail.eq(INTEGER_BIT).and(kept.and(unit).ne(0));
      const nearest = rounding.eqz().and(tail.gtU(INTEGER_BIT).or(tie));
      const up = tail.ne(0).and(nearest.or(away(sign, rounding)));
      const sum = kept.add(up.select(unit, i64(0)));
      const carry = up.and(sum.eqz());
      const told = tail.ne(0).or(up.mul(Step.UP)).or(carry.mul(Step.CARRY));
      returnPair(f, sum, told.extendU());
    },
  );

  const round = module.define(
    "x87.round",
    [I32T, I32T, I64T, I64T, I32T, I32T, I32T],
    I64T,
    (f, sign, exponent, high, low, discard, top, control) => {
      const call = (h: I64, l: I64): { significand: I64; told: I32 } => {
        const { high: significand, low: told } = pairOf(
          f,
          f.call(step, sign, h, l, discard, control),
        );
        return { significand, told: told.wrap() };
      };
      const signWord = sign.shl(15);
      const inexact = (told: I32): I32 =>
        told.and(Step.INEXACT).mul(Flag.PE).or(told.and(Step.UP).mul(Flag.C1 / Step.UP));
      const first = call(high, low);
      const carried = first.told.and(Step.CARRY).ne(0);
      const significand = carried.select(i64(INTEGER_BIT), first.significand);
      const result = exponent.add(carried);
      f.if(
        result.sub(1).ltU(top.sub(1)),
        () => {
          returnReal(f, significand, signWord.or(result), inexact(first.told));
        },
        undefined,
        "likely",
      );
      f.if(result.leS(0), () => {
        f.if(control.and(Flag.UE).eqz(), () => {
          // FSCALE can leave what not even that brings back.
          f.if(result.leS(-WRAP), () => returnReal(f, i64(0), signWord, Flag.UE | Flag.PE));
          const word = signWord.or(result.add(WRAP));
          returnReal(f, significand, word, inexact(first.told).or(Flag.UE));
        });
        const shift = i32(1).sub(exponent).extendU();
        const small = pairOf(f, f.call(wide.shiftRight, high, low, shift));
        const second = call(small.high, small.low);
        const flags = inexact(second.told).or(second.told.and(Step.INEXACT).mul(Flag.UE));
        const normal = second.significand.shrU(63).wrap();
        returnReal(f, second.significand, signWord.or(normal), flags);
      });
      f.if(control.and(Flag.OE).eqz(), () => {
        f.if(result.geS(top.add(WRAP)), () => {
          returnReal(f, i64(INTEGER_BIT), signWord.or(top), Flag.OE | Flag.PE | Flag.C1);
        });
        const word = signWord.or(result.sub(WRAP));
        returnReal(f, significand, word, inexact(first.told).or(Flag.OE));
      });
      const rounding = roundingOf(control);
      const infinite = rounding.eqz().or(away(sign, rounding));
      const greatest = i64(-1).shl(discard.extendU());
      returnReal(
        f,
        infinite.select(i64(INTEGER_BIT), greatest),
        signWord.or(top.sub(infinite.eqz())),
        infinite.mul(Flag.C1).or(Flag.OE | Flag.PE),
      );
    },
  );

  const roundResult = module.define(
    "x87.roundResult",
    [I32T, I32T, I64T, I64T],
    I64T,
    (f, sign, exponent, high, low) => {
      const control = S.fpuControl.get(f);
      // To nearest with 64 bits, and neither too great nor too small: most results.
      const usual = control.and(ROUNDING_MODE).eq(USUAL_MODE)
        .and(exponent.sub(1).ltU(EXPONENT - 2));
      f.if(
        usual,
        () => {
          const up = low.gtU(INTEGER_BIT)
            .or(low.eq(INTEGER_BIT).and(high.wrap().and(1)));
          const sum = high.add(up.extendU());
          const carry = sum.eqz();
          const flags = low.ne(0).mul(Flag.PE).or(up.mul(Flag.C1));
          const word = sign.shl(15).or(exponent.add(carry));
          returnReal(f, carry.select(i64(INTEGER_BIT), sum), word, flags);
        },
        undefined,
        "likely",
      );
      f.return(
        f.call(round, sign, exponent, high, low, discardOf(f, control), EXPONENT, control),
      );
    },
  );

  return { round, step, roundResult };
}
