/**
 * Operands for the x87 vectors: corners of every format, and random numbers that are likely to meet.
 *
 * @module
 */
import type { Prng } from "../prng.ts";

/** An 80-bit real: sign and exponent, significand. */
export type Real = readonly [number, bigint];

const TOP = 1n << 63n;
const ALL = (1n << 64n) - 1n;

/** Real with the value of an integer, a half, and so on: `value` / 2^`down`. */
function real(value: bigint, down = 0): Real {
  let exponent = 0x3fff + 63 - down;
  let significand = value;
  while (significand < TOP) {
    significand <<= 1n;
    exponent--;
  }
  return [exponent, significand];
}

/** Corners, without sign. */
export const CORNERS: readonly Real[] = [
  [0, 0n], // 0
  [0x7fff, TOP], // infinity
  [0, 1n], // least denormal
  [0, TOP - 1n], // greatest denormal
  [0, TOP | 1n], // pseudo-denormal
  [0, TOP], // pseudo-denormal with the value of the least normal number
  [1, TOP], // least normal number
  [1, TOP | 1n],
  [2, TOP],
  [0x7ffe, ALL], // greatest number
  [0x7ffe, TOP],
  [0x7fff, 0xc000_0000_0000_0000n], // real indefinite
  [0x7fff, 0xc000_0000_0000_1234n], // quiet NaNs
  [0x7fff, ALL],
  [0x7fff, 0x8000_0000_0000_0001n], // signalling NaNs
  [0x7fff, 0xa000_0000_dead_beefn],
  [0x7fff, 0n], // pseudo-infinity
  [0x7fff, 0x4000_0000_0000_0001n], // pseudo-NaN
  [0x3fff, 0x4000_0000_0000_0000n], // unnormals
  [0x4001, 0n],
  [1, TOP - 1n],
  ...[0x3ffen, 1n, 2n, 3n, 5n, 10n, 100n].map((n) => real(n)),
  real(1n, 1),
  real(3n, 1),
  real(5n, 1),
  real(1n, 2),
  [0x3fff, TOP | 1n],
  [0x3ffe, ALL],
  [0x3fff, 0x8000_0080_0000_0000n], // ties of single precision
  [0x3fff, 0x8000_0180_0000_0000n],
  [0x3fff, 0x8000_0000_0000_0400n], // and of double precision
  [0x3fff, 0x8000_0000_0000_0c00n],
  [0x3fff, ALL],
  ...[15, 31, 63].flatMap((n) => {
    const limit = 1n << BigInt(n);
    return [real(limit), real(limit - 1n), real(limit * 2n - 1n, n === 63 ? 0 : 1)];
  }),
  real(2n * (1n << 31n) + 1n, 1),
  real(2n * (1n << 15n) + 1n, 1),
  [0x3fff + 64, TOP],
  real(10n ** 18n - 1n),
  real(10n ** 18n),
  real(2n * 10n ** 18n - 1n, 1),
  // Limits of single precision.
  [0x3fff + 127, 0xffff_ff00_0000_0000n],
  [0x3fff + 127, 0xffff_ff80_0000_0000n],
  [0x3fff + 127, 0xffff_ff7f_ffff_ffffn],
  [0x3fff + 128, TOP],
  [0x3fff - 126, TOP],
  [0x3fff - 127, 0xffff_ff80_0000_0000n],
  [0x3fff - 127, ALL],
  [0x3fff - 149, TOP],
  [0x3fff - 150, TOP],
  [0x3fff - 150, TOP | 1n],
  [0x3fff - 151, ALL],
  // Limits of double precision.
  [0x3fff + 1023, 0xffff_ffff_ffff_f800n],
  [0x3fff + 1023, 0xffff_ffff_ffff_fc00n],
  [0x3fff + 1023, 0xffff_ffff_ffff_fbffn],
  [0x3fff + 1024, TOP],
  [0x3fff - 1022, TOP],
  [0x3fff - 1023, 0xffff_ffff_ffff_fc00n],
  [0x3fff - 1023, ALL],
  [0x3fff - 1074, TOP],
  [0x3fff - 1075, TOP],
  [0x3fff - 1075, TOP | 1n],
];

/** A significand with its integer bit, often with long runs of equal bits. */
function significand(rng: Prng): bigint {
  const random = rng.next64() | TOP;
  switch (rng.below(6)) {
    case 0:
      return random & ~(ALL >> BigInt(1 + rng.below(63))) | TOP;
    case 1:
      return random | ALL >> BigInt(1 + rng.below(63));
    case 2: {
      // A single one below the precision of some format.
      const discarded = rng.pick([40n, 11n]);
      return (random >> discarded << discarded) | 1n << (discarded - 1n) | TOP;
    }
    default:
      return random;
  }
}

/** A real with sign; `near` is an exponent for it to be near to. */
export function anyReal(rng: Prng, near = 0x3fff): Real {
  const sign = rng.below(2) << 15;
  const roll = rng.below(8);
  if (roll < 3) {
    const [word, bits] = rng.pick(CORNERS);
    return [word | sign, bits];
  }
  if (roll === 3) return [sign | (1 + rng.below(0x7ffe)), significand(rng)];
  if (roll === 4) return [sign | (1 + rng.below(130)), significand(rng)];
  if (roll === 5) return [sign | (0x7ffe - rng.below(130)), significand(rng)];
  const exponent = near + rng.below(141) - 70;
  return [sign | Math.min(0x7ffe, Math.max(1, exponent)), significand(rng)];
}

