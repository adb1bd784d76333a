/**
 * AES, SHA-1, SHA-256 and carry-less multiplication (FIPS 197; FIPS 180-4; SDM vol. 2 on each instruction).
 *
 * The functions are a unit of their own. AES works on all sixteen bytes at once: substitution is sixteen
 * look-ups in a table of sixteen bytes each, of which only the one that holds a byte's row answers.
 *
 * @module
 */
import {
  type FunctionBuilder,
  type I32,
  i32,
  I32T,
  type I64,
  i64,
  I64T,
  type ModuleBuilder,
  reference,
  splat,
  splat64,
  type TypeToken,
  type V128,
  v128Lanes,
  v128Of,
  V128T,
} from "../../wasm/mod.ts";
import type { Fn, Unit } from "../unit.ts";
import { laneBytes } from "./integer.ts";
import { ZERO } from "./unit.ts";

type I = TypeToken<I32>;
type L = TypeToken<I64>;
type V = TypeToken<V128>;
type Two = Fn<[V, V], V>;

/** Functions of the unit. */
export const CryptoUnit: {
  /** `(state, key)`: AESENC. */
  readonly encrypt: Two;
  /** `(state, key)`: AESENCLAST. */
  readonly encryptLast: Two;
  /** `(state, key)`: AESDEC. */
  readonly decrypt: Two;
  /** `(state, key)`: AESDECLAST. */
  readonly decryptLast: Two;
  /** `(key)`: AESIMC. */
  readonly inverseMix: Fn<[V], V>;
  /** `(key, constant)`: AESKEYGENASSIST. */
  readonly keyAssist: Fn<[V, I], V>;
  /** `(a, b)`: the product without carries. */
  readonly carryless: Fn<[L, L], V>;
  /** `(state, words, which)`: SHA1RNDS4. */
  readonly sha1Rounds: Fn<[V, V, I], V>;
  /** `(state, words)`: SHA1NEXTE. */
  readonly sha1Next: Two;
  /** `(a, b)`: SHA1MSG1. */
  readonly sha1Message1: Two;
  /** `(a, b)`: SHA1MSG2. */
  readonly sha1Message2: Two;
  /** `(cdgh, abef, words)`: SHA256RNDS2. */
  readonly sha256Rounds: Fn<[V, V, V], V>;
  /** `(a, b)`: SHA256MSG1. */
  readonly sha256Message1: Two;
  /** `(a, b)`: SHA256MSG2. */
  readonly sha256Message2: Two;
} = {
  encrypt: reference("crypto.encrypt", [V128T, V128T], V128T),
  encryptLast: reference("crypto.encryptLast", [V128T, V128T], V128T),
  decrypt: reference("crypto.decrypt", [V128T, V128T], V128T),
  decryptLast: reference("crypto.decryptLast", [V128T, V128T], V128T),
  inverseMix: reference("crypto.inverseMix", [V128T], V128T),
  keyAssist: reference("crypto.keyAssist", [V128T, I32T], V128T),
  carryless: reference("crypto.carryless", [I64T, I64T], V128T),
  sha1Rounds: reference("crypto.sha1Rounds", [V128T, V128T, I32T], V128T),
  sha1Next: reference("crypto.sha1Next", [V128T, V128T], V128T),
  sha1Message1: reference("crypto.sha1Message1", [V128T, V128T], V128T),
  sha1Message2: reference("crypto.sha1Message2", [V128T, V128T], V128T),
  sha256Rounds: reference("crypto.sha256Rounds", [V128T, V128T, V128T], V128T),
  sha256Message1: reference("crypto.sha256Message1", [V128T, V128T], V128T),
  sha256Message2: reference("crypto.sha256Message2", [V128T, V128T], V128T),
};

// AES.

/** Reduction polynomial of the field, without its leading term. */
const POLYNOMIAL = 0x1b;

/** Product in the field of 2^8 elements. */
function fieldProduct(a: number, b: number): number {
  let product = 0;
  for (let x = a, y = b; y !== 0; y >>= 1) {
    if ((y & 1) !== 0) product ^= x;
    x = ((x << 1) & 0xff) ^ ((x & 0x80) !== 0 ? POLYNOMIAL : 0);
  }
  return product;
}

/** The S-box: the inverse, then an affine map (FIPS 197, 5.1.1). */
function substitutionBox(): number[] {
  const inverse = Array<number>(256).fill(0);
  for (let a = 1; a < 256; a++) {
    for (let b = a; b < 256; b++) {
      if (fieldProduct(a, b) === 1) [inverse[a], inverse[b]] = [b, a];
    }
  }
  return inverse.map((x) => {
    const turn = (by: number): number => ((x << by) | (x >> (8 - by))) & 0xff;
    return x ^ turn(1) ^ turn(2) ^ turn(3) ^ turn(4) ^ 0x63;
  });
}

