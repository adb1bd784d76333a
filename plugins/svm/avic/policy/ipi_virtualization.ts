/**
 * Whether hardware is told which vCPUs are running, without which each IPI exits.
 *
 * @module
 */
import { defineSlot, type Slot } from "../../../../core/mod.ts";
import type { AvicCapabilities } from "./limits.ts";

/** Whether IsRunning is ever set in the physical APIC ID table. */
export interface IpiVirtualizationPolicy {
  /** Short name for reports. */
  readonly name: string;
  /** Whether it is, on processors with the capabilities given. */
  enabled(capabilities: AvicCapabilities): boolean;
}

/** Family of Zen, Zen+ and Zen 2. */
const FAMILY_17H = 0x17;

/**
 * Not on family 17h, whose erratum 1235 can make hardware miss that software cleared IsRunning: a
 * target that halts is not woken. Every IPI exits there with 401h, target not running. ("KVM: SVM:
 * Disable (x2)AVIC IPI virtualization if CPU has erratum #1235", 2025; KVM's parameter is `enable_ipiv`.)
 */
export const ipiVirtualizationByFamily: IpiVirtualizationPolicy = {
  name: "by-family",
  enabled: ({ family }) => family !== FAMILY_17H,
};

/** Everywhere, as before. */
export const ipiVirtualizationAlways: IpiVirtualizationPolicy = {
  name: "always",
  enabled: () => true,
};

/** IPI virtualization; {@linkcode ipiVirtualizationByFamily} unless a plugin says otherwise. */
export const ipiVirtualizationSlot: Slot<IpiVirtualizationPolicy> = defineSlot(
  "avic-ipi-virtualization",
  () => ipiVirtualizationByFamily,
);
