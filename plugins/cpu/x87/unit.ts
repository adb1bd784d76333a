/**
 * The x87 unit: arithmetic with 80-bit reals, the register stack and its environment.
 *
 * @module
 */
import type { Microcode } from "../microcode/microcode.ts";
import type { Unit } from "../semantics/unit.ts";
import type { ModuleBuilder } from "../wasm/mod.ts";
import { defineArctangent } from "./arctangent.ts";
import { defineArithmetic } from "./arithmetic.ts";
import { defineConvert } from "./convert.ts";
import { defineEnvironment } from "./environment.ts";
import { defineFunctions } from "./functions.ts";
import { X87FunctionUnit, X87Unit as x87 } from "./header.ts";
import { defineLogarithm } from "./logarithm.ts";
import { defineNan } from "./nan.ts";
import { defineOperations } from "./operations.ts";
import { defineRemainder } from "./remainder.ts";
import { defineRound } from "./round.ts";
import { defineSeries } from "./series.ts";
import { defineStoring } from "./storing.ts";
import { defineTranscendental } from "./transcendental.ts";
import { defineTrigonometry } from "./trigonometry.ts";
import { defineWide } from "./wide.ts";

function define(module: ModuleBuilder, mc: Microcode): void {
  const wide = defineWide(module);
  const round = defineRound(module, wide);
  const nan = defineNan(module);
  const arithmetic = defineArithmetic(module, wide, nan, round);
  const convert = defineConvert(module, wide, round, x87);
  const remainder = defineRemainder(module, nan, round, convert);
  defineOperations(module, x87, arithmetic, remainder);
  defineStoring(module, x87, convert);
  defineEnvironment(module, x87, mc);
}

/** The unit. */
export const X87_UNIT: Unit = { name: "x87", functions: Object.values(x87), define };

/** The transcendental functions apart, for few programs use them: they have arithmetic of their own. */
function defineApart(module: ModuleBuilder): void {
  const wide = defineWide(module);
  const round = defineRound(module, wide);
  const nan = defineNan(module);
  const series = defineSeries(module, wide);
  const transcendental = defineTranscendental(module, round);
  defineFunctions(
    module,
    X87FunctionUnit,
    nan,
    defineTrigonometry(module, wide, series, transcendental),
    defineArctangent(module, wide, series, nan, transcendental),
    defineLogarithm(module, wide, series, nan, round, transcendental),
  );
}

/** The unit of transcendental functions. */
export const X87_FUNCTION_UNIT: Unit = {
  name: "x87f",
  functions: Object.values(X87FunctionUnit),
  define: defineApart,
};
