/**
 * The pseudo-random generator behind the vectors: initial registers, initial memory and the
 * programs themselves all come from it, so a seed names one test for ever.
 *
 * @module
 */

/**
 * xoshiro128** (Blackman and Vigna), whose four 32-bit words of state are filled from a 32-bit seed
 * and a stream number by splitmix32. Streams of one seed are independent of one another.
 */
export class Prng {
  #a: number;
  #b: number;
  #c: number;
  #d: number;

  /**
   * Starts a sequence.
   *
   * @param seed 32-bit seed.
   * @param stream which of the seed's sequences to draw from.
   */
  constructor(seed: number, stream: number) {
    let x = (seed ^ Math.imul(stream, 0x85ebca6b)) >>> 0;
    const split = (): number => {
      x = (x + 0x9e3779b9) >>> 0;
      let z = x;
      z = Math.imul(z ^ (z >>> 16), 0x21f0aaad);
      z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
      return (z ^ (z >>> 15)) >>> 0;
    };
    this.#a = split();
    this.#b = split();
    this.#c = split();
    this.#d = split();
  }

  /** A generator in a given state, not all zero. */
  static ofState(a: number, b: number, c: number, d: number): Prng {
    const prng = new Prng(0, 0);
    prng.#a = a;
    prng.#b = b;
    prng.#c = c;
    prng.#d = d;
    return prng;
  }

  /** The next 32 bits, as an unsigned number. */
  next(): number {
    const m = Math.imul(this.#b, 5);
    const result = Math.imul((m << 7) | (m >>> 25), 9) >>> 0;
    const t = this.#b << 9;
    this.#c ^= this.#a;
    this.#d ^= this.#b;
    this.#b ^= this.#c;
    this.#a ^= this.#d;
    this.#c ^= t;
    this.#d = (this.#d << 11) | (this.#d >>> 21);
    return result;
  }

  /** The next 64 bits, low half drawn first. */
  next64(): bigint {
    const low = this.next();
    return (BigInt(this.next()) << 32n) | BigInt(low);
  }

  /** A number from 0 to `n - 1`: the high bits of one draw. `n` is at most 2^20. */
  below(n: number): number {
    return Math.floor((this.next() * n) / 0x1_0000_0000);
  }

  /** True `numerator` times out of `denominator`. */
  chance(numerator: number, denominator: number): boolean {
    return this.below(denominator) < numerator;
  }

  /** One element of a list that is not empty. */
  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)] as T;
  }
}
