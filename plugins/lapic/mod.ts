/**
 * Local APICs: xAPIC and x2APIC, one for each vCPU.
 *
 * All registers are there with their access rules and reset values, AMD's and Intel's where the two
 * differ ({@linkcode LapicOptions.vendor}): delivery modes, shorthands, physical and logical
 * destinations (flat, cluster, x2APIC), lowest priority with focus processors, the timer in its three
 * modes, the local vector table, errors, spurious interrupts, EOI messages and their suppression, the
 * APIC base MSR, INIT and start-up messages, and message-signalled interrupts. The plugin is the
 * provider of the core's slot for the interrupt controller; where there is a `pic({ wiring: "apic" })`,
 * its output is LINT0 of all local APICs.
 *
 * Each one's registers are one page of host physical memory in the architectural layout
 * ({@linkcode Lapic.pageHpa}): a processor that accelerates interrupts can use the very page as its
 * backing page. Plugins for such processors find local APICs in {@linkcode lapicSlot}; take the delivery
 * of fixed interrupts over with {@linkcode deliverInterruptHook}, and hand requests that they keep
 * elsewhere over in {@linkcode collectRequestsHook}; hear of modes and IDs in
 * {@linkcode lapicChangedHook}; hand back what hardware leaves to software with
 * {@linkcode Lapic.replayWrite}, {@linkcode Lapic.sendIpi} and {@linkcode Lapic.acceleratedEnd}; and mind
 * {@linkcode LapicInhibit}. Hardware may change IRR, ISR, TMR, TPR and PPR in the page at any time.
 *
 * Limits: a system management interrupt is for the vendor, and lost where that has no system management
 * mode; no remote read; a TSC deadline is not worked out anew when the guest writes its
 * time-stamp counter after it. Under svm an INIT is not held back while the guest has GIF clear.
 *
 * @example
 * ```ts
 * import { lapic } from "@trapline/trapline/lapic";
 *
 * const plugin = lapic({ vendor: "intel", tscDeadline: true });
 * console.assert(plugin.name === "lapic");
 * ```
 *
 * @module
 */

export { ApicAccessPage } from "./access_page.ts";
export {
  ASSIGNED_INDEXES,
  type AssignedInterrupt,
  type AssignedInterrupts,
  assignedInterruptsSlot,
  type AssignedProgrammer,
  AssignedRoutes,
  type AssignedRow,
} from "./assigned.ts";
export {
  ApicBase,
  DEFAULT_APIC_BASE,
  extendedLogicalId,
  LapicMode,
  MSR_APIC_BASE,
} from "./base.ts";
export type { LapicBoard, LapicSaved } from "./board.ts";
export { ApicBus } from "./bus.ts";
export {
  collectRequestsHook,
  deliverInterruptHook,
  endOfInterruptHook,
  eoiMessageHook,
  type LapicChange,
  lapicChangedHook,
  lapicSlot,
  levelVectorsChangedHook,
  levelVectorsHook,
  taskPriorityHook,
} from "./hooks.ts";
export { LapicInhibit } from "./inhibits.ts";
export { Lapic } from "./lapic.ts";
export { type LocalVectorOwner, LocalVectorTable } from "./local_vectors.ts";
export { ApicMessage, BROADCAST, Icr, MessageType, Shorthand, WIDE_BROADCAST } from "./message.ts";
export { RegisterPage } from "./page.ts";
export { Priorities } from "./priorities.ts";
export { lapic, type LapicOptions } from "./plugin.ts";
export {
  type Access,
  ApicError,
  Extended,
  type LapicFeatures,
  LapicRegister,
  type LapicVendor,
  Lvt,
  RegisterMap,
  type RegisterRow,
  Svr,
} from "./registers.ts";
export { ApicTimer, type ApicTimerSaved, divisorOf, TimerMode } from "./timer.ts";
export { acceleratedReads, acceleratedWrites, X2APIC_MSR, X2APIC_MSRS } from "./x2apic_msrs.ts";
