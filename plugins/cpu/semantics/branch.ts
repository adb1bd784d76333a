/**
 * Control transfers: jumps, calls, returns, loops, software interrupts (APM vol. 3, ch. 3).
 *
 * @module
 */
import { canonical } from "../memory/canonical.ts";
import { CetControl, controlOf } from "../microcode/cet.ts";
import { GATE_DPL_CHECKED, SINGLE_STEP_INTERRUPT } from "../microcode/interrupt.ts";
import { EventFormat, Vector } from "../microcode/raise.ts";
import { Rflags } from "../microcode/registers.ts";
import { Event, Mode, S, Seg, segmentAddress, SegmentField } from "../state/cpu_state.ts";
import { SvmExit } from "../svm/exit_codes.ts";
import { InterceptWord, Misc1, Misc2 } from "../svm/intercepts.ts";
import { type I32, i32, type I64, i64 } from "../wasm/mod.ts";
import { emitCondition } from "./flags.ts";
import { type Instruction, Reg, type Semantics } from "./instruction.ts";
import { exitGuest, intercept } from "./intercept.ts";
import { exceptVmx } from "./vmx_intercept.ts";
import { CONDITIONS } from "./move.ts";
import { popShadow, pushShadow } from "./shadow_return.ts";

const conditional = (code: number): Semantics => ({
  ends: true,
  transfers: "if taken",
  emit: (i) => {
    const holds = emitCondition(i.mc, i.f, code, i.flagsBefore);
    i.f.if(holds, () => i.branchTaken());
    i.branchNotTaken();
  },
});

/** A conditional branch to beyond the limit of CS: #GP if it is taken, with nothing changed. */
const conditionalBeyond = (code: number): Semantics => ({
  ends: true,
  emit: (i) => {
    i.faultIf(emitCondition(i.mc, i.f, code, i.flagsBefore), Vector.GP, 0);
    i.branchNotTaken();
  },
});

/** Name of the form of a conditional branch whose target is beyond the limit of CS. */
export function beyondLimit(name: string): string | undefined {
  const beyond = `${name}.beyond`;
  return BRANCHES[beyond] === undefined ? undefined : beyond;
}

/** Instructions with a return address on the shadow stack, and those that branch indirectly. */
const SHADOWED: ReadonlySet<string> = new Set(["CALL", "CALLIND", "RET"]);
const INDIRECT: ReadonlySet<string> = new Set(["JMPIND", "CALLIND"]);

const SHADOW = ".shadow";

/**
 * Name of the form `name` without the shadow stack that it may have: it goes where that one goes. Forms that are
 * tracked go nowhere that is known beforehand, and are none of these.
 */
export function withoutShadow(name: string): string {
  return name.endsWith(SHADOW) ? name.slice(0, -SHADOW.length) : name;
}

/**
 * Name of the form of `name` that control-flow enforcement asks for in `mode` (`Mode`). A CALL of what follows
 * it (`callsNext`), by which programs find where they are, leaves the shadow stack alone.
 */
export function enforcedName(
  name: string,
  mode: number,
  callsNext: boolean,
  noTrack: boolean,
): string {
  const long = (mode & Mode.LONG) !== 0;
  if (name === (long ? "ENDBR64" : "ENDBR32")) {
    const changes = (mode & (Mode.AWAIT_ENDBRANCH | Mode.SUPPRESSED)) !== 0;
    return changes ? `${name}.awaited` : name;
  }
  const shadow = (mode & Mode.SHADOW_STACK) !== 0 && SHADOWED.has(name) && !callsNext;
  const tracked = (mode & Mode.TRACK) !== 0 && INDIRECT.has(name);
  return name + (shadow ? SHADOW : "") + (!tracked ? "" : noTrack ? ".notrack" : ".track");
}

const jump: Semantics = { ends: true, transfers: "always", emit: (i) => i.branchTaken() };

/** A near target beyond the limit or not canonical faults before anything has changed. */
function checkTarget(i: Instruction, target: I64): void {
  const { f } = i;
  if (i.code === 64) {
    i.faultIf(canonical(i.f, target).eqz(), Vector.GP, 0);
    return;
  }
  const limit = f.load32(0, segmentAddress(Seg.CS) + SegmentField.LIMIT).extendU();
  i.faultIf(i.hasMode(Mode.FLAT_CS).eqz().and(target.gtU(limit)), Vector.GP, 0);
}

