/**
 * SVM instructions (APM vol. 3, ch. 4; order of checks in vol. 2, table 15-7).
 *
 * @module
 */
import { Vector } from "../microcode/raise.ts";
import { Efer } from "../microcode/registers.ts";
import { S } from "../state/cpu_state.ts";
import { SvmExit } from "../svm/exit_codes.ts";
import { InterceptWord, Misc1, Misc2 } from "../svm/intercepts.ts";
import { hasVirtualGif, virtualVmloadExits } from "../svm/virtual.ts";
import { IntControl } from "../svm/vmcb.ts";
import { type I32, i32, type I64 } from "../wasm/mod.ts";
import { type Instruction, Reg, type Semantics } from "./instruction.ts";
import { exitGuest, intercept } from "./intercept.ts";
import { privileged, protectedOnly } from "./privilege.ts";

/** #UD unless EFER.SVME is set and the mode is protected; then #GP unless CPL is 0. */
function checkSvm(i: Instruction): void {
  i.faultIf(S.efer.has(i.f, Efer.SVME).eqz(), Vector.UD);
  protectedOnly(i);
  privileged(i);
}

const svm = (
  emit: (i: Instruction) => void,
  mask: number,
  code: number,
  before?: (i: Instruction) => void,
): Semantics => ({
  code: true,
  addressSize: true,
  ends: true,
  emit: (i) => {
    checkSvm(i);
    before?.(i);
    intercept(i, InterceptWord.MISC2, mask, code);
    emit(i);
    if (!i.ended) i.leave();
  },
});

/** rAX, in the address size, as a VMCB address: #GP unless it is page-aligned and legal. */
function vmcbOperand(i: Instruction): I64 {
  return i.reg(Reg.RAX, i.addressBits);
}

function checkAddress(i: Instruction): void {
  const { f } = i;
  const address = vmcbOperand(i);
  const beyond = address.shrU(S.physicalBits.get(f).extendU()).ne(0);
  i.faultIf(address.has(0xfff).or(beyond), Vector.GP, 0);
}

const setGif = (value: 0 | 1): (i: Instruction) => void => ({ f }) => {
  const virtual = value === 1
    ? () => S.intControl.or(f, IntControl.V_GIF)
    : () => S.intControl.clear(f, IntControl.V_GIF);
  f.if(hasVirtualGif(f), virtual, () => S.gif.set(f, value));
};

/** In front of VMLOAD and VMSAVE, behind their intercepts. */
function checkVirtual(i: Instruction, code: number): void {
  i.f.if(virtualVmloadExits(i.f), () => exitGuest(i, i32(code)), undefined, "unlikely");
}

/** SVM instructions by mnemonic. */
export const VIRTUALIZATION: Readonly<Record<string, Semantics>> = {
  VMRUN: svm(
    (i) => {
      i.spill();
      i.f.call(i.mc.vmrun, vmcbOperand(i), i.nextRip());
      i.leaveAsIs();
    },
    Misc2.VMRUN,
    SvmExit.VMRUN,
    checkAddress,
  ),
  VMLOAD: svm(
    (i) => {
      checkVirtual(i, SvmExit.VMLOAD);
      i.spill();
      i.f.call(i.mc.vmload, vmcbOperand(i));
    },
    Misc2.VMLOAD,
    SvmExit.VMLOAD,
    checkAddress,
  ),
  VMSAVE: svm(
    (i) => {
      checkVirtual(i, SvmExit.VMSAVE);
      i.spill();
      i.f.call(i.mc.vmsave, vmcbOperand(i));
    },
    Misc2.VMSAVE,
    SvmExit.VMSAVE,
    checkAddress,
  ),
  STGI: svm(setGif(1), Misc2.STGI, SvmExit.STGI),
  CLGI: svm(setGif(0), Misc2.CLGI, SvmExit.CLGI),
  // No model reports SKINIT or SVM lock. That #UD, as all of table 15-7, comes before the intercept.
  SKINIT: {
    ends: true,
    emit: (i) => {
      i.raise(Vector.UD);
      i.leave();
    },
  },
  INVLPGA: {
    code: true,
    addressSize: true,
    ends: true,
    emit: (i) => {
      checkSvm(i);
      intercept(i, InterceptWord.MISC1, Misc1.INVLPGA, SvmExit.INVLPGA);
      const asid: I32 = i.reg(Reg.RCX, 32).wrap();
      i.f.call(i.mc.flushContexts, asid, vmcbOperand(i), i32(0));
      i.leave();
    },
  },
  // VMMCALL is for guests: it exits if intercepted, whatever the mode and CPL, and is undefined if not.
  VMMCALL: {
    ends: true,
    emit: (i) => {
      intercept(i, InterceptWord.MISC2, Misc2.VMMCALL, SvmExit.VMMCALL);
      i.raise(Vector.UD);
      i.leave();
    },
  },
};
