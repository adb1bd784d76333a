/**
 * VM entries: VMLAUNCH and VMRESUME (SDM vol. 3, ch. 27).
 *
 * @module
 */
import { GATE_DPL_CHECKED, SINGLE_STEP_INTERRUPT } from "../microcode/interrupt.ts";
import type { Microcode } from "../microcode/microcode.ts";
import { EventFormat } from "../microcode/raise.ts";
import { Cr0, Cr4, Efer, Rflags } from "../microcode/registers.ts";
import { isInForce } from "../microcode/world.ts";
import { DR6_BS, Event, S } from "../state/cpu_state.ts";
import { Context } from "../state/tlb_layout.ts";
import { type FunctionBuilder, type I32, i32, i64 } from "../wasm/mod.ts";
import {
  EventType,
  illegalControls,
  illegalEvent,
  readControls,
  thresholdCounts,
} from "./control_checks.ts";
import {
  Activity,
  EPT_IN_FORCE,
  GUEST_CONTEXT,
  Interruptibility,
  PendingDebug,
  Primary,
  Secondary,
} from "./controls.ts";
import { VmxError, VmxExit } from "./exit_reasons.ts";
import { readField, readField32, Vmcs, VmcsGroup, VmcsRegion } from "./fields.ts";
import { GUEST_OK, illegalGuest } from "./guest_checks.ts";
import { illegalAddressSpace, illegalHost } from "./host_checks.ts";
import { loadMsrs } from "./msr_lists.ts";
import { illegalHostCounters, loadGuestCounters } from "./performance.ts";
import { loadGuest } from "./world_switch.ts";

/** What {@linkcode Microcode.vmxEnter} yields if it did not fail: the state is another one now. */
export const ENTERED = -1;

