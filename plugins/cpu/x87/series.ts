/**
 * What the transcendental functions are made of: fractions of 128 bits, polynomials in them, and
 * quotients. Errors are a few units of the last place here, 60 bits below what a result keeps.
 *
 * A _fraction_ is a number below 1 with its point before bit 127; a _value_ is one below 2 with its point
 * before bit 126. The product of a fraction and a value is a value.
 *
 * @module
 */
import type { Fn, L } from "../microcode/header/signature.ts";
import {
  type FunctionBuilder,
  type I32,
  i32,
  I32T,
  i64,
  I64T,
  type ModuleBuilder,
} from "../wasm/mod.ts";
import { type Pair, pairOf, returnPair, type Wide } from "./wide.ts";

/** A number of 128 bits with an exponent: `high`.`low` has its integer bit in bit 127. */
export interface Long extends Pair {
  /** Exponent, with the bias of reals. */
  readonly exponent: I32;
}

/** Functions on numbers of 128 bits. */
export interface Series {
  /** `(a, b)`: the upper half of the product of two numbers of 128 bits, less 3 units at most. */
  readonly multiplyHigh: Fn<readonly [L, L, L, L], L>;
  /** `(n, d)`: 2^128 n / d, for n below d and d with its highest bit set. */
  readonly quotient: Fn<readonly [L, L, L, L], L>;
}

/** A constant of 128 bits. */
export function constantPair(value: bigint): Pair {
  return { high: i64(value >> 64n), low: i64(BigInt.asIntN(64, value)) };
}

/** a + b. */
export function addPair(a: Pair, b: Pair): Pair {
  const low = a.low.add(b.low);
  return { high: a.high.add(b.high).add(low.ltU(b.low).extendU()), low };
}

/** a − b. */
export function subtractPair(a: Pair, b: Pair): Pair {
  const borrow = a.low.ltU(b.low).extendU();
  return { high: a.high.sub(b.high).sub(borrow), low: a.low.sub(b.low) };
}

/** 1 if a is less than b, both without sign. */
export function below(a: Pair, b: Pair): I32 {
  return a.high.ltU(b.high).or(a.high.eq(b.high).and(a.low.ltU(b.low)));
}

/** One of two. */
export function selectPair(condition: I32, a: Pair, b: Pair): Pair {
  return { high: condition.select(a.high, b.high), low: condition.select(a.low, b.low) };
}

/** Defines them. */
export function defineSeries(module: ModuleBuilder, wide: Wide): Series {
  const multiplyHigh = module.define(
    "x87.multiplyHigh",
    [I64T, I64T, I64T, I64T],
    I64T,
    (f, aHigh, aLow, bHigh, bLow) => {
      const first = f.call(wide.multiply, aHigh, bLow);
      const second = f.call(wide.multiply, aLow, bHigh);
      const top = pairOf(f, f.call(wide.multiply, aHigh, bHigh));
      const one = addPair(top, { high: i64(0), low: first });
      const both = addPair(one, { high: i64(0), low: second });
      returnPair(f, both.high, both.low);
    },
  );

  const quotient = module.define(
    "x87.quotient128",
    [I64T, I64T, I64T, I64T],
    I64T,
    (f, nHigh, nLow, dHigh, dLow) => {
      const digit = f.variable(I64T, -1);
      const restHigh = f.variable(I64T, 0);
      const restLow = f.variable(I64T, 0);
      // The first 64 bits are guessed by the upper half of the divisor, and too great by 2 at most.
      f.if(nHigh.ltU(dHigh), () => {
        const guess = pairOf(f, f.call(wide.divide, nHigh, nLow, dHigh));
        digit.set(guess.high);
        restHigh.set(guess.low);
        const under = pairOf(f, f.call(wide.multiply, guess.high, dLow));
        const borrow = f.variable(
          I32T,
          below({ high: restHigh.get(), low: i64(0) }, under),
        );
        const left = subtractPair({ high: restHigh.get(), low: i64(0) }, under);
        restHigh.set(left.high);
        restLow.set(left.low);
        f.while(() => borrow.get(), () => {
          digit.set(digit.get().sub(1));
          const sum = addPair(
            { high: restHigh.get(), low: restLow.get() },
            { high: dHigh, low: dLow },
          );
          // Once it is positive again, the sum has gone beyond 128 bits.
          borrow.set(below(sum, { high: dHigh, low: dLow }).eqz());
          restHigh.set(sum.high);
          restLow.set(sum.low);
        });
      }, () => {
        // n = (2^64 − 1) d + rest, where the upper halves are equal.
        const part = subtractPair({ high: nHigh, low: nLow }, { high: dHigh, low: dLow });
        const sum = addPair(
          { high: part.low, low: i64(0) },
          { high: dHigh, low: dLow },
        );
        restHigh.set(sum.high);
        restLow.set(sum.low);
        f.if(dLow.sub(nLow).gtU(dHigh), () => {
          // One less, for the rest was negative.
          digit.set(-2);
          const more = addPair(sum, { high: dHigh, low: dLow });
          restHigh.set(more.high);
          restLow.set(more.low);
        });
      });
      const next = f.choose(
        I64T,
        restHigh.get().ltU(dHigh),
        () => f.call(wide.divide, restHigh.get(), restLow.get(), dHigh),
        () => i64(-1),
      );
      returnPair(f, digit.get(), next);
    },
  );

  return { multiplyHigh, quotient };
}

