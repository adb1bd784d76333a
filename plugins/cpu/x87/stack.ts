/**
 * The register stack: the eight registers by their distance from the top, and their tags
 * (SDM vol. 1, 8.1.2 and 8.1.7).
 *
 * Registers stand in the state by physical number (`S.st`). Of a tag only "empty" is kept; what else a
 * tag says is worked out from the register when somebody asks for it (FNSTENV, FNSAVE).
 *
 * @module
 */
import { S } from "../state/cpu_state.ts";
import { type FunctionBuilder, type I32, i32, type I64 } from "../wasm/mod.ts";
import { type Real, Status, TOP_SHIFT } from "./format.ts";

/** Tag of an empty register. */
export const EMPTY = 3;
/** Bytes of a register in the state. */
export const REGISTER_BYTES = 16;

/** TOP. */
export function top(f: FunctionBuilder): I32 {
  return S.fpuStatus.get(f).shrU(TOP_SHIFT).and(7);
}

/** Physical number of ST(i). */
export function physical(f: FunctionBuilder, i: I32 | number): I32 {
  return top(f).add(i).and(7);
}

/** Address of physical register `n`. */
export function registerAt(n: I32): I32 {
  return n.mul(REGISTER_BYTES).add(S.st);
}

/** 1 if physical register `n` is empty. */
export function isEmpty(f: FunctionBuilder, n: I32): I32 {
  return S.fpuTag.get(f).shrU(n.shl(1)).and(3).eq(EMPTY);
}

/** Marks physical register `n` as empty. */
export function setEmpty(f: FunctionBuilder, n: I32): void {
  S.fpuTag.or(f, i32(EMPTY).shl(n.shl(1)));
}

/** Marks physical register `n` as in use. */
export function setUsed(f: FunctionBuilder, n: I32): void {
  const mask = i32(EMPTY).shl(n.shl(1));
  S.fpuTag.set(f, S.fpuTag.get(f).and(mask.xor(-1)));
}

/** What physical register `n` holds. */
export function readRegister(f: FunctionBuilder, n: I32): Real {
  const at = registerAt(n);
  return { significand: f.load64(at), word: f.load16(at, 8) };
}

/** Writes physical register `n`, which is then in use. */
export function writeRegister(f: FunctionBuilder, n: I32, significand: I64, word: I32): void {
  const at = registerAt(n);
  f.store64(at, significand);
  f.store64(at, word.and(0xffff).extendU(), 8);
  setUsed(f, n);
}

/** Moves TOP by `by` without touching tags. */
export function moveTop(f: FunctionBuilder, by: number): void {
  const status = S.fpuStatus.get(f);
  const moved = status.add(by << TOP_SHIFT).and(Status.TOP);
  S.fpuStatus.set(f, status.and(~Status.TOP).or(moved));
}

/** Pops one register. */
export function pop(f: FunctionBuilder): void {
  setEmpty(f, top(f));
  moveTop(f, 1);
}
