/**
 * Which x2APIC MSRs the guest accesses without an exit while APICv is active. Without it, that is the
 * task priority alone.
 *
 * @module
 */
import { defineSlot, type Slot } from "../../../../core/mod.ts";
import { acceleratedReads, acceleratedWrites, type LapicFeatures } from "../../../lapic/mod.ts";

/** Which x2APIC MSRs are passed through, in one direction. */
export interface ApicvMsrPolicy {
  /** Short name for reports. */
  readonly name: string;
  /** Indexes of the MSRs; `ipis` says whether IPIs are virtualized. */
  msrs(features: LapicFeatures, ipis: boolean): readonly number[];
}

/** Reads of what the page holds: the same as under x2AVIC (KVM 8ba621f335a5). */
export const apicvReadable: ApicvMsrPolicy = {
  name: "readable",
  msrs: (features) => acceleratedReads(features),
};

/** Writes that hardware carries out: TPR, EOI and SELF_IPI, and the ICR if IPIs are virtualized. */
export const apicvAccelerated: ApicvMsrPolicy = {
  name: "accelerated",
  msrs: (_features, ipis) => acceleratedWrites(true, ipis),
};

/** Reads that pass; {@linkcode apicvReadable} unless a plugin says otherwise. */
export const apicvReadSlot: Slot<ApicvMsrPolicy> = defineSlot(
  "apicv-reads-passed",
  () => apicvReadable,
);

/** Writes that pass; {@linkcode apicvAccelerated} unless a plugin says otherwise. */
export const apicvWriteSlot: Slot<ApicvMsrPolicy> = defineSlot(
  "apicv-writes-passed",
  () => apicvAccelerated,
);
