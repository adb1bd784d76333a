/**
 * Exceptions, unwinding, the delivery of events, breakpoints, last-branch records.
 *
 * @module
 */
import { I32T, I64T } from "../../wasm/mod.ts";
import type { Fn, I, L, Signatures } from "./signature.ts";

/** What deals with events. */
export interface EventRoutines {
  // Exceptions and unwinding (microcode/raise.ts).

  /** `(vector)`: raises a fault without error code. Does not return. */
  readonly raise: Fn<[I]>;
  /** `(vector, error)`: raises an exception with an error code. Does not return. */
  readonly raiseError: Fn<[I, I]>;
  /** `(linear, error)`: records #PF and sets `S.faulted`; the caller is to return at once. */
  readonly pageFault: Fn<[L, I]>;
  /** `()`: unwinds the page fault that has been recorded. Does not return. */
  readonly unwindFault: Fn<[]>;
  /** `(kind)`: unwinds to the dispatcher. Does not return. */
  readonly unwindTo: Fn<[I]>;
  /** `()`: makes RIP and RFLAGS in the state what the program outside expects to see. */
  readonly beforeOutside: Fn<[]>;
  /** `()`: takes over what it changed; unwinds if it raised an exception or went elsewhere. */
  readonly afterOutside: Fn<[]>;
  /** `()`: gives up the instruction at hand: RIP and budget as before it. */
  readonly settle: Fn<[]>;
  /** `()`: unwinds with `Unwind.RESTART` unless the instruction is the last of its block. */
  readonly needAlone: Fn<[]>;

  // Events (microcode/events.ts, microcode/interrupt.ts).

  /** `()`: deals with a pending event; one of `Service`. */
  readonly service: Fn<[], I>;
  /** `(event, error, returnRip)`: delivers an event through the IDT (or the real-mode table). */
  readonly deliver: Fn<[I, I, L]>;
  /**
   * `(vector, returnRip)`: INT n in virtual-8086 mode: 1 if it has been delivered to the 8086 program, 0 if it
   * is to go through the IDT (microcode/virtual_8086.ts).
   */
  readonly redirectInterrupt: Fn<[I, L], I>;
  /** `()`: an x87 exception is pending with CR0.NE clear: asserts FERR# and freezes. Does not return. */
  readonly freeze: Fn<[]>;
  /** `()`: what has to be done after the stack was unwound. */
  readonly afterUnwind: Fn<[]>;

  // Breakpoints (microcode/breakpoints.ts).

  /** `()`: 1 if the instruction at RIP has a breakpoint; the #DB is then pending. */
  readonly codeBreakpoint: Fn<[], I>;
  /** `(linear, bytes, write)`: notes the breakpoints that an access meets. */
  readonly dataBreakpoint: Fn<[L, I, I]>;
  /** `(port, bytes)`: notes the breakpoints that an access to a port meets. */
  readonly portBreakpoint: Fn<[I, I]>;

  // Last-branch records (microcode/last_branch.ts).

  /** `(block)`: the one instruction of the block has been executed; 1 if it transferred control. */
  readonly recordBranch: Fn<[I], I>;
  /** `(event, from)`: an event has been delivered that interrupted the instruction at `from`. */
  readonly recordEvent: Fn<[I, L]>;
}

/** Their signatures. */
export const EVENTS: Signatures<EventRoutines> = {
  raise: [[I32T], undefined],
  raiseError: [[I32T, I32T], undefined],
  pageFault: [[I64T, I32T], undefined],
  unwindFault: [[], undefined],
  unwindTo: [[I32T], undefined],
  beforeOutside: [[], undefined],
  afterOutside: [[], undefined],
  settle: [[], undefined],
  needAlone: [[], undefined],
  service: [[], I32T],
  deliver: [[I32T, I32T, I64T], undefined],
  redirectInterrupt: [[I32T, I64T], I32T],
  freeze: [[], undefined],
  afterUnwind: [[], undefined],
  codeBreakpoint: [[], I32T],
  dataBreakpoint: [[I64T, I32T, I32T], undefined],
  portBreakpoint: [[I32T, I32T], undefined],
  recordBranch: [[I32T], I32T],
  recordEvent: [[I32T, I64T], undefined],
};
