/**
 * Filling in the answers of CPUID.
 *
 * @module
 */
import type { CpuidResult } from "../../../core/mod.ts";

/** Sets all four registers of an answer; those not given are 0. */
export function fill(result: CpuidResult, eax: number, ebx = 0, ecx = 0, edx = 0): void {
  result.eax = eax >>> 0;
  result.ebx = ebx >>> 0;
  result.ecx = ecx >>> 0;
  result.edx = edx >>> 0;
}

/** Four characters of `text` from `at` on, as a register holds them. */
export function characters(text: string, at: number): number {
  let value = 0;
  for (let k = 0; k < 4; k++) value |= (text.charCodeAt(at + k) || 0) << (8 * k);
  return value >>> 0;
}
