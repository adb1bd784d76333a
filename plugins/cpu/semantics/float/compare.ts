/**
 * Comparisons, minimum and maximum, rounding to integers and approximations on all lanes at once: what
 * WebAssembly computes is right, exceptions are found beside it (SDM vol. 1, 4.8; vol. 2 on each).
 *
 * @module
 */
import { Rflags } from "../../microcode/registers.ts";
import {
  type I32,
  i32,
  I32T,
  i64,
  type ModuleBuilder,
  reference,
  splat,
  type TypeToken,
  type V128,
  v128Of,
  V128T,
  type VectorBinary,
  type VectorUnary,
} from "../../wasm/mod.ts";
import type { Fn } from "../unit.ts";
import { type Format, Mxcsr, note, SINGLE } from "./format.ts";
import { anyOf, denormals, flushed, nans, noteCompared, signalling, zeros } from "./lanes.ts";
import { begin, end, Part } from "./part.ts";

type I = TypeToken<I32>;
type V = TypeToken<V128>;

/** Functions on vectors of one format. */
export interface Comparisons {
  /** `(a, b, predicate, part)`: all ones in the lanes for which the predicate (0–31) holds. */
  readonly compare: Fn<[V, V, I, I], V>;
  /** `(a, b, part)`: the lesser of a and b; b if one is a NaN or both are zeros. */
  readonly min: Fn<[V, V, I], V>;
  /** `(a, b, part)`: the greater of a and b; b if one is a NaN or both are zeros. */
  readonly max: Fn<[V, V, I], V>;
  /** `(a, b, all)`: ZF, PF and CF as COMISS (`all`: quiet NaNs are invalid, too) and UCOMISS set them. */
  readonly flags: Fn<[V, V, I], I>;
  /** `(a, how, part)`: rounded to integers; `how` is ROUNDPS's constant, its rounding already chosen. */
  readonly integral: Fn<[V, I, I], V>;
}

/** References to the functions of a format, by a name for it. */
export function declareComparisons(name: string): Comparisons {
  const minMax = (operation: string): Fn<[V, V, I], V> =>
    reference(`float.${operation}.${name}`, [V128T, V128T, I32T], V128T);
  return {
    compare: reference(`float.compare.${name}`, [V128T, V128T, I32T, I32T], V128T),
    min: minMax("min"),
    max: minMax("max"),
    flags: reference(`float.flags.${name}`, [V128T, V128T, I32T], I32T),
    integral: reference(`float.integral.${name}`, [V128T, I32T, I32T], V128T),
  };
}

/** Relations that can hold between two values; exactly one does. */
const Relation = { LESS: 1, EQUAL: 2, GREATER: 4, UNORDERED: 8 } as const;
const { LESS, EQUAL, GREATER, UNORDERED } = Relation;
/** For which relations each predicate 0–15 holds; 16–31 are the same. */
const PREDICATES: readonly number[] = [
  EQUAL,
  LESS,
  LESS | EQUAL,
  UNORDERED,
  LESS | GREATER | UNORDERED,
  EQUAL | GREATER | UNORDERED,
  GREATER | UNORDERED,
  LESS | EQUAL | GREATER,
  EQUAL | UNORDERED,
  LESS | UNORDERED,
  LESS | EQUAL | UNORDERED,
  0,
  LESS | GREATER,
  EQUAL | GREATER,
  GREATER,
  LESS | EQUAL | GREATER | UNORDERED,
];
/** Four bits for each predicate, the first lowest. */
const HOLDS: bigint = PREDICATES.reduce(
  (all, bits, k) => all | (BigInt(bits) << BigInt(4 * k)),
  0n,
);
/** Predicates of 0–15 for which a quiet NaN is invalid; of 16–31 it is the others. */
const SIGNALLING = 0x6666;

const wasmShape = ({ bits }: Format): "f32x4" | "f64x2" => bits === 32 ? "f32x4" : "f64x2";
const binary = (format: Format, name: string, a: V128, b: V128): V128 =>
  a.binary(`${wasmShape(format)}.${name}` as VectorBinary, b);
const unary = (format: Format, name: string, a: V128): V128 =>
  a.unary(`${wasmShape(format)}.${name}` as VectorUnary);

/** All ones if `condition` is 1, in all lanes. */
const everywhere = (condition: I32): V128 => splat("i32x4", i32(0).sub(condition));

