/**
 * Conversions of vectors in software, lane by lane.
 *
 * @module
 */
import {
  type I32,
  I32T,
  type I64,
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
import { Doubles, Singles } from "./references.ts";
import { ZERO } from "../vector/unit.ts";

type I = TypeToken<I32>;
type V = TypeToken<V128>;

/** Functions on vectors, which compute all lanes that there are. */
export const VectorConversions: {
  /** `(a, rounding, part)`: four singles to integers of 32 bits. */
  readonly singlesToIntegers: Fn<[V, I, I], V>;
  /** `(a, rounding, part)`: two doubles to the two lower integers of 32 bits; the upper ones are 0. */
  readonly doublesToIntegers: Fn<[V, I, I], V>;
  /** `(a, part)`: four integers of 32 bits to singles. */
  readonly integersToSingles: Fn<[V, I], V>;
  /** `(a, part)`: the lower two singles to doubles. */
  readonly singlesToDoubles: Fn<[V, I], V>;
  /** `(a, part)`: two doubles to the lower two singles; the upper ones are 0. */
  readonly doublesToSingles: Fn<[V, I], V>;
} = {
  singlesToIntegers: reference("float.singlesToIntegers", [V128T, I32T, I32T], V128T),
  doublesToIntegers: reference("float.doublesToIntegers", [V128T, I32T, I32T], V128T),
  integersToSingles: reference("float.integersToSingles", [V128T, I32T], V128T),
  singlesToDoubles: reference("float.singlesToDoubles", [V128T, I32T], V128T),
  doublesToSingles: reference("float.doublesToSingles", [V128T, I32T], V128T),
};

function lanes(
  from: Format,
  to: Format,
  count: number,
  a: V128,
  convert: (value: I64) => I64,
): V128 {
  let result = ZERO;
  for (let k = 0; k < count; k++) {
    result = withLane(to, result, k, convert(laneOf(from, a, k)));
  }
  return result;
}

/** Gives the functions their bodies. */
export function defineVectorConversions(module: ModuleBuilder): void {
  const {
    singlesToIntegers,
    doublesToIntegers,
    integersToSingles,
    singlesToDoubles,
    doublesToSingles,
  } = VectorConversions;
  module.body(singlesToIntegers, (f, a, rounding, part) => {
    begin(f, part);
    const result = lanes(SINGLE, SINGLE, 4, a, (x) => f.call(Singles.toInteger, x, 32, rounding));
    end(f, part);
    f.return(result);
  });
  module.body(doublesToIntegers, (f, a, rounding, part) => {
    begin(f, part);
    const result = lanes(DOUBLE, SINGLE, 2, a, (x) => f.call(Doubles.toInteger, x, 32, rounding));
    end(f, part);
    f.return(result);
  });
  module.body(integersToSingles, (f, a, part) => {
    begin(f, part);
    const result = lanes(
      SINGLE,
      SINGLE,
      4,
      a,
      (x) => f.call(Singles.fromInteger, x.signExtend(32)),
    );
    end(f, part);
    f.return(result);
  });
  module.body(singlesToDoubles, (f, a, part) => {
    begin(f, part);
    const result = lanes(SINGLE, DOUBLE, 2, a, (x) => f.call(Singles.toOther, x));
    end(f, part);
    f.return(result);
  });
  module.body(doublesToSingles, (f, a, part) => {
    begin(f, part);
    const result = lanes(DOUBLE, SINGLE, 2, a, (x) => f.call(Doubles.toOther, x));
    end(f, part);
    f.return(result);
  });
}
