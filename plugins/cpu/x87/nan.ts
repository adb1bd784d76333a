/**
 * Operands that no arithmetic is done on: NaNs and what the 80287 still knew (SDM vol. 1, 4.8.3.5, table
 * 4-7, and 8.2.2).
 *
 * @module
 */
import type { Fn, I, L } from "../microcode/header/signature.ts";
import {
  type FunctionBuilder,
  type I32,
  I32T,
  type I64,
  i64,
  I64T,
  type ModuleBuilder,
} from "../wasm/mod.ts";
import {
  Flag,
  INDEFINITE,
  isNan,
  isSignalling,
  isUnsupported,
  QUIET_BIT,
  type Real,
  returnReal,
} from "./format.ts";

/** Functions for such operands. */
export interface Nan {
  /** `(significand, word, significand, word)`: the result of an operation one of whose operands is such. */
  readonly propagate: Fn<readonly [L, I, L, I], L>;
  /** `(significand, word)`: the result of an operation of one operand, which is such. */
  readonly quiet: Fn<readonly [L, I], L>;
}

/** 1 for a NaN or an unsupported number. */
export function isOdd(real: Real): I32 {
  return isNan(real).or(isUnsupported(real));
}

/** The real indefinite as the significand of a result. */
export function indefinite(): I64 {
  return i64(INDEFINITE.significand);
}

/** Defines a function of a real that is a number or an infinity; it answers others itself. */
export function defineUnary(
  module: ModuleBuilder,
  name: string,
  nan: Nan,
  body: (f: FunctionBuilder, a: Real) => void,
): Fn<readonly [L, I], L> {
  return module.define(name, [I64T, I32T], I64T, (f, significand, word) => {
    const a: Real = { significand, word };
    f.if(isOdd(a), () => f.return(f.call(nan.quiet, significand, word)));
    body(f, a);
  });
}

/** The same of two. */
export function defineBinary(
  module: ModuleBuilder,
  name: string,
  nan: Nan,
  body: (f: FunctionBuilder, a: Real, b: Real) => void,
): Fn<readonly [L, I, L, I], L> {
  return module.define(
    name,
    [I64T, I32T, I64T, I32T],
    I64T,
    (f, significandA, wordA, significandB, wordB) => {
      const a: Real = { significand: significandA, word: wordA };
      const b: Real = { significand: significandB, word: wordB };
      f.if(isOdd(a).or(isOdd(b)), () => {
        f.return(f.call(nan.propagate, significandA, wordA, significandB, wordB));
      });
      body(f, a, b);
    },
  );
}

/** Defines them. */
export function defineNan(module: ModuleBuilder): Nan {
  const propagate = module.define(
    "x87.propagate",
    [I64T, I32T, I64T, I32T],
    I64T,
    (f, significandA, wordA, significandB, wordB) => {
      const a: Real = { significand: significandA, word: wordA };
      const b: Real = { significand: significandB, word: wordB };
      f.if(isUnsupported(a).or(isUnsupported(b)), () => {
        returnReal(f, indefinite(), INDEFINITE.word, Flag.IE);
      });
      const signalling = isSignalling(a).or(isSignalling(b));
      const mixed = isSignalling(a).ne(isSignalling(b));
      // Of two NaNs of a kind the one with the greater significand, of two equal ones the positive.
      const equal = significandA.eq(significandB);
      const greater = significandA.gtU(significandB).or(equal.and(wordA.leU(wordB)));
      // Of a quiet and a signalling one the quiet.
      const ofTwo = mixed.select(isSignalling(b), greater);
      const first = isNan(a).and(isNan(b)).select(ofTwo, isNan(a));
      returnReal(
        f,
        first.select(significandA, significandB).or(QUIET_BIT),
        first.select(wordA, wordB),
        signalling.mul(Flag.IE),
      );
    },
  );

  const quiet = module.define("x87.quiet", [I64T, I32T], I64T, (f, significand, word) => {
    const real: Real = { significand, word };
    f.if(isUnsupported(real), () => {
      returnReal(f, indefinite(), INDEFINITE.word, Flag.IE);
    });
    returnReal(f, significand.or(QUIET_BIT), word, isSignalling(real).mul(Flag.IE));
  });

  return { propagate, quiet };
}
