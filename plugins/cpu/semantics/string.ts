/**
 * String instructions, with and without a repeat prefix (APM vol. 3, ch. 3).
 *
 * Each round commits its registers before the next one begins, so a fault in the middle leaves the
 * state the manual describes: counts and pointers of the round that faulted. A repeated instruction
 * counts as one retired instruction for every {@linkcode ROUNDS} rounds.
 *
 * @module
 */
import { Rflags } from "../microcode/registers.ts";
import { Event, S, Seg } from "../state/cpu_state.ts";
import { type I32, i32, I32T, type I64, i64, I64T, type Label } from "../wasm/mod.ts";
import { checkAccess, emitPortRead, emitPortWrite } from "./io.ts";
import { settleFlags } from "./flags.ts";
import { type Instruction, Reg, type Semantics } from "./instruction.ts";

/** Rounds after which the dispatcher gets to look at events. */
export const ROUNDS = 4096;

/** Linear address of `offset` (already cut to the address size) in `segment`. */
function linear(
  i: Instruction,
  segment: I32 | number,
  offset: I64,
  bytes: number,
  access: 0 | 1,
): I64 {
  if (i.code === 64 && typeof segment === "number") return offset;
  i.spill();
  return i.f.call(i.mc.segmentAddress, segment, offset, bytes, access);
}

/** Step of the pointers: the operand's bytes, negative if DF is set. */
function step(i: Instruction): I64 {
  const bytes = i.bits / 8;
  const down = S.rflags.get(i.f).has(Rflags.DF);
  return down.select(i64(-bytes), i64(bytes));
}

function advance(i: Instruction, register: number, by: I64): void {
  const bits = i.addressBits;
  i.setReg(register, bits, i.reg(register, bits).add(by).zeroExtend(bits));
}

/** What one round does; a comparison yields its flags, which decide whether to go on. */
type Round = (i: Instruction, by: I64) => void;

/**
 * A string instruction. `compares` makes REPE and REPNE look at ZF, for which `round` sets the flags.
 */
const string = (round: Round, compares = false, ends = false): Semantics => ({
  addressSize: true,
  code: true,
  rep: true,
  ends: true,
  emit: (i) => {
    const { f } = i;
    const by = step(i);
    if (i.form.rep === 0) {
      round(i, by);
      finish(i, ends);
      return;
    }
    const bits = i.addressBits;
    const before = settleFlags(i.flagsBefore);
    // Flags of the last comparison; as they were if there has been none.
    const kind = f.variable(I32T, before.kind);
    const a = f.variable(I64T, before.a);
    const b = f.variable(I64T, before.b);
    // A trap comes behind each round.
    const traps = S.events.has(f, Event.SINGLE_STEP | Event.BREAKPOINTS | Event.MTF);
    const left = f.variable(I32T, traps.select(i32(1), i32(ROUNDS)));
    f.block((done: Label) => {
      f.branchIf(i.reg(Reg.RCX, bits).eqz(), done);
      f.loop((again) => {
        // A fault in the middle keeps the flags of the last comparison, as Zen 5 does; the SDM would have
        // them as before the instruction.
        if (compares) i.flagsAtFault = { kind: kind.get(), a: a.get(), b: b.get() };
        round(i, by);
        const count = i.reg(Reg.RCX, bits).sub(1).zeroExtend(bits);
        i.setReg(Reg.RCX, bits, count);
        if (compares) {
          kind.set(i.flags.kind);
          a.set(i.flags.a);
          b.set(i.flags.b);
          const equal = i.flags.a.eq(i.flags.b);
          f.branchIf(i.form.rep === 1 ? equal.eqz() : equal, done);
        }
        f.branchIf(count.eqz(), done);
        left.set(left.get().sub(1));
        // An exit behind the access of this round comes before the next one.
        const goesOn = left.get().ne(0).and(S.events.has(f, Event.VMEXIT_TRAP).eqz());
        f.branchIf(goesOn, again, "likely");
        // Not finished: the same instruction again, after the dispatcher has looked at events.
        // An event in between pushes RFLAGS with RF set, so that the rest meets no breakpoint again.
        i.flags = { kind: kind.get(), a: a.get(), b: b.get() };
        S.rflags.set(f, S.rflags.get(f).or(Rflags.RF));
        i.event(Event.RESUME_NEW);
        i.leaveAt(i.rip());
      });
    });
    i.flags = { kind: kind.get(), a: a.get(), b: b.get() };
    finish(i, ends);
  },
});

function finish(i: Instruction, ends: boolean): void {
  if (!ends) {
    // What a store has done must be visible to the next instruction.
    i.f.if(S.events.get(i.f).eqz(), () => i.branchNotTaken(), undefined, "likely");
  }
  i.leave();
}

const source = (i: Instruction): I64 => {
  const { bits } = i;
  const offset = i.reg(Reg.RSI, i.addressBits);
  return i.load(bits, linear(i, i.segment(), offset, bits / 8, 0));
};

const destination = (i: Instruction, access: 0 | 1): I64 =>
  linear(i, Seg.ES, i.reg(Reg.RDI, i.addressBits), i.bits / 8, access);

const movs = string((i, by) => {
  i.store(i.bits, destination(i, 1), source(i));
  advance(i, Reg.RSI, by);
  advance(i, Reg.RDI, by);
});

const stos = string((i, by) => {
  i.store(i.bits, destination(i, 1), i.reg(Reg.RAX, i.bits));
  advance(i, Reg.RDI, by);
});

const lods = string((i, by) => {
  i.setReg(Reg.RAX, i.bits, source(i));
  advance(i, Reg.RSI, by);
});

const cmps = string((i, by) => {
  const first = source(i).signExtend(i.bits);
  const second = i.load(i.bits, destination(i, 0)).signExtend(i.bits);
  advance(i, Reg.RSI, by);
  advance(i, Reg.RDI, by);
  i.flagsSub(i.bits, first, second);
}, true);

const scas = string((i, by) => {
  const value = i.load(i.bits, destination(i, 0)).signExtend(i.bits);
  advance(i, Reg.RDI, by);
  i.flagsSub(i.bits, i.regSigned(Reg.RAX, i.bits), value);
}, true);

const portNumber = (i: Instruction): I32 => i.reg(Reg.RDX, 16).wrap();

/** INS: the destination is checked before the port is read, so a fault loses nothing. */
const ins = string(
  (i, by) => {
    checkAccess(i, portNumber(i), i.bits, true, i32(Seg.ES));
    const at = destination(i, 1);
    i.spill();
    i.f.call(i.mc.probeStore, at, i.bits / 8);
    const value = emitPortRead(i, portNumber(i), i.bits);
    i.store(i.bits, at, value);
    advance(i, Reg.RDI, by);
  },
  false,
  true,
);

const outs = string(
  (i, by) => {
    checkAccess(i, portNumber(i), i.bits, false, i.segment());
    const value = source(i);
    emitPortWrite(i, portNumber(i), i.bits, value);
    advance(i, Reg.RSI, by);
  },
  false,
  true,
);

/** String instructions by mnemonic. */
export const STRINGS: Readonly<Record<string, Semantics>> = {
  MOVS: movs,
  STOS: stos,
  LODS: lods,
  CMPS: cmps,
  SCAS: scas,
  INS: ins,
  OUTS: outs,
};
