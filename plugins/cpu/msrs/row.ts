/**
 * How the MSRs are written down that a processor keeps and that no instruction looks at.
 *
 * @module
 */

/** 64 bits as two unsigned halves: 31:0 and 63:32. */
export type Halves = readonly [lo: number, hi: number];

/** All 64 bits. */
export const ALL: Halves = [0xffff_ffff, 0xffff_ffff];
/** None. */
export const NONE: Halves = [0, 0];

/** Bits 63:32 of a physical address that has so many bits. */
export function addressHigh(physicalBits: number): number {
  return 2 ** (physicalBits - 32) - 1;
}

/** The MSRs of one vCPU, as rules look at each other's values. */
export interface MsrValues {
  /** Bits 31:0 of an MSR of the bank; 0 if there is none of that index. */
  low(index: number): number;
}

/** One MSR, or several in a row that are alike. */
export interface MsrRow {
  /** The manuals' name. */
  readonly name: string;
  /** Index of the first. */
  readonly index: number;
  /** How many follow each other; 1 if not given. */
  readonly count?: number;
  /** Value after RESET, which INIT keeps; 0 if not given. */
  readonly reset?: Halves;
  /** Bits that can be written, 0 if not given. What becomes of the others, `others` says. */
  readonly writable?: Halves;
  /**
   * Bits that cannot be written: `"reserved"` (if not given) must be written as they are, or the write
   * is #GP; `"ignored"` keep their value whatever is written.
   */
  readonly others?: "reserved" | "ignored";
  /** Whether any write is #GP. */
  readonly readOnly?: boolean;
  /** Whether any read is #GP: what is written starts something, and is not kept. */
  readonly command?: boolean;
  /** What a value has to satisfy besides. */
  readonly check?: (lo: number, hi: number, values: MsrValues) => boolean;
}
