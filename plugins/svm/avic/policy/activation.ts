/**
 * What switching AVIC on and off does besides the enable bit.
 *
 * @module
 */
import { defineSlot, type Slot } from "../../../../core/mod.ts";

/** When a VMCB gets its pointers to the backing page and the tables. */
export interface VmcbInitPolicy {
  /** Short name for reports. */
  readonly name: string;
  /** Whether a new vCPU's VMCB gets them; `inhibited` says whether AVIC is inhibited just then. */
  initializes(inhibited: boolean): boolean;
}

/**
 * Always, so that a vCPU that is made while AVIC is inhibited can have it later. ("KVM: SVM: Initialize
 * AVIC VMCB fields if AVIC is enabled with in-kernel APIC".)
 */
export const initializeAlways: VmcbInitPolicy = { name: "always", initializes: () => true };

/**
 * If AVIC is not inhibited then, as before. A vCPU that was made while it was is entered with null
 * pointers when the inhibit ends.
 */
export const initializeActive: VmcbInitPolicy = {
  name: "if-active",
  initializes: (inhibited) => !inhibited,
};

/** When a VMCB is set up; {@linkcode initializeAlways} unless a plugin says otherwise. */
export const vmcbInitSlot: Slot<VmcbInitPolicy> = defineSlot(
  "avic-vmcb-init",
  () => initializeAlways,
);

/** Whether activation flushes the guest's translations. */
export interface ActivationFlushPolicy {
  /** Short name for reports. */
  readonly name: string;
  /** `x2avic` says into which mode. */
  flushes(x2avic: boolean): boolean;
}

/**
 * In both modes: translations of the APIC page that were made in xAVIC mode are marked as such in the
 * TLB, and would still lead to the register page in x2AVIC mode. (KVM, June 2026.)
 */
export const flushBothModes: ActivationFlushPolicy = { name: "both", flushes: () => true };

/** Only into xAVIC mode, as before: for ordinary translations of the APIC page. */
export const flushXavicOnly: ActivationFlushPolicy = {
  name: "xavic-only",
  flushes: (x2avic) => !x2avic,
};

/** Flushing; {@linkcode flushBothModes} unless a plugin says otherwise. */
export const activationFlushSlot: Slot<ActivationFlushPolicy> = defineSlot(
  "avic-activation-flush",
  () => flushBothModes,
);
