/**
 * What the instructions on the register stack do: operands and faults of the stack, the operation, and
 * what becomes of its result and exceptions (SDM vol. 1, 8.1.3, 8.4 and 8.5).
 *
 * @module
 */
import type { X87Routines } from "./header.ts";
import type { Fn, I, L } from "../microcode/header/signature.ts";
import { Rflags } from "../microcode/registers.ts";
import { S } from "../state/cpu_state.ts";
import {
  type FunctionBuilder,
  type I32,
  i32,
  I32T,
  I64T,
  type ModuleBuilder,
} from "../wasm/mod.ts";
import type { Arithmetic } from "./arithmetic.ts";
import { denormalFlag } from "./arithmetic.ts";
import {
  BEFORE,
  EXPONENT,
  exponentOf,
  Flag,
  INDEFINITE,
  isDenormal,
  isNan,
  isSignalling,
  isUnsupported,
  isZero,
  QUIET_BIT,
  type Real,
  type RealResult,
  resultOf,
  SIGN,
  signOf,
  Status,
  TOP_SHIFT,
} from "./format.ts";
import { indefinite } from "./nan.ts";
import type { Remainder } from "./remainder.ts";
import {
  isEmpty,
  moveTop,
  physical,
  pop,
  readRegister,
  setEmpty,
  top,
  writeRegister,
} from "./stack.ts";

/** Arithmetic of two operands, numbered as in ModRM.reg: the destination is the first operand. */
export const Binary = {
  ADD: 0,
  MULTIPLY: 1,
  SUBTRACT: 4,
  SUBTRACT_FROM: 5,
  DIVIDE: 6,
  DIVIDE_BY: 7,
} as const;

/** Instructions on ST0 whose result goes there. */
export const Unary = {
  CHANGE_SIGN: 0,
  ABSOLUTE: 1,
  SQUARE_ROOT: 2,
  ROUND: 3,
  SCALE: 4,
  REMAINDER: 5,
  REMAINDER_NEAREST: 6,
} as const;

/** Stack fault: an operand that is not there, or a push onto a register in use. */
const UNDERFLOW: number = Flag.IE | Flag.SF;
const OVERFLOW: number = Flag.IE | Flag.SF | Flag.C1;
/** Condition codes that a comparison sets. */
const COMPARED: number = Status.C0 | Status.C2 | Status.C3;

/** The status word with its summary as the flags and the masks in `control` say. */
export function summarized(status: I32, control: I32): I32 {
  const unmasked = status.and(control.xor(-1)).and(Status.FLAGS).ne(0);
  const summary = Status.SUMMARY | Status.BUSY;
  return status.and(~summary).or(unmasked.mul(summary));
}

/**
 * Takes `flags` over into the status word, C1 and other codes in `codes` anew. IGNNE# ends with the exception
 * that it was for, which shows in the next.
 */
export function account(f: FunctionBuilder, flags: I32, codes: number = Status.C1): void {
  const old = S.fpuStatus.get(f);
  f.if(
    flags.ne(0).and(old.and(Status.SUMMARY).eqz()),
    () => S.ignoreNumericErrors.set(f, 0),
    undefined,
    "unlikely",
  );
  const status = old.and(~codes).or(flags);
  S.fpuStatus.set(f, summarized(status, S.fpuControl.get(f)));
}

/** 1 if one of `kinds` is among `flags` and not masked. */
export function unmasked(f: FunctionBuilder, flags: I32, kinds: number): I32 {
  return flags.and(S.fpuControl.get(f).xor(-1)).and(kinds).ne(0);
}