/** The upper half of a product. */
export function product(f: FunctionBuilder, { multiplyHigh }: Series, a: Pair, b: Pair): Pair {
  return pairOf(f, f.call(multiplyHigh, a.high, a.low, b.high, b.low));
}

/**
 * A polynomial in fraction `z`, by Horner's rule; `coefficients` are values, from the constant term on.
 * Where `minus` holds, each power of z has the other sign than the one before.
 */
export function polynomial(
  f: FunctionBuilder,
  series: Series,
  z: Pair,
  coefficients: readonly bigint[],
  minus: I32 | number,
): Pair {
  let sum = constantPair(coefficients.at(-1)!);
  for (const coefficient of coefficients.slice(0, -1).reverse()) {
    const term = product(f, series, sum, z);
    const constant = constantPair(coefficient);
    if (typeof minus === "number") {
      sum = minus === 0 ? addPair(constant, term) : subtractPair(constant, term);
    } else {
      sum = selectPair(minus, subtractPair(constant, term), addPair(constant, term));
    }
  }
  return sum;
}

/**
 * What is less than 1 by however little: 1 itself, which only a lack of digits can leave, becomes the
 * next number below, so that it is rounded the right way.
 */
export function belowOne(value: Pair): Pair {
  const one = value.high.eq(1n << 63n).and(value.low.eqz());
  return subtractPair(value, { high: i64(0), low: one.extendU() });
}

/** A long number with its highest bit set; `pair` is not 0. */
export function normalize(f: FunctionBuilder, wide: Wide, pair: Pair, exponent: I32): Long {
  const high = f.variable(I64T, pair.high);
  const low = f.variable(I64T, pair.low);
  const result = f.variable(I32T, exponent);
  f.if(high.get().eqz(), () => {
    high.set(low.get());
    low.set(0);
    result.set(result.get().sub(64));
  });
  const lead = high.get().clz().wrap();
  const shifted = pairOf(f, f.call(wide.shiftLeft, high.get(), low.get(), lead));
  return { ...shifted, exponent: result.get().sub(lead) };
}

/** The product of two long numbers. */
export function multiplyLong(
  f: FunctionBuilder,
  wide: Wide,
  series: Series,
  a: Long,
  b: Long,
): Long {
  const exponent = a.exponent.add(b.exponent).sub(0x3ffe);
  return normalize(f, wide, product(f, series, a, b), exponent);
}

/** A long number below 1 as a fraction: what lies below bit 0 is lost. */
export function fractionOf(f: FunctionBuilder, wide: Wide, { high, low, exponent }: Long): Pair {
  const count = i32(0x3ffe).sub(exponent).extendU();
  return pairOf(f, f.call(wide.shiftRight, high, low, count));
}
