/**
 * Floating point of vector instructions in software, and the end of each: exceptions go to MXCSR, and an
 * unmasked one is raised (APM vol. 1, 4.9; SDM vol. 1, 11.5).
 *
 * @module
 */
import type { Microcode } from "../../microcode/microcode.ts";
import { Vector } from "../../microcode/raise.ts";
import { Cr4 } from "../../microcode/registers.ts";
import { S } from "../../state/cpu_state.ts";
import {
  type FunctionBuilder,
  type I32,
  i32,
  type I64,
  type ModuleBuilder,
  type V128,
  V128T,
} from "../../wasm/mod.ts";
import type { Unit } from "../unit.ts";
import { defineArithmetic } from "./arithmetic.ts";
import { defineScalars } from "./attempt.ts";
import { Approximations, defineApproximations, defineComparisons } from "./compare.ts";
import { defineConversions } from "./convert.ts";
import { defineDotProducts, DoubleDot, SingleDot } from "./dot.ts";
import { DOUBLE, type Format, Mxcsr, SINGLE } from "./format.ts";
import { defineFused, Negated } from "./fused.ts";
import { defineHalves, Halves } from "./half.ts";
import { laneOf, withLane } from "./lanes.ts";
import { begin, end, finish, Part } from "./part.ts";
import { Doubles, type Floats, OPERATIONS, Singles } from "./references.ts";
import { defineVectorConversions, VectorConversions } from "./vector_convert.ts";

/** Computes the lowest lanes one by one. */
function eachLane(
  f: FunctionBuilder,
  format: Format,
  base: V128,
  part: I32,
  compute: (k: number) => I64,
): V128 {
  const result = f.variable(V128T, base);
  f.block((out) => {
    for (let k = 0; k < 128 / format.bits; k++) {
      if (k > 0) f.branchIf(part.and(Part.LANES).leU(k), out);
      result.set(withLane(format, result.get(), k, compute(k)));
    }
  });
  return result.get();
}

function defineVectors(module: ModuleBuilder, format: Format, functions: Floats): void {
  for (const operation of OPERATIONS) {
    module.body(functions.vector[operation], (f, a, b, part) => {
      begin(f, part);
      const result = eachLane(f, format, a, part, (k) => {
        const second = laneOf(format, b, k);
        if (operation === "sqrt") return f.call(functions.sqrt, second);
        const first = laneOf(format, a, k);
        if (operation !== "addsub") return f.call(functions[operation], first, second);
        return f.call(k % 2 === 0 ? functions.sub : functions.add, first, second);
      });
      end(f, part);
      f.return(result);
    });
  }
}

function defineFusedVector(module: ModuleBuilder, format: Format, functions: Floats): void {
  module.body(functions.fusedVector, (f, base, a, b, c, negated, part) => {
    begin(f, part);
    const result = eachLane(f, format, base, part, (k) => {
      const [x, y, z] = [a, b, c].map((value) => laneOf(format, value, k)) as [I64, I64, I64];
      const how = k % 2 === 0 ? negated : negated.shrU(Negated.ODD);
      return f.call(functions.fused, x, y, z, how);
    });
    end(f, part);
    f.return(result);
  });
}

function defineFinish(module: ModuleBuilder, mc: Microcode): void {
  module.body(finish, (f) => {
    const met = S.laneExceptions.get(f);
    const unmasked = S.mxcsr.get(f).shrU(Mxcsr.MASKS).xor(-1).and(Mxcsr.EXCEPTIONS);
    f.if(met.and(unmasked).eqz(), () => {
      S.mxcsr.or(f, met);
      f.return();
    });
    // An exception met beforehand keeps results, and what they would meet, from being computed.
    const before = met.and(unmasked).and(Mxcsr.BEFORE).ne(0);
    S.mxcsr.or(f, before.select(met.and(Mxcsr.BEFORE), met));
    const vector = S.cr4.has(f, Cr4.OSXMMEXCPT).select(i32(Vector.XF), i32(Vector.UD));
    f.call(mc.raise, vector);
  });
}

function define(module: ModuleBuilder, mc: Microcode): void {
  for (const [format, functions] of [[SINGLE, Singles], [DOUBLE, Doubles]] as const) {
    defineArithmetic(module, format, functions);
    defineComparisons(module, format, functions);
    defineFused(module, format, functions);
    defineVectors(module, format, functions);
    defineScalars(module, format, functions);
    defineFusedVector(module, format, functions);
  }
  defineConversions(module, Singles, Doubles);
  defineVectorConversions(module);
  defineApproximations(module);
  defineDotProducts(module);
  defineHalves(module);
  defineFinish(module, mc);
}

const functionsOf = ({ vector, scalar, ...others }: Floats): Unit["functions"] => [
  ...Object.values(others),
  ...Object.values(vector),
  ...Object.values(scalar),
];

/** The unit. */
export const FLOAT_UNIT: Unit = {
  name: "float",
  functions: [
    ...functionsOf(Singles),
    ...functionsOf(Doubles),
    ...Object.values(VectorConversions),
    ...Object.values(Approximations),
    ...Object.values(SingleDot),
    ...Object.values(DoubleDot),
    ...Object.values(Halves),
    finish,
  ],
  define,
};
