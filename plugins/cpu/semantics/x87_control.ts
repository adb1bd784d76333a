/**
 * x87 control instructions: those that touch the control and status words alone (APM vol. 5; SDM vol. 1,
 * 8.1). The registers and arithmetic of the coprocessor are not there yet.
 *
 * @module
 */
import { Vector } from "../microcode/raise.ts";
import { Cr0 } from "../microcode/registers.ts";
import { S } from "../state/cpu_state.ts";
import type { I32 } from "../wasm/mod.ts";
import type { Instruction, Semantics } from "./instruction.ts";

/** Status word: exception flags with the stack fault, error summary, and busy, which repeats it. */
const Status = { FLAGS: 0x3f, SUMMARY: 0x80, BUSY: 0x8000 } as const;
/** What FNCLEX clears: all of those, and the stack fault. */
const CLEARED: number = 0x7f | Status.SUMMARY | Status.BUSY;
/** The control word that FNINIT leaves: all masked, 64-bit precision, to nearest. */
const INITIAL_CONTROL = 0x37f;
/** All registers empty. */
const EMPTY_TAGS = 0xffff;
/** Bits of the control word; 6 always reads as 1, what is above 12 does not exist. */
const CONTROL_BITS = 0x1f3f;
const CONTROL_ONE = 0x40;

/** #NM where the coprocessor is emulated or switched out. */
function available(i: Instruction): void {
  i.faultIf(S.cr0.has(i.f, Cr0.EM | Cr0.TS), Vector.NM);
}

/** #MF for an exception that an earlier instruction left unmasked. */
function waiting(i: Instruction): void {
  const { f } = i;
  available(i);
  const pending = S.fpuStatus.get(f).and(Status.SUMMARY).ne(0);
  i.faultIf(pending.and(S.cr0.has(f, Cr0.NE)), Vector.MF);
  // Without CR0.NE it would be the board's, through the FERR# pin.
  f.if(
    pending,
    () => {
      i.spill();
      f.call(i.mc.unimplemented, i.recordAddress());
      f.unreachable();
    },
    undefined,
    "unlikely",
  );
}

/** The status word with its summary as the flags and the masks in `control` say. */
function summarized(status: I32, control: I32): I32 {
  const unmasked = status.and(control.xor(-1)).and(Status.FLAGS).ne(0);
  const summary = Status.SUMMARY | Status.BUSY;
  return status.and(~summary).or(unmasked.mul(summary));
}

/** Instructions by mnemonic. */
export const X87_CONTROL: Readonly<Record<string, Semantics>> = {
  FNOP: { emit: waiting },
  // FENI, FDISI and FSETPM were for the 8087 and the 80287; they do nothing since.
  FNOPNOWAIT: { emit: available },
  FNINIT: {
    emit: (i) => {
      const { f } = i;
      available(i);
      S.fpuControl.set(f, INITIAL_CONTROL);
      S.fpuStatus.set(f, 0);
      S.fpuTag.set(f, EMPTY_TAGS);
    },
  },
  FNCLEX: {
    emit: (i) => {
      available(i);
      S.fpuStatus.set(i.f, S.fpuStatus.get(i.f).and(~CLEARED));
    },
  },
  FNSTCW: {
    emit: (i) => {
      available(i);
      i.write(0, S.fpuControl.get(i.f).and(0xffff).extendU());
    },
  },
  FNSTSW: {
    emit: (i) => {
      available(i);
      i.write(0, S.fpuStatus.get(i.f).and(0xffff).extendU());
    },
  },
  FLDCW: {
    emit: (i) => {
      const { f } = i;
      waiting(i);
      const control = i.unsigned(0).wrap().and(CONTROL_BITS).or(CONTROL_ONE);
      S.fpuControl.set(f, control);
      // An exception whose mask is taken away is pending from now on.
      S.fpuStatus.set(f, summarized(S.fpuStatus.get(f), control));
    },
  },
};
