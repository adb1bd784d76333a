/**
 * F16C: conversions between half and single precision (SDM vol. 2 on VCVTPH2PS and VCVTPS2PH).
 *
 * To single precision every number is exact, denormals included, whatever MXCSR says. To half precision
 * MXCSR.FTZ does not count.
 *
 * @module
 */
import {
  type I32,
  I32T,
  i64,
  I64T,
  type ModuleBuilder,
  reference,
  type TypeToken,
  type V128,
  V128T,
} from "../../wasm/mod.ts";
import type { Fn } from "../unit.ts";
import { ZERO } from "../vector/unit.ts";
import { returnRounded } from "./arithmetic.ts";
import { convertNan } from "./convert.ts";
import {
  HALF,
  input,
  isInfinity,
  isZero,
  LEADING,
  noteDenormals,
  signBit,
  signOf,
  SINGLE,
  takeApart,
} from "./format.ts";
import { begin, end } from "./part.ts";

type I = TypeToken<I32>;
type V = TypeToken<V128>;

/** Functions on vectors. */
export const Halves: {
  /** `(a, part)`: the lower four halves to singles. */
  readonly toSingles: Fn<[V, I], V>;
  /** `(a, rounding, part)`: four singles to the lower four halves; the upper ones are 0. */
  readonly fromSingles: Fn<[V, I, I], V>;
} = {
  toSingles: reference("float.halvesToSingles", [V128T, I32T], V128T),
  fromSingles: reference("float.singlesToHalves", [V128T, I32T, I32T], V128T),
};

/** Gives the functions their bodies. */
export function defineHalves(module: ModuleBuilder): void {
  const toSingle = module.define("float.halfToSingle", [I64T], I64T, (f, a) => {
    convertNan(f, HALF, SINGLE, a);
    const sign = signBit(SINGLE, signOf(HALF, a));
    f.if(isZero(HALF, a), () => f.return(sign));
    f.if(isInfinity(HALF, a), () => f.return(sign.or(SINGLE.infinity)));
    const { exponent, significand } = takeApart(f, HALF, a);
    // The leading one adds to the exponent.
    const biased = exponent.add(SINGLE.bias - HALF.bias - 1).extendU().shl(SINGLE.fraction);
    f.return(sign.or(biased.add(significand.shrU(LEADING - SINGLE.fraction))));
  });
  const fromSingle = module.define(
    "float.singleToHalf",
    [I64T, I32T],
    I64T,
    (f, operand, rounding) => {
      const a = input(f, SINGLE, operand);
      convertNan(f, SINGLE, HALF, a);
      noteDenormals(f, SINGLE, a);
      const sign = signOf(SINGLE, a);
      f.if(isZero(SINGLE, a), () => f.return(signBit(HALF, sign)));
      f.if(isInfinity(SINGLE, a), () => f.return(signBit(HALF, sign).or(i64(HALF.infinity))));
      const { exponent, significand } = takeApart(f, SINGLE, a);
      const rebiased = exponent.sub(SINGLE.bias - HALF.bias);
      returnRounded(f, HALF, sign, rebiased, significand, rounding, false);
    },
  );

  module.body(Halves.toSingles, (f, a, part) => {
    begin(f, part);
    let result = ZERO;
    for (let k = 0; k < 4; k++) {
      const value = f.call(toSingle, a.lane("i16x8", k).extendU());
      result = result.withLane("i32x4", k, value.wrap());
    }
    end(f, part);
    f.return(result);
  });
  module.body(Halves.fromSingles, (f, a, rounding, part) => {
    begin(f, part);
    let result = ZERO;
    for (let k = 0; k < 4; k++) {
      const value = f.call(fromSingle, a.lane("i32x4", k).extendU(), rounding);
      result = result.withLane("i16x8", k, value.wrap());
    }
    end(f, part);
    f.return(result);
  });
}
