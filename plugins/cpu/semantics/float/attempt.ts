/**
 * Where WebAssembly's arithmetic is certain to give result and exceptions.
 *
 * It is where rounding is to nearest, PE is set already and masked, no operand is denormal, infinite or a
 * NaN, and the result is normal or a zero that no underflow has made: then no exception but PE can have been
 * met. The least normal number may be what rounding made of a tiny one.
 *
 * @module
 */
import { S } from "../../state/cpu_state.ts";
import type { FunctionBuilder, I32, ModuleBuilder, V128 } from "../../wasm/mod.ts";
import type { VectorBinary, VectorUnary } from "../../wasm/mod.ts";
import { type Format, Mxcsr } from "./format.ts";
import { allOf, laneOf, normal, plain, positive, withLane, zeros } from "./lanes.ts";
import type { Floats, Operation, ScalarOperation } from "./references.ts";

/** The shape of vectors of values of a format. */
export const wasmShape = ({ bits }: Format): "f32x4" | "f64x2" => bits === 32 ? "f32x4" : "f64x2";

/** 1 where MXCSR has nothing against WebAssembly's arithmetic. */
export function mxcsrAllows(f: FunctionBuilder): I32 {
  return S.mxcsr.get(f).and((3 << Mxcsr.RC) | Mxcsr.PM | Mxcsr.PE).eq(Mxcsr.PM | Mxcsr.PE);
}

/** WebAssembly's result of an operation; of a square root, `b` is the operand. */
export function computed(format: Format, operation: ScalarOperation, a: V128, b: V128): V128 {
  const shape = wasmShape(format);
  if (operation === "sqrt") return b.unary(`${shape}.sqrt` as VectorUnary);
  return a.binary(`${shape}.${operation}` as VectorBinary, b);
}

/** WebAssembly's result, and the lanes in which it is certain. */
export interface Attempt {
  /** The result. */
  readonly result: V128;
  /** All ones in the lanes. */
  readonly certain: V128;
}

/** Attempts an operation in all lanes. */
export function attempt(format: Format, operation: Operation, a: V128, b: V128): Attempt {
  if (operation === "addsub") throw new Error(`${operation} is not attempted`);
  const result = computed(format, operation, a, b);
  switch (operation) {
    case "add":
    case "sub": {
      const certain = plain(format, a).and(plain(format, b));
      return { result, certain: certain.and(normal(format, result).or(zeros(format, result))) };
    }
    case "mul": {
      const zero = zeros(format, a).or(zeros(format, b));
      const certain = plain(format, a).and(plain(format, b));
      return { result, certain: certain.and(normal(format, result).or(zero)) };
    }
    case "div": {
      const certain = plain(format, a).and(normal(format, b));
      return { result, certain: certain.and(normal(format, result).or(zeros(format, a))) };
    }
    case "sqrt":
      return { result, certain: normal(format, b).and(positive(format, b)) };
  }
}

/** Sign and exponent of the lowest value. */
function head(format: Format, a: V128): I32 {
  return format.bits === 64 ? a.lane64(0).shrU(52).wrap() : a.lane("i32x4", 0).shrU(23);
}

/** 1 if the lowest value has an exponent from `least` on, of either sign, and is finite. */
function finiteFrom(format: Format, least: number, a: V128): I32 {
  return head(format, a).and(format.most).sub(least).ltU(format.most - least);
}

/** 1 if the lowest value is a normal number. */
export function isNormal(format: Format, a: V128): I32 {
  return finiteFrom(format, 1, a);
}

/**
 * Conditions that together make the result in the lowest lane certain: quicker than {@linkcode attempt}, and
 * not met by zeros.
 */
export function scalarConditions(
  format: Format,
  operation: ScalarOperation,
  a: V128,
  b: V128,
  result: V128,
): I32[] {
  // A set sign makes the number too large.
  if (operation === "sqrt") return [head(format, b).sub(1).ltU(format.most - 1)];
  return [isNormal(format, a), isNormal(format, b), finiteFrom(format, 2, result)];
}

/** Gives the functions for the lowest lane their bodies: they attempt what is left, or compute in software. */
export function defineScalars(module: ModuleBuilder, format: Format, functions: Floats): void {
  for (const operation of ["add", "sub", "mul", "div", "sqrt"] as const) {
    module.body(functions.scalar[operation], (f, a, b) => {
      const { result, certain } = attempt(format, operation, a, b);
      f.if(mxcsrAllows(f).and(allOf(format, certain, 1)), () => {
        f.return(withLane(format, a, 0, laneOf(format, result, 0)));
      });
      f.return(f.call(functions.vector[operation], a, b, 1));
    });
  }
}
