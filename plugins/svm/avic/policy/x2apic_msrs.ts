/**
 * Which x2APIC MSRs the guest accesses without an exit while x2AVIC is active.
 *
 * The processor answers what is passed through: from the backing page, or with exit 402h where it does
 * not accelerate the register (APM vol. 2, table 15-22). What is intercepted exits with 7Ch, which needs
 * no decoding.
 *
 * @module
 */
import { defineSlot, type Slot } from "../../../../core/mod.ts";
import { acceleratedReads, acceleratedWrites, type LapicFeatures } from "../../../lapic/mod.ts";

/** Which x2APIC MSRs are passed through, in one direction. */
export interface X2apicMsrPolicy {
  /** Short name for reports. */
  readonly name: string;
  /** Indexes of the MSRs, for a local APIC with the features given. */
  msrs(features: LapicFeatures): readonly number[];
}

const range = (first: number, last: number): number[] =>
  Array.from({ length: last - first + 1 }, (_, k) => first + k);

/**
 * Reads of the registers that the local APIC has and that hardware answers: the current count (839h) is
 * left out, as reading it would fault. KVM since 7f4b7092d9a1, "Disable x2AVIC RDMSR interception for
 * MSRs KVM actually supports". That patch's own text was not at hand: the list is KVM's mask of readable
 * registers in x2APIC mode.
 */
export const readableMsrs: X2apicMsrPolicy = {
  name: "readable",
  msrs: acceleratedReads,
};

/**
 * Writes that hardware accelerates: TPR, EOI, ICR, SELF_IPI. KVM since 8c63179d975f, "Only disable
 * x2AVIC WRMSR interception for MSRs that are accelerated".
 */
export const acceleratedMsrs: X2apicMsrPolicy = {
  name: "accelerated",
  msrs: () => acceleratedWrites(true, true),
};

/**
 * The list that KVM had for reads and writes alike until 2026 (4d1d7942e36a): the first register of
 * ISR, TMR and IRR each, and 80Ch, 80Eh and 831h, which are no MSRs. LVTT (832h) is intercepted because
 * selecting TSC-deadline mode would be #GP instead of an exit; SELF_IPI was forgotten.
 */
export const formerMsrs: X2apicMsrPolicy = {
  name: "former",
  msrs: () => [
    0x802,
    0x803,
    ...range(0x808, 0x810),
    0x818,
    0x820,
    0x828,
    0x830,
    0x831,
    ...range(0x833, 0x839),
    0x83e,
  ],
};

/** Which x2APIC MSRs are read without an exit; {@linkcode readableMsrs} unless a plugin says otherwise. */
export const x2apicReadSlot: Slot<X2apicMsrPolicy> = defineSlot(
  "x2apic-reads-passed",
  () => readableMsrs,
);

/** Which are written without an exit; {@linkcode acceleratedMsrs} unless a plugin says otherwise. */
export const x2apicWriteSlot: Slot<X2apicMsrPolicy> = defineSlot(
  "x2apic-writes-passed",
  () => acceleratedMsrs,
);
