/**
 * Exit reasons that only this vendor has.
 *
 * @module
 */
import { defineExitReason } from "../../core/mod.ts";

const instruction = (name: string): number => defineExitReason(name, { of: () => 0 });

/** Exits at SVM instructions of the guest, by mnemonic (APM vol. 2, 15.9), and at RSM. */
export const SvmReason = {
  VMRUN: instruction("VMRUN") as number,
  VMLOAD: instruction("VMLOAD") as number,
  VMSAVE: instruction("VMSAVE") as number,
  STGI: instruction("STGI") as number,
  CLGI: instruction("CLGI") as number,
  SKINIT: instruction("SKINIT") as number,
  INVLPGA: instruction("INVLPGA") as number,
  RSM: instruction("RSM") as number,
} as const;
