/**
 * What a unit is: see `engine/units.ts`.
 *
 * @module
 */
import type { Microcode } from "../microcode/microcode.ts";
import type { AnyToken, FunctionRef, ModuleBuilder } from "../wasm/mod.ts";

/** A function of a unit. */
export type Fn<P extends readonly AnyToken[], R extends AnyToken | undefined = undefined> =
  FunctionRef<P, R>;

/** Functions in a module of their own. */
export interface Unit {
  /** Its name. */
  readonly name: string;
  /** Its functions, whose names begin with that of the unit. */
  readonly functions: readonly FunctionRef[];
  /** Gives all of them their bodies. */
  readonly define: (module: ModuleBuilder, mc: Microcode) => void;
}
