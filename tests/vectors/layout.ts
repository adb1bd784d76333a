/**
 * Where the vectors live in linear memory. The three regions are all below 1 MiB, so that a flat
 * (identity) mapping needs little physical memory, and everything between and around them is
 * unmapped. The code and the low window are below 64 KiB because 16-bit addresses and 16-bit
 * instruction pointers reach no further.
 *
 * @module
 */

/** Processor mode of a program: 64-bit mode, or compatibility mode with 32-bit code. */
export type Mode = 64 | 32;

/** Linear address of the low window: readable and writable data that 16-bit addresses reach. */
export const LOW_BASE = 0x4000;
/** Bytes in the low window. */
export const LOW_SIZE = 0x4000;

/** Linear address of the two code pages: readable and executable; no program writes to them. */
export const CODE_BASE = 0xa000;
/** Bytes of code. Whatever a program leaves free is filled with INT3 (CCh). */
export const CODE_SIZE = 0x2000;

/** Linear address of the scratch area: readable and writable. */
export const SCRATCH_BASE = 0x40000;
/** Bytes in the scratch area. */
export const SCRATCH_SIZE = 0x10000;

/** The data part of the scratch area is its first 48 KiB; the stack is in the rest. */
export const DATA_SIZE = 0xc000;

/** Lowest linear address the generator lets a stack pointer come near. */
export const STACK_LOW: number = SCRATCH_BASE + DATA_SIZE;
/** Linear address just above the stack. */
export const STACK_HIGH: number = SCRATCH_BASE + SCRATCH_SIZE;
