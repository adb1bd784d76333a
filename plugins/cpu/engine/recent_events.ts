/**
 * The events that a processor delivered last, which it notes in a ring in its state.
 *
 * @module
 */
import { EventFormat } from "../microcode/raise.ts";
import { EventLog, S } from "../state/cpu_state.ts";
import type { StateView } from "../state/view.ts";

/** An event that a processor delivered, or began to. */
export interface RecentEvent {
  /** Vector, 0 to 255. */
  readonly vector: number;
  /** What it was. */
  readonly type: "interrupt" | "nmi" | "exception" | "software";
  /** Error code, if it has one. */
  readonly errorCode: number | undefined;
  /** RIP that it interrupted. */
  readonly rip: bigint;
  /** CR2 at that time: for a page fault, its address. */
  readonly cr2: bigint;
  /** False if another fault came up on the way. */
  readonly delivered: boolean;
}

const EVENT_TYPES: Readonly<Record<number, RecentEvent["type"]>> = {
  [EventFormat.EXTERNAL]: "interrupt",
  [EventFormat.NMI]: "nmi",
  [EventFormat.EXCEPTION]: "exception",
  [EventFormat.SOFTWARE]: "software",
};

/** Those of the processor whose state is `state`, oldest first. */
export function readRecentEvents(state: StateView): RecentEvent[] {
  const count = state.get32(S.eventCount);
  const kept = Math.min(count, EventLog.ENTRIES);
  return Array.from({ length: kept }, (_, k) => {
    const at = S.eventLog + ((count - kept + k) % EventLog.ENTRIES) * EventLog.BYTES;
    const head = state.at(at + EventLog.EVENT);
    const event = Number(head & 0xffff_ffffn);
    return {
      vector: event & 0xff,
      type: EVENT_TYPES[event & EventFormat.TYPE] ?? "exception",
      errorCode: (event & EventFormat.ERROR) === 0 ? undefined : Number(head >> 32n),
      rip: state.at(at + EventLog.RIP),
      cr2: state.at(at + EventLog.CR2),
      delivered: (state.at(at + EventLog.DELIVERED) & 1n) !== 0n,
    };
  });
}
