/**
 * Segments, far transfers and task switches.
 *
 * @module
 */
import { I32T, I64T } from "../../wasm/mod.ts";
import type { Fn, I, L, Signatures } from "./signature.ts";

/** What loads segment registers. */
export interface SegmentRoutines {
  /** `(segment, selector)`: loads ES, SS, DS, FS or GS as MOV and POP do. */
  readonly loadSegment: Fn<[I, I]>;
  /** `(segment, selector)`: loads a segment register as real and virtual-8086 mode do. */
  readonly loadRealSegment: Fn<[I, I]>;
  /** `(segment, selector, descriptor)`: sets a segment register from a descriptor, unchecked. */
  readonly setSegment: Fn<[I, I, L]>;
  /** `()`: works out what each segment may be used for, after they were written from outside. */
  readonly refreshSegments: Fn<[]>;
  /** `(segment, selector)`: makes a segment register null and unusable. */
  readonly clearSegment: Fn<[I, I]>;
  /** `(selector, vector, ext)`: the descriptor; raises `vector` with the selector beyond the limit. */
  readonly readDescriptor: Fn<[I, I, I], L>;
  /** `(selector, descriptor)`: sets the accessed bit of a descriptor in its table. */
  readonly markAccessed: Fn<[I, L]>;
  /** `(selector)`: LLDT. */
  readonly loadLdt: Fn<[I]>;
  /** `(selector)`: LTR. */
  readonly loadTask: Fn<[I]>;
  /** `(selector, offset)`: far JMP. */
  readonly jumpFar: Fn<[I, L]>;
  /** `(selector, offset, bits, returnRip)`: far CALL. */
  readonly callFar: Fn<[I, L, I, L]>;
  /** `(bits, release)`: far RET. */
  readonly returnFar: Fn<[I, I]>;
  /** `(bits)`: IRET. */
  readonly returnInterrupt: Fn<[I]>;
  /**
   * `(selector, how, rip, flags, error, ext)`: switches to the task of TSS `selector`, saving `rip` and
   * `flags` in the old one; `how` is of `TaskSwitch`.
   */
  readonly switchTask: Fn<[I, I, L, L, I, I]>;
}

/** Their signatures. */
export const SEGMENTS: Signatures<SegmentRoutines> = {
  loadSegment: [[I32T, I32T], undefined],
  loadRealSegment: [[I32T, I32T], undefined],
  setSegment: [[I32T, I32T, I64T], undefined],
  refreshSegments: [[], undefined],
  clearSegment: [[I32T, I32T], undefined],
  readDescriptor: [[I32T, I32T, I32T], I64T],
  markAccessed: [[I32T, I64T], undefined],
  loadLdt: [[I32T], undefined],
  loadTask: [[I32T], undefined],
  jumpFar: [[I32T, I64T], undefined],
  callFar: [[I32T, I64T, I32T, I64T], undefined],
  returnFar: [[I32T, I32T], undefined],
  returnInterrupt: [[I32T], undefined],
  switchTask: [[I32T, I32T, I64T, I64T, I32T, I32T], undefined],
};