function inverted(box: readonly number[]): number[] {
  const result = Array<number>(256);
  for (const [from, to] of box.entries()) result[to] = from;
  return result;
}

/** Each byte looked up in a table of 256. */
function lookUp(a: V128, table: readonly number[]): V128 {
  return Array.from({ length: 16 }, (_, row) => {
    // Of an index that is not below 16 the answer is 0.
    const index = a.xor(v128Of(8, row << 4));
    return v128Lanes(8, table.slice(16 * row, 16 * row + 16)).binary("i8x16.swizzle", index);
  }).reduce((x, y) => x.or(y));
}

/** Byte 4c + r of the result is byte 4(c ± r) + r: rows turned to the left, or back. */
const rows = (direction: 1 | -1): number[] =>
  Array.from({ length: 16 }, (_, k) => (k + direction * 4 * (k & 3) + 16) & 15);

/** Bytes of each column turned up by `by`. */
const columns = (by: number): number[] =>
  Array.from({ length: 16 }, (_, k) => (k & 12) | ((k + by) & 3));

/** Each byte times 2. */
function doubled(a: V128): V128 {
  const reduction = ZERO.binary("i8x16.gt_s", a).and(v128Of(8, POLYNOMIAL));
  return a.binary("i8x16.add", a).xor(reduction);
}

function mixColumns(a: V128): V128 {
  const next = a.shuffle(a, columns(1));
  const rest = a.shuffle(a, columns(2)).xor(a.shuffle(a, columns(3)));
  return doubled(a.xor(next)).xor(next).xor(rest);
}

/** The inverse is the same after columns have been multiplied by 5, 0, 4, 0. */
function inverseMixColumns(a: V128): V128 {
  const four = doubled(doubled(a.xor(a.shuffle(a, columns(2)))));
  return mixColumns(a.xor(four));
}

function defineAes(module: ModuleBuilder): void {
  const box = substitutionBox();
  const back = inverted(box);
  const substitute = module.define(
    "crypto.substitute",
    [V128T],
    V128T,
    (f, a) => f.return(lookUp(a, box)),
  );
  const restore = module.define(
    "crypto.restore",
    [V128T],
    V128T,
    (f, a) => f.return(lookUp(a, back)),
  );
  const encrypted = (f: FunctionBuilder, a: V128): V128 =>
    f.call(substitute, a.shuffle(a, rows(1)));
  const decrypted = (f: FunctionBuilder, a: V128): V128 => f.call(restore, a.shuffle(a, rows(-1)));
  module.body(CryptoUnit.encrypt, (f, a, key) => {
    f.return(mixColumns(encrypted(f, a)).xor(key));
  });
  module.body(CryptoUnit.encryptLast, (f, a, key) => f.return(encrypted(f, a).xor(key)));
  module.body(CryptoUnit.decrypt, (f, a, key) => {
    f.return(inverseMixColumns(decrypted(f, a)).xor(key));
  });
  module.body(CryptoUnit.decryptLast, (f, a, key) => f.return(decrypted(f, a).xor(key)));
  module.body(CryptoUnit.inverseMix, (f, a) => f.return(inverseMixColumns(a)));
  module.body(CryptoUnit.keyAssist, (f, a, constant) => {
    const words = f.call(substitute, a.shuffle(a, laneBytes(4, [1, 1, 3, 3])));
    // Doublewords 1 and 3 are turned by a byte.
    const turned = words.shuffle(words, [0, 1, 2, 3, 5, 6, 7, 4, 8, 9, 10, 11, 13, 14, 15, 12]);
    const round = splat("i32x4", constant.and(0xff)).and(v128Lanes(32, [0, -1, 0, -1]));
    f.return(turned.xor(round));
  });
}

// PCLMULQDQ.

function defineCarryless(module: ModuleBuilder): void {
  module.body(CryptoUnit.carryless, (f, a, b) => {
    const low = f.variable(I64T, 0);
    const high = f.variable(I64T, 0);
    const rest = f.variable(I64T, b);
    f.while(() => rest.get().ne(0), () => {
      const place = rest.get().ctz();
      low.set(low.get().xor(a.shl(place)));
      // A shift by 64 is one by 0 to WebAssembly: in two steps.
      high.set(high.get().xor(a.shrU(1).shrU(i64(63).sub(place))));
      rest.set(rest.get().and(rest.get().sub(1)));
    });
    f.return(splat64(low.get()).withLane64(1, high.get()));
  });
}

// SHA.

/** Doubleword by the manual's order: 0 is the highest. */
const word = (a: V128, k: number): I32 => a.lane("i32x4", 3 - k);

