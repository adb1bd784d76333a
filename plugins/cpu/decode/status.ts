/**
 * What the decoder is told, and how it ends.
 *
 * @module
 */

/** What of the processor's mode decides how bytes are read. */
export interface DecodeMode {
  /** Code size. */
  readonly code: 16 | 32 | 64;
  /** Width of the stack pointer. */
  readonly stack: 16 | 32 | 64;
  /** SS is flat and writable. */
  readonly flatStack: boolean;
  /** DS and ES are flat and writable. */
  readonly flatData: boolean;
  /** VEX prefixes are known: protected mode and long mode. */
  readonly vex: boolean;
  /** REX2 and the EVEX prefix of APX are known. */
  readonly apx: boolean;
}

/** How decoding one instruction ended. */
export const DecodeStatus = {
  /** The instruction is complete. */
  OK: 0,
  /** The bytes end before the instruction does. */
  TRUNCATED: 1,
  /** #UD. */
  UNDEFINED: 2,
  /** More than 15 bytes: #GP. */
  TOO_LONG: 3,
  /** Defined, but not implemented here: `entry.name` says what. */
  UNIMPLEMENTED: 4,
} as const;
/** One of {@linkcode DecodeStatus}. */
export type DecodeStatus = typeof DecodeStatus[keyof typeof DecodeStatus];
