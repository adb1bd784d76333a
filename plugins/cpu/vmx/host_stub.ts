/**
 * VMX for a host that is the program outside: what a hypervisor in machine code would do with VMX
 * instructions, as functions of 32-bit numbers.
 *
 * Each yields 0 for VMsucceed, the error number for VMfailValid, and {@linkcode StubFailure} otherwise.
 *
 * @module
 */
import type { Microcode } from "../microcode/microcode.ts";
import { chargedInstructions } from "../microcode/outside.ts";
import { Rflags } from "../microcode/registers.ts";
import { copySlots } from "../state/copy.ts";
import { Event, registerAddress, S } from "../state/cpu_state.ts";
import { type FunctionBuilder, type I32, i32, I32T, type I64, type Tag } from "../wasm/mod.ts";
import { ENTERED } from "./entry.ts";
import { readField, readField32, Vmcs, writeNoted } from "./fields.ts";

/** What a VMX instruction of the host came to, other than success and VMfailValid. */
export const StubFailure = { INVALID: -1, FAULT: -2 } as const;

/** Which instruction {@linkcode Microcode.vmxHostPointer} executes. */
export const PointerOperation = { VMXON: 0, VMCLEAR: 1, VMPTRLD: 2 } as const;

/** General registers that entries and exits leave to software: all but RSP. */
const SWITCHED: readonly number[] = [0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

/** Those, and RIP and RFLAGS, that a VMCS has: their place in the storage of registers, and their field. */
const IN_VMCS: readonly (readonly [number, number])[] = [
  [4, Vmcs.GUEST_RSP],
  [32, Vmcs.GUEST_RIP],
  [33, Vmcs.GUEST_RFLAGS],
];

/** What the stub has read behind a VM exit, one VMREAD for each: words of `Processor.exitInformation`. */
export const ExitInformation = {
  /** Exit qualification, 31:0. */
  QUALIFICATION: 0,
  /** Exit qualification, 63:32. */
  QUALIFICATION_HIGH: 1,
  /** Exit reason. */
  REASON: 2,
  /** VM-exit instruction length. */
  LENGTH: 3,
  /** VM-exit interruption information. */
  INTERRUPTION: 4,
  /** IDT-vectoring information. */
  VECTORING: 5,
  /** Interruptibility state of the guest. */
  INTERRUPTIBILITY: 6,
  /** How many words there are. */
  WORDS: 7,
} as const;

/** Words, and the fields that they are read from. */
const INFORMATION: readonly (readonly [number, number])[] = [
  [ExitInformation.QUALIFICATION, Vmcs.EXIT_QUALIFICATION],
  [ExitInformation.REASON, Vmcs.EXIT_REASON],
  [ExitInformation.LENGTH, Vmcs.EXIT_INSTRUCTION_LENGTH],
  [ExitInformation.INTERRUPTION, Vmcs.EXIT_INTERRUPTION_INFO],
  [ExitInformation.VECTORING, Vmcs.IDT_VECTORING_INFO],
  [ExitInformation.INTERRUPTIBILITY, Vmcs.GUEST_INTERRUPTIBILITY],
];

const wide = (low: I32, high: I32): I64 => low.extendU().or(high.extendU().shl(32));

/** The stub's result for the flags that a VMX instruction would set. */
function resultOf(f: FunctionBuilder, flags: I32): I32 {
  const valid = flags.and(Rflags.ZF).ne(0);
  const error = f.choose(I32T, valid, () => readField32(f, Vmcs.INSTRUCTION_ERROR), () => 0);
  return flags.and(Rflags.CF).ne(0).select(i32(StubFailure.INVALID), error);
}

/** Gives the host's functions their bodies. */
export function defineHostStub(mc: Microcode, tag: Tag): void {
  const { module } = mc;

  module.body(mc.vmxHostPointer, (f, operation, low, high) => {
    const pointer = wide(low, high);
    const flags = f.variable(I32T, 0);
    f.tryCatch(tag, () => {
      f.switch(
        operation,
        [mc.vmxon, mc.vmclear, mc.vmptrld].map((one) => () => flags.set(f.call(one, pointer))),
        () => f.unreachable(),
      );
    }, () => f.return(StubFailure.FAULT));
    f.return(resultOf(f, flags.get()));
  });

  module.body(mc.vmxHostRead, (f, encoding) => {
    f.return(resultOf(f, f.call(mc.vmread, S.vmcs.get(f), encoding.extendU())));
  });

  module.body(mc.vmxHostWrite, (f, encoding, low, high) => {
    const value = wide(low, high);
    f.return(resultOf(f, f.call(mc.vmwrite, S.vmcs.get(f), encoding.extendU(), value)));
  });

  module.body(mc.vmxHostInvalidate, (f, vpid, type, low, high) => {
    const operand = wide(low, high);
    const flags = f.choose(
      I32T,
      vpid,
      () => f.call(mc.invvpid, type.extendU(), operand, 0),
      () => f.call(mc.invept, type.extendU(), operand, 0),
    );
    f.return(resultOf(f, flags));
  });

  /** VMWRITE and VMREAD of the general registers that the VMCS has, from and to where software has them. */
  const writeRegisters = (f: FunctionBuilder, registers: I32): void => {
    for (const [slot, encoding] of IN_VMCS) {
      writeNoted(f, encoding, f.load64(registers, 8 * slot));
    }
  };
  const readRegisters = (f: FunctionBuilder, registers: I32): void => {
    for (const [slot, encoding] of IN_VMCS) {
      f.store64(registers, readField(f, encoding), 8 * slot);
    }
  };

  // What is done behind the exit, whatever it was.
  const leave = module.define("vmxHostBehind", [I32T], undefined, (f, registers) => {
    f.if(S.nonRoot.get(f), () => f.call(mc.vmxExitInterrupt, 0));
    S.events.clear(f, Event.EXIT | Event.SHUTDOWN);
    copySlots(f, registers, 0, i32(0), registerAddress(0), SWITCHED);
    readRegisters(f, registers);
    S.retired.set(f, chargedInstructions(f));
    for (const [word, encoding] of INFORMATION) {
      const at = S.exitInformation + 4 * word;
      if (encoding === Vmcs.EXIT_QUALIFICATION) f.store64(0, readField(f, encoding), at);
      else f.store32(0, readField32(f, encoding), at);
    }
  });

  // 0 behind an exit, or negative if there was no entry: the error number negated, or STUB_INVALID.
  module.body(mc.vmxHostEnter, (f, registers, launch, budget) => {
    f.if(S.vmcs.get(f).eqz(), () => f.return(STUB_INVALID));
    writeRegisters(f, registers);
    S.budget.set(f, budget);
    S.budgetStart.set(f, budget);
    S.held.set(f, 0);
    S.timerHeld.set(f, 0);
    S.deliveries.set(f, 0);
    const flags = f.call(mc.vmxEnter, launch);
    f.if(flags.ne(ENTERED), () => {
      const result = resultOf(f, flags);
      f.return(result.ltS(0).select(i32(STUB_INVALID), i32(0).sub(result)));
    });
    copySlots(f, i32(0), registerAddress(0), registers, 0, SWITCHED);
    f.call(mc.run, budget);
    f.call(leave, registers);
    f.return(0);
  });

  module.body(mc.vmxHostLeave, (f, registers) => f.call(leave, registers));
}

/** What {@linkcode Microcode.vmxHostEnter} yields for VMfailInvalid; error numbers come negated. */
export const STUB_INVALID = -0x1_0000;
