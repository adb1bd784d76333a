/**
 * CPUID: the processor's own answer, then what plugins make of it.
 *
 * @module
 */

import { defineSlot, type Slot } from "./slot.ts";
import type { Vcpu } from "./vcpu.ts";

/** One execution of CPUID. The record is used again for the next one: copy what is to be kept. */
export class CpuidResult {
  /** Leaf, EAX of the question. */
  leaf = 0;
  /** Subleaf, ECX of the question. */
  subleaf = 0;
  /** Answer in EAX, 32 bits. */
  eax = 0;
  /** Answer in EBX, 32 bits. */
  ebx = 0;
  /** Answer in ECX, 32 bits. */
  ecx = 0;
  /** Answer in EDX, 32 bits. */
  edx = 0;
}

/** Where CPUID answers begin. */
export interface CpuidSource {
  /**
   * Fills in the four answers for `result.leaf` and `result.subleaf`. What depends on the vCPU's state
   * (OSXSAVE, the size of the XSAVE area, the APIC ID) is the source's to work out.
   */
  read(result: CpuidResult, vcpu: Vcpu): void;
}

/** The processor's own CPUID. Without one all leaves are zero. */
export const cpuidSlot: Slot<CpuidSource> = defineSlot("cpuid", () => ({
  read: (result) => {
    result.eax =
      result.ebx =
      result.ecx =
      result.edx =
        0;
  },
}));
