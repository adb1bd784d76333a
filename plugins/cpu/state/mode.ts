/**
 * The mode word.
 *
 * @module
 */

/** Bits of the mode word, by which decoded blocks are told apart. */
export const Mode = {
  /** 64-bit code. */
  LONG: 1,
  /** Default operand and address size is 32 (CS.D). */
  BIG: 2,
  /** Stack pointer is ESP (SS.B). */
  STACK32: 4,
  /** CPL is 3. */
  USER: 8,
  /** CS has base 0 and limit 4 GiB. */
  FLAT_CS: 0x10,
  /** SS is writable with base 0 and limit 4 GiB. */
  FLAT_SS: 0x20,
  /** DS and ES are writable with base 0 and limit 4 GiB. */
  FLAT_DATA: 0x40,
  /** Real or virtual-8086 mode. */
  REAL: 0x80,
  /** 64-bit code that may use APX: CR4.OSXSAVE and XCR0[19] are set. 100h is the blocks' own. */
  APX: 0x200,
  /** Branches are counted: in front of each is a micro-op that does. */
  COUNT_BRANCHES: 0x400,
  /** Shadow stacks are enabled at the current privilege level. */
  SHADOW_STACK: 0x800,
  /** Indirect branches are tracked at the current privilege level. */
  TRACK: 0x1000,
  /** The last one awaits an ENDBRANCH: no other instruction may come first. */
  AWAIT_ENDBRANCH: 0x2000,
  /** Tracking is suppressed until the next ENDBRANCH. */
  SUPPRESSED: 0x4000,
} as const;

/** Modes in which control-flow enforcement makes other forms of branches. */
export const ENFORCED_MODES: number = Mode.SHADOW_STACK | Mode.TRACK | Mode.AWAIT_ENDBRANCH |
  Mode.SUPPRESSED;
