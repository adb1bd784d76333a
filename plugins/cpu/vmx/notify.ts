/**
 * Notify VM exits (SDM vol. 3, 26.2): of a guest that keeps the processor from reaching an event window, a
 * boundary at which interrupts and NMIs are looked for.
 *
 * Two things do so. An exception whose delivery raises an exception in turn, as an alignment check with a
 * misaligned stack at CPL 3 (CVE-2015-5307); and a debug trap of a delivery, which comes before the
 * handler's first instruction and before any interrupt (CVE-2015-8104). Repeated string instructions have
 * windows between their iterations, and everything else comes to an end.
 *
 * The notify window is in units of the crystal clock, to which the processor adds a threshold of its own
 * that the manual does not tell. Time here is counted in instructions, of which such a guest retires none;
 * so each exception is one tick, as it is in the budget of a run.
 *
 * @module
 */
import type { Microcode } from "../microcode/microcode.ts";
import { Event, S } from "../state/cpu_state.ts";
import { Secondary } from "./controls.ts";
import { VmxExit } from "./exit_reasons.ts";
import { readField, Vmcs } from "./fields.ts";

/** Exceptions in a row beyond the notify window that are not minded. A guest at peace has two or three. */
export const INTERNAL_THRESHOLD = 128;

/** Gives the function its body. */
export function defineNotify(mc: Microcode): void {
  mc.module.body(mc.vmxNotify, (f, trap) => {
    f.if(S.secondaryControls.has(f, Secondary.NOTIFY).eqz(), () => f.return(0));
    const most = readField(f, Vmcs.NOTIFY_WINDOW).add(INTERNAL_THRESHOLD);
    f.if(S.windowless.get(f).extendU().leU(most), () => f.return(0));
    // The trap has not been delivered, so it is pending in the VMCS.
    f.if(trap, () => {
      S.trapBits.set(f, S.exceptionAddress.get(f).wrap());
      S.events.or(f, Event.TRAP);
    });
    // Qualification 0: the guest's state is whole, and it was no IRET that unblocked NMIs.
    f.call(mc.vmxExit, VmxExit.NOTIFY, 0);
    f.return(1);
  });
}
