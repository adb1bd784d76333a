/**
 * MONITOR, MWAIT, MONITORX and MWAITX (APM vol. 3, ch. 3 and 4; SDM vol. 2B and vol. 3A, 10.10.4).
 *
 * A wait ends with a store to the line that is monitored, by any processor or device; with an interrupt, NMI,
 * SMI or INIT; and where ECX says so with an interrupt that is masked, or in time.
 *
 * @module
 */
import { Access } from "../memory/walk.ts";
import { Vector } from "../microcode/raise.ts";
import { Rflags } from "../microcode/registers.ts";
import { Event, MonitorWait, S } from "../state/cpu_state.ts";
import { SvmExit } from "../svm/exit_codes.ts";
import { InterceptWord, interceptWord, Misc2 } from "../svm/intercepts.ts";
import { Primary } from "../vmx/controls.ts";
import { VmxExit } from "../vmx/exit_reasons.ts";
import { i32, type I64, i64, I64T } from "../wasm/mod.ts";
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
    const linear = f.variable(I64T, f.call(mc.segmentAddress, i.segment(), offset, 1, 0)).get();
    i.load(8, linear);
    intercept(i, InterceptWord.MISC2, Misc2.MONITOR, SvmExit.MONITOR);
    const physical = f.call(mc.translate, linear, Access.READ, S.mmu.get(f));
    // What is no memory can be waited for, and no store to it is ever seen.
    f.call(mc.monitor, f.call(mc.physical, physical));
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
    const armed = S.monitorArmed.get(f);
    const wanted = S.guestMode.get(f).and(armed)
      .and(interceptWord(f, InterceptWord.MISC2).and(Misc2.MWAIT_CONDITIONAL).ne(0));
    f.if(wanted, () => exitGuest(i, i32(SvmExit.MWAIT_CONDITIONAL)), undefined, "unlikely");
    const hints = i.reg(Reg.RCX, 32).wrap();
    const masked = hints.and(1);
    // In VMX non-root operation there is no wait that masked interrupts would end (SDM vol. 3C, 26.3).
    const none = S.nonRoot.get(f).and(masked).and(S.rflags.has(f, Rflags.IF).eqz());
    f.if(armed.and(none.eqz()), () => {
      const timer = hints.and(2).ne(0).select(i32(MonitorWait.TIMER), i32(0));
      S.monitorWait.set(f, masked.mul(MonitorWait.MASKED).or(timer).or(MonitorWait.WAITS));
      S.monitorTicks.set(f, i.reg(Reg.RBX, 32).wrap());
      i.event(Event.HALTED);
    });
    S.monitorArmed.set(f, 0);
  });

/** Waiting for a store, by mnemonic. */
export const MONITOR: Readonly<Record<string, Semantics>> = {
  MONITOR: monitor(true),
  MWAIT: mwait(true, 1),
  MONITORX: monitor(false),
  MWAITX: mwait(false, 3),
};
