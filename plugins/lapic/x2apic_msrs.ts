/**
 * x2APIC MSRs that a processor with virtual local APICs answers or carries out by itself, whoever made it:
 * AMD's with x2AVIC, Intel's with APICv (KVM 8ba621f335a5, "Add dedicated API for getting mask of
 * accelerated x2APIC MSRs").
 *
 * @module
 */
import { type LapicFeatures, LapicRegister, registerRows } from "./registers.ts";

/** Index of the first x2APIC MSR; register `o` of the page is MSR 800h + `o` / 10h. */
export const X2APIC_MSR = 0x800;
/** Number of MSRs that are kept for the x2APIC. */
export const X2APIC_MSRS = 0x100;

const R = LapicRegister;

/** Registers that can be read, and that the page does not hold: hardware leaves them to software. */
const NOT_IN_PAGE: ReadonlySet<number> = new Set<number>([R.TIMER_CURRENT, R.APR]);

/**
 * MSRs whose reads need no exit: all registers that can be read in x2APIC mode, but the current count,
 * which nobody keeps up to date in the page. Of AMD's, neither the arbitration priority nor the extended
 * space are among them, as in KVM, whose local APIC has neither in x2APIC mode.
 */
export function acceleratedReads(features: LapicFeatures): readonly number[] {
  return registerRows(features).flatMap(({ offset, count = 1, x2apic }) =>
    x2apic === "none" || x2apic === "w" || NOT_IN_PAGE.has(offset) || offset >= R.EXT_FEATURE
      ? []
      : Array.from({ length: count }, (_, k) => X2APIC_MSR + (offset >> 4) + k)
  ).sort((a, b) => a - b);
}

/**
 * MSRs whose writes hardware carries out: TPR; EOI and SELF_IPI with virtual-interrupt delivery; the ICR
 * with virtual IPIs. AVIC has all of it (KVM 8c63179d975f), APICv the ICR only with IPI virtualization.
 */
export function acceleratedWrites(delivery: boolean, ipis: boolean): readonly number[] {
  const offsets: number[] = [R.TPR];
  if (delivery) offsets.push(R.EOI);
  if (ipis) offsets.push(R.ICR);
  if (delivery) offsets.push(R.SELF_IPI);
  return offsets.map((offset) => X2APIC_MSR + (offset >> 4));
}
