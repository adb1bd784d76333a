/**
 * Moves, extensions, exchanges, the stack (APM vol. 3, ch. 3).
 *
 * @module
 */
import { Vector } from "../microcode/raise.ts";
import { Rflags } from "../microcode/registers.ts";
import { segmentPointer } from "../memory/segmentation.ts";
import { Event, S, Seg, SegmentField } from "../state/cpu_state.ts";
import { SvmExit } from "../svm/exit_codes.ts";
import { InterceptWord, Misc1 } from "../svm/intercepts.ts";
import { type I32, i32, I32T, i64, I64T } from "../wasm/mod.ts";
import { Condition } from "./flags.ts";
import { type Instruction, Reg, type Semantics } from "./instruction.ts";
import { intercept } from "./intercept.ts";
import {
  checkFlagsAccess,
  checkPoppedFlags,
  flagsBelowIopl,
  withVirtualIf,
} from "./virtual_interrupts.ts";

const mov: Semantics = { emit: (i) => i.write(0, i.unsigned(1)) };

const signedMove: Semantics = { emit: (i) => i.write(0, i.signed(1)) };

/** LEA: only the offset; its segment does not matter. */
const lea: Semantics = { emit: (i) => i.write(0, i.offset()) };

const xchg: Semantics = {
  emit: (i) => {
    if (i.isMemory(0)) {
      const value = i.modifyUnsigned(0);
      i.write(0, i.unsigned(1));
      i.write(1, value);
      return;
    }
    const a = i.unsigned(0);
    const b = i.unsigned(1);
    i.write(0, b);
    i.write(1, a);
  },
};

/** CMOVcc: the source is read in any case; a 32-bit destination is zero-extended in any case. */
const cmov = (code: number): Semantics => ({
  emit: (i) => {
    const source = i.unsigned(1);
    i.write(0, i.condition(code).select(source, i.unsigned(0)));
  },
});

const set = (code: number): Semantics => ({
  emit: (i) => i.write(0, i.condition(code).extendU()),
});

/** CBW, CWDE, CDQE. */
const cbw: Semantics = {
  operandSize: true,
  emit: (i) => i.setReg(Reg.RAX, i.bits, i.regSigned(Reg.RAX, i.bits / 2)),
};

/** CWD, CDQ, CQO. */
const cwd: Semantics = {
  operandSize: true,
  emit: (i) => i.setReg(Reg.RDX, i.bits, i.regSigned(Reg.RAX, i.bits).shrS(63)),
};

const push: Semantics = {
  operandSize: true,
  stack: true,
  emit: (i) => i.push(i.bits, i.signed(0)),
};

/** POP: a memory operand's address is computed with the stack pointer already moved. */
const pop: Semantics = {
  operandSize: true,
  stack: true,
  emit: (i) => {
    const { bits } = i;
    const value = i.top(bits);
    if (i.isMemory(0)) {
      const before = i.reg(Reg.RSP);
      // If the address or the store faults, the stack pointer must be what it was; microcode sees it
      // through the state.
      i.dropStack(bits / 8);
      const offset = i.f.variable(I64T, i.offset()).get();
      const after = i.reg(Reg.RSP);
      i.setReg(Reg.RSP, 64, before);
      i.store(bits, i.addressOf(offset, bits / 8, 1), value);
      i.setReg(Reg.RSP, 64, after);
      return;
    }
    i.dropStack(bits / 8);
    i.write(0, value);
  },
};

const pushSegment: Semantics = {
  operandSize: true,
  stack: true,
  emit: (i) => {
    const { f } = i;
    const at = segmentPointer(i.immediate().wrap());
    const selector = f.load32(at, SegmentField.SELECTOR).extendU();
    // Only the selector's 16 bits are written; a wider slot is zero-extended.
    i.push(i.bits, selector);
  },
};

const popSegment: Semantics = {
  operandSize: true,
  stack: true,
  ends: true,
  emit: (i) => {
    const { f, mc } = i;
    const value = i.top(i.bits).wrap();
    const segment = i.immediate().wrap();
    const before = i.reg(Reg.RSP);
    const moved = i.wrapStack(i.stackPointer().add(i.bits / 8));
    i.spill();
    f.call(mc.loadSegment, segment, value.and(0xffff));
    // The width of the stack pointer is that of the old SS.
    const mask = i.stackBits === 64 ? 0n : i.stackBits === 32 ? 0n : ~0xffffn;
    i.setReg(Reg.RSP, 64, before.and(mask).or(moved));
    shadowIfStack(i, segment);
    i.leave();
  },
};

/** MOV SS and POP SS hold interrupts and debug exceptions off for one instruction. */
function shadowIfStack(i: Instruction, segment: I32): void {
  const { f } = i;
  f.if(segment.eq(Seg.SS), () => {
    f.if(S.events.has(f, Event.SHADOW).eqz(), () => i.event(Event.SHADOW_NEW | Event.SHADOW_SS));
  });
}