/** Defines them. */
export function defineOperations(
  module: ModuleBuilder,
  x87: X87Routines,
  arithmetic: Arithmetic,
  remainder: Remainder,
): void {
  const popTimes = (f: FunctionBuilder, pops: I32): void => {
    const left = f.variable(I32T, pops);
    f.while(() => left.get(), () => {
      pop(f);
      left.set(left.get().sub(1));
    });
  };

  /** `(register, significand, word, flags, pops)`: writes a result, unless an exception forbids. */
  const commit: Fn<readonly [I, L, I, I, I]> = module.define(
    "x87.commit",
    [I32T, I64T, I32T, I32T, I32T],
    undefined,
    (f, register, significand, word, flags, pops) => {
      f.if(
        unmasked(f, flags, BEFORE).eqz(),
        () => {
          account(f, flags);
          writeRegister(f, register, significand, word);
          popTimes(f, pops);
        },
        // What comes with a result is not found, then.
        () => account(f, flags.and(BEFORE | Flag.SF)),
        "likely",
      );
    },
  );
  const commitReal = (
    f: FunctionBuilder,
    register: I32,
    { significand, word, flags }: RealResult,
    pops: I32 | number,
  ): void => f.call(commit, register, significand, word, flags, pops);
  /** An operand was not there. */
  const underflow = (f: FunctionBuilder, register: I32, pops: I32 | number): void =>
    f.call(commit, register, indefinite(), INDEFINITE.word, UNDERFLOW, pops);

  /** `(operation, destination, pops, significand, word, flags)`; the destination by physical number. */
  const compute: Fn<readonly [I, I, I, L, I, I]> = module.define(
    "x87.compute",
    [I32T, I32T, I32T, I64T, I32T, I32T],
    undefined,
    (f, operation, register, pops, significand, word, flags) => {
      const own = readRegister(f, register);
      const result = f.variable(I64T, 0);
      const add = (): void => {
        const flip = operation.eq(Binary.SUBTRACT).mul(SIGN);
        result.set(
          f.call(arithmetic.add, own.significand, own.word, significand, word, flip, flags),
        );
      };
      const multiply = (): void => {
        result.set(
          f.call(arithmetic.multiply, own.significand, own.word, significand, word, flags),
        );
      };
      const subtractFrom = (): void => {
        result.set(
          f.call(arithmetic.add, significand, word, own.significand, own.word, SIGN, flags),
        );
      };
      const divide = (): void => {
        result.set(
          f.call(arithmetic.divide, own.significand, own.word, significand, word, flags),
        );
      };
      const divideBy = (): void => {
        result.set(
          f.call(arithmetic.divide, significand, word, own.significand, own.word, flags),
        );
      };
      const none = (): void => f.unreachable();
      f.switch(operation, [add, multiply, none, none, add, subtractFrom, divide, divideBy], none);
      commitReal(f, register, resultOf(f, result.get()), pops);
    },
  );

  module.body(x87.arithmetic, (f, operation, destination, pops, significand, word, flags) => {
    const register = physical(f, destination);
    f.if(
      isEmpty(f, register),
      () => {
        underflow(f, register, pops);
        f.return();
      },
      undefined,
      "unlikely",
    );
    f.call(compute, operation, register, pops, significand, word, flags);
  });

  module.body(x87.arithmeticStack, (f, operation, destination, source, pops) => {
    const register = physical(f, destination);
    const other = physical(f, source);
    f.if(
      isEmpty(f, register).or(isEmpty(f, other)),
      () => {
        underflow(f, register, pops);
        f.return();
      },
      undefined,
      "unlikely",
    );
    const { significand, word } = readRegister(f, other);
    f.call(compute, operation, register, pops, significand, word, 0);
  });

  // Comparisons.

  /** `(significand, word, significand, word, quiet)`: condition codes and exceptions. */
  const order: Fn<readonly [L, I, L, I, I], I> = module.define(
    "x87.order",
    [I64T, I32T, I64T, I32T, I32T],
    I32T,
    (f, significandA, wordA, significandB, wordB, quiet) => {
      const a: Real = { significand: significandA, word: wordA };
      const b: Real = { significand: significandB, word: wordB };
      const strange = isUnsupported(a).or(isUnsupported(b));
      f.if(
        strange.or(isNan(a)).or(isNan(b)),
        () => {
          const silent = quiet.and(strange.or(isSignalling(a)).or(isSignalling(b)).eqz());
          f.return(silent.eqz().mul(Flag.IE).or(COMPARED));
        },
        undefined,
        "unlikely",
      );
      const flags = denormalFlag(a, b);
      f.if(isZero(a).and(isZero(b)), () => f.return(flags.or(Status.C3)));
      const same = wordA.eq(wordB).and(significandA.eq(significandB));
      f.if(same, () => f.return(flags.or(Status.C3)));
      const signA = signOf(a);
      f.if(signA.ne(signOf(b)), () => f.return(flags.or(signA.mul(Status.C0))));
      // Pseudo-denormals have the exponent of the least normal number.
      const weight = (real: Real): I32 => {
        const exponent = exponentOf(real);
        return exponent.add(exponent.eqz());
      };
      const tie = weight(a).eq(weight(b));
      const equal = tie.and(significandA.eq(significandB));
      f.if(equal, () => f.return(flags.or(Status.C3)));
      const smaller = weight(a).ltU(weight(b)).or(tie.and(significandA.ltU(significandB)));
      f.return(flags.or(smaller.ne(signA).mul(Status.C0)));
    },
  );

  /** Takes the outcome of a comparison over; an exception that is not masked prevents the pop alone. */
  const settle = (f: FunctionBuilder, outcome: I32, pops: I32): void => {
    account(f, outcome, COMPARED | Status.C1);
    f.if(unmasked(f, outcome, BEFORE).eqz(), () => popTimes(f, pops), undefined, "likely");
  };

  module.body(x87.compare, (f, significand, word, flags, pops, quiet) => {
    const register = top(f);
    f.if(
      isEmpty(f, register),
      () => {
        settle(f, i32(UNDERFLOW | COMPARED), pops);
        f.return();
      },
      undefined,
      "unlikely",
    );
    const own = readRegister(f, register);
    const outcome = f.call(order, own.significand, own.word, significand, word, quiet);
    const invalid = outcome.and(Flag.IE).ne(0);
    const nan = outcome.and(COMPARED).eq(COMPARED);
    settle(f, outcome.or(invalid.or(nan).select(i32(0), flags)), pops);
  });

  module.body(x87.compareStack, (f, source, pops, quiet) => {
    const register = physical(f, source);
    f.if(
      isEmpty(f, register),
      () => {
        settle(f, i32(UNDERFLOW | COMPARED), pops);
        f.return();
      },
      undefined,
      "unlikely",
    );
    const { significand, word } = readRegister(f, register);
    f.call(x87.compare, significand, word, 0, pops, quiet);
  });

  module.body(x87.compareFlags, (f, source, pops, quiet) => {
    const own = top(f);
    const register = physical(f, source);
    const empty = isEmpty(f, register).or(isEmpty(f, own));
    const outcome = f.choose(I32T, empty, () => UNDERFLOW | COMPARED, () => {
      const a = readRegister(f, own);
      const b = readRegister(f, register);
      return f.call(order, a.significand, a.word, b.significand, b.word, quiet);
    }, "unlikely");
    // The codes go to RFLAGS, those of the status word stay, C1 with them unless the stack is at fault.
    account(f, outcome.and(Status.FLAGS | Flag.SF), 0);
    f.if(empty, () => S.fpuStatus.clear(f, Status.C1), undefined, "unlikely");
    f.if(unmasked(f, outcome, BEFORE).eqz(), () => popTimes(f, pops), undefined, "likely");
    const flag = (code: number, bit: number): I32 => outcome.and(code).ne(0).mul(bit);
    f.return(
      flag(Status.C3, Rflags.ZF).or(flag(Status.C2, Rflags.PF)).or(flag(Status.C0, Rflags.CF)),
    );
  });

  // Instructions on ST0.

  module.body(x87.operate, (f, operation) => {
    f.if(operation.geU(Unary.REMAINDER), () => S.fpuStatus.clear(f, Status.C2));
    const own = top(f);
    const other = physical(f, 1);
    const two = operation.geU(Unary.SCALE);
    f.if(
      isEmpty(f, own).or(two.and(isEmpty(f, other))),
      () => {
        underflow(f, own, 0);
        f.return();
      },
      undefined,
      "unlikely",
    );
    const { significand, word } = readRegister(f, own);
    const result = f.variable(I64T, significand);
    const sign = (changed: I32) => (): void => {
      S.fpuSecond.set(f, changed.extendU());
    };
    const twoOperands = (call: (significandB: Real) => void) => (): void =>
      call(readRegister(f, other));
    const reduce = (nearest: number): () => void =>
      twoOperands((b) => {
        result.set(
          f.call(remainder.remainder, significand, word, b.significand, b.word, nearest),
        );
        const found = resultOf(f, result.get());
        // A quotient is told in the other codes, where there is one.
        f.if(unmasked(f, found.flags, BEFORE).or(isNan(found)).eqz(), () => {
          S.fpuStatus.clear(f, Status.CODES);
        });
      });
    f.switch(operation, [
      sign(word.xor(SIGN)),
      sign(word.and(EXPONENT)),
      () => result.set(f.call(arithmetic.squareRoot, significand, word)),
      () => result.set(f.call(remainder.roundToInteger, significand, word)),
      twoOperands((b) =>
        result.set(f.call(remainder.scale, significand, word, b.significand, b.word))
      ),
      reduce(0),
      reduce(1),
    ], () => f.unreachable());
    commitReal(f, own, resultOf(f, result.get()), 0);
  });

  module.body(x87.examine, (f) => {
    const register = top(f);
    const real = readRegister(f, register);
    const finite = isDenormal(real).select(i32(Status.C3 | Status.C2), i32(Status.C2));
    const infinite = isNan(real).select(i32(Status.C0), i32(Status.C2 | Status.C0));
    const proper = exponentOf(real).eq(EXPONENT).select(infinite, finite);
    const kind = isZero(real).select(i32(Status.C3), proper);
    const supported = isUnsupported(real).select(i32(0), kind);
    const code = isEmpty(f, register).select(i32(Status.C3 | Status.C0), supported);
    account(f, code.or(signOf(real).mul(Status.C1)), Status.CODES);
  });

  module.body(x87.extract, (f) => {
    const own = top(f);
    const above = physical(f, 7);
    f.if(
      isEmpty(f, own).or(isEmpty(f, above).eqz()),
      () => {
        const flags = isEmpty(f, own).select(i32(UNDERFLOW), i32(OVERFLOW));
        account(f, flags);
        f.if(unmasked(f, flags, Flag.IE).eqz(), () => {
          writeRegister(f, own, indefinite(), i32(INDEFINITE.word));
          moveTop(f, 7);
          writeRegister(f, above, indefinite(), i32(INDEFINITE.word));
        });
        f.return();
      },
      undefined,
      "unlikely",
    );
    const { significand, word } = readRegister(f, own);
    const exponent = resultOf(f, f.call(remainder.exponentPart, significand, word));
    account(f, exponent.flags);
    f.if(
      unmasked(f, exponent.flags, BEFORE).eqz(),
      () => {
        const fraction = resultOf(f, f.call(remainder.fractionOf, significand, word));
        writeRegister(f, own, exponent.significand, exponent.word);
        moveTop(f, 7);
        writeRegister(f, above, fraction.significand, fraction.word);
      },
      undefined,
      "likely",
    );
  });

  // Moving.

  module.body(x87.loadNarrow, (f, significand, word, flags) => {
    const signalling = isSignalling({ significand, word });
    const quiet = signalling.select(significand.or(QUIET_BIT), significand);
    f.call(x87.load, quiet, word, flags.or(signalling.mul(Flag.IE)));
  });

  module.body(x87.load, (f, significand, word, given) => {
    const register = physical(f, 7);
    const free = isEmpty(f, register);
    const flags = free.select(given, i32(OVERFLOW));
    account(f, flags);
    // A denormal is loaded even if that is told.
    f.if(
      unmasked(f, flags, Flag.IE).eqz(),
      () => {
        moveTop(f, 7);
        writeRegister(
          f,
          register,
          free.select(significand, indefinite()),
          free.select(word, i32(INDEFINITE.word)),
        );
      },
      undefined,
      "likely",
    );
  });

  module.body(x87.loadStack, (f, source) => {
    const register = physical(f, source);
    const { significand, word } = readRegister(f, register);
    const empty = isEmpty(f, register);
    f.if(
      empty,
      () => {
        const above = physical(f, 7);
        account(f, i32(UNDERFLOW));
        f.if(unmasked(f, i32(UNDERFLOW), Flag.IE).eqz(), () => {
          moveTop(f, 7);
          writeRegister(f, above, indefinite(), i32(INDEFINITE.word));
        });
        f.return();
      },
      undefined,
      "unlikely",
    );
    f.call(x87.load, significand, word, 0);
  });

  module.body(x87.storeStack, (f, destination, pops) => {
    const own = top(f);
    const register = physical(f, destination);
    f.if(
      isEmpty(f, own),
      () => {
        underflow(f, register, pops);
        f.return();
      },
      undefined,
      "unlikely",
    );
    const { significand, word } = readRegister(f, own);
    f.call(commit, register, significand, word, 0, pops);
  });

  module.body(x87.storeUnchecked, (f, destination) => {
    const own = top(f);
    const { significand, word } = readRegister(f, own);
    const register = physical(f, destination);
    f.if(isEmpty(f, own).eqz(), () => writeRegister(f, register, significand, word));
    account(f, i32(0));
    pop(f);
  });

  module.body(x87.exchange, (f, other) => {
    const own = top(f);
    const register = physical(f, other);
    const ownEmpty = isEmpty(f, own);
    const otherEmpty = isEmpty(f, register);
    const flags = ownEmpty.or(otherEmpty).mul(UNDERFLOW);
    account(f, flags);
    f.if(unmasked(f, flags, Flag.IE), () => f.return(), undefined, "unlikely");
    const a = readRegister(f, own);
    const b = readRegister(f, register);
    const word = i32(INDEFINITE.word);
    writeRegister(
      f,
      own,
      otherEmpty.select(indefinite(), b.significand),
      otherEmpty.select(word, b.word),
    );
    writeRegister(
      f,
      register,
      ownEmpty.select(indefinite(), a.significand),
      ownEmpty.select(word, a.word),
    );
  });

  module.body(x87.conditionalMove, (f, source, condition) => {
    const own = top(f);
    const register = physical(f, source);
    f.if(
      isEmpty(f, own).or(isEmpty(f, register)),
      () => {
        underflow(f, own, 0);
        f.return();
      },
      undefined,
      "unlikely",
    );
    f.if(condition, () => {
      const { significand, word } = readRegister(f, register);
      writeRegister(f, own, significand, word);
    });
  });

  module.body(x87.free, (f, register, pops) => {
    account(f, i32(0));
    setEmpty(f, physical(f, register));
    popTimes(f, pops);
  });

  module.body(x87.turn, (f, by) => {
    const status = S.fpuStatus.get(f);
    const moved = status.add(by.shl(TOP_SHIFT)).and(Status.TOP);
    S.fpuStatus.set(f, status.and(~(Status.TOP | Status.C1)).or(moved));
  });
}
