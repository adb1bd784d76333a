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

/**
 * Emits a copy of 64-bit `slots`, in ascending order, from `from` on to `to` on: two that follow each other at once.
 * Entries and exits store so much that the stores are what they wait for.
 */
export function copySlots(
  f: FunctionBuilder,
  to: I32,
  toOffset: number,
  from: I32,
  fromOffset: number,
  slots: readonly number[],
): void {
  for (let k = 0; k < slots.length; k++) {
    const at = 8 * slots[k]!;
    if (slots[k + 1] === slots[k]! + 1) {
      f.store128(to, f.load128(from, fromOffset + at), toOffset + at);
      k++;
    } else f.store64(to, f.load64(from, fromOffset + at), toOffset + at);
  }
}

/** Emits a comparison of `bytes`, a multiple of 16 that is not 0, at constant addresses: 1 if they are the same. */
export function sameBlock(f: FunctionBuilder, a: number, b: number, bytes: number): I32 {
  const difference = (at: number): V128 => f.load128(0, a + at).xor(f.load128(0, b + at));
  let all = difference(0);
  for (let at = 16; at < bytes; at += 16) all = all.or(difference(at));
  return all.test("v128.any_true").eqz();
}
