/**
 * MONITOR, MWAIT, MONITORX and MWAITX (APM vol. 3, ch. 3 and 4).
 *
 * A wait ends at once: the manuals let it end for reasons of the implementation's own, and software
 * looks again at what it waits for. The models therefore leave MONITOR out, as firmware can, so that
 * operating systems wait with HLT.
 *
 * @module
 */
import { Vector } from "../microcode/raise.ts";
import { S } from "../state/cpu_state.ts";
import { SvmExit } from "../svm/exit_codes.ts";
import { InterceptWord, interceptWord, Misc2 } from "../svm/intercepts.ts";
import { Primary } from "../vmx/controls.ts";
import { VmxExit } from "../vmx/exit_reasons.ts";
import { i32, type I64, i64 } from "../wasm/mod.ts";
import { type Instruction, Reg, type Semantics } from "./instruction.ts";
import { exitGuest, intercept } from "./intercept.ts";
import { ended } from "./privilege.ts";
import { exitVmx } from "./vmx_intercept.ts";

/** MONITOR and MWAIT are undefined but at CPL 0; MONITORX and MWAITX are anyone's. */
function supervisorOnly(i: Instruction): void {
  i.faultIf(S.cpl.get(i.f).ne(0), Vector.UD);
}

function exitIf(i: Instruction, control: number, reason: number, qualification: () => I64): void {
  const { f } = i;
  f.if(
    S.nonRoot.get(f).and(S.primaryControls.has(f, control)),
    () => exitVmx(i, reason, qualification()),
    undefined,
    "unlikely",
  );
}

/** The address in rAX, in DS or the segment that a prefix names, must be readable. */
const monitor = (privileged: boolean): Semantics =>
  ended((i) => {
    const { f, mc } = i;
    if (privileged) {
      supervisorOnly(i);
      exitIf(i, Primary.MONITOR, VmxExit.MONITOR, () => i64(0));
    }
    // No extensions in ECX are defined.
    i.faultIf(i.reg(Reg.RCX, 32).ne(0), Vector.GP, 0);
    const offset = i.reg(Reg.RAX, i.addressBits);
    i.spill();
    const linear = f.call(mc.segmentAddress, i.segment(), offset, 1, 0);
    i.load(8, linear);
    intercept(i, InterceptWord.MISC2, Misc2.MONITOR, SvmExit.MONITOR);
    S.monitorArmed.set(f, 1);
  }, { addressSize: true });

/** ECX 0: interrupts end the wait though masked; ECX 1 of MWAITX: EBX has the longest wait. */
const mwait = (privileged: boolean, extensions: number): Semantics =>
  ended((i) => {
    const { f } = i;
    if (privileged) {
      supervisorOnly(i);
      exitIf(i, Primary.MWAIT, VmxExit.MWAIT, () => S.monitorArmed.get(f).extendU());
    }
    i.faultIf(i.reg(Reg.RCX, 32).has(~extensions), Vector.GP, 0);
    intercept(i, InterceptWord.MISC2, Misc2.MWAIT, SvmExit.MWAIT);
    // The conditional intercept is for a wait that would begin.
    const wanted = S.guestMode.get(f).and(S.monitorArmed.get(f))
      .and(interceptWord(f, InterceptWord.MISC2).and(Misc2.MWAIT_CONDITIONAL).ne(0));
    f.if(wanted, () => exitGuest(i, i32(SvmExit.MWAIT_CONDITIONAL)), undefined, "unlikely");
    S.monitorArmed.set(f, 0);
  });

/** Waiting for a store, by mnemonic. */
export const MONITOR: Readonly<Record<string, Semantics>> = {
  MONITOR: monitor(true),
  MWAIT: mwait(true, 1),
  MONITORX: monitor(false),
  MWAITX: mwait(false, 3),
};