const movToSegment: Semantics = {
  ends: true,
  emit: (i) => {
    const { f, mc } = i;
    const selector = i.unsigned(1).wrap();
    const segment = i.immediate().wrap();
    i.faultIf(segment.eq(Seg.CS), Vector.UD);
    i.spill();
    f.call(mc.loadSegment, segment, selector);
    shadowIfStack(i, segment);
    i.leave();
  },
};

const movFromSegment: Semantics = {
  emit: (i) => {
    const selector = i.f.load32(segmentPointer(i.immediate().wrap()), SegmentField.SELECTOR);
    const value = selector.extendU();
    // Memory gets 16 bits whatever the operand size.
    if (i.isMemory(0)) i.store(16, i.address(2, 1), value);
    else i.write(0, value);
  },
};

/** LES, LDS, LSS, LFS, LGS. */
const loadFar = (segment: number): Semantics => ({
  operandSize: true,
  addressSize: true,
  code: true,
  ends: true,
  emit: (i) => {
    const { f, mc } = i;
    const bytes = i.width(1) / 8;
    const offset = i.load(i.width(1), i.addressAt(i64(0), bytes, 0));
    const selector = i.load(16, i.addressAt(i64(bytes), 2, 0)).wrap();
    i.spill();
    f.call(mc.loadSegment, segment, selector);
    i.write(0, offset);
    if (segment === Seg.SS) shadowIfStack(i, i32(Seg.SS));
    i.leave();
  },
});

const ALL_REGISTERS = [0, 1, 2, 3, 4, 5, 6, 7];

const pusha: Semantics = {
  operandSize: true,
  stack: true,
  emit: (i) => {
    const { bits } = i;
    const bytes = bits / 8;
    const start = i.stackPointer();
    for (const n of ALL_REGISTERS) {
      const top = i.wrapStack(start.sub(bytes * (n + 1)));
      i.storeStack(bits, top, i.reg(n, bits));
    }
    i.setStackPointer(i.wrapStack(start.sub(bytes * 8)));
  },
};

const popa: Semantics = {
  operandSize: true,
  stack: true,
  emit: (i) => {
    const { bits } = i;
    const bytes = bits / 8;
    const start = i.stackPointer();
    const values = ALL_REGISTERS.map((n) => {
      const at = i.wrapStack(start.add(bytes * (7 - n)));
      return i.loadStack(bits, at);
    });
    for (const n of ALL_REGISTERS) if (n !== Reg.RSP) i.setReg(n, bits, values[n]!);
    i.setStackPointer(i.wrapStack(start.add(bytes * 8)));
  },
};

const pushf: Semantics = {
  operandSize: true,
  stack: true,
  code: true,
  ends: true,
  emit: (i) => {
    intercept(i, InterceptWord.MISC1, Misc1.PUSHF, SvmExit.PUSHF);
    const below = checkFlagsAccess(i);
    const system = S.rflags.get(i.f).and(~(Rflags.VM | Rflags.RF));
    const flags = i.bits === 16 ? below.select(flagsBelowIopl(system), system) : system;
    i.push(i.bits, flags.or(i.flagBits().extendU()));
    i.leave();
  },
};

const popf: Semantics = {
  operandSize: true,
  stack: true,
  code: true,
  ends: true,
  emit: (i) => {
    const { f, mc } = i;
    intercept(i, InterceptWord.MISC1, Misc1.POPF, SvmExit.POPF);
    const below = checkFlagsAccess(i);
    const image = i.top(i.bits);
    if (i.bits === 16) checkPoppedFlags(i, below, image);
    i.dropStack(i.bits / 8);
    const old = S.rflags.get(f).or(i.flagBits().extendU());
    const cpl = S.cpl.get(f);
    const iopl = old.shrU(12).wrap().and(3);
    const always = Rflags.ARITHMETIC | Rflags.TF | Rflags.DF | Rflags.NT | Rflags.AC | Rflags.ID;
    const withIf = cpl.leU(iopl).select(i64(Rflags.IF), i64(0));
    const withIopl = cpl.eqz().select(i64(Rflags.IOPL), i64(0));
    const reach = withIf.or(withIopl).or(always).and(i.bits === 16 ? 0xffff : -1);
    // RF is cleared, VM, VIF and VIP are not touched.
    const kept = old.and(reach.xor(-1)).and(~Rflags.RF);
    i.spill();
    const flags = kept.or(image.and(reach));
    f.call(mc.writeFlags, below.select(withVirtualIf(flags, image), flags));
    S.rip.set(f, i.nextRip());
    i.leaveAsIs();
  },
};

const sahf: Semantics = {
  emit: (i) => {
    const ah = i.reg(Reg.RAX, 16).shrU(8).wrap();
    const mask = Rflags.SF | Rflags.ZF | Rflags.AF | Rflags.PF | Rflags.CF;
    i.flagsValue(i.flagBits().and(Rflags.OF).or(ah.and(mask)));
  },
};