/** Gives the functions of VM entries their bodies. */
export function defineEntry(mc: Microcode): void {
  const { module } = mc;

  const failIf = (f: FunctionBuilder, condition: I32, error: number): void =>
    f.if(condition, () => f.return(f.call(mc.vmxFail, error)), undefined, "unlikely");

  const state = module.define("vmxLoadState", [], undefined, (f) => {
    const blocking = readField32(f, Vmcs.GUEST_INTERRUPTIBILITY);
    const has = (bits: number): I32 => blocking.and(bits).ne(0);
    const bit = (condition: I32, mask: number): I32 => condition.select(i32(mask), i32(0));
    const shadow = has(Interruptibility.STI | Interruptibility.MOV_SS);
    const activity = readField32(f, Vmcs.GUEST_ACTIVITY);
    const primary = S.primaryControls.get(f);
    const window = Primary.INTERRUPT_WINDOW | Primary.NMI_WINDOW;
    S.events.or(
      f,
      bit(shadow, Event.SHADOW_NEW)
        .or(bit(has(Interruptibility.MOV_SS), Event.SHADOW_SS))
        .or(bit(activity.eq(Activity.HLT), Event.HALTED))
        .or(bit(activity.eq(Activity.SHUTDOWN), Event.SHUTDOWN))
        .or(bit(activity.eq(Activity.WAIT_FOR_SIPI), Event.WAIT_SIPI))
        .or(bit(primary.and(window).ne(0), Event.VMX_WINDOW))
        .or(bit(primary.and(Primary.MONITOR_TRAP_FLAG).ne(0), Event.MTF))
        .or(bit(readField(f, Vmcs.GUEST_RFLAGS).has(Rflags.RF), Event.RESUME_NEW)),
    );
    S.monitorWait.set(f, 0);
    // Virtual NMIs have a blocking of their own; the physical one waits for the exit.
    S.hostNmiBlocked.set(f, S.nmiBlocked.get(f));
    S.nmiBlocked.set(f, has(Interruptibility.NMI));
  });

  const inject = module.define("vmxInject", [], undefined, (f) => {
    const event = readField32(f, Vmcs.ENTRY_INTERRUPTION_INFO);
    f.if(event.geS(0), () => {
      const pending = readField32(f, Vmcs.GUEST_PENDING_DEBUG);
      const traps = pending.and(PendingDebug.ENABLED | PendingDebug.BS).ne(0);
      S.trapBits.set(f, pending.and(PendingDebug.BREAKPOINTS | DR6_BS));
      f.if(traps, () => S.events.or(f, Event.TRAP));
      f.return();
    });
    const type = event.shrU(8).and(7);
    f.if(type.eq(EventType.OTHER), () => {
      S.events.or(f, Event.MTF_PENDING);
      f.return();
    });
    const privileged = type.eq(EventType.PRIVILEGED_EXCEPTION);
    const exception = type.eq(EventType.SOFTWARE_EXCEPTION).or(privileged);
    const software = type.eq(EventType.SOFTWARE);
    const plain = event.and(0x8000_0000 | EventFormat.ERROR | 0xff);
    const kind = exception.select(i32(EventFormat.EXCEPTION), event.and(EventFormat.TYPE));
    const internal = privileged.select(
      i32(SINGLE_STEP_INTERRUPT),
      exception.or(software).select(i32(GATE_DPL_CHECKED), i32(0)),
    );
    const length = readField32(f, Vmcs.ENTRY_INSTRUCTION_LENGTH);
    const soft = exception.or(software);
    S.injection.set(f, plain.or(kind).or(internal));
    S.injectionError.set(f, readField32(f, Vmcs.ENTRY_EXCEPTION_ERROR));
    S.injectionLength.set(f, length);
    // What an instruction raised returns behind it.
    const skipped = soft.select(length.extendU(), i64(0));
    S.injectionRip.set(f, S.rip.get(f).add(skipped));
    // An activity state other than active ends with the event.
    S.events.clear(f, Event.SHUTDOWN | Event.HALTED);
    S.events.or(f, Event.INJECT);
  });

  module.body(mc.selectGuestContext, (f) => {
    const vpid = S.secondaryControls.has(f, Secondary.VPID);
    const tag = vpid.select(readField32(f, Vmcs.VPID), i32(0)).or(GUEST_CONTEXT);
    f.call(mc.selectContext, tag);
    f.call(mc.matchEptContext);
    f.if(vpid.eqz(), () => f.call(mc.flushTlb));
  });

  // What was cached under another EPT pointer does not count under this one.
  module.body(mc.matchEptContext, (f) => {
    const at = S.tlbContext.get(f);
    const pointer = S.eptPointer.get(f);
    f.if(f.load64(at, Context.EPT).ne(pointer), () => {
      f.call(mc.flushTlb);
      f.store64(at, pointer, Context.EPT);
    });
  });

  module.body(mc.vmxEnter, (f, launch) => {
    f.if(S.vmcs.get(f).eqz(), () => f.return(f.call(mc.vmxFail, 0)));
    // A shadow VMCS is none that could be entered.
    f.if(f.load32(0, S.vmcsData + VmcsRegion.REVISION).ltS(0), () => f.return(Rflags.CF));
    const shadowed = S.events.has(f, Event.SHADOW).and(S.events.has(f, Event.SHADOW_SS));
    failIf(f, shadowed, VmxError.BLOCKED_BY_MOV_SS);
    const launched = f.load32(0, S.vmcsData + VmcsRegion.LAUNCHED);
    failIf(f, launch.and(launched), VmxError.VMLAUNCH_NOT_CLEAR);
    failIf(f, launch.or(launched).eqz(), VmxError.VMRESUME_NOT_LAUNCHED);
    // What has passed passes again, until something of it is written. The manual lets the order of checks
    // and their number be the processor's (27.2); what stands in memory may have changed at any time.
    const written = S.vmcsWritten.get(f);
    const has = (groups: number): I32 => written.and(groups).ne(0);
    const unlikely = (condition: I32, then: () => void): void =>
      f.if(condition, then, undefined, "unlikely");
    unlikely(has(VmcsGroup.CONTROLS | VmcsGroup.HOST), () => S.hostSegmentsKnown.set(f, 0));
    const { pin, primary, secondary, tertiary } = readControls(f);
    unlikely(has(VmcsGroup.CONTROLS).or(thresholdCounts(primary, secondary)), () => {
      failIf(f, illegalControls(f, mc), VmxError.CONTROLS);
    });
    unlikely(has(VmcsGroup.CONTROLS | VmcsGroup.EVENT | VmcsGroup.GUEST), () => {
      failIf(f, illegalEvent(f, secondary), VmxError.CONTROLS);
    });
    failIf(f, illegalAddressSpace(f), VmxError.HOST_STATE);
    unlikely(has(VmcsGroup.CONTROLS | VmcsGroup.HOST), () => {
      failIf(f, illegalHost(f), VmxError.HOST_STATE);
      failIf(f, illegalHostCounters(f, mc), VmxError.HOST_STATE);
    });
    // From here on the instruction has retired: what follows is a VM exit at worst.
    S.uop.set(f, 0);
    S.stepping.set(f, 0);
    S.breakpointHits.set(f, 0);
    S.events.clear(f, Event.SHADOW | Event.SHADOW_SS);
    const wrong = illegalGuest(f, mc, written);
    f.if(wrong.ne(GUEST_OK), () => {
      f.call(mc.vmxEntryFailed, VmxExit.INVALID_GUEST_STATE, wrong.extendU());
      f.return(ENTERED);
    });
    f.if(
      loadGuestCounters(f, mc).eqz(),
      () => {
        f.call(mc.vmxEntryFailed, VmxExit.INVALID_GUEST_STATE, 0);
        f.return(ENTERED);
      },
      undefined,
      "unlikely",
    );
    S.vmcsWritten.set(f, 0);

    S.pinControls.set(f, pin);
    S.primaryControls.set(f, primary);
    S.secondaryControls.set(f, secondary);
    S.tertiaryControls.set(f, tertiary);
    const shadow = primary.and(Primary.TPR_SHADOW).ne(0);
    f.if(shadow, () => {
      S.vapic.set(f, f.call(mc.physical, readField(f, Vmcs.VIRTUAL_APIC_ADDRESS)));
    });
    f.if(secondary.and(Secondary.VIRTUALIZE_APIC_ACCESSES).ne(0), () => {
      S.apicAccess.set(f, readField(f, Vmcs.APIC_ACCESS_ADDRESS).or(1));
    });
    S.busLocks.set(f, secondary.and(Secondary.BUS_LOCK_DETECTION).ne(0));
    S.windowless.set(f, 0);
    loadGuest(f, written);
    S.physicalMap.set(f, S.guestMap.get(f));
    const ept = secondary.and(Secondary.EPT).ne(0);
    S.nestedPaging.set(f, ept.select(i32(EPT_IN_FORCE), i32(0)));
    S.eptPointer.set(f, ept.select(readField(f, Vmcs.EPT_POINTER), i64(0)));
    const offset = primary.and(Primary.TSC_OFFSETTING).ne(0);
    S.tscOffset.set(f, offset.select(readField(f, Vmcs.TSC_OFFSET), i64(0)));
    S.nonRoot.set(f, 1);
    // Where nothing but registers and events was written, all may be in force still.
    const changed = written.and(VmcsGroup.CONTROLS | VmcsGroup.GUEST).ne(0)
      .or(secondary.and(Secondary.VPID).eqz());
    f.if(
      changed.eqz().and(isInForce(f, S.vmcs.get(f).extendU())).eqz(),
      () => {
        f.call(mc.selectGuestContext);
        f.call(mc.updateMode);
      },
      undefined,
      "unlikely",
    );
    const pae = S.cr0.has(f, Cr0.PG).and(S.cr4.has(f, Cr4.PAE))
      .and(S.efer.has(f, Efer.LMA).eqz());
    f.if(pae, () => {
      f.if(ept, () => {
        for (let k = 0; k < 4; k++) {
          f.store64(0, readField(f, Vmcs.GUEST_PDPTE0 + 2 * k), S.pdptes + 8 * k);
        }
      }, () => {
        // They have been checked, and nothing has changed since.
        f.call(mc.readPdptes, S.cr3.get(f));
      });
    });
    f.call(state);
    const { ENTRY_MSR_LOAD_COUNT, ENTRY_MSR_LOAD_ADDRESS } = Vmcs;
    const failed = loadMsrs(f, mc, ENTRY_MSR_LOAD_COUNT, ENTRY_MSR_LOAD_ADDRESS);
    f.if(failed, () => {
      f.call(mc.vmxEntryFailed, VmxExit.MSR_LOADING, failed.extendU());
      f.return(ENTERED);
    });
    f.store32(0, 1, S.vmcsData + VmcsRegion.LAUNCHED);
    f.call(inject);
    // Virtual interrupts are looked for, or TPR is compared with its threshold (27.7.5, 27.7.7).
    f.if(S.vapic.get(f).ne(0), () => f.call(mc.vapicTpr));
    f.call(mc.startTimer);
    // The first PAUSE behind an entry is the first of a loop: the last one is longer ago than any gap.
    S.pauseLast.set(f, f.call(mc.readHostTsc).sub(1n << 40n));
    f.return(ENTERED);
  });
}
