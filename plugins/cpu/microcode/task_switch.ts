/**
 * Hardware task switches (APM vol. 2, 12.3; SDM vol. 3A, 8.3): by far JMP and CALL, by IRET with NT set,
 * and by events that go through a task gate.
 *
 * Everything that can be refused on behalf of the old task is checked first. Then the old task is saved,
 * the new one is read, and the processor belongs to it: what is wrong with its segments is its own fault,
 * with RIP at its first instruction.
 *
 * @module
 */
import { Access } from "../memory/walk.ts";
import {
  Attr,
  Event,
  registerAddress,
  S,
  Seg,
  segmentAddress,
  SegmentField,
} from "../state/cpu_state.ts";
import { SvmExit } from "../svm/exit_codes.ts";
import { InterceptWord, interceptWord, Misc1 } from "../svm/intercepts.ts";
import { VmxExit } from "../vmx/exit_reasons.ts";
import { type FunctionBuilder, type I32, i32, I32T, type I64, i64, I64T } from "../wasm/mod.ts";
import { type Microcode, Unwind } from "./microcode.ts";
import { Vector } from "./raise.ts";
import { Cr0, Cr4, Rflags } from "./registers.ts";
import { Descriptor, dplOf, errorOf, limitOf, SystemType, typeOf } from "./segments.ts";
import { enterTask, leaveTask, TSS_SSP, TSS_SSP_LIMIT } from "./task_shadow_stack.ts";

/** What makes a task switch. */
export const TaskSwitch = {
  JUMP: 0,
  CALL: 1,
  RETURN: 2,
  EVENT: 3,
  /** Added to EVENT: an error code is pushed on the new task's stack. */
  ERROR: 4,
} as const;

/**
 * What makes a task switch, as an exit qualification has it: 0 CALL, 1 IRET, 2 JMP, 3 task gate; two bits
 * for each of {@linkcode TaskSwitch}.
 */
const VMX_SOURCES = 2 | (0 << 2) | (1 << 4) | (3 << 6);

/** Places in a TSS of either size, and what they hold. */
interface TaskLayout {
  /** Width of registers in bits. */
  readonly bits: 16 | 32;
  /** CR3, where there is one. */
  readonly cr3: number | undefined;
  /** Instruction pointer; flags follow, then the eight general registers by number. */
  readonly ip: number;
  /** Selectors, from ES on. */
  readonly selectors: number;
  readonly ldt: number;
  /** Limit that a TSS needs at least. */
  readonly limit: number;
}

const TSS32: TaskLayout = {
  bits: 32,
  cr3: 0x1c,
  ip: 0x20,
  selectors: 0x48,
  ldt: 0x60,
  limit: 0x67,
};
const TSS16: TaskLayout = {
  bits: 16,
  cr3: undefined,
  ip: 0x0e,
  selectors: 0x22,
  ldt: 0x2a,
  limit: 0x2b,
};
/** The debug-trap flag, bit 0 of a byte. */
const TRAP_FLAG = 0x64;
/** Segment registers in the order of the TSS; one of 16 bits ends behind DS. */
const SEGMENTS: readonly number[] = [Seg.ES, Seg.CS, Seg.SS, Seg.DS, Seg.FS, Seg.GS];
const SEGMENTS16 = 4;
const REGISTERS = 8;

/** Local enables of DR7, which end with their task. */
const DR7_LOCAL = 0x155;
/** DR6.BT. */
const DR6_BT = 0x8000;
/** The busy bit of a TSS descriptor's type. */
const BUSY = 2;

const TR = segmentAddress(Seg.TR);
const selectorOf = (segment: number): number => segmentAddress(segment) + SegmentField.SELECTOR;

/** Runs `emit` for the layout that `wide` says. */
function byLayout(f: FunctionBuilder, wide: I32, emit: (layout: TaskLayout) => void): void {
  f.if(wide, () => emit(TSS32), () => emit(TSS16));
}

/** Sets or clears the busy bit in the descriptor of `selector`, which is in the GDT. */
function markBusy(mc: Microcode, f: FunctionBuilder, selector: I32, busy: boolean): void {
  const at = S.gdtBase.get(f).add(selector.and(0xfff8).extendU()).add(5);
  const old = f.call(mc.systemLoad, at, 8);
  f.call(mc.systemStore, at, 8, busy ? old.or(BUSY) : old.and(~BUSY & 0xff));
}

