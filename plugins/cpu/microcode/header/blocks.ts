/**
 * Finding and running blocks, and the lazily kept flags.
 *
 * @module
 */
import { I32T, I64T } from "../../wasm/mod.ts";
import type { Fn, I, L, Signatures } from "./signature.ts";

/** What the dispatcher consists of. */
export interface BlockRoutines {
  // Blocks (engine/run.ts).

  /** `(alone)`: the block at RIP; 0 if raising was necessary, with `S.unwind` set. */
  readonly findBlock: Fn<[I], I>;
  /** `(rip)`: the block at `rip` if the jump cache has it, else 0. */
  readonly findJump: Fn<[L], I>;
  /** `(linearLow, linearHigh)`: as `fetch`, but 0 instead of raising, with `S.unwind` set. */
  readonly tryFetch: Fn<[I, I], I>;
  /** `(budget)`: runs; returns the stop reason. */
  readonly run: Fn<[I], I>;

  // Lazy flags (semantics/flags.ts).

  /** `(kind, a, b)`: OF SF ZF AF PF CF in their RFLAGS positions. */
  readonly flagsValue: Fn<[I, L, L], I>;
  /** `()`: RFLAGS from the state, which must have been spilled. */
  readonly readFlags: Fn<[], L>;
  /** `(value)`: sets all of RFLAGS (bit 1 forced) and what follows from them. */
  readonly writeFlags: Fn<[L]>;
}

/** Their signatures. */
export const BLOCKS: Signatures<BlockRoutines> = {
  findBlock: [[I32T], I32T],
  findJump: [[I64T], I32T],
  tryFetch: [[I32T, I32T], I32T],
  run: [[I32T], I32T],
  flagsValue: [[I32T, I64T, I64T], I32T],
  readFlags: [[], I64T],
  writeFlags: [[I64T], undefined],
};
