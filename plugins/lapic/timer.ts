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
  /** Whether its entry in the local vector table is masked. */
  readonly masked: boolean;
  /** TSC deadline, bits 31:0 and 63:32. */
  readonly tsc: readonly [number, number];
};

/** The timer. It says when it is due; what then happens is its owner's business. */
export class ApicTimer {
  readonly #timer: Timer;
  readonly #now: () => number;
  /** Ticks of VM time in one cycle of the clock that it counts. */
  readonly #cycle: number;
  /** When it is due, `Infinity` while it is stopped. */
  #deadline = Infinity;
  /** Whether its entry in the local vector table is masked. */
  #masked = true;
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
    return this.#deadline !== Infinity;
  }

  /** When it fires, in ticks of VM time; `Infinity` if it does not. */
  get deadline(): number {
    return this.#deadline;
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
    this.#masked = true;
    this.#arm(Infinity);
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
    this.#catchUp();
    const other = (mode === TimerMode.TSC_DEADLINE) !== (this.#mode === TimerMode.TSC_DEADLINE);
    this.#mode = mode;
    if (!other) {
      this.#arm(this.#deadline);
      return false;
    }
    this.#arm(Infinity);
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
    this.#arm(this.#initial === 0 ? Infinity : this.#now() + this.#period);
    return true;
  }

  /** Whether what it does when it is due can be noticed. */
  setMasked(masked: boolean): void {
    if (masked === this.#masked) return;
    this.#catchUp();
    this.#masked = masked;
    this.#arm(this.#deadline);
  }

  /**
   * Makes it due at a time. While it is masked and periodic nothing comes of it: it only counts, and a
   * VM in which nothing else is to happen need not be woken for it, again and again.
   */
  #arm(deadline: number): void {
    this.#deadline = deadline;
    const silent = this.#masked && this.#mode === TimerMode.PERIODIC;
    if (deadline === Infinity || silent) this.#timer.cancel();
    else this.#timer.arm(deadline);
  }

  /** Of a periodic one: the time when it is due next, if that has passed. Periods passed are one. */
  #catchUp(): void {
    const behind = this.#now() - this.#deadline;
    if (this.#mode !== TimerMode.PERIODIC || this.#initial === 0 || !(behind >= 0)) return;
    this.#deadline += (Math.floor(behind / this.#period) + 1) * this.#period;
  }

  /** Sets the divide configuration. A count that is under way goes on from where it is. */
  setDivide(configuration: number): void {
    const divisor = divisorOf(configuration);
    if (divisor === this.#divisor) return;
    const count = this.count;
    this.#divisor = divisor;
    if (this.running && this.#mode !== TimerMode.TSC_DEADLINE) {
      this.#arm(this.#now() + count * this.#unit);
    }
  }

  /**
   * Current count: the initial count until the first whole unit has passed, 0 when stopped. In a period
   * that was too short it stays the initial count until as much is left. When the timer is late, because
   * it was due in the middle of an exit, it has stopped or begun again all the same.
   */
  get count(): number {
    if (!this.running || this.#mode === TimerMode.TSC_DEADLINE) return 0;
    let left = this.#deadline - this.#now();
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
    this.#arm((low | high) === 0 ? Infinity : this.#now() + Math.max(0, ticks));
  }

  /** It was due: arms it again where it is periodic. */
  fired(): void {
    if (this.#mode === TimerMode.TSC_DEADLINE) this.#tscLow = this.#tscHigh = 0;
    this.#catchUp();
    this.#arm(this.#mode === TimerMode.PERIODIC ? this.#deadline : Infinity);
  }

  /** Everything that is needed to make it again. */
  save(): ApicTimerSaved {
    return {
      mode: this.#mode,
      initial: this.#initial,
      divisor: this.#divisor,
      deadline: this.running ? this.#deadline : -1,
      masked: this.#masked,
      tsc: [this.#tscLow, this.#tscHigh],
    };
  }

  /** Takes what {@linkcode ApicTimer.save} returned. */
  load(saved: ApicTimerSaved): void {
    this.#mode = saved.mode;
    this.#initial = saved.initial;
    this.#divisor = saved.divisor;
    [this.#tscLow, this.#tscHigh] = saved.tsc;
    this.#masked = saved.masked;
    this.#arm(saved.deadline >= 0 ? saved.deadline : Infinity);
  }
}
