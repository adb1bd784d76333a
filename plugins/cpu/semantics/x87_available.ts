/**
 * What comes before x87 instructions: whether there is a coprocessor, and exceptions that are pending
 * (SDM vol. 1, 8.3.13, 8.6 and 8.7; vol. 3A, 2.5).
 *
 * @module
 */
import { Vector } from "../microcode/raise.ts";
import { Cr0 } from "../microcode/registers.ts";
import { Mode, S, Seg, SEGMENT_BYTES, segmentAddress, SegmentField } from "../state/cpu_state.ts";
import { type I32, type I64, I64T } from "../wasm/mod.ts";
import { Status } from "../x87/format.ts";
import type { Instruction } from "./instruction.ts";

/** #NM where the coprocessor is emulated or switched out. */
export function available(i: Instruction): void {
  i.faultIf(S.cr0.has(i.f, Cr0.EM | Cr0.TS), Vector.NM);
}

/** #MF for an exception that an earlier instruction left unmasked; without CR0.NE it is the board's. */
export function pendingException(i: Instruction): void {
  const { f } = i;
  f.if(
    S.fpuStatus.has(f, Status.SUMMARY),
    () => {
      i.faultIf(S.cr0.has(f, Cr0.NE), Vector.MF);
      f.if(S.ignoreNumericErrors.get(f).eqz(), () => {
        i.spill();
        f.call(i.mc.freeze);
        f.unreachable();
      });
    },
    undefined,
    "unlikely",
  );
}

/** Both, as instructions that wait check them. */
export function waiting(i: Instruction): void {
  available(i);
  pendingException(i);
}

/**
 * Notes where an instruction stands that is not of control, where its operand in memory stands, if it
 * has one, and which it is. Comes once nothing can fault any more.
 *
 * AMD's processors note that of every instruction, and the vectors are theirs; Intel's of today note
 * opcode and operand only of one that raises an unmasked exception.
 */
export function note(i: Instruction): void {
  const { f } = i;
  const long = S.mode.has(f, Mode.LONG);
  const code = f.load16(segmentAddress(Seg.CS) + SegmentField.SELECTOR);
  /** Outside of 64-bit mode the selector stands above the offset. */
  const above = (selector: I32): I64 =>
    f.choose(I64T, long, () => 0, () => selector.extendU().shl(32), "likely");
  S.fpuOpcode.set(f, i.unsigned(i.operandCount - 1).wrap());
  S.fpuInstruction.set(f, i.rip().or(above(code)));
  if (i.isMemory(0)) {
    const at = i.segment().mul(SEGMENT_BYTES).add(S.segments + SegmentField.SELECTOR);
    const data = f.load16(at);
    S.fpuData.set(f, i.offset().or(above(data)));
    S.fpuSelectors.set(f, code.or(data.shl(16)));
  } else S.fpuSelectors.set(f, S.fpuSelectors.get(f).and(~0xffff).or(code));
}
