/**
 * VMX for a host that is the program outside: what a hypervisor in machine code would do with VMX
 * instructions, as functions of 32-bit numbers.
 *
 * Each yields 0 for VMsucceed, the error number for VMfailValid, and {@linkcode StubFailure} otherwise.
 *
 * @module
 */
import type { Microcode } from "../microcode/microcode.ts";
import { Rflags } from "../microcode/registers.ts";
import { Event, registerAddress, S } from "../state/cpu_state.ts";
import { type FunctionBuilder, type I32, i32, I32T, type I64, type Tag } from "../wasm/mod.ts";
import { ENTERED } from "./entry.ts";
import { readField32, Vmcs } from "./fields.ts";

/** What a VMX instruction of the host came to, other than success and VMfailValid. */
export const StubFailure = { INVALID: -1, FAULT: -2 } as const;

/** Which instruction {@linkcode Microcode.vmxHostPointer} executes. */
export const PointerOperation = { VMXON: 0, VMCLEAR: 1, VMPTRLD: 2 } as const;

/** General registers that entries and exits leave to software: all but RSP. */
const SWITCHED: readonly number[] = [0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

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

  // A stop reason, or negative if there was no entry: the error number negated, or STUB_INVALID.
  module.body(mc.vmxHostEnter, (f, registers, launch, budget) => {
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
    for (const n of SWITCHED) f.store64(0, f.load64(registers, 8 * n), registerAddress(n));
    f.returnCall(mc.run, budget);
  });

  module.body(mc.vmxHostLeave, (f, registers) => {
    f.if(S.nonRoot.get(f), () => f.call(mc.vmxExitInterrupt, 0));
    S.events.clear(f, Event.EXIT | Event.SHUTDOWN);
    for (const n of SWITCHED) f.store64(registers, f.load64(0, registerAddress(n)), 8 * n);
  });
}

/** What {@linkcode Microcode.vmxHostEnter} yields for VMfailInvalid; error numbers come negated. */
export const STUB_INVALID = -0x1_0000;
