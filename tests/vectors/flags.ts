/**
 * Bits of RFLAGS and what an instruction does to the status flags.
 *
 * @module
 */

/** Carry flag, bit 0 (AMD APM vol. 1, 3.1.4). */
export const CF = 0x1;
/** Parity flag, bit 2. */
export const PF = 0x4;
/** Auxiliary carry flag, bit 4. */
export const AF = 0x10;
/** Zero flag, bit 6. */
export const ZF = 0x40;
/** Sign flag, bit 7. */
export const SF = 0x80;
/** Interrupt flag, bit 9: always set here, as in any user program. */
export const IF = 0x200;
/** Direction flag, bit 10. */
export const DF = 0x400;
/** Overflow flag, bit 11. */
export const OF = 0x800;
/** Nested-task flag, bit 14. */
export const NT = 0x4000;
/** Identification flag, bit 21. */
export const ID = 0x20_0000;
/** The six status flags. */
export const STATUS = 0x8d5;

/**
 * The bits of RFLAGS that a vector may compare: all but RF (bit 16, which differs between a fault
 * and a trap and between ways of taking the exception), VIF and VIP (bits 19 and 20).
 */
export const COMPARED = 0x27_7fd7;

/** What an instruction does to the status flags; each member is a mask of {@linkcode STATUS}. */
export interface FlagEffect {
  /** Flags the instruction's outcome depends on. */
  readonly reads: number;
  /** Flags it always sets to a value the manuals define. */
  readonly writes: number;
  /** Flags it leaves, or may leave, undefined by either vendor's manual. */
  readonly undef: number;
}

/** Shorthand for a {@linkcode FlagEffect}. */
export function effect(reads: number, writes: number, undef = 0): FlagEffect {
  return { reads, writes, undef };
}

/** Neither reads nor changes a status flag. */
export const NO_FLAGS: FlagEffect = effect(0, 0);

/** The condition codes in opcode order: mnemonic suffix and the flags it reads (APM vol. 3, 1.2.6). */
export const CONDITIONS: readonly (readonly [name: string, reads: number])[] = [
  ["O", OF],
  ["NO", OF],
  ["B", CF],
  ["NB", CF],
  ["Z", ZF],
  ["NZ", ZF],
  ["BE", CF | ZF],
  ["NBE", CF | ZF],
  ["S", SF],
  ["NS", SF],
  ["P", PF],
  ["NP", PF],
  ["L", SF | OF],
  ["NL", SF | OF],
  ["LE", SF | OF | ZF],
  ["NLE", SF | OF | ZF],
];
