/**
 * References to the functions of the float unit.
 *
 * @module
 */
import { I32T, reference, type TypeToken, type V128, V128T } from "../../wasm/mod.ts";
import type { I32 } from "../../wasm/mod.ts";
import type { Fn } from "../unit.ts";
import { type Arithmetic, declareArithmetic } from "./arithmetic.ts";
import { type Comparisons, declareComparisons } from "./compare.ts";
import { type Conversions, declareConversions } from "./convert.ts";
import type { Format } from "./format.ts";
import { declareFused, type Fused } from "./fused.ts";

type I = TypeToken<I32>;
type V = TypeToken<V128>;

/** Arithmetic of two vectors; of a square root the first one only gives what is above its lanes. */
export const OPERATIONS = ["add", "sub", "mul", "div", "sqrt", "addsub"] as const;
/** Its name. */
export type Operation = typeof OPERATIONS[number];

/** Those of single values. */
export type ScalarOperation = Exclude<Operation, "addsub">;

/** Functions on single values and vectors of one format. */
export interface Floats extends Arithmetic, Conversions, Comparisons, Fused {
  /** `(a, b, part)`: a with the lowest lanes computed. */
  readonly vector: Readonly<Record<Operation, Fn<[V, V, I], V>>>;
  /** `(a, b)`: a with the lowest lane computed. */
  readonly scalar: Readonly<Record<ScalarOperation, Fn<[V, V], V>>>;
}

function declare(name: string): Floats {
  const operation = (of: Operation): Fn<[V, V, I], V> =>
    reference(`float.vector.${of}.${name}`, [V128T, V128T, I32T], V128T);
  const scalar = (of: ScalarOperation): Fn<[V, V], V> =>
    reference(`float.scalar.${of}.${name}`, [V128T, V128T], V128T);
  return {
    ...declareArithmetic(name),
    ...declareConversions(name),
    ...declareComparisons(name),
    ...declareFused(name),
    vector: {
      add: operation("add"),
      sub: operation("sub"),
      mul: operation("mul"),
      div: operation("div"),
      sqrt: operation("sqrt"),
      addsub: operation("addsub"),
    },
    scalar: {
      add: scalar("add"),
      sub: scalar("sub"),
      mul: scalar("mul"),
      div: scalar("div"),
      sqrt: scalar("sqrt"),
    },
  };
}

/** Functions on single precision. */
export const Singles: Floats = declare("single");
/** Functions on double precision. */
export const Doubles: Floats = declare("double");

/** The functions of a format. */
export const floats = (format: Format): Floats => format.bits === 32 ? Singles : Doubles;
