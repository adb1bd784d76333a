/**
 * Around calls of the program outside: what it sees, and what it may do.
 *
 * @module
 */
import { BlockHeader, MicroOp } from "../engine/block_layout.ts";
import { Event, S } from "../state/cpu_state.ts";
import type { Microcode } from "./microcode.ts";
import { Unwind } from "./microcode.ts";
import { blockOf, ripOf } from "./raise.ts";
import { Rflags } from "./registers.ts";
import { FlagsKind } from "../semantics/flags.ts";
import type { FunctionBuilder, I32, I64 } from "../wasm/mod.ts";

/** What the program outside made of an instruction. */
export const Outcome = {
  /** It answered: the instruction goes on with the answer. */
  DONE: 0,
  /** It did everything itself and set RIP; the instruction does not go on. */
  LEFT: 1,
  /** It put an exception into the state. */
  FAULT: 2,
} as const;

/** Instructions charged in the current or last run, those of the block at hand as a whole. */
export function chargedInstructions(f: FunctionBuilder): I32 {
  return S.budgetStart.get(f).sub(S.budget.get(f)).sub(S.held.get(f))
    .sub(S.timerHeld.get(f)).sub(S.sliceHeld.get(f)).sub(S.deliveries.get(f));
}

/** The flags of RFLAGS that are kept apart from the lazily computed ones. */
const KEPT = Rflags.ALL & ~Rflags.ARITHMETIC;

/** Makes RFLAGS in the state complete, and notes what it was; `arithmetic` are the six flags. */
function tellFlags(f: FunctionBuilder, arithmetic: I32): void {
  const flags = S.rflags.get(f).or(arithmetic.extendU());
  S.flagsKind.set(f, FlagsKind.VALUE);
  // For the case that something is thrown out there.
  S.flagsA.set(f, arithmetic.extendU());
  // The second operand is not needed by this kind; it remembers the flags of before.
  S.flagsB.set(f, flags);
  S.rflags.set(f, flags);
  S.outcome.set(f, Outcome.DONE);
}

/**
 * What `beforeOutside` does, in line, for an instruction whose place is known: it is at `rip`, and of those
 * charged, `ahead` have not retired, itself among them. `arithmetic` are the six flags.
 */
export function tellOutside(f: FunctionBuilder, rip: I64, ahead: number, arithmetic: I32): void {
  S.rip.set(f, rip);
  S.retired.set(f, chargedInstructions(f).sub(ahead));
  tellFlags(f, arithmetic);
}

/** What `afterOutside` does, in line where the program outside has answered and left RFLAGS alone. */
export function hearOutside(mc: Microcode, f: FunctionBuilder): void {
  const flags = S.rflags.get(f);
  f.if(
    flags.eq(S.flagsB.get(f)).and(S.outcome.get(f).eq(Outcome.DONE)),
    () => S.rflags.set(f, flags.and(KEPT).or(Rflags.ONE)),
    () => f.call(mc.afterOutside),
    "likely",
  );
}

/** Gives the functions around calls of the program outside their bodies. */
export function defineOutside(mc: Microcode): void {
  const { module } = mc;

  module.body(mc.beforeOutside, (f) => {
    const uop = S.uop.get(f);
    const charged = chargedInstructions(f);
    f.if(uop.ne(0), () => {
      S.rip.set(f, ripOf(f, uop));
      // The block was charged as a whole.
      const ahead = f.load16(blockOf(f, uop), BlockHeader.COUNT)
        .sub(f.load8(uop, MicroOp.ORDINAL));
      S.retired.set(f, charged.sub(ahead));
    }, () => S.retired.set(f, charged));
    tellFlags(f, f.call(mc.flagsValue, S.flagsKind.get(f), S.flagsA.get(f), S.flagsB.get(f)));
  });

  module.body(mc.afterOutside, (f) => {
    const flags = S.rflags.get(f);
    const before = S.flagsB.get(f);
    S.flagsA.set(f, flags.and(Rflags.ARITHMETIC));
    S.rflags.set(f, flags.and(KEPT).or(Rflags.ONE));
    const changed = flags.xor(before);
    f.if(changed.and(flags).has(Rflags.RF), () => S.events.or(f, Event.RESUME_NEW));
    f.if(changed.has(Rflags.TF | Rflags.VM | Rflags.AC), () => f.call(mc.updateMode));
    const outcome = S.outcome.get(f);
    f.if(outcome.eq(Outcome.LEFT), () => f.call(mc.unwindTo, Unwind.LEFT), undefined, "unlikely");
    f.if(
      outcome.eq(Outcome.FAULT),
      () => f.call(mc.unwindTo, Unwind.EXCEPTION),
      undefined,
      "unlikely",
    );
  });
}
