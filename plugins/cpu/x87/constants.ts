/**
 * Numbers that the transcendental functions need, worked out when the unit is made: 2^127 times each,
 * rounded to nearest.
 *
 * @module
 */

/** Bits behind the point of the numbers here. */
export const FRACTION = 127n;
/** Bits behind the point while they are worked out. */
const WORKING = 192n;

/** To the scale of the unit. */
function scaled(value: bigint): bigint {
  const drop = WORKING - FRACTION;
  return (value + (1n << (drop - 1n))) >> drop;
}

/** Sum of the terms that `next` makes out of one another, until they vanish. */
function series(first: bigint, next: (term: bigint, k: bigint) => bigint): bigint {
  let sum = 0n;
  let term = first;
  for (let k = 0n; term !== 0n; k++) {
    sum += term;
    term = next(term, k);
  }
  return sum;
}

/** The inverse tangent of `n` / `d`, which is at most 1. */
function arctangent(n: bigint, d: bigint): bigint {
  // Euler's series, which converges for 1 as well.
  const square = n * n;
  const both = square + d * d;
  return series((n * d << WORKING) / both, (term, k) => {
    const m = 2n * (k + 1n);
    return term * m * square / ((m + 1n) * both);
  });
}

/** ln 2, as 2 artanh 1/3. */
const LN2: bigint = 2n * ((): bigint => {
  let sum = 0n;
  for (let power = (1n << WORKING) / 3n, k = 1n; power !== 0n; power /= 9n, k += 2n) {
    sum += power / k;
  }
  return sum;
})();

const PI: bigint = 4n * arctangent(1n, 1n);

/** π / 4. */
export const QUARTER_PI: bigint = scaled(PI / 4n);

/** Inverse tangents of 0, 1/`parts`, 2/`parts` … 1. */
export function arctangents(parts: number): bigint[] {
  return Array.from({ length: parts + 1 }, (_, i) => scaled(arctangent(BigInt(i), BigInt(parts))));
}

/** Magnitudes of the coefficients of cos r, or of sin r / r, by powers of r². */
export function trigonometric(odd: boolean, count: number): bigint[] {
  const coefficients: bigint[] = [];
  let factorial = 1n;
  for (let k = 0; k < count; k++) {
    const n = BigInt(2 * k + (odd ? 1 : 0));
    if (n > 1n) factorial *= n * (n - 1n);
    coefficients.push(scaled((1n << WORKING) / factorial));
  }
  return coefficients;
}

/** Coefficients of (2^x − 1) / x by powers of x. */
export function exponential(count: number): bigint[] {
  const coefficients: bigint[] = [];
  let term = 1n << WORKING;
  for (let k = 1n; k <= BigInt(count); k++) {
    term = (term * LN2 >> WORKING) / k;
    coefficients.push(scaled(term));
  }
  return coefficients;
}

/** Coefficients of arctan t / t by powers of t², without their signs. */
export function arctangentSeries(count: number): bigint[] {
  return Array.from({ length: count }, (_, k) => scaled((1n << WORKING) / BigInt(2 * k + 1)));
}

/** Coefficients of a quarter of log2((1 + s) / (1 − s)) / s by powers of s². */
export function logarithmic(count: number): bigint[] {
  const factor = (1n << (2n * WORKING)) / LN2 / 2n;
  return Array.from({ length: count }, (_, k) => scaled(factor / BigInt(2 * k + 1)));
}
