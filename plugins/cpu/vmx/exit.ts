/**
 * VM exits: the guest's state goes to the VMCS, the host's comes from there (SDM vol. 3, ch. 28).
 *
 * @module
 */
import { MicroOp } from "../engine/block_layout.ts";
import { GATE_DPL_CHECKED, SINGLE_STEP_INTERRUPT } from "../microcode/interrupt.ts";
import { type Microcode, Unwind } from "../microcode/microcode.ts";
import { EventFormat, Vector } from "../microcode/raise.ts";
import { Cr0, Cr4, Efer, Rflags } from "../microcode/registers.ts";
import { keepInForce } from "../microcode/world.ts";
import { DR6_BS, Event, S } from "../state/cpu_state.ts";
import { type FunctionBuilder, type I32, i32, I32T, I64T } from "../wasm/mod.ts";
import {
  Activity,
  ExitControl,
  Interruptibility,
  PendingDebug,
  Pin,
  Secondary,
} from "./controls.ts";
import { EventType } from "./control_checks.ts";
import { BUS_LOCK_DETECTED, ENTRY_FAILURE, VmxExit } from "./exit_reasons.ts";
import { readField32, Vmcs, VmcsRegion, writeField, writeField32 } from "./fields.ts";
import { loadMsrs, storeMsrs } from "./msr_lists.ts";
import { loadHostCounters } from "./performance.ts";
import { saveTimer } from "./timer.ts";
import { loadHost, saveGuest } from "./world_switch.ts";

/** VMX-abort indicators (28.7). */
const Abort = { SAVING_MSRS: 1, PDPTE: 2, LOADING_MSRS: 4 } as const;

/** What a guest has pending that does not outlast it. */
const GONE = Event.SHADOW | Event.SHADOW_NEW | Event.SHADOW_SS | Event.SINGLE_STEP | Event.TRAP |
  Event.HALTED | Event.INJECT | Event.EXCEPTION | Event.ALONE | Event.RESUME | Event.RESUME_NEW |
  Event.SHUTDOWN | Event.WAIT_SIPI | Event.VMEXIT_TRAP | Event.VMX_WINDOW | Event.MTF |
  Event.MTF_PENDING | Event.VMX_TIMER | Event.VMX_INTERRUPT | Event.BUS_LOCK;

/** Interruption information of a #DB, without its type. */
const VECTOR_VALID = EventFormat.VALID | 0xff;
const DEBUG_VALID = EventFormat.VALID | Vector.DB;

/** DEBUGCTL.BTF: single-stepping is on branches. */
const BTF = 0x2;

/** Interruption information of an event in the processor's own format, with its kind's internal bits. */
function informationOf(event: I32): I32 {
  const exception = event.and(EventFormat.TYPE).eq(EventFormat.EXCEPTION);
  const soft = exception.and(event.and(GATE_DPL_CHECKED).ne(0));
  const privileged = exception.and(event.and(SINGLE_STEP_INTERRUPT).ne(0));
  const plain = event.and(0x8000_0fff);
  const typed = (type: number): I32 => plain.and(~EventFormat.TYPE).or(type << 8);
  return privileged.select(
    typed(EventType.PRIVILEGED_EXCEPTION),
    soft.select(typed(EventType.SOFTWARE_EXCEPTION), plain),
  );
}

/** 1 if the event being delivered is an instruction's: INT n, INT3, INTO, INT1. */
function isInstructions(event: I32): I32 {
  return event.and(EventFormat.TYPE).eq(EventFormat.SOFTWARE)
    .or(event.and(GATE_DPL_CHECKED | SINGLE_STEP_INTERRUPT).ne(0));
}