const lahf: Semantics = {
  emit: (i) => {
    const low = i.flagBits().and(0xd5).or(Rflags.ONE).extendU();
    i.setReg(Reg.RAX, 16, i.reg(Reg.RAX, 8).or(low.shl(8)));
  },
};

/** ENTER: pushes the frame pointer, copies outer frames' pointers, reserves space. */
const enter: Semantics = {
  operandSize: true,
  stack: true,
  emit: (i) => {
    const { f, bits } = i;
    const bytes = bits / 8;
    const level = i.second().and(31).wrap();
    const size = i.immediate().and(0xffff);
    const start = i.stackPointer();
    const frame = i.wrapStack(start.sub(bytes));
    i.storeStack(bits, frame, i.reg(Reg.RBP, bits));
    const top = f.variable(I64T, frame);
    f.if(level.ne(0), () => {
      const k = f.variable(I32T, 1);
      const link = f.variable(I64T, i.reg(Reg.RBP, i.stackBits));
      f.while(() => k.get().ltU(level), () => {
        link.set(i.wrapStack(link.get().sub(bytes)));
        const value = i.loadStack(bits, link.get());
        top.set(i.wrapStack(top.get().sub(bytes)));
        i.storeStack(bits, top.get(), value);
        k.set(k.get().add(1));
      });
      top.set(i.wrapStack(top.get().sub(bytes)));
      i.storeStack(bits, top.get(), frame);
    });
    const end = i.wrapStack(top.get().sub(size));
    // The new top must be writable, though nothing is written there.
    i.spill();
    f.call(i.mc.probeStore, i.stackAddress(end, bytes, 1), bytes);
    i.setReg(Reg.RBP, bits, frame);
    i.setStackPointer(end);
  },
};

const leave: Semantics = {
  operandSize: true,
  stack: true,
  emit: (i) => {
    const { bits } = i;
    const frame = i.reg(Reg.RBP, i.stackBits);
    const value = i.loadStack(bits, frame);
    i.setStackPointer(i.wrapStack(frame.add(bits / 8)));
    i.setReg(Reg.RBP, bits, value);
  },
};

const xlat: Semantics = {
  addressSize: true,
  code: true,
  emit: (i) => {
    const offset = i.reg(Reg.RBX).add(i.reg(Reg.RAX, 8)).zeroExtend(i.addressBits);
    i.spill();
    const linear = i.f.call(i.mc.segmentAddress, i.segment(), offset, 1, 0);
    i.setReg(Reg.RAX, 8, i.load(8, linear));
  },
};

/** SALC (D6): AL := CF ? FFh : 0. */
const salc: Semantics = {
  emit: (i) => i.setReg(Reg.RAX, 8, i64(0).sub(i.carry().extendU())),
};

const nothing: Semantics = { emit: () => {} };

const flagChange = (change: (flags: I32) => I32): Semantics => ({
  emit: (i) => i.flagsValue(change(i.flagBits())),
});

const direction = (value: boolean): Semantics => ({
  emit: (i) => {
    const { f } = i;
    const flags = S.rflags.get(f);
    S.rflags.set(f, value ? flags.or(Rflags.DF) : flags.and(~Rflags.DF));
  },
});

/** Conditions by the suffix the mnemonics carry. */
export const CONDITIONS: readonly (readonly [string, number])[] = Object.entries(Condition);

/** Moves by mnemonic. */
export const MOVES: Readonly<Record<string, Semantics>> = {
  MOV: mov,
  MOVZX: mov,
  MOVNTI: mov,
  MOVSX: signedMove,
  MOVSXD: signedMove,
  LEA: lea,
  XCHG: xchg,
  CBW: cbw,
  CWD: cwd,
  PUSH: push,
  POP: pop,
  PUSHSEG: pushSegment,
  POPSEG: popSegment,
  MOVTOSEG: movToSegment,
  MOVFROMSEG: movFromSegment,
  LES: loadFar(Seg.ES),
  LDS: loadFar(Seg.DS),
  LSS: loadFar(Seg.SS),
  LFS: loadFar(Seg.FS),
  LGS: loadFar(Seg.GS),
  PUSHA: pusha,
  POPA: popa,
  PUSHF: pushf,
  POPF: popf,
  SAHF: sahf,
  LAHF: lahf,
  ENTER: enter,
  LEAVE: leave,
  XLAT: xlat,
  SALC: salc,
  NOP: nothing,
  FENCE: nothing,
  CMC: flagChange((flags) => flags.xor(Rflags.CF)),
  CLC: flagChange((flags) => flags.and(~Rflags.CF)),
  STC: flagChange((flags) => flags.or(Rflags.CF)),
  CLD: direction(false),
  STD: direction(true),
  ...Object.fromEntries(CONDITIONS.map(([name, code]) => [`CMOV${name}`, cmov(code)])),
  ...Object.fromEntries(CONDITIONS.map(([name, code]) => [`SET${name}`, set(code)])),
};
