/**
 * SHA-256 (FIPS 180-4), piece by piece and at once: Web Crypto's is asynchronous, and what asks for a digest
 * here is in the middle of a run.
 *
 * @module
 */

/** Bytes of a block of the message. */
const BLOCK_WORDS = 16;
const ROUNDS = 64;

/** The first 32 bits of the fractional part of `root` of each of the first `count` primes. */
function fractions(count: number, root: (prime: number) => number): Uint32Array {
  const found: number[] = [];
  for (let n = 2; found.length < count; n++) {
    if (found.every((prime) => n % prime !== 0)) found.push(n);
  }
  return Uint32Array.from(found, (prime) => (root(prime) % 1) * 2 ** 32);
}

const CONSTANTS: Uint32Array = fractions(ROUNDS, Math.cbrt);
const INITIAL: Uint32Array = fractions(8, Math.sqrt);

const rotate = (x: number, n: number): number => (x >>> n) | (x << (32 - n));

/** The digest of a message of 32-bit words, which count as big-endian. */
export class Digest {
  readonly #state = new Int32Array(INITIAL);
  readonly #schedule = new Int32Array(ROUNDS);
  #words = 0;

  /** Adds a word to the message. */
  word(value: number): void {
    this.#schedule[this.#words++ % BLOCK_WORDS] = value;
    if (this.#words % BLOCK_WORDS === 0) this.#block();
  }

  /** Adds the length of a text and its UTF-16 code units. */
  text(text: string): void {
    this.word(text.length);
    for (let k = 0; k < text.length; k += 2) {
      // Past the end there is NaN, of which the operators make 0.
      this.word((text.charCodeAt(k) << 16) | text.charCodeAt(k + 1));
    }
  }

  /** Ends the message: its digest as 64 hexadecimal digits. */
  finish(): string {
    const bits = this.#words * 32;
    this.word(0x8000_0000);
    while (this.#words % BLOCK_WORDS !== BLOCK_WORDS - 2) this.word(0);
    this.word(Math.floor(bits / 2 ** 32));
    this.word(bits | 0);
    return Array.from(this.#state, (word) => (word >>> 0).toString(16).padStart(8, "0")).join("");
  }

  #block(): void {
    const w = this.#schedule;
    for (let t = BLOCK_WORDS; t < ROUNDS; t++) {
      const x = w[t - 15]!;
      const y = w[t - 2]!;
      const s0 = rotate(x, 7) ^ rotate(x, 18) ^ (x >>> 3);
      const s1 = rotate(y, 17) ^ rotate(y, 19) ^ (y >>> 10);
      w[t] = w[t - 16]! + s0 + w[t - 7]! + s1;
    }
    const state = this.#state;
    let a = state[0]!;
    let b = state[1]!;
    let c = state[2]!;
    let d = state[3]!;
    let e = state[4]!;
    let f = state[5]!;
    let g = state[6]!;
    let h = state[7]!;
    for (let t = 0; t < ROUNDS; t++) {
      const s1 = rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25);
      const t1 = (h + s1 + ((e & f) ^ (~e & g)) + CONSTANTS[t]! + w[t]!) | 0;
      const s0 = rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22);
      const t2 = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      h = g;
      g = f;
      f = e;
      e = (d + t1) | 0;
      d = c;
      c = b;
      b = a;
      a = (t1 + t2) | 0;
    }
    state[0]! += a;
    state[1]! += b;
    state[2]! += c;
    state[3]! += d;
    state[4]! += e;
    state[5]! += f;
    state[6]! += g;
    state[7]! += h;
  }
}

/** The digest of `bytes`, filled up with zeros to whole words, and of their number. */
export function digestOf(bytes: Uint8Array): string {
  const digest = new Digest();
  digest.word(bytes.length);
  for (let k = 0; k < bytes.length; k += 4) {
    digest.word(
      (bytes[k]! << 24) | ((bytes[k + 1] ?? 0) << 16) | ((bytes[k + 2] ?? 0) << 8) |
        (bytes[k + 3] ?? 0),
    );
  }
  return digest.finish();
}
