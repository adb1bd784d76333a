/**
 * How long page walks take, from a sample of them: looking at a clock takes as long as a walk.
 *
 * @module
 */

/** One walk in so many (a power of two) is timed. */
export const WALKS_A_SAMPLE = 256;
/** No walk takes so many milliseconds: the host has run something else meanwhile. */
const MOST_MS = 0.05;
/** Readings from which the least gap between two is taken. */
const TRIALS = 64;

/** Times a sample of the page walks of one machine. */
export class WalkClock {
  #start = 0;
  #ms = 0;
  #samples = 0;
  /** What looking at the clock adds to each. */
  readonly #gap: number;

  constructor() {
    let gap = Infinity;
    for (let k = 0; k < TRIALS; k++) {
      const start = performance.now();
      gap = Math.min(gap, performance.now() - start);
    }
    this.#gap = gap;
  }

  /** A walk of the sample begins (0) or ends (1). */
  read(end: number): void {
    const now = performance.now();
    if (end === 0) {
      this.#start = now;
      return;
    }
    const ms = now - this.#start - this.#gap;
    if (ms > MOST_MS) return;
    this.#samples++;
    this.#ms += Math.max(0, ms);
  }

  /** Milliseconds that `walks` walks have taken, in all likelihood. */
  estimate(walks: number): number {
    return this.#samples === 0 ? 0 : this.#ms / this.#samples * walks;
  }
}
