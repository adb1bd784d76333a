/**
 * What the interpreter counts off its hot paths, for statistics.
 *
 * @module
 */
import type { FunctionBuilder } from "../wasm/mod.ts";
import { COUNTERS } from "./layout.ts";

/** What is counted: numbers of u64 at {@linkcode COUNTERS}. */
export const Counter = {
  /** Times that the dispatcher looked for a block to run. */
  DISPATCHES: 0,
  /** Of those, times that the jump cache did not know it. */
  SEARCHES: 1,
  /** Translations of linear addresses that no TLB had. */
  WALKS: 2,
  /** Times that a TLB was flushed, wholly or for one address. */
  FLUSHES: 3,
} as const;
/** One of {@linkcode Counter}. */
export type Counter = typeof Counter[keyof typeof Counter];

/** Address of a counter. */
export function counterAddress(counter: Counter): number {
  return COUNTERS + 8 * counter;
}

/** Emits an increment. */
export function tally(f: FunctionBuilder, counter: Counter): void {
  const at = counterAddress(counter);
  f.store64(0, f.load64(0, at).add(1), at);
}