/** Gives the task switch its body. */
export function defineTaskSwitch(mc: Microcode): void {
  const { module } = mc;

  /** Writes the old task's registers to its TSS. */
  const save = module.define("saveTask", [I64T, I64T, I32T], undefined, (f, rip, flags, wide) => {
    const base = f.load64(0, TR + SegmentField.BASE);
    byLayout(f, wide, ({ bits, ip, selectors }) => {
      const bytes = bits / 8;
      const put = (offset: number, width: 16 | 32, value: I64): void =>
        f.call(mc.systemStore, base.add(offset), width, value);
      put(ip, bits, rip);
      put(ip + bytes, bits, flags);
      for (let k = 0; k < REGISTERS; k++) {
        put(ip + (k + 2) * bytes, bits, f.load64(0, registerAddress(k)));
      }
      const count = bits === 32 ? SEGMENTS.length : SEGMENTS16;
      for (const [k, segment] of SEGMENTS.slice(0, count).entries()) {
        put(selectors + k * bytes, 16, f.load32(0, selectorOf(segment)).extendU());
      }
    });
  });

  /** Loads CS, SS or a data segment of the new task; what is wrong with it is an invalid TSS. */
  const loadTaskSegment = module.define(
    "loadTaskSegment",
    [I32T, I32T],
    undefined,
    (f, segment, selector) => {
      const bad = (vector: number): void => f.call(mc.raiseError, vector, errorOf(selector));
      const isCode = segment.eq(Seg.CS);
      const isStack = segment.eq(Seg.SS);
      f.if(selector.and(0xfffc).eqz(), () => {
        f.if(isCode.or(isStack), () => bad(Vector.TS));
        f.return();
      });
      const descriptor = f.call(mc.readDescriptor, selector, Vector.TS, 0);
      const type = typeOf(descriptor);
      const dpl = dplOf(descriptor);
      const rpl = selector.and(3);
      const cpl = S.cpl.get(f);
      const code = type.and(Attr.CODE).ne(0);
      const bit1 = type.and(Attr.WRITABLE).ne(0);
      const conforming = code.and(type.and(Attr.EXPAND_DOWN).ne(0));
      f.if(descriptor.has(Descriptor.S).eqz(), () => bad(Vector.TS));
      f.if(isCode, () => {
        // CPL is already the selector's RPL.
        const denied = conforming.select(dpl.gtU(rpl), dpl.ne(rpl));
        f.if(code.eqz().or(denied), () => bad(Vector.TS));
      }, () => {
        f.if(isStack, () => {
          const wrong = code.or(bit1.eqz()).or(dpl.ne(cpl)).or(rpl.ne(cpl));
          f.if(wrong, () => bad(Vector.TS));
        }, () => {
          const beyond = conforming.eqz().and(dpl.ltU(cpl).or(dpl.ltU(rpl)));
          f.if(code.and(bit1.eqz()).or(beyond), () => bad(Vector.TS));
        });
      });
      f.if(descriptor.has(Descriptor.P).eqz(), () => {
        f.call(mc.raiseError, isStack.select(i32(Vector.SS), i32(Vector.NP)), errorOf(selector));
      });
      f.call(mc.markAccessed, selector, descriptor);
      f.call(mc.setSegment, segment, selector, descriptor);
    },
  );

  const loadTaskLdt = module.define("loadTaskLdt", [I32T], undefined, (f, selector) => {
    f.if(selector.and(0xfffc).eqz(), () => f.return());
    const bad = (): void => f.call(mc.raiseError, Vector.TS, errorOf(selector));
    f.if(selector.and(4).ne(0), bad);
    const descriptor = f.call(mc.readDescriptor, selector, Vector.TS, 0);
    const isLdt = typeOf(descriptor).eq(SystemType.LDT).and(descriptor.has(Descriptor.S).eqz());
    f.if(isLdt.and(descriptor.has(Descriptor.P)).eqz(), bad);
    f.call(mc.setSegment, Seg.LDTR, selector, descriptor);
  });

  /** Pushes an error code on the new task's stack. */
  const pushError = module.define("pushTaskError", [I32T, I32T], undefined, (f, error, bits) => {
    const rsp = registerAddress(4);
    const big = f.load32(0, segmentAddress(Seg.SS) + SegmentField.ATTRIBUTES).and(Attr.DB).ne(0);
    const mask = big.select(i64(0xffff_ffff), i64(0xffff));
    const old = f.load64(0, rsp);
    const bytes = bits.shrU(3);
    const pointer = old.sub(bytes.extendU()).and(mask);
    const linear = f.call(mc.segmentAddress, Seg.SS, pointer, bytes, Access.WRITE);
    f.call(mc.slowStore, linear, bits, error.extendU(), S.mmu.get(f));
    f.store64(0, old.and(mask.xor(-1)).or(pointer), rsp);
  });

  module.body(mc.switchTask, (f, selector, how, rip, flags, error, ext) => {
    const kind = how.and(3);
    const isReturn = kind.eq(TaskSwitch.RETURN);
    const hasError = how.and(TaskSwitch.ERROR).ne(0);
    const bad = (vector: I32 | number): void =>
      f.call(mc.raiseError, vector, errorOf(selector).or(ext));

    // Task-state segments are in the GDT. One that is returned to is busy, others must not be.
    const vector = isReturn.select(i32(Vector.TS), i32(Vector.GP));
    f.if(selector.and(4).ne(0), () => bad(vector));
    const descriptor = f.call(mc.readDescriptor, selector, vector, ext);
    const type = typeOf(descriptor);
    const expected = isReturn.select(i32(SystemType.TSS16_BUSY), i32(SystemType.TSS16_AVAILABLE));
    const fits = descriptor.has(Descriptor.S).eqz().and(type.and(~8).eq(expected));
    f.if(fits.eqz(), () => bad(vector));
    f.if(descriptor.has(Descriptor.P).eqz(), () => bad(Vector.NP));
    const wide = type.and(8).ne(0);
    // With CR4.CET a task has an SSP, for which there is room in a 32-bit TSS only.
    const cet = S.cr4.has(f, Cr4.CET);
    f.if(cet.and(wide.eqz()), () => bad(Vector.TS));
    const least = wide.select(
      cet.select(i32(TSS_SSP_LIMIT), i32(TSS32.limit)),
      i32(TSS16.limit),
    );
    f.if(limitOf(descriptor).ltU(least), () => bad(Vector.TS));

    // The manual does not order the intercept against these checks; they come first, as in VMX.
    const wanted = S.guestMode.get(f)
      .and(interceptWord(f, InterceptWord.MISC1).and(Misc1.TASK_SWITCH).ne(0));
    f.if(wanted, () => {
      const bit = (condition: I32, n: number): I64 => condition.extendU().shl(n);
      const info = hasError.select(error, i32(0)).extendU()
        .or(bit(isReturn, 36))
        .or(bit(kind.eq(TaskSwitch.JUMP), 38))
        .or(bit(hasError, 44))
        .or(bit(flags.has(Rflags.RF), 48));
      f.call(mc.vmexit, SvmExit.TASK_SWITCH, selector.and(0xffff).extendU(), info);
      f.call(mc.unwindTo, Unwind.VMEXIT);
    });

    // In VMX non-root operation it exits whatever the controls say (SDM vol. 3, 26.4.2).
    f.if(S.nonRoot.get(f), () => {
      const source = i32(VMX_SOURCES).shrU(kind.shl(1)).and(3).shl(30);
      f.call(mc.vmxExit, VmxExit.TASK_SWITCH, selector.and(0xffff).or(source).extendU());
      f.call(mc.unwindTo, Unwind.VMEXIT);
    });

    const oldSelector = f.load32(0, TR + SegmentField.SELECTOR);
    const oldWide = f.load32(0, TR + SegmentField.ATTRIBUTES).and(8).ne(0);
    const oldLeast = oldWide.select(i32(TSS32.limit), i32(TSS16.limit));
    f.if(f.load32(0, TR + SegmentField.LIMIT).ltU(oldLeast), () => {
      f.call(mc.raiseError, Vector.TS, errorOf(oldSelector).or(ext));
    });
    // A task that is returned from does not nest any more.
    f.call(save, rip, isReturn.select(flags.and(~Rflags.NT), flags), oldWide);

    f.call(mc.setSegment, Seg.NEXT, selector, descriptor);
    const base = f.load64(0, segmentAddress(Seg.NEXT) + SegmentField.BASE);
    const newIp = f.variable(I64T, 0);
    const newFlags = f.variable(I64T, 0);
    const newCr3 = f.variable(I64T, 0);
    const newLdt = f.variable(I32T, 0);
    const newSsp = f.variable(I64T, 0);
    const trap = f.variable(I32T, 0);
    const registers = Array.from({ length: REGISTERS }, () => f.variable(I64T, 0));
    const selectors = SEGMENTS.map(() => f.variable(I32T, 0));
    byLayout(f, wide, ({ bits, cr3, ip, selectors: at, ldt }) => {
      const bytes = bits / 8;
      const get = (offset: number, width: number): I64 =>
        f.call(mc.systemLoad, base.add(offset), width);
      newIp.set(get(ip, bits));
      newFlags.set(get(ip + bytes, bits));
      for (const [k, register] of registers.entries()) {
        register.set(get(ip + (k + 2) * bytes, bits));
        // What a 16-bit TSS leaves in the upper halves is undefined; here they stay.
        if (bits === 16) {
          const upper = f.load64(0, registerAddress(k)).and(0xffff_0000);
          register.set(register.get().or(upper));
        }
      }
      const count = bits === 32 ? SEGMENTS.length : SEGMENTS16;
      for (let k = 0; k < count; k++) selectors[k]!.set(get(at + k * bytes, 16).wrap());
      newLdt.set(get(ldt, 16).wrap());
      if (cr3 !== undefined) {
        newCr3.set(get(cr3, 32));
        trap.set(get(TRAP_FLAG, 8).wrap().and(1));
      }
    });
    f.if(cet.and(isReturn.eqz()), () => newSsp.set(f.call(mc.systemLoad, base.add(TSS_SSP), 32)));
    f.if(kind.eq(TaskSwitch.JUMP).or(isReturn), () => markBusy(mc, f, oldSelector, false));
    f.if(isReturn.eqz(), () => markBusy(mc, f, selector, true));
    f.if(kind.and(1).ne(0), () => {
      // CALL and events nest: the way back is in the new TSS.
      f.call(mc.systemStore, base, 16, oldSelector.extendU());
      newFlags.set(newFlags.get().or(Rflags.NT));
    });

    const virtual = newFlags.get().has(Rflags.VM).and(wide);
    const cpl = virtual.select(i32(3), selectors[Seg.CS]!.get().and(3));
    const shadow = leaveTask(mc, f, cpl, rip, kind.and(1), isReturn);

    // From here on it is the new task.
    const uop = S.uop.get(f);
    f.call(mc.settle);
    f.call(mc.setSegment, Seg.TR, selector, descriptor);
    const attributes = TR + SegmentField.ATTRIBUTES;
    f.store32(0, f.load32(0, attributes).or(BUSY), attributes);
    S.cr0.set(f, S.cr0.get(f).or(Cr0.TS));
    S.dr7.set(f, S.dr7.get(f).and(~DR7_LOCAL));
    S.rip.set(f, newIp.get());
    for (const [k, register] of registers.entries()) {
      f.store64(0, register.get(), registerAddress(k));
    }
    // Selectors are visible at once; what they select is loaded one by one.
    for (const [k, segment] of SEGMENTS.entries()) {
      f.call(mc.clearSegment, segment, selectors[k]!.get());
    }
    f.call(mc.clearSegment, Seg.LDTR, newLdt.get());
    const [es, cs, ss, ds, fs, gs] = selectors.map((one) => one.get()) as [
      I32,
      I32,
      I32,
      I32,
      I32,
      I32,
    ];
    S.cpl.set(f, cpl);
    f.call(mc.writeFlags, newFlags.get());
    f.call(mc.updateMode);
    f.if(wide.and(S.cr0.has(f, Cr0.PG)), () => f.call(mc.writeCr3, newCr3.get()));
    f.call(loadTaskLdt, newLdt.get());
    f.if(virtual, () => {
      for (const [k, segment] of SEGMENTS.entries()) {
        f.call(mc.loadRealSegment, segment, selectors[k]!.get());
      }
    }, () => {
      const order: [number, I32][] = [
        [Seg.CS, cs],
        [Seg.SS, ss],
        [Seg.DS, ds],
        [Seg.ES, es],
        [Seg.FS, fs],
        [Seg.GS, gs],
      ];
      for (const [segment, value] of order) f.call(loadTaskSegment, segment, value);
    });
    f.call(mc.updateMode);
    enterTask(mc, f, shadow, isReturn, newSsp.get(), virtual, errorOf(selector));
    f.if(hasError, () => f.call(pushError, error, wide.select(i32(32), i32(16))));
    const limit = f.load32(0, segmentAddress(Seg.CS) + SegmentField.LIMIT).extendU();
    f.if(newIp.get().gtU(limit), () => f.call(mc.raiseError, Vector.GP, 0));
    f.if(trap.get(), () => {
      S.trapBits.or(f, DR6_BT);
      S.events.or(f, Event.TRAP);
    });
    // Settling gave back the instruction that did it, if one did.
    f.if(uop.ne(0), () => S.budget.set(f, S.budget.get(f).sub(1)));
  });
}
