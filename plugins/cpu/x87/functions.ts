/**
 * The instructions of the transcendental functions on the register stack (SDM vol. 1, 8.3.7; vol. 2A).
 *
 * @module
 */
import type { Fn, I, L } from "../microcode/header/signature.ts";
import { S } from "../state/cpu_state.ts";
import { i32, I32T, i64, I64T, type ModuleBuilder } from "../wasm/mod.ts";
import { denormalFlag } from "./arithmetic.ts";
import {
  BEFORE,
  BIAS,
  exponentOf,
  Flag,
  INDEFINITE,
  INTEGER_BIT,
  isInfinity,
  isZero,
  type Real,
  resultOf,
  Status,
} from "./format.ts";
import type { X87Functions } from "./header.ts";
import type { Logarithm } from "./logarithm.ts";
import { indefinite, isOdd, type Nan } from "./nan.ts";
import { account, unmasked } from "./operations.ts";
import { isEmpty, moveTop, physical, pop, readRegister, top, writeRegister } from "./stack.ts";
import { Trigonometric } from "./trigonometry.ts";

/** Functions of two operands: the result goes to ST1, and ST0 is popped. */
export const OfTwo = { LOGARITHM: 0, LOGARITHM_OF_ONE_MORE: 1, ARCTANGENT: 2 } as const;

/** FSINCOS, besides those of {@linkcode Trigonometric}. */
export const SINE_AND_COSINE = 3;

const UNDERFLOW: number = Flag.IE | Flag.SF;
const OVERFLOW: number = Flag.IE | Flag.SF | Flag.C1;
/** Exponent of 2^63, from which on arguments are out of range. */
const OUT_OF_RANGE = BIAS + 63;

/** Gives the instructions their bodies. */
export function defineFunctions(
  module: ModuleBuilder,
  x87: X87Functions,
  nan: Nan,
  trigonometric: Fn<readonly [I, L, I], L>,
  arctangent: Fn<readonly [L, I, L, I], L>,
  { logarithm, logarithmOfOneMore, powerLessOne }: Logarithm,
): void {
  module.body(x87.operateOnTwo, (f, operation) => {
    const own = top(f);
    const other = physical(f, 1);
    const empty = isEmpty(f, own).or(isEmpty(f, other));
    const x = readRegister(f, own);
    const y = readRegister(f, other);
    const result = f.variable(I64T, 0);
    f.if(empty, () => {
      S.fpuSecond.set(f, (BigInt(UNDERFLOW) << 32n) | BigInt(INDEFINITE.word));
      result.set(indefinite());
    }, () => {
      const apply = (ref: Fn<readonly [L, I, L, I], L>) => (): void =>
        result.set(f.call(ref, y.significand, y.word, x.significand, x.word));
      f.switch(
        operation,
        [apply(logarithm), apply(logarithmOfOneMore), apply(arctangent)],
        () => f.unreachable(),
      );
    }, "unlikely");
    const { significand, word, flags } = resultOf(f, result.get());
    f.if(
      unmasked(f, flags, BEFORE),
      () => account(f, flags.and(BEFORE | Flag.SF)),
      () => {
        account(f, flags);
        writeRegister(f, other, significand, word);
        pop(f);
      },
      "unlikely",
    );
  });

  module.body(x87.power, (f) => {
    const own = top(f);
    const x = readRegister(f, own);
    const result = f.variable(I64T, indefinite());
    f.if(
      isEmpty(f, own),
      () => {
        S.fpuSecond.set(f, (BigInt(UNDERFLOW) << 32n) | BigInt(INDEFINITE.word));
      },
      () => result.set(f.call(powerLessOne, x.significand, x.word)),
      "unlikely",
    );
    const { significand, word, flags } = resultOf(f, result.get());
    f.if(
      unmasked(f, flags, BEFORE),
      () => account(f, flags.and(BEFORE | Flag.SF)),
      () => {
        account(f, flags);
        writeRegister(f, own, significand, word);
      },
      "unlikely",
    );
  });

  /** `(function, significand, word)`: of any argument below 2^63, with what is exact and what is none. */
  const valueOf = module.define(
    "x87.trigonometricOf",
    [I32T, I64T, I32T],
    I64T,
    (f, which, significand, word) => {
      const x: Real = { significand, word };
      f.if(isOdd(x), () => f.return(f.call(nan.quiet, significand, word)));
      f.if(isInfinity(x), () => {
        S.fpuSecond.set(f, (BigInt(Flag.IE) << 32n) | BigInt(INDEFINITE.word));
        f.return(indefinite());
      });
      f.if(isZero(x), () => {
        const cosine = which.eq(Trigonometric.COSINE);
        S.fpuSecond.set(f, cosine.select(i32(BIAS), word).extendU());
        f.return(cosine.select(i64(INTEGER_BIT), significand));
      });
      f.return(f.call(trigonometric, which, significand, word));
    },
  );

  module.body(x87.trigonometric, (f, which) => {
    const own = top(f);
    const above = physical(f, 7);
    const pushes = which.geU(Trigonometric.TANGENT);
    const x = readRegister(f, own);
    S.fpuStatus.clear(f, Status.C2);

    const underflow = isEmpty(f, own);
    f.if(
      underflow.or(pushes.and(isEmpty(f, above).eqz())),
      () => {
        const flags = underflow.select(i32(UNDERFLOW), i32(OVERFLOW));
        account(f, flags);
        f.if(unmasked(f, flags, Flag.IE).eqz(), () => {
          writeRegister(f, own, indefinite(), i32(INDEFINITE.word));
          f.if(pushes, () => {
            moveTop(f, 7);
            writeRegister(f, above, indefinite(), i32(INDEFINITE.word));
          });
        });
        f.return();
      },
      undefined,
      "unlikely",
    );

    const outOfRange = exponentOf(x).geU(OUT_OF_RANGE).and(isOdd(x).or(isInfinity(x)).eqz());
    f.if(
      outOfRange,
      () => {
        account(f, i32(Status.C2));
        f.return();
      },
      undefined,
      "unlikely",
    );

    const both = which.eq(SINE_AND_COSINE);
    const firstOf = both.select(i32(Trigonometric.SINE), which);
    const first = resultOf(f, f.call(valueOf, firstOf, x.significand, x.word));
    const flags = first.flags.or(denormalFlag(x));
    f.if(
      unmasked(f, flags, BEFORE),
      () => {
        account(f, flags.and(BEFORE));
        f.return();
      },
      undefined,
      "unlikely",
    );
    f.if(pushes.eqz(), () => {
      account(f, flags);
      writeRegister(f, own, first.significand, first.word);
      f.return();
    });
    const nanResult = isOdd({ significand: first.significand, word: first.word });
    const second = f.variable(I64T, first.significand);
    const secondWord = f.variable(I64T, first.word.extendU());
    const secondFlags = f.variable(I64T, 0);
    f.if(both, () => {
      const found = resultOf(
        f,
        f.call(valueOf, Trigonometric.COSINE, x.significand, x.word),
      );
      second.set(found.significand);
      secondWord.set(found.word.extendU());
      secondFlags.set(found.flags.extendU());
    }, () => {
      // FPTAN pushes 1, or its NaN once more.
      f.if(nanResult.eqz(), () => {
        second.set(i64(INTEGER_BIT));
        secondWord.set(BIAS);
      });
    });
    account(f, flags.or(secondFlags.get().wrap()));
    writeRegister(f, own, first.significand, first.word);
    moveTop(f, 7);
    writeRegister(f, above, second.get(), secondWord.get().wrap());
  });
}