/** Pushes the return address on the stack and, with `shadow`, on the shadow stack. */
function pushReturn(i: Instruction, shadow: boolean): void {
  if (!shadow) return i.push(i.bits, i.nextRip());
  const top = i.wrapStack(i.stackPointer().sub(i.bits / 8));
  i.storeStack(i.bits, top, i.nextRip());
  pushShadow(i, i.nextRip().zeroExtend(i.bits));
  i.setStackPointer(top);
}

/** An ENDBRANCH is awaited at `target`, where the mode makes it another block. */
function track(i: Instruction, target: I64, noTrack: boolean): void {
  const { f } = i;
  const wait = (): void => {
    f.if(
      S.cpl.get(f).eq(3),
      () => S.uCet.set(f, S.uCet.get(f).or(CetControl.TRACKER)),
      () => S.sCet.set(f, S.sCet.get(f).or(CetControl.TRACKER)),
    );
    S.mode.set(f, S.mode.get(f).or(Mode.AWAIT_ENDBRANCH));
  };
  if (noTrack) {
    f.if(controlOf(f, S.cpl.get(f)).has(CetControl.NO_TRACK).eqz(), wait);
  } else wait();
  i.jumpTo(target);
}

/** How an indirect branch is tracked: not at all, or always but for a NOTRACK prefix. */
type Tracked = "no" | "yes" | "unless NOTRACK counts";

const goTo = (i: Instruction, target: I64, tracked: Tracked): void => {
  if (tracked === "no") i.jumpTo(target);
  else track(i, target, tracked !== "yes");
};

const call = (shadow = false): Semantics => ({
  operandSize: true,
  stack: true,
  code: shadow,
  ends: true,
  transfers: "always",
  emit: (i) => {
    pushReturn(i, shadow);
    i.branchTaken();
  },
});

const callIndirect = (shadow = false, tracked: Tracked = "no"): Semantics => ({
  operandSize: true,
  stack: true,
  code: true,
  ends: true,
  transfers: "always",
  emit: (i) => {
    const target = i.unsigned(0);
    checkTarget(i, target);
    pushReturn(i, shadow);
    goTo(i, target, tracked);
  },
});

const ret = (shadow = false): Semantics => ({
  operandSize: true,
  stack: true,
  code: true,
  ends: true,
  transfers: "always",
  emit: (i) => {
    const target = i.top(i.bits);
    checkTarget(i, target);
    if (shadow) popShadow(i, target);
    const release = i.form.operands.length > 0 ? i.immediate().and(0xffff) : i64(0);
    i.dropStack(release.add(i.bits / 8));
    i.jumpTo(target);
  },
});

const jumpIndirect = (tracked: Tracked = "no"): Semantics => ({
  code: true,
  ends: true,
  transfers: "always",
  emit: (i) => {
    const target = i.unsigned(0);
    checkTarget(i, target);
    goTo(i, target, tracked);
  },
});

/** LOOP, LOOPE, LOOPNE: the count register has the address size. */
const loop = (zero?: boolean, beyond = false): Semantics => ({
  addressSize: true,
  ends: true,
  transfers: "if taken",
  emit: (i) => {
    const bits = i.addressBits;
    const count = i.reg(Reg.RCX, bits).sub(1).zeroExtend(bits);
    let again = count.ne(0);
    if (zero !== undefined) again = again.and(i.condition(zero ? 4 : 5));
    if (beyond) i.faultIf(again, Vector.GP, 0);
    i.setReg(Reg.RCX, bits, count);
    if (!beyond) i.f.if(again, () => i.branchTaken());
    i.branchNotTaken();
  },
});

const jrcxz = (beyond = false): Semantics => ({
  addressSize: true,
  ends: true,
  transfers: "if taken",
  emit: (i) => {
    const taken = i.reg(Reg.RCX, i.addressBits).eqz();
    if (beyond) i.faultIf(taken, Vector.GP, 0);
    else i.f.if(taken, () => i.branchTaken());
    i.branchNotTaken();
  },
});

