/**
 * DPPS and DPPD: products of the lanes that a constant names, added up pair by pair (SDM vol. 2).
 *
 * Each product and sum is rounded, and meets its exceptions, by itself; an unmasked exception of the
 * products keeps the sums from being computed.
 *
 * @module
 */
import {
  type I32,
  I32T,
  type I64,
  i64,
  I64T,
  type ModuleBuilder,
  reference,
  type TypeToken,
  type V128,
  V128T,
} from "../../wasm/mod.ts";
import type { Fn } from "../unit.ts";
import { DOUBLE, type Format, SINGLE } from "./format.ts";
import { laneOf, withLane } from "./lanes.ts";
import { begin, end } from "./part.ts";
import { Doubles, type Floats, Singles } from "./references.ts";
import { ZERO } from "../vector/unit.ts";

type I = TypeToken<I32>;
type V = TypeToken<V128>;

/** Functions on vectors of one format. */
export interface DotProduct {
  /** `(a, b, constant, part)`: products of the lanes that bits 7:4 name, zeros in the others. */
  readonly products: Fn<[V, V, I, I], V>;
  /** `(products, constant, part)`: their sum in the lanes that bits 3:0 name, zeros in the others. */
  readonly sum: Fn<[V, I, I], V>;
}

function declare(name: string): DotProduct {
  return {
    products: reference(`float.products.${name}`, [V128T, V128T, I32T, I32T], V128T),
    sum: reference(`float.sum.${name}`, [V128T, I32T, I32T], V128T),
  };
}

/** For singles. */
export const SingleDot: DotProduct = declare("single");
/** For doubles. */
export const DoubleDot: DotProduct = declare("double");

function defineDot(module: ModuleBuilder, dot: DotProduct, format: Format, floats: Floats): void {
  const count = 128 / format.bits;
  const lanes = (compute: (k: number) => I64): V128 => {
    let result = ZERO;
    for (let k = 0; k < count; k++) result = withLane(format, result, k, compute(k));
    return result;
  };
  module.body(dot.products, (f, a, b, constant, part) => {
    begin(f, part);
    const result = lanes((k) =>
      f.choose(
        I64T,
        constant.and(0x10 << k),
        () => f.call(floats.mul, laneOf(format, a, k), laneOf(format, b, k)),
        () => i64(0),
      )
    );
    end(f, part);
    f.return(result);
  });
  module.body(dot.sum, (f, products, constant, part) => {
    begin(f, part);
    let sums = Array.from({ length: count }, (_, k) => laneOf(format, products, k));
    while (sums.length > 1) {
      const terms = sums;
      sums = Array.from(
        { length: terms.length / 2 },
        (_, k) => f.call(floats.add, terms[2 * k]!, terms[2 * k + 1]!),
      );
    }
    const result = lanes((k) => constant.and(1 << k).ne(0).select(sums[0]!, i64(0)));
    end(f, part);
    f.return(result);
  });
}

/** Gives the functions their bodies. */
export function defineDotProducts(module: ModuleBuilder): void {
  defineDot(module, SingleDot, SINGLE, Singles);
  defineDot(module, DoubleDot, DOUBLE, Doubles);
}
