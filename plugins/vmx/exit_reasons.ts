/**
 * Exit reasons that only this vendor has.
 *
 * @module
 */
import { defineExitReason } from "../../core/mod.ts";

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
