/**
 * Arithmetic on single values in software: add, subtract, multiply, divide, square root, exactly rounded
 * with the exceptions of MXCSR (SDM vol. 1, 4.8 and 4.9; APM vol. 1, 4.7).
 *
 * Vector instructions come here when WebAssembly's own arithmetic, which rounds to nearest and tells
 * nothing, cannot be known to give result and exceptions.
 *
 * @module
 */
import { S } from "../../state/cpu_state.ts";
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
} from "../../wasm/mod.ts";
import { multiplyHigh } from "../alu.ts";
import type { Fn } from "../unit.ts";
import {
  type Format,
  input,
  isInfinity,
  isZero,
  LEADING,
  Mxcsr,
  note,
  noteDenormals,
  returnInvalid,
  returnNan,
  Rounding,
  roundingControl,
  shiftRightSticky,
  signBit,
  signOf,
  takeApart,
} from "./format.ts";

type I = TypeToken<I32>;
type L = TypeToken<I64>;

/** Functions on values of one format. */
export interface Arithmetic {
  /** `(sign, exponent, significand)`: rounds and puts together; the significand is not 0. */
  readonly round: Fn<[I, I, L], L>;
  /** `(a, b)`: a + b. */
  readonly add: Fn<[L, L], L>;
  /** `(a, b)`: a − b. */
  readonly sub: Fn<[L, L], L>;
  /** `(a, b)`: a · b. */
  readonly mul: Fn<[L, L], L>;
  /** `(a, b)`: a / b. */
  readonly div: Fn<[L, L], L>;
  /** `(a)`: square root. */
  readonly sqrt: Fn<[L], L>;
}

/** References to the functions of a format, by a name for it. */
export function declareArithmetic(name: string): Arithmetic {
  const two = (operation: string): Fn<[L, L], L> =>
    reference(`float.${operation}.${name}`, [I64T, I64T], I64T);
  return {
    round: reference(`float.round.${name}`, [I32T, I32T, I64T], I64T),
    add: two("add"),
    sub: two("sub"),
    mul: two("mul"),
    div: two("div"),
    sqrt: reference(`float.sqrt.${name}`, [I64T], I64T),
  };
}

/** What is added below the last bit that is kept: a half, all but nothing, or nothing. */
function roundingAddend(control: I32, sign: I32, dropped: number): I64 {
  const away = control.eq(i32(Rounding.UP).sub(sign)).and(control.ne(Rounding.NEAREST));
  const directed = away.select(i64((1n << BigInt(dropped)) - 1n), i64(0));
  return control.eqz().select(i64(1n << BigInt(dropped - 1)), directed);
}

/**
 * Rounds and puts together a number whose significand is not 0, and returns it from the function. `flush`
 * says whether MXCSR.FTZ counts.
 */
export function returnRounded(
  f: FunctionBuilder,
  format: Format,
  sign: I32,
  exponent: I32,
  significand: I64,
  control: I32,
  flush: boolean,
): void {
  const { fraction, most, infinity } = format;
  const dropped = LEADING - fraction;
  const below = (1n << BigInt(dropped)) - 1n;
  const half = 1n << BigInt(dropped - 1);
  const addend = roundingAddend(control, sign, dropped);
  const sign64 = signBit(format, sign);
  const nearest = control.eqz();
  /** The significand without what is dropped, rounded; the even one of two equally near. */
  const kept = (value: I64): I64 => {
    const tie = nearest.and(value.and(below).eq(half)).extendU();
    return value.add(addend).shrU(dropped).and(tie.xor(-1));
  };
  f.if(
    exponent.leS(0),
    () => {
      // Whether a result is tiny is decided after rounding as if exponents had no bounds.
      const carries = exponent.eqz().and(significand.add(addend).ltS(0));
      const tiny = carries.eqz();
      const masked = S.mxcsr.has(f, Mxcsr.UM);
      if (flush) {
        f.if(tiny.and(masked).and(S.mxcsr.has(f, Mxcsr.FTZ)), () => {
          note(f, Mxcsr.UE | Mxcsr.PE);
          f.return(sign64);
        });
      }
      const value = shiftRightSticky(significand, i32(1).sub(exponent));
      // An unmasked underflow is about the result that exponents without bounds would give.
      f.if(tiny.and(masked.eqz()), () => {
        note(f, significand.and(below).ne(0).mul(Mxcsr.PE).or(Mxcsr.UE));
        f.return(sign64);
      });
      const inexact = value.and(below).ne(0);
      note(f, inexact.mul(Mxcsr.PE).or(tiny.and(inexact).mul(Mxcsr.UE)));
      f.return(sign64.or(kept(value)));
    },
    undefined,
    "unlikely",
  );
  f.if(exponent.ltS(most), () => {
    const value = exponent.sub(1).extendU().shl(fraction).add(kept(significand));
    f.if(value.ltU(infinity), () => {
      note(f, significand.and(below).ne(0).mul(Mxcsr.PE));
      f.return(sign64.or(value));
    });
  });
  // So is an unmasked overflow; a masked one is always inexact.
  const inexact = significand.and(below).ne(0).or(S.mxcsr.has(f, Mxcsr.OM));
  note(f, inexact.mul(Mxcsr.PE).or(Mxcsr.OE));
  f.return(sign64.or(addend.eqz().select(i64(infinity - 1n), i64(infinity))));
}

