/**
 * VM time.
 *
 * @module
 */

import { ArgumentError } from "./errors.ts";
import type { Plugin } from "./plugin.ts";
import { defineSlot, type Slot } from "./slot.ts";

/** Ticks of VM time in a second: VM time is counted in nanoseconds, whoever provides the clock. */
export const TICKS_PER_SECOND = 1_000_000_000;

/** Ticks that the deterministic clock charges for each exit, unless told otherwise. */
export const DEFAULT_EXIT_TICKS = 1000;

/** A source of VM time. */
export interface Clock {
  /** Short name for reports. */
  readonly name: string;
  /** VM time in ticks: a non-negative integer that never decreases. */
  now(): number;
  /** Sets VM time: when the clock takes over from another, and when saved state is loaded. */
  set(ticks: number): void;
  /**
   * Hears how many instructions were retired and how many exits taken since the last call. The run
   * loop calls it at every exit.
   */
  charge(instructions: number, exits: number): void;
  /**
   * How many instructions may be retired before the clock is to be looked at again, so as not to pass
   * `deadline`, which may be `Infinity`. At least 1 while the deadline lies ahead, 0 from then on.
   */
  budget(deadline: number): number;
  /**
   * Called while no vCPU can run and the next timer is due at `deadline`. Returns the milliseconds of
   * real time to wait before it is asked again; 0 if it is `deadline` now, or nearly so.
   */
  idle(deadline: number): number;
}

/** Options of {@linkcode deterministicClock}. */
export interface DeterministicClockOptions {
  /** Ticks that each exit takes; an integer, {@linkcode DEFAULT_EXIT_TICKS} if not given. */
  readonly exitTicks?: number;
}

/**
 * Time that is a function of what the guest did: one tick for each retired instruction, plus a
 * constant for each exit. It stands still while nothing runs, and skips to the next timer when all
 * vCPUs wait. With several vCPUs it counts what all of them retire.
 */
export class DeterministicClock implements Clock {
  /** `"deterministic"`. */
  readonly name = "deterministic";
  /** Ticks that each exit takes. */
  readonly exitTicks: number;
  #now = 0;

  /**
   * A clock that stands at 0.
   *
   * @throws {ArgumentError} If the charge for an exit is not a non-negative integer.
   */
  constructor(options: DeterministicClockOptions = {}) {
    const { exitTicks = DEFAULT_EXIT_TICKS } = options;
    if (!Number.isSafeInteger(exitTicks) || exitTicks < 0) {
      throw new ArgumentError(`exitTicks ${exitTicks} is not a non-negative integer`);
    }
    this.exitTicks = exitTicks;
  }

  /** VM time in ticks. */
  now(): number {
    return this.#now;
  }

  /** Sets VM time. */
  set(ticks: number): void {
    this.#now = ticks;
  }

  /** Advances by what was done. */
  charge(instructions: number, exits: number): void {
    this.#now += instructions + exits * this.exitTicks;
  }

  /** One instruction is one tick. */
  budget(deadline: number): number {
    const left = deadline - this.#now;
    return left > 0 ? Math.ceil(left) : 0;
  }

  /** Skips ahead. */
  idle(deadline: number): number {
    if (deadline > this.#now) this.#now = Math.ceil(deadline);
    return 0;
  }
}

/** Instructions that are run before a real-time clock is looked at again. */
const REAL_TIME_BUDGET = 100_000;

/**
 * Real time, for guests that people talk to. Runs with it cannot be repeated exactly: timers fire at
 * the next look at the clock, after at most 100000 instructions.
 *
 * Between two looks time-stamp counters go on by one for each instruction, and they must not go back. So VM
 * time has always come at least as far as instructions were retired, and a guest that runs ahead of real time
 * by more than 100000 ticks is kept waiting: no more than a thousand million instructions a second, of all
 * vCPUs together, are run.
 */
export class RealTimeClock implements Clock {
  /** `"real-time"`. */
  readonly name = "real-time";
  #offset: number = -hostTicks();
  #last = 0;

  /** VM time in ticks; held back where the host's clock steps back. */
  now(): number {
    this.#last = Math.max(this.#last, this.#real());
    return this.#last;
  }

  /** Sets VM time; it goes on from there. */
  set(ticks: number): void {
    this.#offset = ticks - hostTicks();
    this.#last = ticks;
  }

  /** An instruction takes a tick at least. */
  charge(instructions: number): void {
    this.#last += instructions;
    while (this.#last - this.#real() > REAL_TIME_BUDGET);
  }

  /** A constant slice, after which the deadline is looked at again. */
  budget(deadline: number): number {
    return deadline > this.now() ? REAL_TIME_BUDGET : 0;
  }

  /** Asks to wait for whole milliseconds: timers of the host are late, so what is left is waited for awake. */
  idle(deadline: number): number {
    return Math.max(0, Math.floor((deadline - this.now()) / 1e6));
  }

  #real(): number {
    return hostTicks() + this.#offset;
  }
}

function hostTicks(): number {
  return Math.floor(performance.now() * 1e6);
}

/** The clock; deterministic unless a plugin provides another. */
export const clockSlot: Slot<Clock> = defineSlot("clock", () => new DeterministicClock());

/**
 * A plugin that provides the deterministic clock with another charge for exits.
 *
 * @throws {ArgumentError} If the charge is not a non-negative integer.
 */
export function deterministicClock(options: DeterministicClockOptions = {}): Plugin {
  const { exitTicks } = new DeterministicClock(options);
  return clockPlugin(() => new DeterministicClock({ exitTicks }));
}

/** A plugin that provides {@linkcode RealTimeClock}. */
export function realTimeClock(): Plugin {
  return clockPlugin(() => new RealTimeClock());
}

/** All clock plugins have one name, so that any can be swapped for any other. */
function clockPlugin(make: () => Clock): Plugin {
  return {
    name: "clock",
    version: "1.0.0",
    provides: [clockSlot],
    setup: (ctx) => ctx.provide(clockSlot, make()),
  };
}
