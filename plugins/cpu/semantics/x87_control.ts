/**
 * x87 control instructions: those on the control and status words, and on the environment (APM vol. 5;
 * SDM vol. 1, 8.1; vol. 2A).
 *
 * @module
 */
import { Mode, S } from "../state/cpu_state.ts";
import { type I32, i32, type I64 } from "../wasm/mod.ts";
import { ENVIRONMENT_BYTES, STORED_REGISTER_BYTES } from "../x87/environment.ts";
import { Control, Status } from "../x87/format.ts";
import { summarized } from "../x87/operations.ts";
import { X87Unit } from "../x87/header.ts";
import type { Instruction, Semantics } from "./instruction.ts";
import { available, note, waiting } from "./x87_available.ts";

/** What FNCLEX clears: the flags, the stack fault, summary and busy. */
const CLEARED: number = 0x7f | Status.SUMMARY | Status.BUSY;
/** The control word that FNINIT leaves: all masked, 64-bit precision, to nearest. */
const INITIAL_CONTROL = 0x37f;
/** All registers empty. */
const EMPTY_TAGS = 0xffff;

/** What FNINIT leaves; registers keep what they hold. */
function initialize({ f }: Instruction): void {
  S.fpuControl.set(f, INITIAL_CONTROL);
  S.fpuStatus.set(f, 0);
  S.fpuTag.set(f, EMPTY_TAGS);
  S.fpuOpcode.set(f, 0);
  S.fpuInstruction.set(f, 0);
  S.fpuData.set(f, 0);
  S.fpuSelectors.set(f, 0);
}

/** Bytes of an environment in the format of the operand size, which has nothing for 64 bits. */
function environmentBytes(i: Instruction): number {
  return i.bits === 16 ? ENVIRONMENT_BYTES[16] : ENVIRONMENT_BYTES[32];
}

/** Arguments that tell the format: 1 for 32 bits, 1 for real mode. */
function formatOf(i: Instruction): [I32, I32] {
  return [i32(i.bits === 16 ? 0 : 1), S.mode.has(i.f, Mode.REAL)];
}

/** Bytes of an environment with the registers behind it. */
function stateBytes(i: Instruction): number {
  return environmentBytes(i) + 8 * STORED_REGISTER_BYTES;
}

/** The area that is about to be written, all of which can be. */
function areaToStore(i: Instruction, bytes: number): I64 {
  const area = i.address(bytes, 1);
  i.spill();
  i.f.call(i.mc.probeStore, area, bytes);
  return area;
}

/** The area that is about to be read: both of its ends are there. */
function areaToLoad(i: Instruction, bytes: number): I64 {
  const { f, mc } = i;
  const area = i.address(bytes, 0);
  i.spill();
  f.call(mc.load8, area);
  f.call(mc.load8, area.add(bytes - 1));
  return area;
}

/** Instructions by mnemonic. */
export const X87_CONTROL: Readonly<Record<string, Semantics>> = {
  FNOP: {
    emit: (i) => {
      waiting(i);
      note(i);
    },
  },
  // FENI, FDISI and FSETPM were for the 8087 and the 80287; they do nothing since.
  FNOPNOWAIT: { emit: available },
  FNINIT: {
    emit: (i) => {
      available(i);
      initialize(i);
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
      const control = i.unsigned(0).wrap().and(Control.BITS).or(Control.ONE);
      S.fpuControl.set(f, control);
      // An exception whose mask is taken away is pending from now on.
      S.fpuStatus.set(f, summarized(S.fpuStatus.get(f), control));
    },
  },
  FNSTENV: {
    operandSize: true,
    emit: (i) => {
      const { f } = i;
      available(i);
      const area = areaToStore(i, environmentBytes(i));
      f.call(X87Unit.storeEnvironment, area, ...formatOf(i));
      // All exceptions are masked afterwards, so that nothing is pending.
      const control = S.fpuControl.get(f).or(Control.MASKS);
      S.fpuControl.set(f, control);
      S.fpuStatus.set(f, summarized(S.fpuStatus.get(f), control));
    },
  },
  FLDENV: {
    operandSize: true,
    emit: (i) => {
      waiting(i);
      const area = areaToLoad(i, environmentBytes(i));
      i.f.call(X87Unit.loadEnvironment, area, ...formatOf(i));
    },
  },
  FNSAVE: {
    operandSize: true,
    emit: (i) => {
      const { f } = i;
      available(i);
      const area = areaToStore(i, stateBytes(i));
      f.call(X87Unit.storeEnvironment, area, ...formatOf(i));
      f.call(X87Unit.storeRegisters, area.add(environmentBytes(i)));
      initialize(i);
    },
  },
  FRSTOR: {
    operandSize: true,
    emit: (i) => {
      const { f } = i;
      waiting(i);
      const area = areaToLoad(i, stateBytes(i));
      f.call(X87Unit.loadEnvironment, area, ...formatOf(i));
      f.call(X87Unit.loadRegisters, area.add(environmentBytes(i)));
    },
  },
};
