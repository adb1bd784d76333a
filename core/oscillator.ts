/**
 * Signals of a constant frequency, counted exactly in VM time.
 *
 * @module
 */

import { TICKS_PER_SECOND } from "./clock.ts";
import { ArgumentError } from "./errors.ts";

/** 2^16, where products are taken apart so that they stay exact. */
const HALF: number = 2 ** 16;

/** floor(a * b / c) for integers from 0 to 2^32 - 1, and c > 0. */
function mulDiv(a: number, b: number, c: number): number {
  const high = Math.floor(a / HALF) * b;
  const quotient = Math.floor(high / c);
  const low = (high % c) * HALF + (a % HALF) * b;
  return quotient * HALF + Math.floor(low / c);
}

/**
 * What a timer chip counts: the cycles of a signal that began with VM time. Nothing is rounded but to
 * whole cycles and whole ticks, so that a count read at any time and the time at which it is reached
 * agree.
 */
export class Oscillator {
  /** Cycles in a second of VM time. */
  readonly frequency: number;

  /**
   * A signal of `frequency` hertz.
   *
   * @throws {ArgumentError} If the frequency is not an integer from 1 to 2^32 - 1.
   */
  constructor(frequency: number) {
    if (!Number.isInteger(frequency) || frequency < 1 || frequency >= 2 ** 32) {
      throw new ArgumentError(`frequency ${frequency} is not an integer from 1 to 2^32 - 1`);
    }
    this.frequency = frequency;
  }

  /** How many cycles are complete at VM time `ticks`. */
  cyclesAt(ticks: number): number {
    const seconds = Math.floor(ticks / TICKS_PER_SECOND);
    const rest = ticks % TICKS_PER_SECOND;
    return seconds * this.frequency + mulDiv(rest, this.frequency, TICKS_PER_SECOND);
  }

  /** The first VM time, in ticks, at which `cycles` cycles are complete. */
  timeOf(cycles: number): number {
    const { frequency } = this;
    const seconds = Math.floor(cycles / frequency);
    const rest = cycles % frequency;
    let ticks = mulDiv(rest, TICKS_PER_SECOND, frequency);
    if (mulDiv(ticks, frequency, TICKS_PER_SECOND) < rest) ticks++;
    return seconds * TICKS_PER_SECOND + ticks;
  }
}
