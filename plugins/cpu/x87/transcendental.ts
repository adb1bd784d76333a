/**
 * What the transcendental functions have in common: how a result is given, and its exceptions.
 *
 * @module
 */
import type { Fn, I, L } from "../microcode/header/signature.ts";
import { S } from "../state/cpu_state.ts";
import { type FunctionBuilder, type I32, I32T, I64T, type ModuleBuilder } from "../wasm/mod.ts";
import { EXPONENT, Flag, INDEFINITE, returnReal } from "./format.ts";
import { indefinite } from "./nan.ts";
import type { Round } from "./round.ts";

/** Giving results. */
export interface Transcendental {
  /**
   * `(sign, exponent, high, low, flags)`: a result that is not exact, even if the 128 bits here are, rounded
   * to 64 bits as the rounding control says; `flags` are what its operands have raised.
   */
  readonly give: Fn<readonly [I, I, L, L, I], L>;
}

/** Defines it. */
export function defineTranscendental(module: ModuleBuilder, { round }: Round): Transcendental {
  const give = module.define(
    "x87.give",
    [I32T, I32T, I64T, I64T, I32T],
    I64T,
    (f, sign, exponent, high, low, flags) => {
      const control = S.fpuControl.get(f);
      const found = f.call(round, sign, exponent, high, low.or(1), 0, EXPONENT, control);
      addFlags(f, flags);
      f.return(found);
    },
  );
  return { give };
}

/** Adds exceptions to those of the real that a call has just returned. */
export function addFlags(f: FunctionBuilder, flags: I32): void {
  S.fpuSecond.set(f, S.fpuSecond.get(f).or(flags.extendU().shl(32)));
}

/** Returns the indefinite. */
export function returnInvalid(f: FunctionBuilder): void {
  returnReal(f, indefinite(), INDEFINITE.word, Flag.IE);
}
