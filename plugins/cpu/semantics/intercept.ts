/**
 * Instruction intercepts: a #VMEXIT in place of an instruction that guest mode may not execute.
 *
 * @module
 */
import { Event, S } from "../state/cpu_state.ts";
import { InterceptWord, interceptWord } from "../svm/intercepts.ts";
import { type I32, i32, type I64, i64 } from "../wasm/mod.ts";
import type { Instruction } from "./instruction.ts";
import { interceptVmx } from "./vmx_intercept.ts";

/**
 * Takes a #VMEXIT with `code` if in guest mode with `mask` of intercept word `word` set, or the VM exit
 * that the same instruction has in VMX non-root operation (`vmx_intercept.ts` has the table). The
 * instruction must end its block.
 */
export function intercept(
  i: Instruction,
  word: number,
  mask: number,
  code: number,
  info1: I64 | number = 0,
  info2: I64 | number = 0,
): void {
  const { f } = i;
  const wanted = S.guestMode.get(f).and(interceptWord(f, word).and(mask).ne(0));
  f.if(wanted, () => exitGuest(i, i32(code), info1, info2), undefined, "unlikely");
  interceptVmx(i, code);
}

/** Takes a #VMEXIT; the instruction has not taken place. */
export function exitGuest(
  i: Instruction,
  code: I32,
  info1: I64 | number = 0,
  info2: I64 | number = 0,
): void {
  const { f, mc } = i;
  i.spill();
  // nRIP is only known here: microcode finds the instruction's length in its record.
  f.call(mc.vmexitInstruction, code.extendU(), i64(info1), i64(info2));
  f.return();
}

/**
 * Takes a #VMEXIT behind the instruction if in guest mode with `mask` of intercept word 010h set; EXITINFO1
 * is the value that was written. The instruction must end its block.
 */
export function exitTrap(i: Instruction, mask: I32 | number, code: I32 | number, value: I64): void {
  const { f } = i;
  const wanted = S.guestMode.get(f).and(interceptWord(f, InterceptWord.MISC2).and(mask).ne(0));
  f.if(
    wanted,
    () => {
      S.trapCode.set(f, code);
      S.trapInfo1.set(f, value);
      S.trapInfo2.set(f, 0);
      i.event(Event.VMEXIT_TRAP);
    },
    undefined,
    "unlikely",
  );
}
