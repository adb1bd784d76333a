/**
 * Functions that vector instructions call off their usual way: accesses that the TLB does not answer,
 * and what is raised when the unit may not be used.
 *
 * @module
 */
import type { Microcode } from "../../microcode/microcode.ts";
import { Vector } from "../../microcode/raise.ts";
import { Cr0, Cr4 } from "../../microcode/registers.ts";
import { S } from "../../state/cpu_state.ts";
import {
  type I64,
  I64T,
  type ModuleBuilder,
  reference,
  splat64,
  type TypeToken,
  type V128,
  v128,
  V128T,
} from "../../wasm/mod.ts";
import type { Fn, Unit } from "../unit.ts";

type L = TypeToken<I64>;
type V = TypeToken<V128>;

/** Functions of the unit. */
export const VectorUnit: {
  /** `(linear)`: 128 bits. */
  readonly load: Fn<[L], V>;
  /** `(linear, value)`: stores all of 128 bits or, after a fault, nothing. */
  readonly store: Fn<[L, V]>;
  /** `(linear, value, mask)`: stores the bytes whose byte in the mask has bit 7 set, after checking all. */
  readonly maskedStore: Fn<[L, V, V]>;
  /** `()`: raises #UD or #NM where SSE may not be used. */
  readonly unavailable: Fn<[]>;
} = {
  load: reference("vector.load", [I64T], V128T),
  store: reference("vector.store", [I64T, V128T], undefined),
  maskedStore: reference("vector.maskedStore", [I64T, V128T, V128T], undefined),
  unavailable: reference("vector.unavailable", [], undefined),
};

function define(module: ModuleBuilder, mc: Microcode): void {
  // In two halves: a fault reports the first byte that is missing either way, and devices see what
  // they see of a 64-bit processor's longest plain access.
  module.body(VectorUnit.load, (f, linear) => {
    const low = f.call(mc.slowLoad, linear, 64, S.mmu.get(f));
    const high = f.call(mc.slowLoad, linear.add(8), 64, S.mmu.get(f));
    f.return(splat64(low).withLane64(1, high));
  });

  module.body(VectorUnit.store, (f, linear, value) => {
    f.call(mc.probeStore, linear, 16);
    f.call(mc.slowStore, linear, 64, value.lane64(0), S.mmu.get(f));
    f.call(mc.slowStore, linear.add(8), 64, value.lane64(1), S.mmu.get(f));
  });

  module.body(VectorUnit.maskedStore, (f, linear, value, mask) => {
    f.call(mc.probeStore, linear, 16);
    const bits = mask.test("i8x16.bitmask");
    for (let k = 0; k < 16; k++) {
      f.if(bits.and(1 << k), () => {
        f.call(mc.store8, linear.add(k), value.lane("i8x16", k).extendU());
      });
    }
  });

  module.body(VectorUnit.unavailable, (f) => {
    const undefinedHere = S.cr0.has(f, Cr0.EM).or(S.cr4.has(f, Cr4.OSFXSR).eqz());
    f.if(undefinedHere, () => f.call(mc.raise, Vector.UD));
    f.call(mc.raise, Vector.NM);
  });
}

/** The unit. */
export const VECTOR_UNIT: Unit = {
  name: "vector",
  functions: Object.values(VectorUnit),
  define,
};

/** A vector of zeros. */
export const ZERO: V128 = v128(0n, 0n);

/** A vector of ones. */
export const ONES: V128 = v128(-1n, -1n);