function defineRound(module: ModuleBuilder, format: Format, { round }: Arithmetic): void {
  module.body(round, (f, sign, exponent, significand) => {
    returnRounded(f, format, sign, exponent, significand, roundingControl(f), true);
  });
}

/** The zero that a difference of equal numbers is: negative when rounding down. */
export function exactZero(f: FunctionBuilder, format: Format): I64 {
  return roundingControl(f).eq(Rounding.DOWN).select(i64(format.sign), i64(0));
}

function defineAdd(
  module: ModuleBuilder,
  format: Format,
  functions: Arithmetic,
  subtract: boolean,
): void {
  const { round } = functions;
  module.body(subtract ? functions.sub : functions.add, (f, first, second) => {
    const a = input(f, format, first);
    const minuend = input(f, format, second);
    returnNan(f, format, a, minuend);
    const b = subtract ? minuend.xor(format.sign) : minuend;
    const differ = signOf(format, a).ne(signOf(format, b));
    returnInvalid(f, format, isInfinity(format, a).and(isInfinity(format, b)).and(differ));
    noteDenormals(f, format, a, b);
    f.if(isInfinity(format, a), () => f.return(a));
    f.if(isInfinity(format, b), () => f.return(b));
    f.if(isZero(format, a).and(isZero(format, b)), () => {
      f.return(differ.select(exactZero(f, format), a));
    });
    const swap = a.and(format.magnitude).ltU(b.and(format.magnitude));
    const larger = swap.select(b, a);
    const sign = signOf(format, larger);
    const x = takeApart(f, format, larger);
    const y = takeApart(f, format, swap.select(a, b));
    const distance = x.exponent.sub(y.exponent);
    const aligned = y.significand.eqz()
      .select(i64(0), shiftRightSticky(y.significand, distance));
    f.if(differ, () => {
      const difference = x.significand.sub(aligned);
      f.if(difference.eqz(), () => f.return(exactZero(f, format)));
      const shift = difference.clz().sub(1);
      f.returnCall(round, sign, x.exponent.sub(shift.wrap()), difference.shl(shift));
    });
    const sum = x.significand.add(aligned);
    f.if(sum.ltS(0), () => {
      f.returnCall(round, sign, x.exponent.add(1), sum.shrU(1).or(sum.and(1)));
    });
    f.returnCall(round, sign, x.exponent, sum);
  });
}

function defineMul(module: ModuleBuilder, format: Format, { mul, round }: Arithmetic): void {
  module.body(mul, (f, first, second) => {
    const a = input(f, format, first);
    const b = input(f, format, second);
    returnNan(f, format, a, b);
    const infinite = isInfinity(format, a).or(isInfinity(format, b));
    const zero = isZero(format, a).or(isZero(format, b));
    returnInvalid(f, format, infinite.and(zero));
    noteDenormals(f, format, a, b);
    const signs = a.xor(b).and(format.sign);
    f.if(infinite, () => f.return(signs.or(format.infinity)));
    f.if(zero, () => f.return(signs));
    const x = takeApart(f, format, a);
    const y = takeApart(f, format, b);
    const left = x.significand.shl(1);
    const right = y.significand.shl(1);
    const high = multiplyHigh(left, right);
    const sticky = left.mul(right).ne(0).extendU();
    const exponent = x.exponent.add(y.exponent).sub(format.bias);
    const sign = signOf(format, signs);
    f.if(high.ltS(0), () => {
      f.returnCall(round, sign, exponent.add(1), high.shrU(1).or(high.and(1)).or(sticky));
    });
    f.returnCall(round, sign, exponent, high.or(sticky));
  });
}