/** Four doublewords, the highest first. */
function wordsOf(words: readonly I32[]): V128 {
  return words.slice(1).reduce(
    (result, value, k) => result.withLane("i32x4", 2 - k, value),
    splat("i32x4", words[0]!),
  );
}

const choose = (x: I32, y: I32, z: I32): I32 => x.and(y).xor(x.xor(-1).and(z));
const parity = (x: I32, y: I32, z: I32): I32 => x.xor(y).xor(z);
const majority = (x: I32, y: I32, z: I32): I32 => x.and(y).xor(x.and(z)).xor(y.and(z));

/** Functions and constants of SHA-1's four times twenty rounds. */
const SHA1_STAGES = [
  [choose, 0x5a82_7999],
  [parity, 0x6ed9_eba1],
  [majority, 0x8f1b_bcdc],
  [parity, 0xca62_c1d6],
] as const;

function defineSha1(module: ModuleBuilder): void {
  module.body(CryptoUnit.sha1Rounds, (f, state, words, which) => {
    const stages = SHA1_STAGES.map(([mix, constant]) => () => {
      let [a, b, c, d] = [0, 1, 2, 3].map((k) => word(state, k)) as [I32, I32, I32, I32];
      // The first word has E in it already.
      let e: I32 = i32(0);
      for (let round = 0; round < 4; round++) {
        const next = mix(b, c, d).add(a.rotl(5)).add(word(words, round)).add(e).add(constant);
        [a, b, c, d, e] = [next, a, b.rotl(30), c, d];
      }
      f.return(wordsOf([a, b, c, d]));
    });
    f.switch(which.and(3), stages, () => f.unreachable());
  });
  module.body(CryptoUnit.sha1Next, (f, state, words) => {
    const next = word(state, 0).rotl(30).add(word(words, 0));
    f.return(words.withLane("i32x4", 3, next));
  });
  module.body(CryptoUnit.sha1Message1, (f, a, b) => {
    // Words 2 to 5: the lower half of a above the upper half of b.
    f.return(a.xor(b.shuffle(a, laneBytes(8, [1, 2]))));
  });
  module.body(CryptoUnit.sha1Message2, (f, a, b) => {
    const first = word(a, 0).xor(word(b, 1)).rotl(1);
    f.return(wordsOf([
      first,
      word(a, 1).xor(word(b, 2)).rotl(1),
      word(a, 2).xor(word(b, 3)).rotl(1),
      word(a, 3).xor(first).rotl(1),
    ]));
  });
}

/** Σ and σ of SHA-256: two or three turns, and a shift. */
const sigma = (x: I32, turns: readonly number[], shift?: number): I32 => {
  const turned = turns.map((by) => x.rotr(by)).reduce((y, z) => y.xor(z));
  return shift === undefined ? turned : turned.xor(x.shrU(shift));
};

function defineSha256(module: ModuleBuilder): void {
  module.body(CryptoUnit.sha256Rounds, (f, cdgh, abef, words) => {
    let [a, b, e, fWord] = [0, 1, 2, 3].map((k) => word(abef, k)) as [I32, I32, I32, I32];
    let [c, d, g, h] = [0, 1, 2, 3].map((k) => word(cdgh, k)) as [I32, I32, I32, I32];
    for (let round = 0; round < 2; round++) {
      const sum = choose(e, fWord, g).add(sigma(e, [6, 11, 25])).add(word(words, 3 - round))
        .add(h);
      const next = sum.add(majority(a, b, c)).add(sigma(a, [2, 13, 22]));
      [a, b, c, d, e, fWord, g, h] = [next, a, b, c, sum.add(d), e, fWord, g];
    }
    f.return(wordsOf([a, b, e, fWord]));
  });
  const small0 = (x: I32): I32 => sigma(x, [7, 18], 3);
  const small1 = (x: I32): I32 => sigma(x, [17, 19], 10);
  module.body(CryptoUnit.sha256Message1, (f, a, b) => {
    const following = [word(b, 3), word(a, 0), word(a, 1), word(a, 2)];
    f.return(wordsOf(following.map((x, k) => word(a, k).add(small0(x)))));
  });
  module.body(CryptoUnit.sha256Message2, (f, a, b) => {
    const w16 = word(a, 3).add(small1(word(b, 1)));
    const w17 = word(a, 2).add(small1(word(b, 0)));
    const w18 = word(a, 1).add(small1(w16));
    const w19 = word(a, 0).add(small1(w17));
    f.return(wordsOf([w19, w18, w17, w16]));
  });
}

/** The unit. */
export const CRYPTO_UNIT: Unit = {
  name: "crypto",
  functions: Object.values(CryptoUnit),
  define: (module) => {
    defineAes(module);
    defineCarryless(module);
    defineSha1(module);
    defineSha256(module);
  },
};
