/**
 * Exit reasons that only this vendor has.
 *
 * @module
 */
import { defineExitReason, type ExitTargets } from "../../core/mod.ts";

const instruction = (name: string): number => defineExitReason(name, { of: () => 0 });

/** Exits at VMX instructions of the guest, and others that a guest without VMX cannot use. */
export const VmxReason = {
  VMCLEAR: instruction("VMCLEAR") as number,
  VMLAUNCH: instruction("VMLAUNCH") as number,
  VMPTRLD: instruction("VMPTRLD") as number,
  VMPTRST: instruction("VMPTRST") as number,
  VMREAD: instruction("VMREAD") as number,
  VMRESUME: instruction("VMRESUME") as number,
  VMWRITE: instruction("VMWRITE") as number,
  VMXOFF: instruction("VMXOFF") as number,
  VMXON: instruction("VMXON") as number,
  INVEPT: instruction("INVEPT") as number,
  INVVPID: instruction("INVVPID") as number,
  VMFUNC: instruction("VMFUNC") as number,
  GETSEC: instruction("GETSEC") as number,
  RSM: instruction("RSM_VMX") as number,
} as const;

const register = (offset: number): string => offset.toString(16).toUpperCase().padStart(3, "0");

/** Access types of exit 44: bits 15:12 of the qualification (table 28-6). */
const ACCESS_TYPES: readonly string[] = ["read", "write", "fetch", "event delivery"];

const access: ExitTargets = {
  of: ({ info1Lo }) => info1Lo & 0xffff,
  describe: (target) => {
    const type = ACCESS_TYPES[target >>> 12] ?? "physical";
    return { text: `${type} APIC ${register(target & 0xfff)}h` };
  },
};

const write: ExitTargets = {
  of: ({ info1Lo }) => info1Lo & 0xfff,
  describe: (target) => ({ text: `write APIC ${register(target)}h` }),
};

const vector: ExitTargets = {
  of: ({ info1Lo }) => info1Lo & 0xff,
  describe: (target) => ({ text: `vector ${target.toString(16).toUpperCase()}h` }),
};

/** Exits that say something about a guest and want nothing done. */
export const DetectionReason = {
  /** 74: an instruction has locked the bus; a trap. */
  BUS_LOCK: defineExitReason("BUS_LOCK", { of: () => 0 }) as number,
} as const;

/** Exits of APIC virtualization (SDM vol. 3, 30). */
export const ApicvReason = {
  /** 43: the task priority fell below the TPR threshold. */
  TPR_BELOW_THRESHOLD: defineExitReason("TPR_BELOW_THRESHOLD", { of: () => 0 }) as number,
  /** 44: an access to the APIC-access page that hardware does not virtualize; a fault. */
  APIC_ACCESS: defineExitReason("APIC_ACCESS", access) as number,
  /** 45: an interrupt was ended whose vector is in the EOI-exit bitmap; a trap. */
  EOI_INDUCED: defineExitReason("EOI_INDUCED", vector) as number,
  /** 56: a register was written in the virtual-APIC page, and the rest is software's; a trap. */
  APIC_WRITE: defineExitReason("APIC_WRITE", write) as number,
} as const;
