/**
 * Stores of ST0 to memory. What is to be stored is worked out first, then it is stored, which may fault,
 * and only then the exceptions and the pop take effect (SDM vol. 1, 8.5; vol. 2A, FST, FIST, FBSTP).
 *
 * @module
 */
import type { X87Routines } from "./header.ts";
import { S } from "../state/cpu_state.ts";
import { i32, I64T, type ModuleBuilder } from "../wasm/mod.ts";
import type { Convert } from "./convert.ts";
import { BEFORE, Control, Flag, INDEFINITE, returnReal, Rounding } from "./format.ts";
import { indefinite } from "./nan.ts";
import { account, unmasked } from "./operations.ts";
import { isEmpty, pop, readRegister, top } from "./stack.ts";

/** Formats of memory. */
export const Stored = {
  SINGLE: 0,
  DOUBLE: 1,
  EXTENDED: 2,
  BCD: 3,
  INT16: 4,
  INT32: 5,
  INT64: 6,
  /** Truncated, whatever the rounding control says (FISTTP). */
  TRUNCATED: 8,
} as const;

/** Exceptions that, unmasked, leave memory and stack as they are. */
const PREVENTS: number = BEFORE | Flag.OE | Flag.UE;
const UNDERFLOW: number = Flag.IE | Flag.SF;

/** Gives the functions that store their bodies. */
export function defineStoring(module: ModuleBuilder, x87: X87Routines, convert: Convert): void {
  module.body(x87.stored, (f, format) => {
    const register = top(f);
    const empty = isEmpty(f, register);
    const real = readRegister(f, register);
    const control = S.fpuControl.get(f);
    const plain = format.and(~Stored.TRUNCATED);
    // An empty register is stored as the indefinite of the format: a number that is invalid in all.
    const significand = empty.select(indefinite(), real.significand);
    const word = empty.select(i32(INDEFINITE.word), real.word);
    const integer = (bits: number) => (): void => {
      const truncated = Rounding.ZERO << Control.ROUNDING_SHIFT;
      const mode = format.and(Stored.TRUNCATED).ne(0).select(control.or(truncated), control);
      result.set(f.call(convert.toInteger, significand, word, bits, mode));
    };
    const result = f.variable(I64T, significand);
    f.switch(plain, [
      () => result.set(f.call(convert.narrow32, significand, word)),
      () => result.set(f.call(convert.narrow64, significand, word)),
      () => S.fpuSecond.set(f, word.extendU()),
      () => result.set(f.call(convert.toBcd, significand, word)),
      integer(16),
      integer(32),
      integer(64),
    ], () => f.unreachable());
    const second = S.fpuSecond.get(f);
    const flags = empty.select(i32(UNDERFLOW), second.shrU(32).wrap());
    returnReal(f, result.get(), second.wrap().and(0xffff), flags);
  });

  module.body(x87.storeFails, (f, flags) => f.return(unmasked(f, flags, PREVENTS)));

  module.body(x87.afterStore, (f, flags, pops) => {
    const failed = unmasked(f, flags, PREVENTS);
    // With overflow or underflow it is not told how the result was rounded.
    const told = unmasked(f, flags, Flag.OE | Flag.UE).select(
      flags.and(~(Flag.PE | Flag.C1)),
      flags,
    );
    account(f, told);
    f.if(failed.eqz().and(pops), () => pop(f));
  });
}
