/**
 * Where in its array an entry of a TLB or of the jump cache stands.
 *
 * @module
 */
import { FETCH_ENTRIES, JUMP_ENTRIES, TLB_MASK } from "../state/tlb_layout.ts";
import type { I32 } from "../wasm/mod.ts";

/** Byte offset, in its array, of the entry for a linear address (given by its low half). */
export function tlbSlot(low: I32): I32 {
  // Two shifts are folded so that pages 4 MiB apart, as stacks and heaps often are, do not collide.
  return low.shrU(8).xor(low.shrU(18)).and(TLB_MASK);
}

/** The same in an instruction TLB. */
export function fetchSlot(low: I32): I32 {
  return low.shrU(12).xor(low.shrU(20)).and(FETCH_ENTRIES - 1).shl(4);
}

/** Byte offset, in the jump cache, of the entry for a RIP (given by its low half). */
export function jumpSlot(low: I32): I32 {
  return low.xor(low.shrU(10)).and(JUMP_ENTRIES - 1).shl(4);
}
