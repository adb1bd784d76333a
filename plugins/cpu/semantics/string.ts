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
import { Event, Mode, S, Seg } from "../state/cpu_state.ts";
import {
  type I32,
  i32,
  I32T,
  type I64,
  i64,
  I64T,
  type Label,
  splat,
  splat64,
  type V128,
  type VectorBinary,
  type VectorTest,
} from "../wasm/mod.ts";
import { checkAccess, emitPortRead, emitPortWrite } from "./io.ts";
import { probe, type TlbProbe } from "../memory/access.ts";
import { settleFlags, sizeLog } from "./flags.ts";
import { type Instruction, Reg, type Semantics } from "./instruction.ts";

/** Rounds after which the dispatcher gets to look at events. */
export const ROUNDS = 4096;

/**
 * 1 if offsets in `segment` are linear addresses. A 32-bit access that wraps at 4 GiB may or may not fault
 * where the limit is FFFF_FFFFh (SDM vol. 3, 6.3.1); here it does not.
 */
function isFlat(i: Instruction, segment: I32): I32 {
  if (i.code === 64) return segment.ltU(Seg.FS);
  return i.hasMode(Mode.FLAT_DATA).and(segment.eq(Seg.DS).or(segment.eq(Seg.ES)));
}

/** Linear address of `offset` (already cut to the address size) in `segment`. */
function linear(i: Instruction, segment: I32, offset: I64, bytes: number, access: 0 | 1): I64 {
  return i.f.choose(I64T, isFlat(i, segment), () => offset, () => {
    i.spill();
    return i.f.call(i.mc.segmentAddress, segment, offset, bytes, access);
  }, "likely");
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

/**
 * Does as many rounds as can be done at once, at most `most`, and moves the pointers; yields how many. For
 * an instruction that compares there is always one left, which sets the flags and cannot fault if there
 * were any before it. For others 0 means that the next round has to be done by itself.
 */
type Bulk = (i: Instruction, most: I64) => I64;

/** What one round does; a comparison yields its flags, which decide whether to go on. */
type Round = (i: Instruction, by: I64) => void;

/** What is special about a string instruction. */
interface StringOptions {
  /** REPE and REPNE look at ZF, for which a round sets the flags. */
  readonly compares?: boolean;
  /** The dispatcher has to look at events behind it. */
  readonly ends?: boolean;
  /** How several rounds are done at once. */
  readonly bulk?: Bulk;
  /** Registers that a round changes. */
  readonly changes?: readonly number[];
}

const string = (
  round: Round,
  { compares = false, ends = false, bulk, changes = [] }: StringOptions = {},
): Semantics => ({
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
    for (const register of [Reg.RCX, ...changes]) i.loopChanges(register);
    f.block((done: Label) => {
      f.branchIf(i.reg(Reg.RCX, bits).eqz(), done);
      f.loop((again) => {
        // A fault in the middle keeps the flags of the last comparison, as Zen 5 does; the SDM would have
        // them as before the instruction.
        if (compares) i.flagsAtFault = { kind: kind.get(), a: a.get(), b: b.get() };
        const whole = i.reg(Reg.RCX, bits);
        const rounds = f.variable(I64T, 1);
        if (bulk === undefined) round(i, by);
        else {
          const most = left.get().extendU();
          rounds.set(bulk(i, whole.ltU(most).select(whole, most)));
          if (compares) {
            round(i, by);
            rounds.set(rounds.get().add(1));
          } else {
            f.if(rounds.get().eqz(), () => {
              round(i, by);
              rounds.set(1);
            });
          }
        }
        const count = whole.sub(rounds.get()).zeroExtend(bits);
        i.setReg(Reg.RCX, bits, count);
        if (compares) {
          kind.set(i.flags.kind);
          a.set(i.flags.a);
          b.set(i.flags.b);
          const equal = i.flags.a.eq(i.flags.b);
          f.branchIf(i.form.rep === 1 ? equal.eqz() : equal, done);
        }
        f.branchIf(count.eqz(), done);
        left.set(left.get().sub(rounds.get().wrap()));
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
  linear(i, i32(Seg.ES), i.reg(Reg.RDI, i.addressBits), i.bits / 8, access);

/** Elements between `linear` and the end of its page. */
const inPage = (i: Instruction, linear: I64): I64 =>
  i64(0x1000).sub(linear.and(0xfff)).shrU(sizeLog(i.bits));

const least = (a: I64, b: I64): I64 => a.ltU(b).select(a, b);

/** 1 if the direction is up and offsets are linear addresses, in the source's segment (or ES) as well. */
function isPlain(i: Instruction, segment: I32): I32 {
  if (i.addressBits === 16) return i32(0);
  return S.rflags.get(i.f).has(Rflags.DF).eqz().and(isFlat(i, segment));
}

/** Up to the end of a page; where source and destination are pages that the TLB has, and do not overlap. */
const movsBulk: Bulk = (i, most) => {
  const { f, bits } = i;
  const rounds = f.variable(I64T, 0);
  f.if(isPlain(i, i.segment()), () => {
    const from = i.reg(Reg.RSI, i.addressBits);
    const to = i.reg(Reg.RDI, i.addressBits);
    const read = probe(f, from, bits / 8, false);
    const write = probe(f, to, bits / 8, true);
    f.if(read.hit.and(write.hit), () => {
      const count = least(least(most, inPage(i, from)), inPage(i, to));
      const bytes = count.shl(sizeLog(bits)).wrap();
      const [source, target] = [read.address(), write.address()];
      // A destination in the middle of the source is read again by later rounds.
      f.if(target.sub(source).geU(bytes), () => {
        f.copy(target, source, bytes);
        advance(i, Reg.RSI, bytes.extendU());
        advance(i, Reg.RDI, bytes.extendU());
        rounds.set(count);
      });
    });
  });
  return rounds.get();
};

const movs = string((i, by) => {
  i.store(i.bits, destination(i, 1), source(i));
  advance(i, Reg.RSI, by);
  advance(i, Reg.RDI, by);
}, { bulk: movsBulk, changes: [Reg.RSI, Reg.RDI] });

/** Up to the end of a page that the TLB has, where all bytes of the value are the same. */
const stosBulk: Bulk = (i, most) => {
  const { f, bits } = i;
  const rounds = f.variable(I64T, 0);
  const value = i.reg(Reg.RAX, bits);
  const byte = value.and(0xff);
  const same = value.eq(byte.mul(0x0101_0101_0101_0101n).zeroExtend(bits));
  f.if(isPlain(i, i32(Seg.ES)).and(same), () => {
    const to = i.reg(Reg.RDI, i.addressBits);
    const { hit, address } = probe(f, to, bits / 8, true);
    f.if(hit, () => {
      const count = least(most, inPage(i, to));
      const bytes = count.shl(sizeLog(bits)).wrap();
      f.fill(address(), byte.wrap(), bytes);
      advance(i, Reg.RDI, bytes.extendU());
      rounds.set(count);
    });
  });
  return rounds.get();
};

const stos = string((i, by) => {
  i.store(i.bits, destination(i, 1), i.reg(Reg.RAX, i.bits));
  advance(i, Reg.RDI, by);
}, { bulk: stosBulk, changes: [Reg.RDI] });

const lods = string((i, by) => {
  i.setReg(Reg.RAX, i.bits, source(i));
  advance(i, Reg.RSI, by);
}, { changes: [Reg.RAX, Reg.RSI] });

/** Bytes of a vector. */
const VECTOR = 16;

/** How elements of a width are compared all at once. */
const COMPARISONS: Readonly<Record<number, readonly [VectorBinary, VectorTest]>> = {
  8: ["i8x16.eq", "i8x16.bitmask"],
  16: ["i16x8.eq", "i16x8.bitmask"],
  32: ["i32x4.eq", "i32x4.bitmask"],
  64: ["i64x2.eq", "i64x2.bitmask"],
};

/**
 * How many of the first elements let the repetition go on, at most `most`: all before the first that
 * differs with REPE, before the first that is equal with REPNE. They are compared a vector at a time as far
 * as vectors end before the page does, in which `addresses` of one or two operands stand; `load` reads the
 * vectors at an offset.
 */
function countGoingOn(
  i: Instruction,
  most: I64,
  addresses: readonly I32[],
  load: (offset: I32) => readonly [V128, V128],
): I64 {
  const { f, bits } = i;
  const [equals, mask] = COMPARISONS[bits]!;
  const lanes = 8 * VECTOR / bits;
  const bytes = f.variable(I32T, 0);
  const end = most.wrap().shl(sizeLog(bits));
  f.block((done) => {
    f.loop((again) => {
      const at = bytes.get();
      f.branchIf(at.geU(end), done);
      for (const address of addresses) {
        f.branchIf(address.add(at).and(0xfff).gtU(0x1000 - VECTOR), done);
      }
      const [a, b] = load(at);
      const equal = a.binary(equals, b).test(mask);
      const stops = i.form.rep === 1 ? equal.xor(2 ** lanes - 1) : equal;
      const going = stops.or(2 ** lanes).ctz();
      bytes.set(at.add(going.shl(sizeLog(bits))));
      f.branchIf(going.eq(lanes), again, "likely");
    });
  });
  const count = bytes.get().shrU(sizeLog(bits)).extendU();
  return least(count, most);
}

/** Rounds of a comparison that may be done at once: one less than fit in a page, and than there are. */
const beforeLast = (i: Instruction, most: I64, ...pointers: readonly I64[]): I64 =>
  pointers.reduce((all, pointer) => least(all, inPage(i, pointer)), most).sub(1);

/** The address that a probe has found, evaluated once. */
const settled = (i: Instruction, { address }: TlbProbe): I32 => i.f.variable(I32T, address()).get();

/** Up to the element that ends it, or the last one of a page that the TLB has. */
const cmpsBulk: Bulk = (i, most) => {
  const { f, bits } = i;
  const rounds = f.variable(I64T, 0);
  f.if(isPlain(i, i.segment()), () => {
    const from = i.reg(Reg.RSI, i.addressBits);
    const to = i.reg(Reg.RDI, i.addressBits);
    const [first, second] = [probe(f, from, bits / 8, false), probe(f, to, bits / 8, false)];
    f.if(first.hit.and(second.hit), () => {
      const [a, b] = [settled(i, first), settled(i, second)];
      const count = countGoingOn(
        i,
        beforeLast(i, most, from, to),
        [a, b],
        (offset) => [f.load128(a.add(offset)), f.load128(b.add(offset))],
      );
      rounds.set(count);
      advance(i, Reg.RSI, count.shl(sizeLog(bits)));
      advance(i, Reg.RDI, count.shl(sizeLog(bits)));
    });
  });
  return rounds.get();
};

const cmps = string((i, by) => {
  const first = source(i).signExtend(i.bits);
  const second = i.load(i.bits, destination(i, 0)).signExtend(i.bits);
  advance(i, Reg.RSI, by);
  advance(i, Reg.RDI, by);
  i.flagsSub(i.bits, first, second);
}, { compares: true, bulk: cmpsBulk, changes: [Reg.RSI, Reg.RDI] });

/** The low `bits` of `value` in all lanes of a vector. */
function inAllLanes(value: I64, bits: number): V128 {
  if (bits === 64) return splat64(value);
  return splat(bits === 8 ? "i8x16" : bits === 16 ? "i16x8" : "i32x4", value.wrap());
}

/** Up to the element that ends it, or the last one of a page that the TLB has. */
const scasBulk: Bulk = (i, most) => {
  const { f, bits } = i;
  const rounds = f.variable(I64T, 0);
  f.if(isPlain(i, i32(Seg.ES)), () => {
    const to = i.reg(Reg.RDI, i.addressBits);
    const found = probe(f, to, bits / 8, false);
    f.if(found.hit, () => {
      const at = settled(i, found);
      const wanted = inAllLanes(i.reg(Reg.RAX), bits);
      const count = countGoingOn(
        i,
        beforeLast(i, most, to),
        [at],
        (offset) => [f.load128(at.add(offset)), wanted],
      );
      rounds.set(count);
      advance(i, Reg.RDI, count.shl(sizeLog(bits)));
    });
  });
  return rounds.get();
};

const scas = string((i, by) => {
  const value = i.load(i.bits, destination(i, 0)).signExtend(i.bits);
  advance(i, Reg.RDI, by);
  i.flagsSub(i.bits, i.regSigned(Reg.RAX, i.bits), value);
}, { compares: true, bulk: scasBulk, changes: [Reg.RDI] });

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
  { ends: true, changes: [Reg.RDI] },
);

const outs = string(
  (i, by) => {
    checkAccess(i, portNumber(i), i.bits, false, i.segment());
    const value = source(i);
    emitPortWrite(i, portNumber(i), i.bits, value);
    advance(i, Reg.RSI, by);
  },
  { ends: true, changes: [Reg.RSI] },
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
