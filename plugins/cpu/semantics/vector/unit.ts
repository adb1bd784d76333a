/**
 * Functions that vector instructions call off their usual way: accesses that the TLB does not answer,
 * and what is raised when the unit may not be used.
 *
 * @module
 */
import type { Microcode } from "../../microcode/microcode.ts";
import { Vector } from "../../microcode/raise.ts";
import { Cr0, Cr4, Xcr0 } from "../../microcode/registers.ts";
import { S } from "../../state/cpu_state.ts";
import {
  type FunctionBuilder,
  type I32,
  I32T,
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

type I = TypeToken<I32>;
type L = TypeToken<I64>;
type V = TypeToken<V128>;

/** Functions of the unit. */
export const VectorUnit: {
  /** `(linear)`: 128 bits. A page fault is recorded, as by `tryLoad`. */
  readonly load: Fn<[L], V>;
  /** `(linear, value)`: stores 128 bits, in two halves. A page fault is recorded, as by `tryStore`. */
  readonly store: Fn<[L, V]>;
  /** `(linear, value, mask)`: stores the bytes whose byte in the mask has bit 7 set, after checking all. */
  readonly maskedStore: Fn<[L, V, V]>;
  /** `(linear, mask, bytes)`: the elements of 4 or 8 bytes whose mask is negative, zeros for the others. */
  readonly loadElements: Fn<[L, V, I], V>;
  /** `(linear, mask, bytes)`: faults if one of the elements whose mask is negative cannot be stored. */
  readonly probeElements: Fn<[L, V, I]>;
  /** `(linear, value, mask, bytes)`: stores the elements whose mask is negative. */
  readonly storeElements: Fn<[L, V, V, I]>;
  /** `()`: raises #UD or #NM where SSE may not be used. */
  readonly unavailable: Fn<[]>;
  /** `()`: raises #UD or #NM where AVX may not be used. */
  readonly avxUnavailable: Fn<[]>;
} = {
  load: reference("vector.load", [I64T], V128T),
  store: reference("vector.store", [I64T, V128T], undefined),
  maskedStore: reference("vector.maskedStore", [I64T, V128T, V128T], undefined),
  loadElements: reference("vector.loadElements", [I64T, V128T, I32T], V128T),
  probeElements: reference("vector.probeElements", [I64T, V128T, I32T], undefined),
  storeElements: reference("vector.storeElements", [I64T, V128T, V128T, I32T], undefined),
  unavailable: reference("vector.unavailable", [], undefined),
  avxUnavailable: reference("vector.avxUnavailable", [], undefined),
};

function define(module: ModuleBuilder, mc: Microcode): void {
  // In two halves: a fault reports the first byte that is missing either way, and devices see what
  // they see of a 64-bit processor's longest plain access.
  module.body(VectorUnit.load, (f, linear) => {
    const low = f.call(mc.tryLoad, linear, 64, S.mmu.get(f));
    f.if(S.faulted.get(f), () => f.return(ZERO), undefined, "unlikely");
    const high = f.call(mc.tryLoad, linear.add(8), 64, S.mmu.get(f));
    f.return(splat64(low).withLane64(1, high));
  });

  module.body(VectorUnit.store, (f, linear, value) => {
    f.call(mc.tryStore, linear, 64, value.lane64(0), S.mmu.get(f));
    f.if(S.faulted.get(f), () => f.return(), undefined, "unlikely");
    f.call(mc.tryStore, linear.add(8), 64, value.lane64(1), S.mmu.get(f));
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

  /** Does something with each element whose mask is negative. */
  const elements = (
    f: FunctionBuilder,
    mask: V128,
    bytes: I32,
    four: (k: number) => void,
    eight: (k: number) => void,
  ): void => {
    const each = (bits: I32, count: number, body: (k: number) => void): void => {
      for (let k = 0; k < count; k++) f.if(bits.and(1 << k), () => body(k));
    };
    f.if(
      bytes.eq(4),
      () => each(mask.test("i32x4.bitmask"), 4, four),
      () => each(mask.test("i64x2.bitmask"), 2, eight),
    );
  };
  module.body(VectorUnit.loadElements, (f, linear, mask, bytes) => {
    const result = f.variable(V128T, ZERO);
    elements(f, mask, bytes, (k) => {
      const value = f.call(mc.load32, linear.add(4 * k)).wrap();
      result.set(result.get().withLane("i32x4", k, value));
    }, (k) => {
      result.set(result.get().withLane64(k, f.call(mc.load64, linear.add(8 * k))));
    });
    f.return(result.get());
  });
  module.body(VectorUnit.probeElements, (f, linear, mask, bytes) => {
    const probe = (k: number): void =>
      f.call(mc.probeStore, linear.add(bytes.mul(k).extendU()), bytes);
    elements(f, mask, bytes, probe, probe);
  });
  module.body(VectorUnit.storeElements, (f, linear, value, mask, bytes) => {
    elements(f, mask, bytes, (k) => {
      f.call(mc.store32, linear.add(4 * k), value.lane("i32x4", k).extendU());
    }, (k) => {
      f.call(mc.store64, linear.add(8 * k), value.lane64(k));
    });
  });

  module.body(VectorUnit.unavailable, (f) => {
    const undefinedHere = S.cr0.has(f, Cr0.EM).or(S.cr4.has(f, Cr4.OSFXSR).eqz());
    f.if(undefinedHere, () => f.call(mc.raise, Vector.UD));
    f.call(mc.raise, Vector.NM);
  });

  module.body(VectorUnit.avxUnavailable, (f) => {
    const components = Xcr0.SSE | Xcr0.AVX;
    const enabled = S.xcr0.low(f).and(components).eq(components);
    f.if(S.cr4.has(f, Cr4.OSXSAVE).and(enabled).eqz(), () => f.call(mc.raise, Vector.UD));
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
