/**
 * Exit reasons that only this vendor has.
 *
 * @module
 */
import { defineExitReason, type ExitTargets } from "../../core/mod.ts";

const instruction = (name: string): number => defineExitReason(name, { of: () => 0 });

/** Exits at SVM instructions of the guest, by mnemonic (APM vol. 2, 15.9), and at RSM and RDPRU. */
export const SvmReason = {
  VMRUN: instruction("VMRUN") as number,
  VMLOAD: instruction("VMLOAD") as number,
  VMSAVE: instruction("VMSAVE") as number,
  STGI: instruction("STGI") as number,
  CLGI: instruction("CLGI") as number,
  SKINIT: instruction("SKINIT") as number,
  INVLPGA: instruction("INVLPGA") as number,
  RSM: instruction("RSM") as number,
  RDPRU: instruction("RDPRU") as number,
} as const;

/** Names of what EXITINFO2 63:32 of exit 401h says (APM vol. 2, table 15-24). */
const INCOMPLETE: readonly string[] = [
  "type not accelerated",
  "target not running",
  "invalid target",
  "invalid backing page",
  "vector below 16",
];

const incompleteIpi: ExitTargets = {
  of: ({ info2Hi }) => info2Hi,
  describe: (id) => ({ text: INCOMPLETE[id] ?? `reason ${id}` }),
};

/** The register's offset, and bit 0 for a write. */
const noaccel: ExitTargets = {
  of: ({ info1Lo, info1Hi }) => (info1Lo & 0xff0) | (info1Hi & 1),
  describe: (target) => {
    const register = (target & 0xff0).toString(16).toUpperCase().padStart(3, "0");
    return { text: `${(target & 1) !== 0 ? "write" : "read"} APIC ${register}h` };
  },
};

/** Exits of AVIC (APM vol. 2, 15.29.9). */
export const AvicReason = {
  /** 401h: an IPI that hardware did not complete. */
  INCOMPLETE_IPI: defineExitReason("AVIC_INCOMPLETE_IPI", incompleteIpi) as number,
  /** 402h: an access to a register that hardware does not accelerate, or not all of it. */
  NOACCEL: defineExitReason("AVIC_NOACCEL", noaccel) as number,
} as const;
