/**
 * Counters of exits in a flat hash table: counting an exit that was seen before allocates nothing.
 *
 * @module
 */

/** Bits of a key's first word. */
export const Key = {
  /** Bits 6:0, the exit reason. */
  REASON: 0x7f,
  /** Bits 18:7, the vCPU's index. */
  VCPU_SHIFT: 7,
  /** Bits 18:7 of it, shifted down. */
  VCPU: 0xfff,
  /** The access was a write. */
  WRITE: 0x08_0000,
  /** The access was an instruction fetch. */
  FETCH: 0x10_0000,
  /** The access was that of a string instruction. */
  STRING: 0x20_0000,
  /** All RIPs that there was no room for. */
  ANY_RIP: 0x40_0000,
  /** All targets that there was no room for. */
  ANY_TARGET: 0x80_0000,
} as const;

/** Words of an entry: what, target low and high, RIP low and high. */
const STRIDE = 5;
const FIRST_SLOTS = 1024;

/** One counter, as {@linkcode ExitCounts.forEach} shows it. */
export type CountVisitor = (
  what: number,
  targetLo: number,
  targetHi: number,
  ripLo: number,
  ripHi: number,
  count: number,
) => void;

/**
 * Counts exits by what they are, their target and their RIP.
 *
 * Up to `capacity` different combinations are told apart. Beyond, a new RIP is counted as one of
 * "all others" of its target, and beyond twice as many, a new target as one of "all others" of its
 * reason: the sums are always exact.
 */
export class ExitCounts {
  readonly #capacity: number;
  #slots: number = FIRST_SLOTS;
  #keys: Int32Array = new Int32Array(FIRST_SLOTS * STRIDE);
  /** 0 marks a free slot. */
  #counts: Float64Array = new Float64Array(FIRST_SLOTS);
  #used = 0;

  /** `capacity` is a positive integer. */
  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  /** Counts one exit. `what` is made of {@linkcode Key}. */
  add(what: number, targetLo: number, targetHi: number, ripLo: number, ripHi: number): void {
    if (this.#increment(what, targetLo, targetHi, ripLo, ripHi, this.#capacity)) return;
    what |= Key.ANY_RIP;
    if (this.#increment(what, targetLo, targetHi, 0, 0, 2 * this.#capacity)) return;
    // One for each reason and vCPU at most.
    what = (what & (Key.REASON | (Key.VCPU << Key.VCPU_SHIFT))) | Key.ANY_RIP | Key.ANY_TARGET;
    this.#increment(what, 0, 0, 0, 0, Infinity);
  }

  /** Whether there is a counter for it, or room for a new one below `limit` of them. */
  #increment(
    what: number,
    targetLo: number,
    targetHi: number,
    ripLo: number,
    ripHi: number,
    limit: number,
  ): boolean {
    const keys = this.#keys;
    const mask = this.#slots - 1;
    let slot = hash(what, targetLo, targetHi, ripLo, ripHi) & mask;
    for (; this.#counts[slot] !== 0; slot = (slot + 1) & mask) {
      const at = slot * STRIDE;
      if (
        keys[at + 3] === (ripLo | 0) && keys[at + 1] === (targetLo | 0) &&
        keys[at] === (what | 0) && keys[at + 4] === (ripHi | 0) &&
        keys[at + 2] === (targetHi | 0)
      ) {
        this.#counts[slot] = (this.#counts[slot] as number) + 1;
        return true;
      }
    }
    if (this.#used >= limit) return false;
    this.#put(slot, what, targetLo, targetHi, ripLo, ripHi, 1);
    if (++this.#used * 2 > this.#slots) this.#grow();
    return true;
  }

  #put(
    slot: number,
    what: number,
    targetLo: number,
    targetHi: number,
    ripLo: number,
    ripHi: number,
    count: number,
  ): void {
    const at = slot * STRIDE;
    this.#keys[at] = what;
    this.#keys[at + 1] = targetLo;
    this.#keys[at + 2] = targetHi;
    this.#keys[at + 3] = ripLo;
    this.#keys[at + 4] = ripHi;
    this.#counts[slot] = count;
  }

  #grow(): void {
    const { keys, counts } = this.#renew(this.#slots * 2);
    const mask = this.#slots - 1;
    visit(keys, counts, (what, targetLo, targetHi, ripLo, ripHi, count) => {
      let slot = hash(what, targetLo, targetHi, ripLo, ripHi) & mask;
      while (this.#counts[slot] !== 0) slot = (slot + 1) & mask;
      this.#put(slot, what, targetLo, targetHi, ripLo, ripHi, count);
    });
  }

  #renew(slots: number): { keys: Int32Array; counts: Float64Array } {
    const old = { keys: this.#keys, counts: this.#counts };
    this.#slots = slots;
    this.#keys = new Int32Array(slots * STRIDE);
    this.#counts = new Float64Array(slots);
    return old;
  }

  /** Forgets everything. */
  clear(): void {
    this.#used = 0;
    this.#renew(FIRST_SLOTS);
  }

  /** Shows every counter, in no particular order. Words are as they were given, modulo 2^32. */
  forEach(visitor: CountVisitor): void {
    visit(this.#keys, this.#counts, visitor);
  }
}

function visit(keys: Int32Array, counts: Float64Array, visitor: CountVisitor): void {
  counts.forEach((count, slot) => {
    if (count === 0) return;
    const [what = 0, targetLo = 0, targetHi = 0, ripLo = 0, ripHi = 0] = keys.subarray(
      slot * STRIDE,
      (slot + 1) * STRIDE,
    );
    visitor(what, targetLo >>> 0, targetHi >>> 0, ripLo >>> 0, ripHi >>> 0, count);
  });
}

/** Multiplies and mixes as MurmurHash3's finisher does. */
function hash(a: number, b: number, c: number, d: number, e: number): number {
  let h = Math.imul(d ^ (d >>> 16), 0x85eb_ca6b) ^ a;
  h = Math.imul(h ^ (h >>> 13) ^ b, 0xc2b2_ae35);
  h = Math.imul(h ^ (h >>> 16) ^ c ^ (e << 7), 0x27d4_eb2f);
  return h ^ (h >>> 15);
}
