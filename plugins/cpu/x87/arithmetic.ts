/**
 * Addition, multiplication, division and square root (SDM vol. 1, 8.3.3 and 8.5).
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
  type Variable,
} from "../wasm/mod.ts";
import {
  BIAS,
  EXPONENT,
  exponentOf,
  Flag,
  INDEFINITE,
  INTEGER_BIT,
  isDenormal,
  isInfinity,
  isNormal,
  isZero,
  type Real,
  returnReal,
  Rounding,
  signOf,
} from "./format.ts";
import { indefinite, isOdd, type Nan } from "./nan.ts";
import { type Round, roundingOf } from "./round.ts";
import { pairOf, type Wide } from "./wide.ts";

/** Arithmetic on reals; the control word is that of the state. */
export interface Arithmetic {
  /**
   * `(a, b, flip, flags)`: the sum, or with `flip` of 8000h the difference; `flags` are what the conversion
   * of an operand has raised.
   */
  readonly add: Fn<readonly [L, I, L, I, I, I], L>;
  /** `(a, b, flags)`: the product. */
  readonly multiply: Fn<readonly [L, I, L, I, I], L>;
  /** `(a, b, flags)`: the quotient. */
  readonly divide: Fn<readonly [L, I, L, I, I], L>;
  /** `(a)`: the square root. */
  readonly squareRoot: Fn<readonly [L, I], L>;
}

/** Exponent of a zero operand of an addition: less than that of any other operand. */
const FAR_BELOW = -0x8000;

/** A finite operand with its significand normalized and its exponent as far down as that takes it. */
interface Unpacked {
  readonly significand: Variable<I64>;
  readonly exponent: Variable<I32>;
}

/** Takes a finite operand apart; denormals are normalized. */
export function unpack(f: FunctionBuilder, real: Real): Unpacked {
  const significand = f.variable(I64T, real.significand);
  const exponent = f.variable(I32T, exponentOf(real));
  f.if(
    exponent.get().eqz(),
    () => {
      const shift = real.significand.clz();
      exponent.set(i32(1).sub(shift.wrap()));
      significand.set(real.significand.shl(shift));
    },
    undefined,
    "unlikely",
  );
  return { significand, exponent };
}

/** Flag DE if one of `reals` is a denormal. */
export function denormalFlag(...reals: readonly Real[]): I32 {
  return reals.map(isDenormal).reduce((a, b) => a.or(b)).mul(Flag.DE);
}

