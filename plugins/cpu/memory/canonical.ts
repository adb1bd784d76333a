/**
 * Canonical addresses: those whose bits above the highest translated one are all equal to it.
 *
 * Without 5-level paging that is bit 47, with it bit 56 (SDM vol. 1, 3.3.7.1).
 *
 * @module
 */
import { S } from "../state/cpu_state.ts";
import type { FunctionBuilder, I32, I64 } from "../wasm/mod.ts";

/** 1 if `address` is canonical as CR4.LA57 is now. */
export function canonical(f: FunctionBuilder, address: I64): I32 {
  const shift = S.canonicalShift.get(f);
  return address.shl(shift).shrS(shift).eq(address);
}

/** `address` made canonical for as many bits as the processor has at most. */
export function canonicalized(f: FunctionBuilder, address: I64): I64 {
  const shift = S.widestShift.get(f);
  return address.shl(shift).shrS(shift);
}

/**
 * 1 if `address` is canonical for as many bits as the processor has at most. What is loaded into base
 * registers and MSRs is checked so where there is 5-level paging, whether it is on or not.
 */
export function canonicalForAny(f: FunctionBuilder, address: I64): I32 {
  return canonicalized(f, address).eq(address);
}

/** The opposite of {@linkcode canonicalForAny}. */
export function notCanonical(f: FunctionBuilder, address: I64): I32 {
  return canonicalized(f, address).ne(address);
}