function defineCompare(module: ModuleBuilder, format: Format, functions: Comparisons): void {
  module.body(functions.compare, (f, first, second, predicate, part) => {
    begin(f, part);
    const a = flushed(f, format, first);
    const b = flushed(f, format, second);
    const number = predicate.and(15);
    const relations = i64(HOLDS).shrU(number.shl(2).extendU()).wrap();
    const where = (relation: number, mask: V128): V128 =>
      mask.and(everywhere(relations.shrU(Math.log2(relation)).and(1)));
    const result = where(LESS, binary(format, "lt", a, b))
      .or(where(EQUAL, binary(format, "eq", a, b)))
      .or(where(GREATER, binary(format, "gt", a, b)))
      .or(where(UNORDERED, nans(format, a).or(nans(format, b))));
    const loud = i32(SIGNALLING).shrU(number).xor(predicate.shrU(4)).and(1);
    noteCompared(f, format, a, b, part.and(Part.LANES), loud);
    end(f, part);
    f.return(result);
  });

  for (const [name, relation] of [["min", "lt"], ["max", "gt"]] as const) {
    module.body(functions[name], (f, first, second, part) => {
      begin(f, part);
      const a = flushed(f, format, first);
      const b = flushed(f, format, second);
      noteCompared(f, format, a, b, part.and(Part.LANES), i32(1));
      end(f, part);
      f.return(a.select(b, binary(format, relation, a, b)));
    });
  }

  module.body(functions.flags, (f, first, second, all) => {
    begin(f, i32(1));
    const a = flushed(f, format, first);
    const b = flushed(f, format, second);
    noteCompared(f, format, a, b, 1, all);
    end(f, i32(1));
    const lowest = (mask: V128): I32 => mask.lane("i32x4", 0);
    const unordered = lowest(nans(format, a).or(nans(format, b)));
    const less = lowest(binary(format, "lt", a, b));
    const equal = lowest(binary(format, "eq", a, b));
    f.return(
      unordered.and(Rflags.ZF | Rflags.PF | Rflags.CF)
        .or(less.and(Rflags.CF))
        .or(equal.and(Rflags.ZF)),
    );
  });
}

/** Bits of the constant of ROUNDPS: the rounding, and that PE is not met. */
const Integral = { ROUNDING: 3, QUIETLY: 8 } as const;

function defineIntegral(module: ModuleBuilder, format: Format, functions: Comparisons): void {
  module.body(functions.integral, (f, operand, how, part) => {
    begin(f, part);
    const a = flushed(f, format, operand);
    const lanes = part.and(Part.LANES);
    const rounded = f.variable(V128T, a);
    f.switch(
      how.and(Integral.ROUNDING),
      ["nearest", "floor", "ceil"].map((name) => () => rounded.set(unary(format, name, a))),
      () => rounded.set(unary(format, "trunc", a)),
    );
    const nan = nans(format, a);
    const result = a.or(v128Of(format.bits, format.quiet)).select(rounded.get(), nan);
    const inexact = binary(format, "ne", result, a).andNot(nan);
    const loud = how.and(Integral.QUIETLY).eqz();
    note(
      f,
      anyOf(format, signalling(format, a), lanes).mul(Mxcsr.IE)
        .or(anyOf(format, inexact, lanes).and(loud).mul(Mxcsr.PE)),
    );
    end(f, part);
    f.return(result);
  });
}

/** Gives the functions of a format their bodies. */
export function defineComparisons(
  module: ModuleBuilder,
  format: Format,
  functions: Comparisons,
): void {
  defineCompare(module, format, functions);
  defineIntegral(module, format, functions);
}

/**
 * RCPPS and RSQRTPS: the manuals allow a relative error of 1.5 · 2^−12 and leave the bits to the
 * processor. Here the quotient is rounded to twelve bits of fraction, so that the error is below 2^−12 and
 * powers of two come out exact. MXCSR counts for nothing: denormals are zeros, and so is a result that
 * would be one.
 */
export const Approximations: {
  /** `(a)`: 1 / a. */
  readonly reciprocal: Fn<[V], V>;
  /** `(a)`: 1 / √a. */
  readonly reciprocalRoot: Fn<[V], V>;
} = {
  reciprocal: reference("float.reciprocal", [V128T], V128T),
  reciprocalRoot: reference("float.reciprocalRoot", [V128T], V128T),
};

const ROUNDED = 0x400;
const KEPT = -0x800;

function approximated(a: V128, divisor: (x: V128) => V128): V128 {
  const magnitude = v128Of(32, SINGLE.magnitude);
  const x = a.andNot(denormals(SINGLE, a).and(magnitude));
  const one = v128Of(32, 0x3f80_0000);
  const quotient = one.binary("f32x4.div", divisor(x))
    .binary("i32x4.add", v128Of(32, ROUNDED))
    .and(v128Of(32, KEPT));
  const whole = quotient.andNot(denormals(SINGLE, quotient).and(magnitude));
  return a.or(v128Of(32, SINGLE.quiet)).select(whole, nans(SINGLE, a));
}

/** Gives the approximations their bodies. */
export function defineApproximations(module: ModuleBuilder): void {
  module.body(Approximations.reciprocal, (f, a) => {
    f.return(approximated(a, (x) => x));
  });
  module.body(Approximations.reciprocalRoot, (f, a) => {
    const root = approximated(a, (x) => x.unary("f32x4.sqrt"));
    const small = zeros(SINGLE, a).or(denormals(SINGLE, a)).or(nans(SINGLE, a));
    const negative = a.shift("i32x4.shr_s", 31).andNot(small);
    f.return(v128Of(32, SINGLE.indefinite).select(root, negative));
  });
}
