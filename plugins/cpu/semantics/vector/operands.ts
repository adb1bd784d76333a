/**
 * Vector operands: whether the unit may be used, loads with their alignment, registers, stores.
 *
 * A value of 256 bits is a list of two vectors, its parts, the lower one first; everything else is a
 * list of one.
 *
 * @module
 */
import { Vector } from "../../microcode/raise.ts";
import { Cr0, Cr4 } from "../../microcode/registers.ts";
import { S } from "../../state/cpu_state.ts";
import {
  type FunctionBuilder,
  type I32,
  type I64,
  splat64,
  type V128,
  V128T,
} from "../../wasm/mod.ts";
import type { Instruction, Semantics } from "../instruction.ts";
import { VectorUnit, ZERO } from "./unit.ts";

/** 0 where SSE instructions can be executed. */
export function sseMissing(f: FunctionBuilder): I32 {
  return S.cr0.low(f).and(Cr0.EM | Cr0.TS)
    .or(S.cr4.low(f).and(Cr4.OSFXSR).xor(Cr4.OSFXSR));
}

/** #UD where CR0.EM is set or CR4.OSFXSR clear, #NM where CR0.TS is set (APM vol. 2, 11.3). */
export function sseAvailable(i: Instruction): void {
  const { f } = i;
  if (i.sseChecked) return;
  f.if(
    sseMissing(f),
    () => {
      i.spill();
      f.call(VectorUnit.unavailable);
    },
    undefined,
    "unlikely",
  );
}

/** How a memory operand of 16 bytes or more may lie. */
export type Alignment = "aligned" | "any";

/** Loads 128 bits that the TLB missed; the instruction has been spilled. */
export function missedLoad(i: Instruction, linear: I64): V128 {
  const value = i.f.call(VectorUnit.load, linear);
  i.leaveIfFaulted();
  return value;
}

/** Stores 128 bits likewise, of an access that has been probed if it goes across two pages. */
export function missedStore(i: Instruction, linear: I64, value: V128): void {
  i.f.call(VectorUnit.store, linear, value);
  i.leaveIfFaulted();
}

/** Faults if one of the two pages of a store cannot be written; within one page the first part of it would. */
export function probeAcrossPages(i: Instruction, linear: I64, bytes: number): void {
  const { f } = i;
  const across = linear.wrap().and(0xfff).gtU(0x1000 - bytes);
  f.if(across, () => f.call(i.mc.probeStore, linear, bytes), undefined, "unlikely");
}

/** Loads 32, 64 or 128 bits as the low lane of a vector. */
export function loadVector(i: Instruction, bits: number, linear: I64): V128 {
  const { f } = i;
  if (bits < 32) return splat64(i.load(bits, linear));
  const { hit, address } = i.lookUp(bits, linear, false);
  return f.choose(V128T, hit, () => f.loadVector(bits, address()), () => {
    i.spill();
    if (bits === 128) return missedLoad(i, linear);
    const value = f.call(i.mc.tryLoad, linear, bits, S.mmu.get(f));
    i.leaveIfFaulted();
    return ZERO.withLane64(0, value);
  }, "likely");
}

/** Stores 128 bits. */
export function storeVector(i: Instruction, linear: I64, value: V128): void {
  const { f } = i;
  const { hit, address } = i.lookUp(128, linear, true);
  f.if(hit, () => f.store128(address(), value), () => {
    i.spill();
    probeAcrossPages(i, linear, 16);
    missedStore(i, linear, value);
  }, "likely");
}

/** #GP(0) unless `linear` is a multiple of `bytes`. */
export function checkAlignment(i: Instruction, linear: I64, bytes: number): void {
  i.faultIf(linear.wrap().and(bytes - 1), Vector.GP, 0);
}

/** Linear address of the memory operand, whose alignment is checked if its 16 bytes have to have one. */
export function vectorOperandAddress(
  i: Instruction,
  bits: number,
  access: 0 | 1,
  alignment: Alignment,
): I64 {
  const linear = i.address(bits / 8, access);
  if (alignment === "aligned" && bits >= 128) checkAlignment(i, linear, bits / 8);
  return linear;
}

/** Operand `k`: all of a register, or as much as the operand has of memory with zeros above. */
export function readVector(i: Instruction, k: number, alignment: Alignment = "aligned"): V128 {
  const { kind, bits } = i.form.operands[k]!;
  if (kind === "V") return i.f.load128(i.vectorAddress(k));
  return loadVector(i, bits, vectorOperandAddress(i, bits, 0, alignment));
}

/** Writes the lower 128 bits of vector register operand `k` and keeps what is above. */
export function writeVector(i: Instruction, k: number, value: V128): void {
  i.f.store128(i.vectorAddress(k), value);
}

/** An SSE instruction. */
export function sse(emit: (i: Instruction) => void, needs: Partial<Semantics> = {}): Semantics {
  return {
    ...needs,
    emit: (i) => {
      sseAvailable(i);
      emit(i);
    },
  };
}
