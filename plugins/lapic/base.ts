/**
 * The APIC base MSR, 1Bh: place and mode of the register page (APM vol. 2, 16.3.1 and 16.9; SDM
 * vol. 3A, 11.4.4 and 11.12.5).
 *
 * @module
 */

import type { LapicFeatures } from "./registers.ts";

/** Index of the MSR. */
export const MSR_APIC_BASE = 0x1b;

/** Bits 31:0 of the MSR. */
export const ApicBase = {
  /** Boot processor. */
  BSP: 0x100,
  /** x2APIC mode. */
  EXTENDED: 0x400,
  /** Enabled. */
  ENABLE: 0x800,
} as const;

/** Where the register page is after RESET. */
export const DEFAULT_APIC_BASE = 0xfee0_0000;

/** Modes of a local APIC, with the values of bits 11:10 of the base MSR. */
export const LapicMode = {
  /** Off: as if there were none. */
  DISABLED: 0,
  /** Registers in memory, IDs of 8 bits. */
  XAPIC: 2,
  /** Registers as MSRs, IDs of 32 bits. */
  X2APIC: 3,
} as const;

/** One of {@linkcode LapicMode}. */
export type LapicMode = (typeof LapicMode)[keyof typeof LapicMode];

/** EXTD without AE. */
const INVALID = 1;

/** Mode that a value of the MSR selects; 1, which is none, for EXTD without AE. */
export function modeOf(low: number): number {
  return (low >>> 10) & 3;
}

/**
 * Whether a guest may write `low` and `high` while the MSR's bits 31:0 are `old`; if not, the write is
 * #GP(0).
 *
 * @param physicalBits Size of physical addresses in bits, 36 to 52.
 */
export function baseWriteAllowed(
  old: number,
  low: number,
  high: number,
  physicalBits: number,
  features: LapicFeatures,
): boolean {
  const beyond = -1 << (physicalBits - 32);
  if ((high & beyond) !== 0) return false;
  const reserved = 0x2ff | (features.x2apic ? 0 : ApicBase.EXTENDED);
  if ((low & reserved) !== 0) return false;
  const from = modeOf(old);
  const to = modeOf(low);
  if (to === INVALID) return false;
  if (from === LapicMode.DISABLED) return to !== LapicMode.X2APIC;
  // Out of x2APIC mode there is only the way through "off".
  return from !== LapicMode.X2APIC || to !== LapicMode.XAPIC;
}

/** Logical ID in x2APIC mode: cluster, and a bit of 16 (SDM vol. 3A, 11.12.10.2; APM vol. 2, 16.14). */
export function extendedLogicalId(id: number): number {
  return ((((id >>> 4) & 0xffff) << 16) | (1 << (id & 15))) >>> 0;
}
