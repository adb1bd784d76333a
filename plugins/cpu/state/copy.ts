/**
 * Copying inside the state of the processor.
 *
 * @module
 */
import type { FunctionBuilder } from "../wasm/mod.ts";

/** Emits a copy of `bytes`, a multiple of 8, between constant addresses. */
export function copyBlock(f: FunctionBuilder, to: number, from: number, bytes: number): void {
  let at = 0;
  for (; at + 16 <= bytes; at += 16) f.store128(0, f.load128(0, from + at), to + at);
  for (; at < bytes; at += 8) f.store64(0, f.load64(0, from + at), to + at);
}
