/**
 * How far the physical APIC ID table goes.
 *
 * @module
 */
import { defineSlot, type Slot } from "../../../../core/mod.ts";

/** What of AVIC the processors have. */
export interface AvicCapabilities {
  /** CPUID 8000_000Ah EDX bit 13. */
  readonly avic: boolean;
  /** EDX bit 18. */
  readonly x2avic: boolean;
  /** ECX bit 6: 4096 IDs in x2AVIC mode. */
  readonly x2avicExtended: boolean;
  /** EDX bit 27: the extended LVT is accelerated. */
  readonly extendedLvt: boolean;
  /** Family of the processors, CPUID 1 EAX: base and extended family added. */
  readonly family: number;
}

/** The highest guest physical APIC ID of xAVIC: 255 is the broadcast ID (APM vol. 2, 15.29.4.2). */
export const XAVIC_MAX_ID = 254;
/** The highest of x2AVIC. */
export const X2AVIC_MAX_ID = 511;
/** The highest of x2AVIC with CPUID 8000_000Ah ECX bit 6. */
export const X2AVIC_EXTENDED_MAX_ID = 4095;

/** The highest ID in x2AVIC mode. */
export interface X2avicLimitPolicy {
  /** Short name for reports. */
  readonly name: string;
  /** The highest physical APIC ID that is used, on a processor that has x2AVIC. */
  maxId(capabilities: AvicCapabilities): number;
}

/** 4095 where the processor has it. ("KVM: SVM: Add support for 4k vCPUs with x2AVIC", 2025.) */
export const x2avicExtendedLimit: X2avicLimitPolicy = {
  name: "4k",
  maxId: ({ x2avicExtended }) => x2avicExtended ? X2AVIC_EXTENDED_MAX_ID : X2AVIC_MAX_ID,
};

/** 511 everywhere, as before. */
export const x2avicFormerLimit: X2avicLimitPolicy = { name: "512", maxId: () => X2AVIC_MAX_ID };

/** The highest ID in x2AVIC mode; {@linkcode x2avicExtendedLimit} unless a plugin says otherwise. */
export const x2avicLimitSlot: Slot<X2avicLimitPolicy> = defineSlot(
  "x2avic-limit",
  () => x2avicExtendedLimit,
);

/** AVIC_PHYSICAL_MAX_INDEX: VMCB 0F8h bits 11:0. */
export interface MaxIndexPolicy {
  /** Short name for reports. */
  readonly name: string;
  /**
   * The index for the VMCB.
   *
   * @param limit The highest ID in the vCPU's mode.
   * @param vcpuIds How many vCPU ids the VM was configured to have at most.
   */
  maxIndex(limit: number, vcpuIds: number): number;
}

/**
 * No further than the VM's ids go. ("KVM: SVM: Limit AVIC physical max index based on configured
 * max_vcpu_ids".) An IPI to an ID above is then an invalid target, and a broadcast scans less.
 */
export const configuredMaxIndex: MaxIndexPolicy = {
  name: "configured",
  maxIndex: (limit, vcpuIds) => Math.min(limit, vcpuIds - 1),
};

/** As far as the mode allows, as before. */
export const modeMaxIndex: MaxIndexPolicy = { name: "mode", maxIndex: (limit) => limit };

/** The index for the VMCB; {@linkcode configuredMaxIndex} unless a plugin says otherwise. */
export const maxIndexSlot: Slot<MaxIndexPolicy> = defineSlot(
  "avic-max-index",
  () => configuredMaxIndex,
);