/** Two reals, mostly not far apart. */
export function twoReals(rng: Prng): readonly [Real, Real] {
  if (rng.chance(1, 3)) {
    const [word, bits] = rng.pick(CORNERS);
    const [other, more] = rng.pick(CORNERS);
    return [[word | rng.below(2) << 15, bits], [other | rng.below(2) << 15, more]];
  }
  const first = anyReal(rng);
  const second = anyReal(rng, rng.chance(3, 4) ? first[0] & 0x7fff : 0x3fff);
  return rng.chance(1, 2) ? [first, second] : [second, first];
}

/** A number of single or double precision, as bits. */
export function narrowReal(rng: Prng, bits: 32 | 64): bigint {
  const fraction = bits === 32 ? 23n : 52n;
  const top = bits === 32 ? 0xffn : 0x7ffn;
  const random = rng.next64();
  const low = random & ((1n << fraction) - 1n);
  const exponent = rng.pick([0n, 0n, top, 1n, top - 1n, top >> 1n, top >> 1n, (top >> 1n) + 2n]);
  const sign = BigInt(rng.below(2)) << BigInt(bits - 1);
  const value = rng.chance(1, 3) ? rng.pick([0n, 1n, 1n << (fraction - 1n)]) : low;
  return sign | (rng.chance(1, 4) ? (random >> 40n) % top : exponent) << fraction | value;
}

/** A signed integer of `bits`, as bits. */
export function integer(rng: Prng, bits: number): bigint {
  const one = 1n << BigInt(bits - 1);
  const corner = rng.pick([0n, 1n, -1n, one - 1n, one, one + 1n, 10n, -10n]);
  return BigInt.asUintN(bits, rng.chance(1, 2) ? corner : rng.next64() >> BigInt(rng.below(64)));
}

/** Ten bytes of packed BCD, as bits. */
export function bcd(rng: Prng): bigint {
  let value = 0n;
  const digits = rng.below(19);
  for (let k = 0; k < digits; k++) value = value << 4n | BigInt(rng.below(10));
  return value | BigInt(rng.below(2)) << 79n;
}

/** A multiple of a quarter of the π that processors reduce by (66 bits), to 64 bits. */
function multipleOfPi(rng: Prng): Real {
  const quarters = BigInt(1 + rng.below(rng.pick([8, 64, 100_000])));
  let value = 0x3_243f_6a88_85a3_08d3n * quarters;
  let exponent = 0x3fff - 2 + 1;
  while (value >> 64n !== 0n) {
    value >>= 1n;
    exponent++;
  }
  return [exponent - 1, value + BigInt(rng.below(3)) - 1n];
}

/** An argument of a trigonometric function. */
export function angle(rng: Prng): Real {
  const sign = rng.below(2) << 15;
  const roll = rng.below(8);
  if (roll === 0) return anyReal(rng);
  if (roll < 3) {
    const [word, bits] = multipleOfPi(rng);
    return [word | sign, bits];
  }
  const exponent = roll < 5 ? 0x3fff - 12 + rng.below(20) : 0x3fff - 70 + rng.below(135);
  return [exponent | sign, significand(rng)];
}

/** A number from −1 to 1, as small as `less` bits below that, or anything one time in ten. */
export function small(rng: Prng, less = 72): Real {
  if (rng.chance(1, 10)) return anyReal(rng);
  const exponent = 0x3ffe - rng.below(rng.chance(1, 2) ? 6 : less);
  return [exponent | rng.below(2) << 15, significand(rng)];
}

/** A positive number, often near 1. */
export function positive(rng: Prng): Real {
  const roll = rng.below(8);
  if (roll === 0) return anyReal(rng);
  if (roll === 1) return [1 + rng.below(0x7ffe), significand(rng)];
  if (roll === 2) return [0x3ff0 + rng.below(32), TOP];
  if (roll < 5) {
    const away = significand(rng) >> BigInt(1 + rng.below(63));
    return rng.chance(1, 2) ? [0x3fff, TOP | away >> 1n] : [0x3ffe, ALL - (away >> 1n)];
  }
  return [0x3fff - 4 + rng.below(9), significand(rng)];
}

/** Eight bytes of packed integers, among them extremes; for a shift, often a count that is not too large. */
export function packed(rng: Prng, kind: "mmx" | "mmx count"): bigint {
  if (kind === "mmx count" && rng.chance(2, 3)) return BigInt(rng.below(72));
  const bits = rng.pick([8, 16, 32, 64]);
  let value = 0n;
  for (let at = 0; at < 64; at += bits) {
    value |= BigInt.asUintN(bits, lane(rng, bits)) << BigInt(at);
  }
  return value;
}

function lane(rng: Prng, bits: number): bigint {
  const random = rng.next64();
  if (rng.chance(1, 2)) return random;
  const least = 1n << BigInt(bits - 1);
  return rng.pick([0n, 1n, -1n, least, least - 1n, random & 15n]);
}

/** Sixteen bytes of numbers of single or double precision, about half of which fit into 32-bit integers. */
export function floats(rng: Prng, bits: 32 | 64): bigint {
  let value = 0n;
  for (let at = 0; at < 128; at += bits) {
    const number = rng.chance(1, 3)
      ? narrowReal(rng, bits)
      : floatBits((rng.next() | 0) / 2 ** rng.below(40) * 2 ** rng.below(4), bits);
    value |= number << BigInt(at);
  }
  return value;
}

function floatBits(value: number, bits: 32 | 64): bigint {
  const view = new DataView(new ArrayBuffer(8));
  if (bits === 32) {
    view.setFloat32(0, value);
    return BigInt(view.getUint32(0));
  }
  view.setFloat64(0, value);
  return view.getBigUint64(0);
}
