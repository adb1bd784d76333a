/**
 * Copying and comparing inside the state of the processor.
 *
 * @module
 */
import type { FunctionBuilder, I32, V128 } from "../wasm/mod.ts";

/** Emits a copy of `bytes`, a multiple of 8, between constant addresses. */
export function copyBlock(f: FunctionBuilder, to: number, from: number, bytes: number): void {
  let at = 0;
  for (; at + 16 <= bytes; at += 16) f.store128(0, f.load128(0, from + at), to + at);
  for (; at < bytes; at += 8) f.store64(0, f.load64(0, from + at), to + at);
}

/** Emits a comparison of `bytes`, a multiple of 16 that is not 0, at constant addresses: 1 if they are the same. */
export function sameBlock(f: FunctionBuilder, a: number, b: number, bytes: number): I32 {
  const difference = (at: number): V128 => f.load128(0, a + at).xor(f.load128(0, b + at));
  let all = difference(0);
  for (let at = 16; at < bytes; at += 16) all = all.or(difference(at));
  return all.test("v128.any_true").eqz();
}
