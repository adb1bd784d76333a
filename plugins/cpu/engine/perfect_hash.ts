/**
 * A hash without collisions for a few numbers known in advance.
 *
 * @module
 */

/** `(key × multiplier mod 2^32) >>> shift` is another number for each of the keys. */
export interface PerfectHash {
  /** Odd. */
  readonly multiplier: number;
  /** 32 less the bits of a hash. */
  readonly shift: number;
}

/** Bits by which a hash may be wider than the number of keys needs. */
const SLACK = 2;
/** Multipliers that are tried for each width. */
const TRIES = 200;

/** Finds a hash for `keys` (unsigned 32-bit numbers, all different); undefined if none was found. */
export function perfectHash(keys: readonly number[]): PerfectHash | undefined {
  const least = Math.max(1, Math.ceil(Math.log2(keys.length)));
  for (let bits = least; bits <= least + SLACK; bits++) {
    const shift = 32 - bits;
    let multiplier = 0x9e37_79b1;
    for (let k = 0; k < TRIES; k++) {
      const hashes = new Set(keys.map((key) => Math.imul(key, multiplier) >>> shift));
      if (hashes.size === keys.length) return { multiplier, shift };
      multiplier = (Math.imul(multiplier, 0x2c9277b5) + 0xac564b05 | 1) >>> 0;
    }
  }
  return undefined;
}

/** The hash of `key`. */
export function hashOf({ multiplier, shift }: PerfectHash, key: number): number {
  return Math.imul(key, multiplier) >>> shift;
}