// Far transfers are microcode; they leave RIP in the state.

const far = (emit: (i: Instruction) => void): Semantics => ({
  operandSize: true,
  addressSize: true,
  stack: true,
  code: true,
  ends: true,
  transfers: "always",
  emit: (i) => {
    i.spillOnce();
    emit(i);
    i.leaveAsIs();
  },
});

/** Offset and selector of a far pointer in memory. */
function farPointer(i: Instruction): [I64, I32] {
  const bits = i.width(0);
  const offset = i.load(bits, i.addressAt(i64(0), bits / 8, 0));
  return [offset, i.load(16, i.addressAt(i64(bits / 8), 2, 0)).wrap()];
}

const jumpFar = far((i) => {
  i.f.call(i.mc.jumpFar, i.second().wrap(), i.immediate().zeroExtend(i.bits));
});

const jumpFarIndirect = far((i) => {
  const [offset, selector] = farPointer(i);
  i.f.call(i.mc.jumpFar, selector, offset);
});

const callFar = far((i) => {
  const offset = i.immediate().zeroExtend(i.bits);
  i.f.call(i.mc.callFar, i.second().wrap(), offset, i.bits, i.nextRip());
});

const callFarIndirect = far((i) => {
  const [offset, selector] = farPointer(i);
  i.f.call(i.mc.callFar, selector, offset, i.width(0), i.nextRip());
});

const returnFar: Semantics = {
  ...far((i) => {
    const release = i.form.operands.length > 0 ? i.immediate().wrap().and(0xffff) : i32(0);
    i.f.call(i.mc.returnFar, i.bits, release);
  }),
};

const iret: Semantics = {
  ...far((i) => {
    intercept(i, InterceptWord.MISC1, Misc1.IRET, SvmExit.IRET);
    i.f.call(i.mc.returnInterrupt, i.bits);
  }),
};

/** Delivers a software interrupt or the exception of INT1, INT3, INTO. */
function softInterrupt(i: Instruction, event: I32): void {
  i.spill();
  i.f.call(i.mc.deliver, event.or(EventFormat.VALID), 0, i.nextRip());
  i.leaveAsIs();
}

/** Exits of INT3, INTO and BOUND report nRIP as those of instructions do. */
function interceptException(i: Instruction, vector: number): void {
  intercept(i, InterceptWord.EXCEPTIONS, 1 << vector, SvmExit.EXCEPTION + vector);
}

/** INT n in virtual-8086 mode: with CR4.VME it may be the 8086 program's own; if not, IOPL must be 3. */
function redirectVirtual(i: Instruction, vector: I32): void {
  const { f, mc } = i;
  f.if(
    S.rflags.has(f, Rflags.VM),
    () => {
      i.spill();
      f.if(f.call(mc.redirectInterrupt, vector, i.nextRip()), () => f.return());
    },
    undefined,
    "unlikely",
  );
}

const int: Semantics = {
  code: true,
  ends: true,
  emit: (i) => {
    const vector = i.immediate().wrap().and(0xff);
    const { f } = i;
    const wanted = S.guestMode.get(f)
      .and(f.load32(0, S.intercepts + InterceptWord.MISC1).and(Misc1.SWINT).ne(0));
    f.if(wanted, () => exitGuest(i, i32(SvmExit.SWINT), vector.extendU()), undefined, "unlikely");
    if (i.code !== 64) redirectVirtual(i, vector);
    softInterrupt(i, vector.or(EventFormat.SOFTWARE | GATE_DPL_CHECKED));
  },
};

const int3: Semantics = {
  ends: true,
  emit: (i) => {
    interceptException(i, Vector.BP);
    exceptVmx(i, Vector.BP | EventFormat.EXCEPTION | EventFormat.VALID | GATE_DPL_CHECKED);
    softInterrupt(i, i32(Vector.BP | EventFormat.EXCEPTION | GATE_DPL_CHECKED));
  },
};

