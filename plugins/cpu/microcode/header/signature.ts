/**
 * How the header writes the signature of a function: as a type, and as the assembler's tokens.
 *
 * @module
 */
import type { AnyToken, FunctionRef, I32, I64, TypeToken } from "../../wasm/mod.ts";

/** 32 bits. */
export type I = TypeToken<I32>;
/** 64 bits. */
export type L = TypeToken<I64>;
/** A function: its parameters, and its result if it has one. */
export type Fn<P extends readonly AnyToken[], R extends AnyToken | undefined = undefined> =
  FunctionRef<P, R>;

type SignatureOf<F> = F extends FunctionRef<infer P, infer R> ? readonly [P, R] : never;

/** The signatures of a group of functions, by name: the tokens of the parameters and of the result. */
export type Signatures<T> = { readonly [K in keyof T]: SignatureOf<T[K]> };
