/**
 * One performance counter.
 *
 * @module
 */

/** Counters have 48 bits. */
export const MODULUS: number = 2 ** 48;

/** What can be counted. */
export type Source = "instructions" | "cycles" | "branches" | "mispredicted";

/** The counter mask, bits 31:24 of a selection with either vendor. */
export const COUNTER_MASK: number = 0xff00_0000 | 0;

/**
 * What is counted with a counter mask: the cycles in which an event comes at least so often. Nothing here
 * comes more than once in a cycle, so a mask of 1 is as good as none, and a greater one leaves nothing.
 */
export function masked(source: Source, mask: number): Source | undefined {
  return mask > 1 ? undefined : source;
}

/** A counter's state, as plain data. */
export type CounterSaved = {
  /** What it counts; `null` while it stands. */
  readonly source: Source | null;
  /** Its value. */
  readonly value: number;
};

/**
 * A counter. While it counts, what it holds is how much its value is ahead of its source, so that nothing
 * has to be done for it in between.
 */
export class Counter {
  readonly #now: (source: Source) => number;
  #source: Source | undefined;
  /** The value, less the source's if it counts. */
  #start = 0;

  /** `now` says how far a source is. */
  constructor(now: (source: Source) => number) {
    this.#now = now;
  }

  /** Where it is; at or beyond {@linkcode MODULUS} when it has overflowed since it was last settled. */
  get #raw(): number {
    return this.#source === undefined ? this.#start : this.#start + this.#now(this.#source);
  }

  /** Takes overflows out of the value; whether there was one. */
  settle(): boolean {
    const raw = this.#raw;
    if (raw < MODULUS) return false;
    this.#start -= Math.floor(raw / MODULUS) * MODULUS;
    return true;
  }

  /** The value, 48 bits. */
  get value(): number {
    return this.#raw % MODULUS;
  }

  set value(value: number) {
    this.#start = this.#source === undefined ? value : value - this.#now(this.#source);
  }

  /** What it counts; `undefined` while it stands. */
  get source(): Source | undefined {
    return this.#source;
  }

  set source(source: Source | undefined) {
    if (source === this.#source) return;
    const { value } = this;
    this.#source = source;
    this.value = value;
  }

  /** How much is missing until it overflows; `Infinity` while it stands. */
  get left(): number {
    return this.#source === undefined ? Infinity : MODULUS - this.#raw;
  }

  /** Everything that is needed to make it again. */
  save(): CounterSaved {
    return { source: this.#source ?? null, value: this.value };
  }

  /** Takes what {@linkcode Counter.save} returned. */
  load(saved: CounterSaved): void {
    this.#source = saved.source ?? undefined;
    this.value = saved.value;
  }
}