/** INT1 (ICEBP): #DB that no gate privilege stops. */
const int1: Semantics = {
  ends: true,
  emit: (i) => {
    // Its #DB takes no exception intercept (APM vol. 2, 15.12.2).
    intercept(i, InterceptWord.MISC2, Misc2.ICEBP, SvmExit.ICEBP);
    exceptVmx(i, Vector.DB | EventFormat.EXCEPTION | EventFormat.VALID | SINGLE_STEP_INTERRUPT);
    // A breakpoint that the shadow of MOV SS has held back is reported together with it.
    const { f } = i;
    f.if(
      S.events.has(f, Event.TRAP),
      () => {
        S.dr6.set(f, S.dr6.get(f).and(~0xf).or(S.trapBits.get(f).extendU()));
        S.trapBits.set(f, 0);
        S.events.clear(f, Event.TRAP);
      },
      undefined,
      "unlikely",
    );
    softInterrupt(i, i32(Vector.DB | EventFormat.EXCEPTION | SINGLE_STEP_INTERRUPT));
  },
};

const into: Semantics = {
  ends: true,
  emit: (i) => {
    const overflow = i.flagBits().and(Rflags.OF).ne(0);
    i.f.if(overflow, () => {
      interceptException(i, Vector.OF);
      exceptVmx(i, Vector.OF | EventFormat.EXCEPTION | EventFormat.VALID | GATE_DPL_CHECKED);
      softInterrupt(i, i32(Vector.OF | EventFormat.EXCEPTION | GATE_DPL_CHECKED));
    });
    i.branchNotTaken();
  },
};

/** BOUND: #BR unless lower ≤ index ≤ upper. */
const bound: Semantics = {
  addressSize: true,
  code: true,
  ends: true,
  emit: (i) => {
    const { bits } = i;
    const index = i.signed(0);
    const lower = i.load(bits, i.addressAt(i64(0), bits / 8, 0)).signExtend(bits);
    const upper = i.load(bits, i.addressAt(i64(bits / 8), bits / 8, 0)).signExtend(bits);
    i.f.if(
      index.ltS(lower).or(index.gtS(upper)),
      () => {
        // Of faults, only this one's intercept reports nRIP (APM vol. 2, 15.7.1).
        interceptException(i, Vector.BR);
        i.raise(Vector.BR);
      },
      undefined,
      "unlikely",
    );
    i.branchNotTaken();
  },
};

const undefinedInstruction: Semantics = { emit: (i) => i.raise(Vector.UD) };

/** Control transfers by mnemonic. */
export const BRANCHES: Readonly<Record<string, Semantics>> = {
  JMP: jump,
  JMPIND: jumpIndirect(),
  "JMPIND.track": jumpIndirect("yes"),
  "JMPIND.notrack": jumpIndirect("unless NOTRACK counts"),
  JMPABS: jumpIndirect(),
  CALL: call(),
  "CALL.shadow": call(true),
  CALLIND: callIndirect(),
  "CALLIND.shadow": callIndirect(true),
  "CALLIND.track": callIndirect(false, "yes"),
  "CALLIND.notrack": callIndirect(false, "unless NOTRACK counts"),
  "CALLIND.shadow.track": callIndirect(true, "yes"),
  "CALLIND.shadow.notrack": callIndirect(true, "unless NOTRACK counts"),
  RET: ret(),
  "RET.shadow": ret(true),
  LOOP: loop(),
  LOOPE: loop(true),
  LOOPNE: loop(false),
  JRCXZ: jrcxz(),
  "LOOP.beyond": loop(undefined, true),
  "LOOPE.beyond": loop(true, true),
  "LOOPNE.beyond": loop(false, true),
  "JRCXZ.beyond": jrcxz(true),
  JMPF: jumpFar,
  JMPFIND: jumpFarIndirect,
  CALLF: callFar,
  CALLFIND: callFarIndirect,
  RETF: returnFar,
  IRET: iret,
  INT: int,
  INT3: int3,
  INT1: int1,
  INTO: into,
  BOUND: bound,
  UD0: undefinedInstruction,
  UD1: undefinedInstruction,
  UD2: undefinedInstruction,
  ...Object.fromEntries(CONDITIONS.map(([name, code]) => [`J${name}`, conditional(code)])),
  ...Object.fromEntries(
    CONDITIONS.map(([name, code]) => [`J${name}.beyond`, conditionalBeyond(code)]),
  ),
};
