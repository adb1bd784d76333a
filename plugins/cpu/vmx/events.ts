/**
 * What a guest's events and instruction boundaries mean in non-root operation: exceptions, windows, NMIs,
 * interrupts, the monitor trap flag, the preemption timer (SDM vol. 3, 26.2, 26.5, 28.2).
 *
 * @module
 */
import type { Microcode } from "../microcode/microcode.ts";
import { EventFormat, Vector } from "../microcode/raise.ts";
import { Rflags } from "../microcode/registers.ts";
import { Event, S } from "../state/cpu_state.ts";
import { type FunctionBuilder, type I32, I32T, i64 } from "../wasm/mod.ts";
import { ExitControl, Pin, Primary } from "./controls.ts";
import { VmxExit } from "./exit_reasons.ts";
import { readField32, Vmcs } from "./fields.ts";

/** Bits of DR6 that the qualification of a #DB has: B0–B3, BD, BS. */
const DEBUG_QUALIFICATION = 0x600f;

/** Gives the functions their bodies. */
export function defineEvents(mc: Microcode): void {
  const { module } = mc;

  module.body(mc.vmxException, (f, event, error) => {
    const vector = event.and(0xff);
    const bit = readField32(f, Vmcs.EXCEPTION_BITMAP).shrU(vector).and(1);
    // The bitmap's bit for #PF counts for the error codes that match, and its opposite for the others.
    const masked = error.and(readField32(f, Vmcs.PAGE_FAULT_ERROR_MASK));
    const matches = masked.eq(readField32(f, Vmcs.PAGE_FAULT_ERROR_MATCH));
    const isPageFault = vector.eq(Vector.PF);
    const wanted = isPageFault.select(bit.eq(matches), bit);
    f.if(wanted.eqz(), () => f.return(0));
    const address = S.exceptionAddress.get(f);
    const debug = vector.eq(Vector.DB).select(address.and(DEBUG_QUALIFICATION), i64(0));
    f.call(mc.vmxExitEvent, event, error, isPageFault.select(address, debug));
    f.return(1);
  });

  module.body(mc.vmxBeforeTraps, (f) => {
    f.if(S.events.has(f, Event.VMEXIT_TRAP), () => {
      S.events.clear(f, Event.VMEXIT_TRAP);
      f.call(mc.vmxExit, S.trapCode.get(f), S.trapInfo1.get(f));
      f.return(1);
    });
    f.if(S.events.has(f, Event.MTF_PENDING), () => {
      S.events.clear(f, Event.MTF_PENDING);
      f.call(mc.vmxExit, VmxExit.MONITOR_TRAP, 0);
      f.return(1);
    });
    // The exception bitmap comes first (Linux fe6b6bc802b4, by its author at Intel); else a debug trap
    // behind the same instruction stays pending in the VMCS.
    f.if(S.events.has(f, Event.BUS_LOCK), () => {
      const trap = S.events.has(f, Event.TRAP).and(S.events.has(f, Event.SHADOW_SS).eqz());
      const bit = readField32(f, Vmcs.EXCEPTION_BITMAP).shrU(Vector.DB).and(1);
      f.if(trap.and(bit), () => f.return(0));
      f.call(mc.vmxExit, VmxExit.BUS_LOCK, 0);
      f.return(1);
    });
    f.return(0);
  });

  const exitIf = (f: FunctionBuilder, condition: I32, reason: number): void =>
    f.if(condition, () => {
      f.call(mc.vmxExit, reason, 0);
      f.return(1);
    });

  module.body(mc.vmxAfterTraps, (f) => {
    const open = S.events.has(f, Event.SHADOW).eqz();
    const pin = S.pinControls.get(f);
    const primary = S.primaryControls.get(f);
    const on = (controls: I32, bit: number): I32 => controls.and(bit).ne(0);
    const virtual = on(pin, Pin.VIRTUAL_NMIS);
    const blocked = S.nmiBlocked.get(f);
    f.if(S.events.has(f, Event.INIT), () => {
      S.events.clear(f, Event.INIT);
      f.call(mc.vmxExit, VmxExit.INIT, 0);
      f.return(1);
    });
    exitIf(f, S.events.has(f, Event.VMX_TIMER), VmxExit.PREEMPTION_TIMER);
    const nmiWindow = on(primary, Primary.NMI_WINDOW).and(open).and(blocked.eqz());
    exitIf(f, nmiWindow, VmxExit.NMI_WINDOW);
    const nmi = S.events.has(f, Event.NMI).and(on(pin, Pin.NMI)).and(open)
      .and(virtual.or(blocked.eqz()));
    f.if(nmi, () => {
      S.events.clear(f, Event.NMI);
      f.call(mc.vmxExitEvent, Vector.NMI | EventFormat.NMI | EventFormat.VALID, 0, 0);
      f.return(1);
    });
    const enabled = S.rflags.has(f, Rflags.IF);
    const window = on(primary, Primary.INTERRUPT_WINDOW).and(open).and(enabled);
    exitIf(f, window, VmxExit.INTERRUPT_WINDOW);
    const interrupt = S.events.has(f, Event.INTR).and(on(pin, Pin.EXTERNAL_INTERRUPT)).and(open);
    f.if(interrupt, () => {
      const exit = readField32(f, Vmcs.EXIT_CONTROLS);
      const information = f.variable(I32T, 0);
      f.if(exit.and(ExitControl.ACKNOWLEDGE_INTERRUPT).ne(0), () => {
        const vector = f.call(mc.acknowledge);
        // Nobody answers: the line was withdrawn.
        f.if(vector.ltS(0), () => {
          S.events.clear(f, Event.INTR);
          f.return(1);
        });
        const notification = readField32(f, Vmcs.POSTED_INTERRUPT_VECTOR);
        const posted = on(pin, Pin.POSTED_INTERRUPTS).and(vector.eq(notification));
        f.if(posted, () => {
          // It is what drives the guest's interrupts, and no exit.
          S.events.clear(f, Event.INTR);
          f.call(mc.processPosted);
          f.return(1);
        });
        information.set(vector.or(EventFormat.VALID));
      });
      f.call(mc.vmxExitInterrupt, information.get());
      f.return(1);
    });
    f.if(S.events.has(f, Event.VMX_INTERRUPT).and(open).and(enabled), () => {
      const vector = f.call(mc.vapicTake);
      f.call(mc.deliver, vector.or(EventFormat.VALID), 0, S.rip.get(f));
      f.return(1);
    });
    f.return(0);
  });
}
