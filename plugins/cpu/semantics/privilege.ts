/**
 * What system instructions have in common: who may execute them, and that a block ends with them.
 *
 * @module
 */
import { Vector } from "../microcode/raise.ts";
import { Cr4 } from "../microcode/registers.ts";
import { Mode, S } from "../state/cpu_state.ts";
import { isQuiet } from "../state/disturbed.ts";
import type { Instruction, Semantics } from "./instruction.ts";

/** Raises #GP(0) unless CPL is 0. */
export function privileged(i: Instruction): void {
  i.faultIf(S.cpl.get(i.f).ne(0), Vector.GP, 0);
}

/** Raises #UD in real and virtual-8086 mode. */
export function protectedOnly(i: Instruction): void {
  if (i.code === 64) return;
  i.faultIf(S.mode.has(i.f, Mode.REAL), Vector.UD);
}

/** UMIP: SGDT, SIDT, SLDT, STR and SMSW are privileged. */
export function checkUmip(i: Instruction): void {
  const { f } = i;
  i.faultIf(S.cr4.has(f, Cr4.UMIP).and(S.cpl.get(f).ne(0)), Vector.GP, 0);
}

/**
 * An instruction that ends its block because it may leave the guest, and changes nothing that the next
 * one is found or carried out by but, perhaps, events.
 */
export const goesOn = (emit: (i: Instruction) => void): Semantics =>
  ended((i) => {
    emit(i);
    i.f.if(S.events.get(i.f).eqz(), () => i.branchNotTaken(), undefined, "likely");
    i.leave();
  }, { goesOn: true });

/**
 * An instruction that may ask the program outside, and otherwise changes nothing that the next one is found
 * or carried out by but, perhaps, events.
 */
export const asks = (emit: (i: Instruction) => void): Semantics => ({
  ends: true,
  goesOn: true,
  asks: true,
  emit: (i) => {
    emit(i);
    i.f.if(isQuiet(i.f), () => i.branchNotTaken(), undefined, "likely");
    i.leave();
  },
});

/** An instruction that ends its block and depends on the size of the code. */
export const ended = (
  emit: (i: Instruction) => void,
  needs: Partial<Semantics> = {},
): Semantics => ({
  ...needs,
  code: true,
  ends: true,
  emit: (i) => {
    emit(i);
    if (!i.ended) i.leave();
  },
});
