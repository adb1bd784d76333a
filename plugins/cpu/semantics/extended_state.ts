/**
 * FXSAVE, FXRSTOR, XGETBV, XSETBV and the XSAVE family (APM vol. 3, ch. 3–4; SDM vol. 1, ch. 13).
 *
 * @module
 */
import { MicrocodeFeature } from "../isa_features.ts";
import { SaveHow, XsaveArea } from "../microcode/extended_state.ts";
import { FxUnit } from "../microcode/fxsave.ts";
import { Vector } from "../microcode/raise.ts";
import { Cr0, Cr4 } from "../microcode/registers.ts";
import { S } from "../state/cpu_state.ts";
import { SvmExit } from "../svm/exit_codes.ts";
import { InterceptWord, Misc2 } from "../svm/intercepts.ts";
import { Secondary } from "../vmx/controls.ts";
import { VmxExit } from "../vmx/exit_reasons.ts";
import { readField, Vmcs } from "../vmx/fields.ts";
import type { I64 } from "../wasm/mod.ts";
import { type Instruction, Reg, type Semantics } from "./instruction.ts";
import { intercept } from "./intercept.ts";
import { ended, privileged } from "./privilege.ts";
import { exitVmx, reportOperand } from "./vmx_intercept.ts";

/** #UD unless the operating system has enabled extended states. */
function enabled(i: Instruction): void {
  i.faultIf(S.cr4.has(i.f, Cr4.OSXSAVE).eqz(), Vector.UD);
}

/** EDX:EAX. */
function pair(i: Instruction): I64 {
  return i.reg(Reg.RDX, 32).shl(32).or(i.reg(Reg.RAX, 32));
}

/** ECX = 1 reads which components of XCR0 are in use (CPUID (0Dh,1) EAX bit 2). */
const xgetbv = ended((i) => {
  const { f } = i;
  enabled(i);
  const index = i.reg(Reg.RCX, 32);
  // ECX may be 1 at most, and only where the processor has that.
  const last = S.features.has(f, MicrocodeFeature.XGETBV1).extendU();
  i.faultIf(index.gtU(last), Vector.GP, 0);
  i.spill();
  const inUse = f.call(i.mc.xinuse);
  const value = index.eqz().select(S.xcr0.get(f), S.xcr0.get(f).and(inUse));
  i.setReg(Reg.RAX, 32, value.and(0xffff_ffff));
  i.setReg(Reg.RDX, 32, value.shrU(32));
});

const xsetbv = ended((i) => {
  enabled(i);
  privileged(i);
  intercept(i, InterceptWord.MISC2, Misc2.XSETBV, SvmExit.XSETBV);
  i.faultIf(i.reg(Reg.RCX, 32).ne(0), Vector.GP, 0);
  i.spill();
  i.f.call(i.mc.writeXcr0, pair(i));
});

/** The area's address: #NM while CR0.TS is set, #GP unless it is a multiple of 64. */
function areaOperand(i: Instruction, access: 0 | 1): I64 {
  enabled(i);
  i.faultIf(S.cr0.has(i.f, Cr0.TS), Vector.NM);
  const area = i.address(XsaveArea.COMPACTED, access);
  i.faultIf(area.has(63), Vector.GP, 0);
  return area;
}

/**
 * XSAVES and XRSTORS: for CPL 0, and in VMX non-root operation only where a control enables them. They
 * exit for components that are asked for, set in XSS and in the XSS-exiting bitmap (SDM vol. 3, 26.1.3).
 */
function supervisorOnly(i: Instruction, reason: number): void {
  const { f } = i;
  enabled(i);
  const off = S.secondaryControls.has(f, Secondary.XSAVES).eqz();
  i.faultIf(S.nonRoot.get(f).and(off), Vector.UD);
  privileged(i);
  f.if(
    S.nonRoot.get(f).and(S.xss.get(f).ne(0)),
    () => {
      const exiting = readField(f, Vmcs.XSS_EXITING_BITMAP).and(S.xss.get(f)).and(pair(i));
      f.if(exiting.ne(0), () => exitVmx(i, reason, reportOperand(i, 0)));
    },
    undefined,
    "unlikely",
  );
}

const save = (how: number, supervisor = false): Semantics =>
  ended((i) => {
    if (supervisor) supervisorOnly(i, VmxExit.XSAVES);
    const area = areaOperand(i, 1);
    i.spill();
    i.f.call(i.mc.saveExtended, area, pair(i), how);
  });

const restore = (supervisor: number): Semantics =>
  ended((i) => {
    if (supervisor !== 0) supervisorOnly(i, VmxExit.XRSTORS);
    const area = areaOperand(i, 0);
    i.spill();
    i.f.call(i.mc.restoreExtended, area, pair(i), supervisor);
  });

/** FXSAVE and FXRSTOR: #NM with CR0.EM or TS, #GP unless the area is a multiple of 16. */
const fx = (unit: typeof FxUnit.save, access: 0 | 1): Semantics => ({
  operandSize: true,
  emit: (i) => {
    i.faultIf(S.cr0.has(i.f, Cr0.EM | Cr0.TS), Vector.NM);
    const area = i.address(512, access);
    i.faultIf(area.has(15), Vector.GP, 0);
    i.spill();
    i.f.call(unit, area, Number(i.bits === 64));
  },
});

/** Instructions on extended state by mnemonic. */
export const EXTENDED_STATE: Readonly<Record<string, Semantics>> = {
  FXSAVE: fx(FxUnit.save, 1),
  FXRSTOR: fx(FxUnit.restore, 0),
  XGETBV: xgetbv,
  XSETBV: xsetbv,
  XSAVE: save(0),
  XSAVEOPT: save(SaveHow.OPTIMIZED),
  XSAVEC: save(SaveHow.OPTIMIZED | SaveHow.COMPACTED),
  XSAVES: save(SaveHow.OPTIMIZED | SaveHow.COMPACTED | SaveHow.SUPERVISOR, true),
  XRSTOR: restore(0),
  XRSTORS: restore(1),
};