/** Defines them. */
export function defineArithmetic(
  module: ModuleBuilder,
  wide: Wide,
  nan: Nan,
  { roundResult }: Round,
): Arithmetic {
  const invalid = (f: FunctionBuilder): void =>
    returnReal(f, indefinite(), INDEFINITE.word, Flag.IE);
  const infinity = (f: FunctionBuilder, sign: I32, flags: I32): void =>
    returnReal(f, i64(INTEGER_BIT), sign.shl(15).or(EXPONENT), flags);
  const zero = (f: FunctionBuilder, sign: I32, flags: I32): void =>
    returnReal(f, i64(0), sign.shl(15), flags);
  /** Rounds and returns, with `flags` besides. */
  const finish = (
    f: FunctionBuilder,
    flags: I32,
    sign: I32,
    exponent: I32,
    high: I64,
    low: I64,
  ): void => {
    const significand = f.call(roundResult, sign, exponent, high, low);
    f.if(
      flags,
      () => {
        S.fpuSecond.set(f, S.fpuSecond.get(f).or(flags.extendU().shl(32)));
      },
      undefined,
      "unlikely",
    );
    f.return(significand);
  };

  const add = module.define(
    "x87.add",
    [I64T, I32T, I64T, I32T, I32T, I32T],
    I64T,
    (f, significandA, wordA, significandB, wordB, flip, given) => {
      const a: Real = { significand: significandA, word: wordA };
      const b: Real = { significand: significandB, word: wordB };
      const signA = signOf(a);
      const signB = wordB.xor(flip).shrU(15);
      const flags = f.variable(I32T, given);
      f.if(
        isNormal(a).and(isNormal(b)).eqz(),
        () => {
          f.if(isOdd(a).or(isOdd(b)), () => {
            f.return(f.call(nan.propagate, significandA, wordA, significandB, wordB));
          });
          flags.set(given.or(denormalFlag(a, b)));
          f.if(isInfinity(a), () => {
            f.if(isInfinity(b).and(signA.ne(signB)), () => invalid(f));
            infinity(f, signA, flags.get());
          });
          f.if(isInfinity(b), () => infinity(f, signB, flags.get()));
          f.if(isZero(a).and(isZero(b)), () => {
            const down = roundingOf(S.fpuControl.get(f)).eq(Rounding.DOWN);
            zero(f, signA.eq(signB).select(signA, down), flags.get());
          });
        },
        undefined,
        "unlikely",
      );

      const left = unpack(f, a);
      const right = unpack(f, b);
      f.if(isZero(a), () => left.exponent.set(FAR_BELOW), undefined, "unlikely");
      f.if(isZero(b), () => right.exponent.set(FAR_BELOW), undefined, "unlikely");
      const difference = left.exponent.get().sub(right.exponent.get());
      const smaller = difference.ltS(0).or(
        difference.eqz().and(left.significand.get().ltU(right.significand.get())),
      );
      const sign = smaller.select(signB, signA);
      const big = smaller.select(right.significand.get(), left.significand.get());
      const small = smaller.select(left.significand.get(), right.significand.get());
      const exponent = smaller.select(right.exponent.get(), left.exponent.get());
      const distance = difference.ltS(0).select(i32(0).sub(difference), difference);
      // Nothing falls out of 128 bits until the distance is greater than 64.
      const count = distance.extendU();
      const shiftedHigh = f.variable(I64T, small.shrU(count));
      const shiftedLow = f.variable(
        I64T,
        count.eqz().select(i64(0), small.shl(i64(0).sub(count))),
      );
      f.if(
        distance.geU(64),
        () => {
          const far = pairOf(f, f.call(wide.shiftRight, small, 0, count));
          shiftedHigh.set(far.high);
          shiftedLow.set(far.low);
        },
        undefined,
        "unlikely",
      );
      const shifted = { high: shiftedHigh.get(), low: shiftedLow.get() };
      f.if(signA.eq(signB), () => {
        const sum = big.add(shifted.high);
        f.if(sum.ltU(big), () => {
          const low = sum.shl(63).or(shifted.low.shrU(1)).or(shifted.low.and(1));
          finish(f, flags.get(), sign, exponent.add(1), sum.shrU(1).or(INTEGER_BIT), low);
        });
        finish(f, flags.get(), sign, exponent, sum, shifted.low);
      });
      const low = i64(0).sub(shifted.low);
      const high = big.sub(shifted.high).sub(shifted.low.ne(0).extendU());
      f.if(high.or(low).eqz(), () => {
        zero(f, roundingOf(S.fpuControl.get(f)).eq(Rounding.DOWN), flags.get());
      });
      // Without a high half the operands were next to each other and little is left of the low one.
      f.if(high.eqz(), () => {
        const lead = low.clz();
        finish(f, flags.get(), sign, exponent.sub(64).sub(lead.wrap()), low.shl(lead), i64(0));
      });
      const lead = high.clz().wrap();
      const normal = pairOf(f, f.call(wide.shiftLeft, high, low, lead));
      finish(f, flags.get(), sign, exponent.sub(lead), normal.high, normal.low);
    },
  );

  const multiply = module.define(
    "x87.multiply",
    [I64T, I32T, I64T, I32T, I32T],
    I64T,
    (f, significandA, wordA, significandB, wordB, given) => {
      const a: Real = { significand: significandA, word: wordA };
      const b: Real = { significand: significandB, word: wordB };
      const sign = signOf(a).xor(signOf(b));
      const flags = f.variable(I32T, given);
      f.if(
        isNormal(a).and(isNormal(b)).eqz(),
        () => {
          f.if(isOdd(a).or(isOdd(b)), () => {
            f.return(f.call(nan.propagate, significandA, wordA, significandB, wordB));
          });
          f.if(isInfinity(a).or(isInfinity(b)), () => {
            f.if(isZero(a).or(isZero(b)), () => invalid(f));
            infinity(f, sign, given.or(denormalFlag(a, b)));
          });
          flags.set(given.or(denormalFlag(a, b)));
          f.if(isZero(a).or(isZero(b)), () => zero(f, sign, flags.get()));
        },
        undefined,
        "unlikely",
      );
      const left = unpack(f, a);
      const right = unpack(f, b);
      const product = pairOf(
        f,
        f.call(wide.multiply, left.significand.get(), right.significand.get()),
      );
      const exponent = left.exponent.get().add(right.exponent.get()).sub(BIAS - 1);
      f.if(product.high.ltS(0), () => {
        finish(f, flags.get(), sign, exponent, product.high, product.low);
      });
      const high = product.high.shl(1).or(product.low.shrU(63));
      finish(f, flags.get(), sign, exponent.sub(1), high, product.low.shl(1));
    },
  );

  const divide = module.define(
    "x87.divide",
    [I64T, I32T, I64T, I32T, I32T],
    I64T,
    (f, significandA, wordA, significandB, wordB, given) => {
      const a: Real = { significand: significandA, word: wordA };
      const b: Real = { significand: significandB, word: wordB };
      const sign = signOf(a).xor(signOf(b));
      const flags = f.variable(I32T, given);
      f.if(
        isNormal(a).and(isNormal(b)).eqz(),
        () => {
          f.if(isOdd(a).or(isOdd(b)), () => {
            f.return(f.call(nan.propagate, significandA, wordA, significandB, wordB));
          });
          flags.set(given.or(denormalFlag(a, b)));
          f.if(isInfinity(a), () => {
            f.if(isInfinity(b), () => invalid(f));
            infinity(f, sign, flags.get());
          });
          f.if(isInfinity(b), () => zero(f, sign, flags.get()));
          f.if(isZero(b), () => {
            f.if(isZero(a), () => invalid(f));
            infinity(f, sign, i32(Flag.ZE));
          });
          f.if(isZero(a), () => zero(f, sign, flags.get()));
        },
        undefined,
        "unlikely",
      );
      const left = unpack(f, a);
      const right = unpack(f, b);
      const dividend = left.significand.get();
      const divisor = right.significand.get();
      // The dividend is made smaller than the divisor, so that the quotient has 64 bits.
      const whole = dividend.geU(divisor);
      const high = dividend.shrU(whole.extendU());
      const low = whole.select(dividend.shl(63), i64(0));
      const quotient = pairOf(f, f.call(wide.divide, high, low, divisor));
      const rest = quotient.low;
      const half = rest.geU(divisor.sub(rest));
      const beyond = rest.sub(half.select(divisor.sub(rest), i64(0)));
      const tail = half.extendU().shl(63).or(beyond.ne(0).extendU());
      const exponent = left.exponent.get().sub(right.exponent.get()).add(BIAS - 1).add(whole);
      finish(f, flags.get(), sign, exponent, quotient.high, tail);
    },
  );

  const squareRoot = module.define(
    "x87.squareRoot",
    [I64T, I32T],
    I64T,
    (f, significand, word) => {
      const a: Real = { significand, word };
      f.if(
        isNormal(a).eqz(),
        () => {
          f.if(isOdd(a), () => f.return(f.call(nan.quiet, significand, word)));
          f.if(isZero(a), () => returnReal(f, significand, word));
        },
        undefined,
        "unlikely",
      );
      f.if(signOf(a), () => invalid(f));
      f.if(isInfinity(a), () => returnReal(f, significand, word));
      const { significand: normal, exponent } = unpack(f, a);
      // Significand × 2^63 or × 2^64, whichever leaves an even exponent: its root has 64 bits.
      const odd = exponent.get().sub(BIAS).and(1);
      const high = f.variable(I64T, odd.select(normal.get(), normal.get().shrU(1)));
      const low = f.variable(I64T, odd.select(i64(0), normal.get().shl(63)));
      // Bit by bit: the remainder, two more bits of the radicand, and what four times the root and one
      // takes from that. The remainder never has more than 66 bits.
      const root = f.variable(I64T, 0);
      const restHigh = f.variable(I64T, 0);
      const rest = f.variable(I64T, 0);
      const bring = (): void => {
        restHigh.set(restHigh.get().shl(2).or(rest.get().shrU(62)));
        rest.set(rest.get().shl(2).or(high.get().shrU(62)));
        high.set(high.get().shl(2).or(low.get().shrU(62)));
        low.set(low.get().shl(2));
      };
      const count = f.variable(I32T, 64);
      f.while(() => count.get(), () => {
        bring();
        const trial = root.get().shl(2).or(1);
        const trialHigh = root.get().shrU(62);
        const fits = restHigh.get().gtU(trialHigh).or(
          restHigh.get().eq(trialHigh).and(rest.get().geU(trial)),
        );
        root.set(root.get().shl(1).or(fits.extendU()));
        f.if(fits, () => {
          const borrow = rest.get().ltU(trial).extendU();
          restHigh.set(restHigh.get().sub(trialHigh).sub(borrow));
          rest.set(rest.get().sub(trial));
        });
        count.set(count.get().sub(1));
      });
      // A root is never half way between two numbers: it lies above if the remainder exceeds the root.
      const half = restHigh.get().ne(0).or(rest.get().gtU(root.get()));
      const some = restHigh.get().or(rest.get()).ne(0);
      const tail = half.extendU().shl(63).or(some.extendU());
      const result = exponent.get().sub(BIAS).sub(odd).shrS(1).add(BIAS);
      finish(f, denormalFlag(a), i32(0), result, root.get(), tail);
    },
  );

  return { add, multiply, divide, squareRoot };
}