function defineDiv(module: ModuleBuilder, format: Format, { div, round }: Arithmetic): void {
  /** Bits of the quotient: those that are kept, one for the leading bit, two for rounding. */
  const digits = format.fraction + 4;
  module.body(div, (f, first, second) => {
    const a = input(f, format, first);
    const b = input(f, format, second);
    returnNan(f, format, a, b);
    const bothInfinite = isInfinity(format, a).and(isInfinity(format, b));
    returnInvalid(f, format, bothInfinite.or(isZero(format, a).and(isZero(format, b))));
    const signs = a.xor(b).and(format.sign);
    f.if(isZero(format, b), () => {
      f.if(isInfinity(format, a).eqz(), () => note(f, Mxcsr.ZE));
      f.return(signs.or(format.infinity));
    });
    noteDenormals(f, format, a, b);
    f.if(isInfinity(format, a), () => f.return(signs.or(format.infinity)));
    f.if(isInfinity(format, b).or(isZero(format, a)), () => f.return(signs));
    const x = takeApart(f, format, a);
    const y = takeApart(f, format, b);
    const smaller = x.significand.ltU(y.significand);
    const rest = f.variable(I64T, x.significand.shl(smaller.extendU()));
    const quotient = f.variable(I64T, 0);
    const count = f.variable(I32T, digits);
    f.while(() => count.get(), () => {
      const fits = rest.get().geU(y.significand);
      rest.set(rest.get().sub(fits.select(y.significand, i64(0))).shl(1));
      quotient.set(quotient.get().shl(1).or(fits.extendU()));
      count.set(count.get().sub(1));
    });
    const sticky = rest.get().ne(0).extendU();
    const significand = quotient.get().shl(LEADING + 1 - digits).or(sticky);
    const exponent = x.exponent.sub(y.exponent).add(format.bias).sub(smaller);
    f.returnCall(round, signOf(format, signs), exponent, significand);
  });
}

function defineSqrt(module: ModuleBuilder, format: Format, { sqrt, round }: Arithmetic): void {
  /** Bits below the point of the radicand, which is in [1, 4). */
  const point = 54;
  module.body(sqrt, (f, operand) => {
    const a = input(f, format, operand);
    returnNan(f, format, a);
    f.if(isZero(format, a), () => f.return(a));
    returnInvalid(f, format, signOf(format, a));
    noteDenormals(f, format, a);
    f.if(isInfinity(format, a), () => f.return(a));
    const { exponent, significand } = takeApart(f, format, a);
    const odd = exponent.sub(format.bias).and(1);
    const radicand = significand.shrU(LEADING - point).shl(odd.extendU());
    // Digit by digit: `twice` is twice the root so far, in units of the bit that is tried.
    const rest = f.variable(I64T, radicand.shl(1));
    const root = f.variable(I64T, 0);
    const twice = f.variable(I64T, 0);
    const bit = f.variable(I64T, 1n << BigInt(point + 1));
    f.while(() => bit.get().ne(0), () => {
      const trial = twice.get().add(bit.get());
      const fits = trial.leU(rest.get());
      f.if(fits, () => {
        twice.set(trial.add(bit.get()));
        rest.set(rest.get().sub(trial));
        root.set(root.get().add(bit.get()));
      });
      rest.set(rest.get().shl(1));
      bit.set(bit.get().shrU(1));
    });
    const sticky = rest.get().ne(0).extendU();
    const result = root.get().shl(LEADING - point - 1).or(sticky);
    const half = exponent.sub(format.bias).sub(odd).shrS(1).add(format.bias);
    f.returnCall(round, i32(0), half, result);
  });
}

/** Gives the functions of a format their bodies. */
export function defineArithmetic(
  module: ModuleBuilder,
  format: Format,
  functions: Arithmetic,
): void {
  defineRound(module, format, functions);
  defineAdd(module, format, functions, false);
  defineAdd(module, format, functions, true);
  defineMul(module, format, functions);
  defineDiv(module, format, functions);
  defineSqrt(module, format, functions);
}
