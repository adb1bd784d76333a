/**
 * Segment registers as they stand in the state.
 *
 * @module
 */

/**
 * Segment register numbers: the machine encoding for 0–5, then LDTR and TR. NEXT is a place for a
 * segment that has been read and checked but not loaded yet.
 */
export const Seg = { ES: 0, CS: 1, SS: 2, DS: 3, FS: 4, GS: 5, LDTR: 6, TR: 7, NEXT: 8 } as const;

/** Bytes of one segment register in the state. */
export const SEGMENT_BYTES = 32;
/** Offsets inside a segment register. */
export const SegmentField = {
  /** u32: selector. */
  SELECTOR: 0,
  /** u32: attributes as in a VMCB: bits 7:0 = descriptor bits 47:40, 11:8 = descriptor bits 55:52. */
  ATTRIBUTES: 4,
  /** u32: limit in bytes, scaled by the granularity bit. */
  LIMIT: 8,
  /** u32: {@linkcode SegmentUse} bits derived from the attributes. */
  USE: 12,
  /** u64: base. */
  BASE: 16,
} as const;

/** Attribute bits of a segment register (VMCB format, APM vol. 2, 15.5.1). */
export const Attr = {
  /** 3:0 type; for code and data: accessed. */
  ACCESSED: 1,
  /** Data: writable. Code: readable. */
  WRITABLE: 2,
  /** Data: expand-down. Code: conforming. */
  EXPAND_DOWN: 4,
  /** Code, not data. */
  CODE: 8,
  /** Code or data, not system. */
  S: 0x10,
  /** Shift of the DPL (2 bits). */
  DPL_SHIFT: 5,
  /** Present. */
  P: 0x80,
  /** Available to software. */
  AVL: 0x100,
  /** 64-bit code. */
  L: 0x200,
  /** Default operand size, stack size or upper bound. */
  DB: 0x400,
  /** Limit was in pages. */
  G: 0x800,
} as const;

/** What a segment may be used for, worked out when it is loaded. */
export const SegmentUse = {
  /** Data may be read. */
  READ: 1,
  /** Data may be written. */
  WRITE: 2,
  /** Offsets must be above the limit. */
  EXPAND_DOWN: 4,
  /** Upper bound of an expand-down segment is 4 GiB (else 64 KiB). */
  BIG: 8,
} as const;
