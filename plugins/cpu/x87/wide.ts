/**
 * Numbers of 128 bits: as two halves in code, as two results of a function.
 *
 * @module
 */
import type { Fn, I, L } from "../microcode/header/signature.ts";
import { S } from "../state/cpu_state.ts";
import {
  type FunctionBuilder,
  I32T,
  type I64,
  i64,
  I64T,
  type ModuleBuilder,
} from "../wasm/mod.ts";

/** A number of 128 bits. */
export interface Pair {
  /** Bits 127:64. */
  readonly high: I64;
  /** Bits 63:0. */
  readonly low: I64;
}

/** Returns two halves: the high one as the result, the low one as the second. */
export function returnPair(f: FunctionBuilder, high: I64, low: I64): void {
  S.fpuSecond.set(f, low);
  f.return(high);
}

/** The two halves that a call has just returned. */
export function pairOf(f: FunctionBuilder, high: I64): Pair {
  return { high, low: S.fpuSecond.get(f) };
}

/** Functions on numbers of 128 bits; all return two halves. */
export interface Wide {
  /** `(a, b)`: the product. */
  readonly multiply: Fn<readonly [L, L], L>;
  /** `(high, low, count)`: shifted right, any count; what falls out is remembered in bit 0. */
  readonly shiftRight: Fn<readonly [L, L, L], L>;
  /** `(high, low, count)`: shifted left by 0–63. */
  readonly shiftLeft: Fn<readonly [L, L, I], L>;
  /**
   * `(high, low, divisor)`: the quotient of 64 bits and the remainder. The divisor has bit 63 set and is
   * greater than `high`.
   */
  readonly divide: Fn<readonly [L, L, L], L>;
}

/** Defines them. */
export function defineWide(module: ModuleBuilder): Wide {
  const multiply = module.define("x87.multiply128", [I64T, I64T], I64T, (f, a, b) => {
    const low = (x: I64): I64 => x.and(0xffff_ffff);
    const high = (x: I64): I64 => x.shrU(32);
    const ll = low(a).mul(low(b));
    const middle = high(a).mul(low(b)).add(high(ll));
    const other = low(a).mul(high(b)).add(low(middle));
    returnPair(
      f,
      high(a).mul(high(b)).add(high(middle)).add(high(other)),
      other.shl(32).or(low(ll)),
    );
  });

  const shiftRight = module.define(
    "x87.shiftRight128",
    [I64T, I64T, I64T],
    I64T,
    (f, high, low, count) => {
      f.if(count.eqz(), () => returnPair(f, high, low));
      const sticky = (lost: I64): I64 => lost.ne(0).extendU();
      f.if(count.ltU(64), () => {
        const back = i64(64).sub(count);
        const shifted = low.shrU(count).or(high.shl(back));
        returnPair(f, high.shrU(count), shifted.or(sticky(low.shl(back))));
      });
      f.if(count.eq(64), () => returnPair(f, i64(0), high.or(sticky(low))));
      f.if(count.ltU(128), () => {
        const lost = high.shl(i64(128).sub(count)).or(low);
        returnPair(f, i64(0), high.shrU(count.sub(64)).or(sticky(lost)));
      });
      returnPair(f, i64(0), sticky(high.or(low)));
    },
  );

  const shiftLeft = module.define(
    "x87.shiftLeft128",
    [I64T, I64T, I32T],
    I64T,
    (f, high, low, count) => {
      f.if(count.eqz(), () => returnPair(f, high, low));
      const by = count.extendU();
      returnPair(f, high.shl(by).or(low.shrU(i64(64).sub(by))), low.shl(by));
    },
  );

  // Two digits of 32 bits (Knuth, The Art of Computer Programming, vol. 2, 4.3.1, algorithm D). With a
  // normalized divisor a digit's first guess is too great by 2 at most.
  const digit = module.define("x87.divideDigit", [I64T, I64T, I64T], I64T, (f, rest, next, by) => {
    const top = by.shrU(32);
    const bottom = by.and(0xffff_ffff);
    const guess = f.variable(I64T, rest.divU(top));
    const left = f.variable(I64T, rest.sub(guess.get().mul(top)));
    f.while(
      () =>
        left.get().shrU(32).eqz().and(
          guess.get().shrU(32).ne(0).or(
            guess.get().mul(bottom).gtU(left.get().shl(32).or(next)),
          ),
        ),
      () => {
        guess.set(guess.get().sub(1));
        left.set(left.get().add(top));
      },
    );
    // Modulo 2^64: the difference is smaller than the divisor.
    const remainder = rest.shl(32).or(next).sub(guess.get().mul(by));
    returnPair(f, guess.get(), remainder);
  });
  const divide = module.define("x87.divide128", [I64T, I64T, I64T], I64T, (f, high, low, by) => {
    const first = pairOf(f, f.call(digit, high, low.shrU(32), by));
    const second = pairOf(f, f.call(digit, first.low, low.and(0xffff_ffff), by));
    returnPair(f, first.high.shl(32).or(second.high), second.low);
  });

  return { multiply, shiftRight, shiftLeft, divide };
}
