/**
 * The timer of a local APIC (APM vol. 2, 16.4.1; SDM vol. 3A, 11.5.4).
 *
 * @module
 */

import type { Timer } from "../../core/mod.ts";

/** Timer modes: bits 18:17 of the LVT entry. */
export const TimerMode = {
  /** Counts down once. */
  ONE_SHOT: 0,
  /** Counts down again and again. */
  PERIODIC: 1,
  /** Fires when the time-stamp counter reaches a value. */
  TSC_DEADLINE: 2,
} as const;

/** The divisor that a divide configuration stands for; bits 3, 1 and 0 make its logarithm less 1. */
export function divisorOf(configuration: number): number {
  const code = (configuration & 3) | ((configuration >> 1) & 4);
  return 1 << ((code + 1) & 7);
}

/** A timer's state, as plain data. */
export type ApicTimerSaved = {
  /** One of {@linkcode TimerMode}. */
  readonly mode: number;
  /** Initial count. */
  readonly initial: number;
  /** Divisor. */
  readonly divisor: number;
  /** When it fires, in ticks of VM time; −1 if it does not. */
  readonly deadline: number;
  /** TSC deadline, bits 31:0 and 63:32. */
  readonly tsc: readonly [number, number];
};

/** The timer. It says when it is due; what then happens is its owner's business. */
export class ApicTimer {
  readonly #timer: Timer;
  readonly #now: () => number;
  /** Ticks of VM time in one cycle of the clock that it counts. */
  readonly #cycle: number;
  readonly #shortest: number;
  #mode: number = TimerMode.ONE_SHOT;
  #initial = 0;
  #divisor = 2;
  /** Value of the TSC-deadline MSR. */
  #tscLow = 0;
  #tscHigh = 0;

  /**
   * `timer` is to call {@linkcode ApicTimer.fired}. Periods shorter than `shortest` ticks last that long.
   */
  constructor(timer: Timer, cycle: number, shortest: number, now: () => number) {
    this.#timer = timer;
    this.#cycle = cycle;
    this.#shortest = shortest;
    this.#now = now;
  }

  /** One of {@linkcode TimerMode}. */
  get mode(): number {
    return this.#mode;
  }

  /** Whether it is counting. */
  get running(): boolean {
    return this.#timer.armed;
  }

  /** When it fires, in ticks of VM time; `Infinity` if it does not. */
  get deadline(): number {
    return this.#timer.armed ? this.#timer.deadline : Infinity;
  }

  /** Bits 31:0 of the TSC deadline. */
  get tscLow(): number {
    return this.#tscLow;
  }

  /** Bits 63:32 of the TSC deadline. */
  get tscHigh(): number {
    return this.#tscHigh;
  }

  get #unit(): number {
    return this.#divisor * this.#cycle;
  }

  /** Ticks from the initial count to zero. */
  get #period(): number {
    const period = this.#initial * this.#unit;
    return this.#mode === TimerMode.PERIODIC ? Math.max(period, this.#shortest) : period;
  }

  /** As RESET and INIT leave it: stopped. */
  reset(): void {
    this.#timer.cancel();
    this.#mode = TimerMode.ONE_SHOT;
    this.#initial = 0;
    this.#divisor = 2;
    this.#tscLow = this.#tscHigh = 0;
  }

  /**
   * Sets the mode. Between counting and deadline mode the timer stops; between one-shot and periodic
   * it goes on, and the mode counts when it is due. Returns whether it stopped and forgot its count.
   */
  setMode(mode: number): boolean {
    const other = (mode === TimerMode.TSC_DEADLINE) !== (this.#mode === TimerMode.TSC_DEADLINE);
    this.#mode = mode;
    if (!other) return false;
    this.#timer.cancel();
    this.#initial = 0;
    this.#tscLow = this.#tscHigh = 0;
    return true;
  }

  /**
   * Starts counting from `count`; 0 stops. Without effect in deadline mode, of which it returns
   * `false`.
   */
  start(count: number): boolean {
    if (this.#mode === TimerMode.TSC_DEADLINE) return false;
    this.#initial = count >>> 0;
    if (this.#initial === 0) this.#timer.cancel();
    else this.#timer.arm(this.#now() + this.#period);
    return true;
  }

  /** Sets the divide configuration. A count that is under way goes on from where it is. */
  setDivide(configuration: number): void {
    const divisor = divisorOf(configuration);
    if (divisor === this.#divisor) return;
    const count = this.count;
    this.#divisor = divisor;
    if (this.#timer.armed && this.#mode !== TimerMode.TSC_DEADLINE) {
      this.#timer.arm(this.#now() + count * this.#unit);
    }
  }

  /**
   * Current count: the initial count until the first whole unit has passed, 0 when stopped. In a period
   * that was too short it stays the initial count until as much is left. When the timer is late, because
   * it was due in the middle of an exit, it has stopped or begun again all the same.
   */
  get count(): number {
    if (!this.#timer.armed || this.#mode === TimerMode.TSC_DEADLINE) return 0;
    let left = this.#timer.deadline - this.#now();
    if (left <= 0) {
      if (this.#mode !== TimerMode.PERIODIC) return 0;
      const period = this.#period;
      left = period - (-left % period);
    }
    return Math.min(Math.ceil(left / this.#unit), this.#initial);
  }

  /**
   * Writes the TSC deadline; 0 disarms. Without effect in other modes.
   *
   * @param ticks Ticks of VM time until the counter is there; not positive if it is already.
   */
  setTscDeadline(low: number, high: number, ticks: number): void {
    if (this.#mode !== TimerMode.TSC_DEADLINE) return;
    this.#tscLow = low >>> 0;
    this.#tscHigh = high >>> 0;
    if ((low | high) === 0) this.#timer.cancel();
    else this.#timer.arm(this.#now() + Math.max(0, ticks));
  }

  /** It was due: arms it again where it is periodic. Periods that have passed meanwhile are one. */
  fired(): void {
    if (this.#mode === TimerMode.TSC_DEADLINE) this.#tscLow = this.#tscHigh = 0;
    if (this.#mode !== TimerMode.PERIODIC || this.#initial === 0) return;
    const period = this.#period;
    const { deadline } = this.#timer;
    const passed = Math.floor((this.#now() - deadline) / period);
    this.#timer.arm(deadline + (passed + 1) * period);
  }

  /** Everything that is needed to make it again. */
  save(): ApicTimerSaved {
    return {
      mode: this.#mode,
      initial: this.#initial,
      divisor: this.#divisor,
      deadline: this.#timer.armed ? this.#timer.deadline : -1,
      tsc: [this.#tscLow, this.#tscHigh],
    };
  }

  /** Takes what {@linkcode ApicTimer.save} returned. */
  load(saved: ApicTimerSaved): void {
    this.#mode = saved.mode;
    this.#initial = saved.initial;
    this.#divisor = saved.divisor;
    [this.#tscLow, this.#tscHigh] = saved.tsc;
    if (saved.deadline >= 0) this.#timer.arm(saved.deadline);
    else this.#timer.cancel();
  }
}
