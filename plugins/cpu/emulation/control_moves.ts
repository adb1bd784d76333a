/**
 * Moves to CR0, CR4 and CR8 that a hypervisor answers by storing the value, as KVM does for all of them.
 *
 * Most writes that exit change bits that the processor looks at when it enters the guest, and nothing else
 * follows from them. Those that switch paging or its kind, or that fault, are left to the emulator.
 *
 * @module
 */
import { CR0_WRITABLE } from "../microcode/control.ts";
import { Cr0, Cr4 } from "../microcode/registers.ts";
import type { CodePlace } from "./code_bytes.ts";

/** Bits of CR0 of which a change is nothing but itself. */
const STORED_CR0: number = Cr0.MP | Cr0.EM | Cr0.TS | Cr0.NE | Cr0.WP | Cr0.AM;
/** Bits of CR4 that all processors here have; a change of PGE drops translations besides. */
const STORED_CR4: number = Cr4.TSD | Cr4.DE | Cr4.MCE | Cr4.PGE | Cr4.PCE | Cr4.OSFXSR |
  Cr4.OSXMMEXCPT;

/** What is stored by a move to a control register, and what goes with it. */
export const ControlMove = {
  /** It is the emulator's. */
  EMULATE: 0,
  /** The value is stored. */
  STORE: 1,
  /** The value is stored, and all translations of the guest are dropped. */
  FLUSH: 2,
} as const;
/** One of {@linkcode ControlMove}. */
export type ControlMove = typeof ControlMove[keyof typeof ControlMove];

/** What of a guest decides on it. */
export type ControlRegisters = Pick<CodePlace, "cr0" | "cr4" | "longMode">;

/** What to do about a move of `high` and `low` to CR0. What is stored is {@linkcode storedCr0}. */
export function moveToCr0({ cr0, cr4 }: ControlRegisters, low: number, high: number): ControlMove {
  const others = (cr0 ^ low) & CR0_WRITABLE & ~STORED_CR0;
  // Shadow stacks rest on supervisors' not writing to pages that are not writable.
  const unprotected = (low & Cr0.WP) === 0 && (cr4 & Cr4.CET) !== 0;
  return high !== 0 || others !== 0 || unprotected ? ControlMove.EMULATE : ControlMove.STORE;
}

/** CR0 after a move of `low`: bits that do not exist read as they always do. */
export function storedCr0(low: number): number {
  return ((low & CR0_WRITABLE) | Cr0.ET) >>> 0;
}

/** What to do about a move of `high` and `low` to CR4. */
export function moveToCr4(
  { cr0, cr4, longMode }: ControlRegisters,
  low: number,
  high: number,
): ControlMove {
  const changed = cr4 ^ low;
  if (high !== 0 || (changed & ~STORED_CR4) !== 0) return ControlMove.EMULATE;
  if ((changed & Cr4.PGE) === 0) return ControlMove.STORE;
  // In PAE paging that is not long mode's the page-directory pointers are read anew.
  const pae = (cr0 & Cr0.PG) !== 0 && (cr4 & Cr4.PAE) !== 0 && !longMode;
  return pae ? ControlMove.EMULATE : ControlMove.FLUSH;
}