/** Gives the functions of VM exits their bodies. */
export function defineExit(mc: Microcode): void {
  const { module } = mc;

  const abort = (f: FunctionBuilder, why: number): void => {
    // Nothing goes to the region by itself any more.
    f.store32(0, why, S.vmcsData + VmcsRegion.ABORT);
    f.store32(S.vmcs.get(f), why, VmcsRegion.ABORT);
    S.events.or(f, Event.SHUTDOWN);
  };

  module.body(mc.vmxLoadHost, (f) => {
    const exit = readField32(f, Vmcs.EXIT_CONTROLS);
    const vpid = S.secondaryControls.has(f, Secondary.VPID);
    S.nonRoot.set(f, 0);
    S.nestedPaging.set(f, 0);
    S.eptPointer.set(f, 0);
    S.tscOffset.set(f, 0);
    S.delivering.set(f, 0);
    S.stepping.set(f, 0);
    S.trapBits.set(f, 0);
    S.breakpointHits.set(f, 0);
    f.if(
      S.pinControls.has(f, Pin.VIRTUAL_NMIS),
      () => S.nmiBlocked.set(f, S.hostNmiBlocked.get(f)),
    );
    S.pinControls.set(f, 0);
    S.primaryControls.set(f, 0);
    S.secondaryControls.set(f, 0);
    S.tertiaryControls.set(f, 0);
    S.vapic.set(f, 0);
    S.apicAccess.set(f, 0);
    S.busLocks.set(f, 0);
    S.events.clear(f, GONE);
    f.if(S.hostOutside.get(f), () => S.events.or(f, Event.EXIT));
    S.physicalMap.set(f, S.hostMap.get(f));
    S.budget.set(f, S.budget.get(f).add(S.timerHeld.get(f)));
    S.timerHeld.set(f, 0);
    loadHost(f);
    // A host outside executes nothing: what follows from its state, and its TLB, would not be used before the
    // next entry puts others in their place.
    f.if(S.hostOutside.get(f).eqz(), () => f.call(mc.selectContext, 0), undefined, "unlikely");
    // Without VPIDs nothing outlasts a transition.
    f.if(vpid.eqz(), () => f.call(mc.flushTlb));
    f.if(S.hostOutside.get(f).eqz(), () => f.call(mc.updateMode), undefined, "unlikely");
    const pae = exit.and(ExitControl.HOST_64BIT).eqz().and(S.cr4.has(f, Cr4.PAE))
      .and(S.cr0.has(f, Cr0.PG));
    f.if(pae, () => {
      f.if(f.call(mc.readPdptes, S.cr3.get(f)).eqz(), () => abort(f, Abort.PDPTE));
    });
    loadHostCounters(f, mc);
    const { EXIT_MSR_LOAD_COUNT, EXIT_MSR_LOAD_ADDRESS } = Vmcs;
    f.if(loadMsrs(f, mc, EXIT_MSR_LOAD_COUNT, EXIT_MSR_LOAD_ADDRESS), () => {
      abort(f, Abort.LOADING_MSRS);
    });
  });

  /** Interruptibility, activity and pending debug exceptions (28.3.4); `debug` is 1 for the exit of a #DB. */
  const saveState = (f: FunctionBuilder, debug: I32): void => {
    const { events } = S;
    const shadow = events.has(f, Event.SHADOW | Event.SHADOW_NEW);
    const movSs = events.has(f, Event.SHADOW_SS);
    const kind = movSs.select(i32(Interruptibility.MOV_SS), i32(Interruptibility.STI));
    const nmi = S.nmiBlocked.get(f).mul(Interruptibility.NMI);
    writeField32(f, Vmcs.GUEST_INTERRUPTIBILITY, shadow.select(kind, i32(0)).or(nmi));
    // An MWAIT that waits is no activity state of its own.
    const halted = events.has(f, Event.HALTED).and(S.monitorWait.get(f).eqz());
    const waiting = events.has(f, Event.WAIT_SIPI)
      .select(i32(Activity.WAIT_FOR_SIPI), i32(Activity.ACTIVE));
    const down = events.has(f, Event.SHUTDOWN).select(i32(Activity.SHUTDOWN), waiting);
    writeField32(f, Vmcs.GUEST_ACTIVITY, halted.select(i32(Activity.HLT), down));
    // Behind an instruction that was single-stepped the trap is pending; a shadow or a halt holds it back.
    const trap = events.has(f, Event.TRAP).select(S.trapBits.get(f), i32(0));
    const held = shadow.or(halted).and(S.rflags.has(f, Rflags.TF))
      .and(S.debugCtl.has(f, BTF).eqz()).select(i32(DR6_BS), i32(0));
    const points = trap.and(PendingDebug.BREAKPOINTS);
    const enabled = points.ne(0).select(i32(PendingDebug.ENABLED), i32(0));
    const pending = points.or(enabled).or(trap.or(held).and(DR6_BS));
    // The exit of a #DB takes all of it with it.
    writeField32(f, Vmcs.GUEST_PENDING_DEBUG, debug.select(i32(0), pending));
  };

  /** `(reason, qualification, information, error, resume)`; `resume` is 1 to save RF as 1. */
  const leave = module.define(
    "vmxLeave",
    [I32T, I64T, I32T, I32T, I32T],
    undefined,
    (f, reason, qualification, information, error, resume) => {
      const uop = S.uop.get(f);
      const delivering = S.delivering.get(f);
      const kind = S.deliveringKind.get(f);
      const soft = delivering.ne(0).and(isInstructions(kind));
      const injected = soft.select(S.injectionLength.get(f), i32(0));
      const length = f.choose(I32T, uop.ne(0), () => f.load8(uop, MicroOp.LENGTH), () => injected);
      f.call(mc.settle);
      const locked = S.events.has(f, Event.BUS_LOCK).and(reason.ne(VmxExit.BUS_LOCK));
      writeField32(f, Vmcs.EXIT_REASON, reason.or(locked.select(i32(BUS_LOCK_DETECTED), i32(0))));
      writeField(f, Vmcs.EXIT_QUALIFICATION, qualification);
      writeField32(f, Vmcs.EXIT_INTERRUPTION_INFO, information);
      writeField32(f, Vmcs.EXIT_INTERRUPTION_ERROR, error);
      writeField32(f, Vmcs.EXIT_INSTRUCTION_LENGTH, length);
      const vectoring = delivering.ne(0).select(informationOf(kind), i32(0));
      const withError = vectoring.and(EventFormat.ERROR).ne(0);
      writeField32(f, Vmcs.IDT_VECTORING_INFO, vectoring);
      writeField32(
        f,
        Vmcs.IDT_VECTORING_ERROR,
        withError.select(S.deliveringError.get(f), i32(0)),
      );
      const event = readField32(f, Vmcs.ENTRY_INTERRUPTION_INFO).and(0x7fff_ffff);
      writeField32(f, Vmcs.ENTRY_INTERRUPTION_INFO, event);
      saveGuest(f);
      writeField(f, Vmcs.GUEST_RIP, S.rip.get(f));
      const flags = f.call(mc.readFlags);
      writeField(f, Vmcs.GUEST_RFLAGS, flags.or(resume.extendU().mul(Rflags.RF)));
      const isDebug = information.and(VECTOR_VALID).eq(DEBUG_VALID)
        .and(information.and(EventFormat.TYPE).ne(EventFormat.NMI));
      saveState(f, isDebug);
      saveTimer(f, mc);
      const pae = S.cr0.has(f, Cr0.PG).and(S.cr4.has(f, Cr4.PAE))
        .and(S.efer.has(f, Efer.LMA).eqz())
        .and(S.secondaryControls.has(f, Secondary.EPT));
      f.if(pae, () => {
        for (let k = 0; k < 4; k++) {
          writeField(f, Vmcs.GUEST_PDPTE0 + 2 * k, f.load64(0, S.pdptes + 8 * k));
        }
      });
      S.exits.set(f, S.exits.get(f).add(1));
      // What is stored are the processor's own: its TSC, and its APIC's registers.
      S.tscOffset.set(f, 0);
      S.secondaryControls.clear(f, Secondary.TSC_SCALING | Secondary.VIRTUALIZE_X2APIC);
      f.if(storeMsrs(f, mc), () => {
        abort(f, Abort.SAVING_MSRS);
        f.return();
      });
      keepInForce(f, S.vmcs.get(f).extendU());
      f.call(mc.vmxLoadHost);
      // An NMI that causes an exit blocks those that follow it.
      const nmi = reason.eq(VmxExit.EXCEPTION_OR_NMI)
        .and(information.and(EventFormat.TYPE).eq(EventFormat.NMI));
      f.if(nmi, () => S.nmiBlocked.set(f, 1));
    },
  );

  module.body(mc.vmxExit, (f, reason, qualification) => {
    f.call(leave, reason, qualification, 0, 0, 0);
  });

  module.body(mc.vmxExitFault, (f, reason, qualification) => {
    f.call(leave, reason, qualification, 0, 0, 1);
    f.call(mc.unwindTo, Unwind.VMEXIT);
  });

  module.body(mc.vmxExitEvent, (f, event, error, qualification) => {
    const vector = event.and(0xff);
    const exception = event.and(EventFormat.TYPE).eq(EventFormat.EXCEPTION);
    const internal = event.and(GATE_DPL_CHECKED | SINGLE_STEP_INTERRUPT).ne(0);
    // RF is saved as delivery would have pushed it: set for faults.
    const fault = exception.and(internal.eqz()).and(vector.ne(Vector.DB));
    const withError = event.and(EventFormat.ERROR).ne(0);
    f.call(
      leave,
      VmxExit.EXCEPTION_OR_NMI,
      qualification,
      informationOf(event),
      withError.select(error, i32(0)),
      fault,
    );
  });

  module.body(mc.vmxExitInterrupt, (f, information) => {
    f.call(leave, VmxExit.EXTERNAL_INTERRUPT, 0, information, 0, 0);
  });

  module.body(mc.vmxEntryFailed, (f, reason, qualification) => {
    writeField32(f, Vmcs.EXIT_REASON, reason.or(ENTRY_FAILURE));
    writeField(f, Vmcs.EXIT_QUALIFICATION, qualification);
    S.exits.set(f, S.exits.get(f).add(1));
    f.call(mc.vmxLoadHost);
  });
}
