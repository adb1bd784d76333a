/**
 * Operands of AVX: one or two parts of 128 bits, the lower one first, and registers whose upper parts are
 * cleared (SDM vol. 1, 14; APM vol. 4, 1.2).
 *
 * @module
 */
import { Cr0, Cr4, Xcr0 } from "../../microcode/registers.ts";
import { S } from "../../state/cpu_state.ts";
import { I32T, type I64, type V128, V128T } from "../../wasm/mod.ts";
import type { Instruction, Semantics } from "../instruction.ts";
import {
  type Alignment,
  loadVector,
  missedLoad,
  missedStore,
  probeAcrossPages,
  storeVector,
  vectorOperandAddress,
} from "./operands.ts";
import { VectorUnit, ZERO } from "./unit.ts";

/** Components of XCR0 without which AVX is undefined. */
const COMPONENTS: number = Xcr0.SSE | Xcr0.AVX;

/** #UD unless CR4.OSXSAVE and both components of XCR0 are set, #NM where CR0.TS is. */
function avxAvailable(i: Instruction): void {
  const { f } = i;
  const wrong = S.cr0.low(f).and(Cr0.TS)
    .or(S.cr4.low(f).and(Cr4.OSXSAVE).xor(Cr4.OSXSAVE))
    .or(S.xcr0.low(f).and(COMPONENTS).xor(COMPONENTS));
  f.if(
    wrong,
    () => {
      i.spill();
      f.call(VectorUnit.avxUnavailable);
    },
    undefined,
    "unlikely",
  );
}

/** An AVX instruction. */
export function avx(emit: (i: Instruction) => void, needs: Partial<Semantics> = {}): Semantics {
  return {
    ...needs,
    emit: (i) => {
      avxAvailable(i);
      emit(i);
    },
  };
}

/** How many parts operand `k` has. */
export const partCount = (i: Instruction, k: number): 1 | 2 => i.width(k) === 256 ? 2 : 1;

function loadParts(i: Instruction, bits: number, linear: I64): V128[] {
  if (bits !== 256) return [loadVector(i, bits, linear)];
  const { f } = i;
  const { hit, address } = i.lookUp(256, linear, false);
  const low = f.variable(V128T, ZERO);
  const high = f.variable(V128T, ZERO);
  f.if(hit, () => {
    const at = f.variable(I32T, address());
    low.set(f.load128(at.get()));
    high.set(f.load128(at.get(), 16));
  }, () => {
    i.spill();
    low.set(missedLoad(i, linear));
    high.set(missedLoad(i, linear.add(16)));
  }, "likely");
  return [low.get(), high.get()];
}

/** Operand `k`. Memory may lie as it likes, but for the moves that say otherwise. */
export function readParts(i: Instruction, k: number, alignment: Alignment = "any"): V128[] {
  const { kind, bits } = i.form.operands[k]!;
  if (kind !== "V") return loadParts(i, bits, vectorOperandAddress(i, bits, 0, alignment));
  const address = i.vectorAddress(k);
  return Array.from({ length: partCount(i, k) }, (_, part) => i.f.load128(address, 16 * part));
}

/** The lower 128 bits of operand `k`. */
export const readPart = (i: Instruction, k: number): V128 => readParts(i, k)[0]!;

/** Writes vector register operand `k` and clears what is above. */
export function writeParts(i: Instruction, k: number, parts: readonly V128[]): void {
  const address = i.vectorAddress(k);
  for (const part of [0, 1]) i.f.store128(address, parts[part] ?? ZERO, 16 * part);
}

/** Stores memory operand `k`: all of it or, after a fault, nothing. */
export function storeParts(
  i: Instruction,
  k: number,
  parts: readonly V128[],
  alignment: Alignment = "any",
): void {
  const { f } = i;
  const bits = i.width(k);
  const linear = vectorOperandAddress(i, bits, 1, alignment);
  const [low, high] = parts;
  if (high === undefined) {
    storeVector(i, linear, low!);
    return;
  }
  const { hit, address } = i.lookUp(256, linear, true);
  f.if(hit, () => {
    const at = f.variable(I32T, address());
    f.store128(at.get(), low!);
    f.store128(at.get(), high, 16);
  }, () => {
    i.spill();
    probeAcrossPages(i, linear, 32);
    missedStore(i, linear, low!);
    missedStore(i, linear.add(16), high);
  }, "likely");
}
