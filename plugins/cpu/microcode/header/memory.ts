/**
 * Memory: page walks, the TLB, loads and stores, effective addresses.
 *
 * @module
 */
import { I32T, I64T } from "../../wasm/mod.ts";
import type { Fn, I, L, Signatures } from "./signature.ts";

/** What accesses memory. */
export interface MemoryRoutines {
  /** `(pa)`: memory address of a physical address, 0 if it is no memory. */
  readonly physical: Fn<[L], I>;
  /** `(pa)`: as `physical`, but 0 also for memory that cannot be written. */
  readonly physicalForWrite: Fn<[L], I>;
  /** `(pa)`: 64 bits at a physical address; all ones where there is no memory. */
  readonly readPhysical: Fn<[L], L>;
  /** `(gpa, access)`: guest physical to host physical address under nested paging. */
  readonly nestedTranslate: Fn<[L, I], L>;
  /** `(gpa, error, isTable)`: #VMEXIT(NPF). Does not return. */
  readonly nestedFault: Fn<[L, I, I]>;
  /** `(linear, access, mmuIndex)`: physical address, with the TLB filled; raises. */
  readonly translate: Fn<[L, I, I], L>;
  /** The same, but negative where there is a page fault: it is recorded, and `S.faulted` set. */
  readonly tryTranslate: Fn<[L, I, I], L>;
  /** `(linear)`: memory address of the code at a linear address; raises. */
  readonly fetch: Fn<[L], I>;
  /** `()`: empties the active TLB context. */
  readonly flushTlb: Fn<[]>;
  /** `(instructions)`: moves windows that were missed often in so many instructions. */
  readonly moveWindows: Fn<[I]>;
  /** `(linear)`: drops the translations of one page. */
  readonly flushPage: Fn<[L]>;
  /** `()`: drops the jump cache. */
  readonly flushJumps: Fn<[]>;
  /** `()`: recomputes CPL, mode word and TLB pointers from the segment and control registers. */
  readonly updateMode: Fn<[]>;
  /** `()`: what of that follows from a new mode word; privilege, RFLAGS, CR0 and CR4 are as it was made from. */
  readonly modeChanged: Fn<[]>;
  /** `(tag)`: makes the TLB context of `tag` the active one. */
  readonly selectContext: Fn<[I]>;
  /** `(tag, linear, how)`: flushes contexts: `how` 0 a page of `tag`, 1 all of `tag`, 2 everything. */
  readonly flushContexts: Fn<[I, L, I]>;
  /** `(linear, bits, mmuIndex)`: load that missed the TLB. */
  readonly slowLoad: Fn<[L, I, I], L>;
  /** `(linear, bits, mmuIndex)`: load for a read-modify-write that missed the TLB. */
  readonly slowLoadForWrite: Fn<[L, I, I], L>;
  /** `(linear, bits, value, mmuIndex)`: store that missed the TLB. */
  readonly slowStore: Fn<[L, I, L, I]>;
  /** As `slowLoad`, but a page fault is recorded, and `S.faulted` set, where that raises. */
  readonly tryLoad: Fn<[L, I, I], L>;
  /** As `slowLoadForWrite`, likewise. */
  readonly tryLoadForWrite: Fn<[L, I, I], L>;
  /** As `slowStore`, likewise. */
  readonly tryStore: Fn<[L, I, L, I]>;
  /** `(linear)` at the current privilege: one for each width. */
  readonly load8: Fn<[L], L>;
  /** 16 bits, zero-extended. */
  readonly load16: Fn<[L], L>;
  /** 32 bits, zero-extended. */
  readonly load32: Fn<[L], L>;
  /** 64 bits. */
  readonly load64: Fn<[L], L>;
  /** `(linear, value)` */
  readonly store8: Fn<[L, L]>;
  /** 16 bits. */
  readonly store16: Fn<[L, L]>;
  /** 32 bits. */
  readonly store32: Fn<[L, L]>;
  /** 64 bits. */
  readonly store64: Fn<[L, L]>;
  /** `(linear, bits)`: implicit supervisor load (descriptor tables, TSS). */
  readonly systemLoad: Fn<[L, I], L>;
  /** `(linear, bits, value)`: implicit supervisor store. */
  readonly systemStore: Fn<[L, I, L]>;
  /** `(linear, bytes)`: checks that a store at the current privilege will not fault. */
  readonly probeStore: Fn<[L, I]>;
  /** `(uop)`: offset of a general memory operand, cut to its address size. */
  readonly effectiveOffset: Fn<[I], L>;
  /** `(uop, bytes, access)`: linear address of a general memory operand, checked. */
  readonly effectiveAddress: Fn<[I, I, I], L>;
  /** `(segment, offset, bytes, access)`: linear address, limit and type checked. */
  readonly segmentAddress: Fn<[I, L, I, I], L>;
}

/** Their signatures. */
export const MEMORY: Signatures<MemoryRoutines> = {
  physical: [[I64T], I32T],
  physicalForWrite: [[I64T], I32T],
  readPhysical: [[I64T], I64T],
  nestedTranslate: [[I64T, I32T], I64T],
  nestedFault: [[I64T, I32T, I32T], undefined],
  translate: [[I64T, I32T, I32T], I64T],
  tryTranslate: [[I64T, I32T, I32T], I64T],
  fetch: [[I64T], I32T],
  flushTlb: [[], undefined],
  moveWindows: [[I32T], undefined],
  flushPage: [[I64T], undefined],
  flushJumps: [[], undefined],
  updateMode: [[], undefined],
  modeChanged: [[], undefined],
  selectContext: [[I32T], undefined],
  flushContexts: [[I32T, I64T, I32T], undefined],
  slowLoad: [[I64T, I32T, I32T], I64T],
  slowLoadForWrite: [[I64T, I32T, I32T], I64T],
  slowStore: [[I64T, I32T, I64T, I32T], undefined],
  tryLoad: [[I64T, I32T, I32T], I64T],
  tryLoadForWrite: [[I64T, I32T, I32T], I64T],
  tryStore: [[I64T, I32T, I64T, I32T], undefined],
  load8: [[I64T], I64T],
  load16: [[I64T], I64T],
  load32: [[I64T], I64T],
  load64: [[I64T], I64T],
  store8: [[I64T, I64T], undefined],
  store16: [[I64T, I64T], undefined],
  store32: [[I64T, I64T], undefined],
  store64: [[I64T, I64T], undefined],
  systemLoad: [[I64T, I32T], I64T],
  systemStore: [[I64T, I32T, I64T], undefined],
  probeStore: [[I64T, I32T], undefined],
  effectiveOffset: [[I32T], I64T],
  effectiveAddress: [[I32T, I32T, I32T], I64T],
  segmentAddress: [[I32T, I64T, I32T, I32T], I64T],
};
