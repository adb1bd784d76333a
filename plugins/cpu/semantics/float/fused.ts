/**
 * Fused multiply-add in software: a · b + c rounded once (SDM vol. 1, 14.5.3).
 *
 * The product has 128 bits, as a high and a low half of which the high one's bit 62 leads; the addend is
 * brought to the same form, and what is shifted out of the smaller one is kept as a sticky bit.
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
  type TypeToken,
  type V128,
  V128T,
  type Variable,
} from "../../wasm/mod.ts";
import { multiplyHigh } from "../alu.ts";
import type { Fn } from "../unit.ts";
import { type Arithmetic, exactZero } from "./arithmetic.ts";
import {
  type Format,
  input,
  isInfinity,
  isZero,
  noteDenormals,
  returnInvalid,
  returnNan,
  signOf,
  takeApart,
} from "./format.ts";

type I = TypeToken<I32>;
type L = TypeToken<I64>;
type V = TypeToken<V128>;

/** What of a fused operation is negated; of odd lanes, what is with the bits above. */
export const Negated = {
  /** The product. */
  PRODUCT: 1,
  /** The addend. */
  ADDEND: 2,
  /** Shift of the bits for odd lanes. */
  ODD: 2,
} as const;

/** Functions on values of one format. */
export interface Fused {
  /** `(a, b, c, negated)`: ±(a · b) ± c. */
  readonly fused: Fn<[L, L, L, I], L>;
  /** `(base, a, b, c, negated, part)`: the lowest lanes of `base` computed. */
  readonly fusedVector: Fn<[V, V, V, V, I, I], V>;
}

/** References to the functions of a format, by a name for it. */
export function declareFused(name: string): Fused {
  return {
    fused: reference(`float.fused.${name}`, [I64T, I64T, I64T, I32T], I64T),
    fusedVector: reference(
      `float.fusedVector.${name}`,
      [V128T, V128T, V128T, V128T, I32T, I32T],
      V128T,
    ),
  };
}

/** A number of 128 bits in two variables. */
interface Wide {
  readonly high: Variable<I64>;
  readonly low: Variable<I64>;
}

/** Shifts right by `count` (0 or more); a bit that is lost stays in the lowest. */
function shiftRight({ high, low }: Wide, f: FunctionBuilder, count: I32): void {
  const by = count.extendU();
  const back = i64(64).sub(by);
  f.if(count.ne(0), () => {
    f.if(count.ltU(64), () => {
      const lost = low.get().shl(back).ne(0).extendU();
      low.set(low.get().shrU(by).or(high.get().shl(back)).or(lost));
      high.set(high.get().shrU(by));
    }, () => {
      const beyond = by.sub(64);
      const lost = low.get().or(
        count.eq(64).select(i64(0), high.get().shl(i64(0).sub(beyond))),
      ).ne(0).extendU();
      const all = low.get().or(high.get()).ne(0).extendU();
      low.set(count.geU(128).select(all, high.get().shrU(beyond).or(lost)));
      high.set(0);
    });
  });
}

/** Gives the function on single values its body. */
export function defineFused(
  module: ModuleBuilder,
  format: Format,
  { fused, round }: Fused & Arithmetic,
): void {
  module.body(fused, (f, first, second, third, negated) => {
    const a = input(f, format, first);
    const b = input(f, format, second);
    const addend = input(f, format, third);
    const infinite = isInfinity(format, a).or(isInfinity(format, b));
    const zero = isZero(format, a).or(isZero(format, b));
    returnNan(f, format, a, b, addend);
    const turned = (bit: number): I64 => negated.and(bit).ne(0).select(i64(format.sign), i64(0));
    const c = addend.xor(turned(Negated.ADDEND));
    const productSign = a.xor(b).and(format.sign).xor(turned(Negated.PRODUCT));
    const differ = signOf(format, productSign.xor(c));
    const invalid = infinite.and(zero)
      .or(infinite.and(isInfinity(format, c)).and(differ));
    returnInvalid(f, format, invalid);
    noteDenormals(f, format, a, b, c);
    f.if(infinite, () => f.return(productSign.or(format.infinity)));
    f.if(isInfinity(format, c), () => f.return(c));
    f.if(zero.and(isZero(format, c)), () => {
      f.return(differ.select(exactZero(f, format), c));
    });
    const z = takeApart(f, format, c);
    f.if(zero, () => f.returnCall(round, signOf(format, c), z.exponent, z.significand));
    const x = takeApart(f, format, a);
    const y = takeApart(f, format, b);
    const left = x.significand.shl(1);
    const right = y.significand.shl(1);
    const product: Wide = {
      high: f.variable(I64T, multiplyHigh(left, right)),
      low: f.variable(I64T, left.mul(right)),
    };
    const exponent = f.variable(I32T, x.exponent.add(y.exponent).sub(format.bias));
    f.if(product.high.get().ltS(0), () => {
      shiftRight(product, f, i32(1));
      exponent.set(exponent.get().add(1));
    });
    const rounded = (sign: I32, { high, low }: Wide): void => {
      f.returnCall(round, sign, exponent.get(), high.get().or(low.get().ne(0).extendU()));
    };
    const productIs = signOf(format, productSign);
    f.if(isZero(format, c), () => rounded(productIs, product));
    const other: Wide = { high: f.variable(I64T, z.significand), low: f.variable(I64T, 0) };
    const distance = exponent.get().sub(z.exponent);
    f.if(distance.ltS(0), () => {
      exponent.set(z.exponent);
      shiftRight(product, f, i32(0).sub(distance));
    }, () => shiftRight(other, f, distance));
    const sum: Wide = { high: f.variable(I64T, 0), low: f.variable(I64T, 0) };
    f.if(differ.eqz(), () => {
      const low = product.low.get().add(other.low.get());
      const carry = low.ltU(other.low.get()).extendU();
      sum.low.set(low);
      sum.high.set(product.high.get().add(other.high.get()).add(carry));
      f.if(sum.high.get().ltS(0), () => {
        shiftRight(sum, f, i32(1));
        exponent.set(exponent.get().add(1));
      });
      rounded(productIs, sum);
    });
    const less = product.high.get().ltU(other.high.get())
      .or(product.high.get().eq(other.high.get()).and(product.low.get().ltU(other.low.get())));
    const subtract = (from: Wide, what: Wide): void => {
      const borrow = from.low.get().ltU(what.low.get()).extendU();
      sum.low.set(from.low.get().sub(what.low.get()));
      sum.high.set(from.high.get().sub(what.high.get()).sub(borrow));
    };
    f.if(less, () => subtract(other, product), () => subtract(product, other));
    const sign = productIs.xor(less);
    f.if(sum.high.get().or(sum.low.get()).eqz(), () => f.return(exactZero(f, format)));
    // The leading one back to bit 62 of the high half.
    f.if(sum.high.get().eqz(), () => {
      // All but the lowest bit, which stays what it is: sticky.
      sum.high.set(sum.low.get().shrU(1));
      sum.low.set(sum.low.get().shl(63));
      exponent.set(exponent.get().sub(63));
    });
    f.if(sum.high.get().eqz(), () => {
      sum.high.set(sum.low.get().shrU(1));
      sum.low.set(0);
      exponent.set(exponent.get().sub(63));
    });
    const shift = sum.high.get().clz().sub(1);
    f.if(shift.ne(0), () => {
      sum.high.set(sum.high.get().shl(shift).or(sum.low.get().shrU(i64(64).sub(shift))));
      sum.low.set(sum.low.get().shl(shift));
      exponent.set(exponent.get().sub(shift.wrap()));
    });
    rounded(sign, sum);
  });
}
