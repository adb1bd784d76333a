/**
 * The chain of events that a processor could not deliver: what a triple fault is made of.
 *
 * @module
 */

import type { Vcpu } from "../../core/mod.ts";
import { processorsSlot, type RecentEvent } from "../cpu/mod.ts";
import { describePageFaultError, describeSelectorError } from "./bits.ts";
import { examineGate, type Gate } from "./gates.ts";
import type { GuestView } from "./guest_view.ts";
import { exceptionName, hex } from "./hexadecimal.ts";

/** An event that could not be delivered, and why. */
export interface ChainLink {
  /** The event. */
  readonly event: RecentEvent;
  /** The event in words. */
  readonly what: string;
  /** The gate it was to go through. */
  readonly gate: Gate;
  /** Why it could not, as far as can be seen. */
  readonly problem: string;
}

const DOUBLE_FAULT = 8;
const PAGE_FAULT = 14;
/** Exceptions whose error code names a selector. */
const SELECTOR_ERRORS: ReadonlySet<number> = new Set([10, 11, 12, 13]);

/** What the processor that the vCPU is on remembers; nothing where there is no such processor. */
export function recentEvents(vcpu: Vcpu): RecentEvent[] {
  const { slots } = vcpu.vm;
  if (!slots.filled(processorsSlot)) return [];
  const processors = slots.ref(processorsSlot).current;
  const index = vcpu.pcpu >= 0 ? vcpu.pcpu : Math.min(vcpu.index, processors.count - 1);
  return processors.get(index).recentEvents();
}

/** The events at the end of `events` that were not delivered, each examined. */
export function undelivered(view: GuestView, events: readonly RecentEvent[]): ChainLink[] {
  const first = events.findLastIndex((event) => event.delivered) + 1;
  const tail = events.slice(first).filter((event, k, all) => !sameCause(event, all[k - 1]));
  return tail.map((event) => {
    const gate = examineGate(view, event.vector, {
      software: event.type === "software",
      errorCode: event.errorCode !== undefined,
    });
    const problem = gate.problem ?? "another fault came up while it was being delivered";
    return { event, what: describeEvent(view, event), gate, problem };
  });
}

/** Whether two events have one cause: what an exit interrupted is delivered again, and stands there twice. */
export function sameCause(a: RecentEvent, b: RecentEvent | undefined): boolean {
  return b !== undefined && a.vector === b.vector && a.type === b.type && a.rip === b.rip &&
    a.errorCode === b.errorCode;
}

/** An event in words, with its cause where that can be seen. */
export function describeEvent(view: GuestView, event: RecentEvent): string {
  const at = `at ${view.ripText(event.rip)}`;
  if (event.type === "interrupt") return `interrupt ${hex(event.vector)} ${at}`;
  if (event.type === "nmi") return `NMI ${at}`;
  if (event.type === "software") return `INT ${hex(event.vector)} ${at}`;
  const name = exceptionName(event.vector);
  const { errorCode } = event;
  if (event.vector === PAGE_FAULT && errorCode !== undefined) {
    const fetch = isFetch(view, event);
    const access = describePageFaultError(errorCode, fetch);
    const why = view.problem(event.cr2, {
      write: (errorCode & 2) !== 0,
      user: (errorCode & 4) !== 0,
      fetch,
    });
    return `${name} ${at}: ${access}, CR2 ${hex(event.cr2)}${why === undefined ? "" : ` (${why})`}`;
  }
  // The error code of a double fault is always 0.
  if (errorCode === undefined || event.vector === DOUBLE_FAULT) return `${name} ${at}`;
  const code = SELECTOR_ERRORS.has(event.vector)
    ? describeSelectorError(errorCode)
    : hex(errorCode);
  return `${name}(${code}) ${at}`;
}

/** Whether a page fault was that of an instruction fetch: the code only says so with NX or SMEP on. */
export function isFetch(view: GuestView, event: RecentEvent): boolean {
  if (event.vector !== PAGE_FAULT || event.errorCode === undefined) return false;
  if ((event.errorCode & 2) !== 0) return false;
  return (event.errorCode & 16) !== 0 || event.cr2 === view.linear(view.system.cs, event.rip);
}
