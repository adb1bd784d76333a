/**
 * Units: functions that the handlers of some forms call and that no other code needs. A unit is
 * compiled when the first of those forms is met, so that it costs a machine that never meets one
 * nothing.
 *
 * @module
 */
import { FX_UNIT } from "../microcode/fxsave.ts";
import type { Microcode } from "../microcode/microcode.ts";
import { FLOAT_UNIT } from "../semantics/float/unit.ts";
import type { Unit } from "../semantics/unit.ts";
import { CRYPTO_UNIT } from "../semantics/vector/crypto.ts";
import { TEXT_UNIT } from "../semantics/vector/text.ts";
import { VECTOR_UNIT } from "../semantics/vector/unit.ts";
import type { ModuleBuilder } from "../wasm/mod.ts";
import { X87_FUNCTION_UNIT, X87_UNIT } from "../x87/unit.ts";

export type { Unit };

const UNITS: readonly Unit[] = [
  CRYPTO_UNIT,
  FLOAT_UNIT,
  FX_UNIT,
  TEXT_UNIT,
  VECTOR_UNIT,
  X87_FUNCTION_UNIT,
  X87_UNIT,
];

const owners = new Map<string, Unit>(
  UNITS.flatMap((unit) => unit.functions.map(({ name }) => [name, unit] as const)),
);

/** The unit that has the function of this name; `undefined` for microcode. */
export function unitOf(name: string): Unit | undefined {
  return owners.get(name);
}

/** Puts all of a unit into a module. */
export function buildUnit(unit: Unit, module: ModuleBuilder, mc: Microcode): void {
  for (const ref of unit.functions) module.adopt(ref);
  unit.define(module, mc);
}
