/**
 * Far transfers: JMP, CALL, RET to another segment, call gates, IRET (APM vol. 2, 4.7–4.8, 8.9; vol. 3).
 *
 * @module
 */
import { canonical } from "../memory/canonical.ts";
import { Access } from "../memory/walk.ts";
import {
  Attr,
  Mode,
  registerAddress,
  S,
  Seg,
  segmentAddress,
  SegmentField,
} from "../state/cpu_state.ts";
import { MmuIndex } from "../state/tlb_layout.ts";
import { unblockNmis } from "../svm/virtual.ts";
import { Pin } from "../vmx/controls.ts";
import { type FunctionBuilder, type I32, i32, I32T, type I64, i64, I64T } from "../wasm/mod.ts";
import { trackFar } from "./cet.ts";
import { copySegment, innerStack, nextStackMask } from "./interrupt.ts";
import type { Microcode } from "./microcode.ts";
import { nextRipOf, Vector } from "./raise.ts";
import { Cr4, Efer, Rflags } from "./registers.ts";
import { baseOf, Descriptor, dplOf, errorOf, SystemType, typeOf } from "./segments.ts";
import { innerShadowStack, linearRip, ShadowEntry, ShadowReturn } from "./shadow_stack.ts";
import { TaskSwitch } from "./task_switch.ts";

const RSP = registerAddress(4);
const CS = segmentAddress(Seg.CS);
const SS = segmentAddress(Seg.SS);
const TR = segmentAddress(Seg.TR);

/** Mask of the current stack pointer. */
function stackMask(f: FunctionBuilder): I64 {
  const big = f.load32(0, SS + SegmentField.ATTRIBUTES).and(Attr.DB).ne(0);
  const legacy = big.select(i64(0xffff_ffff), i64(0xffff));
  return S.mode.has(f, Mode.LONG).select(i64(-1), legacy);
}

/** Sets the stack pointer within `mask`: SP keeps bits 31:16, ESP clears the upper half. */
function setStack(f: FunctionBuilder, pointer: I64, mask: I64): void {
  const kept = f.load64(0, RSP).and(mask.xor(-1)).and(0xffff_ffff);
  f.store64(0, kept.or(pointer.and(mask)), RSP);
}

/** Loads `bits` at offset `delta` above the stack pointer. */
function peek(mc: Microcode, f: FunctionBuilder, delta: I32, bits: I32): I64 {
  const offset = f.load64(0, RSP).add(delta.extendU()).and(stackMask(f));
  const linear = f.call(mc.segmentAddress, Seg.SS, offset, bits.shrU(3), Access.READ);
  S.stackAccess.set(f, 1);
  const value = f.call(mc.slowLoad, linear, bits, S.mmu.get(f));
  S.stackAccess.set(f, 0);
  return value;
}

/** Checks that code at `offset` of the segment with `descriptor` may be gone to. */
function checkTarget(mc: Microcode, f: FunctionBuilder, descriptor: I64, offset: I64): void {
  const long = descriptor.has(Descriptor.L).and(S.efer.has(f, Efer.LMA));
  f.if(long, () => {
    f.if(canonical(f, offset).eqz(), () => f.call(mc.raiseError, Vector.GP, 0));
  }, () => {
    // Within the limit; NEXT is only a place to have it unpacked.
    f.call(mc.setSegment, Seg.NEXT, 0, descriptor);
    const limit = f.load32(0, segmentAddress(Seg.NEXT) + SegmentField.LIMIT).extendU();
    f.if(offset.gtU(limit), () => f.call(mc.raiseError, Vector.GP, 0));
  });
}

/**
 * Commits a new code segment, CPL and RIP. Its descriptor has been marked accessed: that may fault, so it
 * comes before anything is committed.
 */
function commit(
  mc: Microcode,
  f: FunctionBuilder,
  selector: I32,
  descriptor: I64,
  cpl: I32,
  rip: I64,
): void {
  f.call(mc.setSegment, Seg.CS, selector.and(0xfffc).or(cpl), descriptor);
  S.cpl.set(f, cpl);
  S.rip.set(f, rip);
  f.call(mc.updateMode);
}

/** 1 if `descriptor` is one of 64-bit code. */
function isLong(f: FunctionBuilder, descriptor: I64): I32 {
  return descriptor.has(Descriptor.L).and(S.efer.has(f, Efer.LMA));
}

/** Shadow stacks and branch tracking of a far CALL to privilege `cpl`; the last thing that may fault. */
function enterByCall(
  mc: Microcode,
  f: FunctionBuilder,
  descriptor: I64,
  cpl: I32,
  inner: boolean,
  cs: I64,
  returnRip: I64,
): void {
  f.if(
    S.cr4.has(f, Cr4.CET),
    () => {
      const long = isLong(f, descriptor).select(i32(ShadowEntry.LONG), i32(0));
      const how = long.or(inner ? ShadowEntry.SWITCH : 0);
      const ssp = innerShadowStack(f, cpl);
      f.call(mc.enterShadow, cpl, how, ssp, cs.wrap(), linearRip(f, returnRip));
    },
    undefined,
    "unlikely",
  );
}

/** The same of RETF and IRET (`kind`). */
function leaveByReturn(
  mc: Microcode,
  f: FunctionBuilder,
  selector: I32,
  descriptor: I64,
  rip: I64,
  kind: number,
): void {
  f.if(
    S.cr4.has(f, Cr4.CET),
    () => {
      const long = isLong(f, descriptor);
      const lip = long.select(rip, rip.add(baseOf(descriptor)).and(0xffff_ffff));
      const how = selector.and(3).or(long.select(i32(ShadowReturn.LONG), i32(0))).or(kind);
      f.call(mc.leaveShadow, selector, lip, how);
    },
    undefined,
    "unlikely",
  );
}

/** Code-segment checks of a direct far JMP or CALL. */
function checkDirect(mc: Microcode, f: FunctionBuilder, selector: I32, descriptor: I64): void {
  const bad = (vector: number): void => f.call(mc.raiseError, vector, errorOf(selector));
  const cpl = S.cpl.get(f);
  const type = typeOf(descriptor);
  const dpl = dplOf(descriptor);
  f.if(type.and(Attr.CODE).eqz(), () => bad(Vector.GP));
  const conforming = type.and(Attr.EXPAND_DOWN).ne(0);
  const denied = conforming.select(
    dpl.gtU(cpl),
    dpl.ne(cpl).or(selector.and(3).gtU(cpl)),
  );
  f.if(denied, () => bad(Vector.GP));
  // Long mode: 64-bit and default-32 exclude each other.
  const both = descriptor.has(Descriptor.L).and(descriptor.has(Descriptor.DB));
  f.if(S.efer.has(f, Efer.LMA).and(both), () => bad(Vector.GP));
  f.if(descriptor.has(Descriptor.P).eqz(), () => bad(Vector.NP));
}

/** What a call gate leads to. */
interface Gate {
  readonly selector: I32;
  readonly descriptor: I64;
  readonly offset: I64;
  readonly bits: I32;
  readonly parameters: I32;
  readonly inner: I32;
  readonly dpl: I32;
}

/** Checks a call gate and its target; `jump` forbids a change of privilege. */
function callGate(
  mc: Microcode,
  f: FunctionBuilder,
  selector: I32,
  gate: I64,
  jump: boolean,
): Gate {
  const cpl = S.cpl.get(f);
  const bad = (vector: number, which: I32): void => f.call(mc.raiseError, vector, errorOf(which));
  const gateDpl = dplOf(gate);
  f.if(gateDpl.ltU(cpl).or(gateDpl.ltU(selector.and(3))), () => bad(Vector.GP, selector));
  f.if(gate.has(Descriptor.P).eqz(), () => bad(Vector.NP, selector));
  const target = gate.shrU(16).and(0xffff).wrap();
  f.if(target.and(0xfffc).eqz(), () => f.call(mc.raiseError, Vector.GP, 0));
  const descriptor = f.call(mc.readDescriptor, target, Vector.GP, 0);
  const type = typeOf(descriptor);
  const dpl = dplOf(descriptor);
  const code = descriptor.has(Descriptor.S).and(type.and(Attr.CODE).ne(0));
  f.if(code.eqz().or(dpl.gtU(cpl)), () => bad(Vector.GP, target));
  const conforming = type.and(Attr.EXPAND_DOWN).ne(0);
  if (jump) f.if(conforming.eqz().and(dpl.ne(cpl)), () => bad(Vector.GP, target));
  const long = S.efer.has(f, Efer.LMA);
  const is64 = descriptor.has(Descriptor.L).and(descriptor.has(Descriptor.DB).eqz());
  f.if(long.and(is64.eqz()), () => bad(Vector.GP, target));
  f.if(descriptor.has(Descriptor.P).eqz(), () => bad(Vector.NP, target));
  const wide = typeOf(gate).and(8).ne(0);
  const low = gate.and(0xffff).or(wide.extendU().mul(gate.shrU(32).and(0xffff_0000)));
  const offset = f.choose(I64T, long, () => {
    const table = S.gdtBase.get(f);
    const ldt = f.load64(0, segmentAddress(Seg.LDTR) + SegmentField.BASE);
    const base = selector.and(4).ne(0).select(ldt, table);
    const at = base.add(selector.and(0xfff8).extendU()).add(8);
    const upper = f.call(mc.systemLoad, at, 64);
    // The type field of the upper half must be 0.
    f.if(upper.has(0x1f00_0000_0000n), () => bad(Vector.GP, selector));
    return low.or(upper.shl(32));
  }, () => low);
  const legacyBits = wide.select(i32(32), i32(16));
  return {
    selector: target,
    descriptor,
    offset,
    bits: long.select(i32(64), legacyBits),
    parameters: gate.shrU(32).wrap().and(31),
    inner: conforming.eqz().and(dpl.ltU(cpl)),
    dpl: conforming.select(cpl, dpl),
  };
}

/** A system descriptor that is no call gate: a task switch, or #GP. */
function notACallGate(
  mc: Microcode,
  f: FunctionBuilder,
  selector: I32,
  descriptor: I64,
  how: number,
): void {
  const bad = (vector: number): void => f.call(mc.raiseError, vector, errorOf(selector));
  const type = typeOf(descriptor);
  const isGate = type.eq(SystemType.TASK_GATE);
  // Whether the segment is busy is for the switch to find.
  const isTask = type.and(~(8 | 2)).eq(SystemType.TSS16_AVAILABLE);
  f.if(isGate.or(isTask).eqz().or(S.efer.has(f, Efer.LMA)), () => bad(Vector.GP));
  const dpl = dplOf(descriptor);
  f.if(dpl.ltU(S.cpl.get(f)).or(dpl.ltU(selector.and(3))), () => bad(Vector.GP));
  f.if(isGate.and(descriptor.has(Descriptor.P).eqz()), () => bad(Vector.NP));
  const target = isGate.select(descriptor.shrU(16).wrap().and(0xffff), selector);
  f.call(mc.switchTask, target, how, nextRipOf(f), f.call(mc.readFlags), 0, 0);
  f.return();
}

const isCallGate = (type: I32): I32 =>
  type.eq(SystemType.CALL_GATE32).or(type.eq(SystemType.CALL_GATE16));

/** Pushes values (last first in memory order) below `start` and yields the new pointer. */
function pushAll(
  mc: Microcode,
  f: FunctionBuilder,
  segment: number,
  start: I64,
  mask: I64,
  bits: I32,
  mmu: I32,
  values: readonly I64[],
): I64 {
  const bytes = bits.shrU(3);
  const pointer = f.variable(I64T, start);
  for (const value of values) {
    pointer.set(pointer.get().sub(bytes.extendU()).and(mask));
    const linear = f.call(mc.segmentAddress, segment, pointer.get(), bytes, Access.WRITE);
    S.stackAccess.set(f, 1);
    f.call(mc.slowStore, linear, bits, value, mmu);
    S.stackAccess.set(f, 0);
  }
  return pointer.get();
}

/** IRET ends the blocking of NMIs, but not of those that exit from a guest without virtual ones. */
function endNmi(f: FunctionBuilder): void {
  const kept = S.pinControls.get(f).and(Pin.NMI | Pin.VIRTUAL_NMIS).eq(Pin.NMI);
  f.if(kept.eqz(), () => unblockNmis(f));
}

/** Gives the far-transfer functions their bodies. */
export function defineFar(mc: Microcode): void {
  const { module } = mc;

  module.body(mc.jumpFar, (f, selector, offset) => {
    f.if(S.mode.has(f, Mode.REAL), () => {
      const limit = f.load32(0, CS + SegmentField.LIMIT).extendU();
      f.if(offset.gtU(limit), () => f.call(mc.raiseError, Vector.GP, 0));
      S.rip.set(f, offset);
      f.call(mc.loadRealSegment, Seg.CS, selector);
      f.return();
    });
    f.if(selector.and(0xfffc).eqz(), () => f.call(mc.raiseError, Vector.GP, 0));
    const descriptor = f.call(mc.readDescriptor, selector, Vector.GP, 0);
    f.if(descriptor.has(Descriptor.S), () => {
      checkDirect(mc, f, selector, descriptor);
      checkTarget(mc, f, descriptor, offset);
      f.call(mc.markAccessed, selector, descriptor);
      trackFar(f, S.cpl.get(f));
      commit(mc, f, selector, descriptor, S.cpl.get(f), offset);
    }, () => {
      const type = typeOf(descriptor);
      f.if(isCallGate(type).eqz(), () => {
        notACallGate(mc, f, selector, descriptor, TaskSwitch.JUMP);
      });
      const gate = callGate(mc, f, selector, descriptor, true);
      checkTarget(mc, f, gate.descriptor, gate.offset);
      f.call(mc.markAccessed, gate.selector, gate.descriptor);
      trackFar(f, S.cpl.get(f));
      commit(mc, f, gate.selector, gate.descriptor, S.cpl.get(f), gate.offset);
    });
  });

  module.body(mc.callFar, (f, selector, offset, bits, returnRip) => {
    const mmu = S.mmu.get(f);
    const mask = stackMask(f);
    const rsp = f.load64(0, RSP);
    const cs = f.load32(0, CS + SegmentField.SELECTOR).extendU();
    const pushReturn = (): I64 =>
      pushAll(mc, f, Seg.SS, rsp.and(mask), mask, bits, mmu, [cs, returnRip]);
    f.if(S.mode.has(f, Mode.REAL), () => {
      const limit = f.load32(0, CS + SegmentField.LIMIT).extendU();
      f.if(offset.gtU(limit), () => f.call(mc.raiseError, Vector.GP, 0));
      setStack(f, pushReturn(), mask);
      S.rip.set(f, offset);
      f.call(mc.loadRealSegment, Seg.CS, selector);
      f.return();
    });
    f.if(selector.and(0xfffc).eqz(), () => f.call(mc.raiseError, Vector.GP, 0));
    const descriptor = f.call(mc.readDescriptor, selector, Vector.GP, 0);
    f.if(descriptor.has(Descriptor.S), () => {
      checkDirect(mc, f, selector, descriptor);
      checkTarget(mc, f, descriptor, offset);
      const pointer = pushReturn();
      f.call(mc.markAccessed, selector, descriptor);
      enterByCall(mc, f, descriptor, S.cpl.get(f), false, cs, returnRip);
      setStack(f, pointer, mask);
      commit(mc, f, selector, descriptor, S.cpl.get(f), offset);
      f.return();
    });
    const type = typeOf(descriptor);
    f.if(isCallGate(type).eqz(), () => {
      notACallGate(mc, f, selector, descriptor, TaskSwitch.CALL);
    });
    const gate = callGate(mc, f, selector, descriptor, false);
    checkTarget(mc, f, gate.descriptor, gate.offset);
    f.call(mc.markAccessed, gate.selector, gate.descriptor);
    f.if(gate.inner.eqz(), () => {
      const pointer = pushAll(mc, f, Seg.SS, rsp.and(mask), mask, gate.bits, mmu, [cs, returnRip]);
      enterByCall(mc, f, gate.descriptor, S.cpl.get(f), false, cs, returnRip);
      setStack(f, pointer, mask);
      commit(mc, f, gate.selector, gate.descriptor, S.cpl.get(f), gate.offset);
      f.return();
    });
    const ss = f.load32(0, SS + SegmentField.SELECTOR).extendU();
    const supervisor = i32(MmuIndex.SUPERVISOR);
    f.if(S.efer.has(f, Efer.LMA), () => {
      const tr = segmentAddress(Seg.TR);
      const place = gate.dpl.shl(3).add(4);
      f.if(place.add(7).gtU(f.load32(0, tr + SegmentField.LIMIT)), () => {
        f.call(mc.raiseError, Vector.TS, errorOf(f.load32(0, tr + SegmentField.SELECTOR)));
      });
      const base = f.load64(0, tr + SegmentField.BASE);
      const start = f.call(mc.systemLoad, base.add(place.extendU()), 64);
      f.if(canonical(f, start).eqz(), () => f.call(mc.raiseError, Vector.SS, 0));
      const pointer = f.variable(I64T, start);
      for (const value of [ss, rsp, cs, returnRip]) {
        pointer.set(pointer.get().sub(8));
        S.stackAccess.set(f, 1);
        f.call(mc.slowStore, pointer.get(), 64, value, supervisor);
        S.stackAccess.set(f, 0);
      }
      enterByCall(mc, f, gate.descriptor, gate.dpl, true, cs, returnRip);
      f.store64(0, pointer.get(), RSP);
      f.call(mc.clearSegment, Seg.SS, gate.dpl);
      f.store32(0, gate.dpl.shl(Attr.DPL_SHIFT), SS + SegmentField.ATTRIBUTES);
    }, () => {
      const start = innerStack(mc, f, gate.dpl, i32(0));
      const inner = nextStackMask(f);
      const bytes = gate.bits.shrU(3);
      const first = pushAll(mc, f, Seg.NEXT, start.and(inner), inner, gate.bits, supervisor, [
        ss,
        rsp,
      ]);
      const pointer = f.variable(I64T, first);
      const left = f.variable(I32T, gate.parameters);
      f.while(() => left.get().ne(0), () => {
        left.set(left.get().sub(1));
        const value = peek(mc, f, left.get().mul(bytes), gate.bits);
        pointer.set(
          pushAll(mc, f, Seg.NEXT, pointer.get(), inner, gate.bits, supervisor, [value]),
        );
      });
      const last = pushAll(mc, f, Seg.NEXT, pointer.get(), inner, gate.bits, supervisor, [
        cs,
        returnRip,
      ]);
      enterByCall(mc, f, gate.descriptor, gate.dpl, true, cs, returnRip);
      setStack(f, last, inner);
      copySegment(f, Seg.SS, Seg.NEXT);
    });
    commit(mc, f, gate.selector, gate.descriptor, gate.dpl, gate.offset);
  });

  /** Drops data segments that the outer privilege may not use (APM vol. 2, 4.7.3). */
  const dropSegments = module.define("dropSegments", [I32T], undefined, (f, cpl) => {
    for (const segment of [Seg.ES, Seg.DS, Seg.FS, Seg.GS]) {
      const at = segmentAddress(segment);
      const attributes = f.load32(0, at + SegmentField.ATTRIBUTES);
      const code = attributes.and(Attr.CODE).ne(0);
      const conforming = code.and(attributes.and(Attr.EXPAND_DOWN).ne(0));
      const dpl = attributes.shrU(Attr.DPL_SHIFT).and(3);
      f.if(conforming.eqz().and(dpl.ltU(cpl)), () => {
        // Selector and attributes go, the base stays: the manual only says that the segment is null, and
        // 64-bit software relies on FS and GS bases outliving a return.
        f.store32(0, 0, at + SegmentField.SELECTOR);
        f.store32(0, 0, at + SegmentField.ATTRIBUTES);
        f.store32(0, 0, at + SegmentField.USE);
      });
    }
  });

  /** Checks the code segment a far return or IRET goes to. */
  const checkReturn = (f: FunctionBuilder, selector: I32): I64 => {
    const bad = (vector: number): void => f.call(mc.raiseError, vector, errorOf(selector));
    f.if(selector.and(0xfffc).eqz(), () => f.call(mc.raiseError, Vector.GP, 0));
    const descriptor = f.call(mc.readDescriptor, selector, Vector.GP, 0);
    const type = typeOf(descriptor);
    const dpl = dplOf(descriptor);
    const rpl = selector.and(3);
    const code = descriptor.has(Descriptor.S).and(type.and(Attr.CODE).ne(0));
    f.if(code.eqz().or(rpl.ltU(S.cpl.get(f))), () => bad(Vector.GP));
    const conforming = type.and(Attr.EXPAND_DOWN).ne(0);
    f.if(conforming.select(dpl.gtU(rpl), dpl.ne(rpl)), () => bad(Vector.GP));
    const both = descriptor.has(Descriptor.L).and(descriptor.has(Descriptor.DB));
    f.if(S.efer.has(f, Efer.LMA).and(both), () => bad(Vector.GP));
    f.if(descriptor.has(Descriptor.P).eqz(), () => bad(Vector.NP));
    return descriptor;
  };

  /** Checks the stack segment of an outer privilege, leaving it in NEXT. */
  const checkOuterStack = (f: FunctionBuilder, selector: I32, rpl: I32, target: I64): void => {
    const bad = (vector: number): void => f.call(mc.raiseError, vector, errorOf(selector));
    f.if(selector.and(0xfffc).eqz(), () => {
      const to64 = target.has(Descriptor.L).and(S.efer.has(f, Efer.LMA));
      f.if(to64.and(rpl.ne(3)).eqz(), () => f.call(mc.raiseError, Vector.GP, 0));
      f.call(mc.clearSegment, Seg.NEXT, selector);
      const at = segmentAddress(Seg.NEXT) + SegmentField.ATTRIBUTES;
      f.store32(0, rpl.shl(Attr.DPL_SHIFT), at);
    }, () => {
      const descriptor = f.call(mc.readDescriptor, selector, Vector.GP, 0);
      const type = typeOf(descriptor);
      const fits = descriptor.has(Descriptor.S)
        .and(type.and(Attr.CODE | Attr.WRITABLE).eq(Attr.WRITABLE))
        .and(selector.and(3).eq(rpl))
        .and(dplOf(descriptor).eq(rpl));
      f.if(fits.eqz(), () => bad(Vector.GP));
      f.if(descriptor.has(Descriptor.P).eqz(), () => bad(Vector.SS));
      f.call(mc.markAccessed, selector, descriptor);
      f.call(mc.setSegment, Seg.NEXT, selector, descriptor);
    });
  };

  module.body(mc.returnFar, (f, bits, release) => {
    const bytes = bits.shrU(3);
    const rip = peek(mc, f, i32(0), bits);
    const selector = peek(mc, f, bytes, bits).wrap().and(0xffff);
    const mask = stackMask(f);
    const rsp = f.load64(0, RSP);
    f.if(S.mode.has(f, Mode.REAL), () => {
      const limit = f.load32(0, CS + SegmentField.LIMIT).extendU();
      f.if(rip.gtU(limit), () => f.call(mc.raiseError, Vector.GP, 0));
      setStack(f, rsp.add(bytes.shl(1).add(release).extendU()), mask);
      S.rip.set(f, rip);
      f.call(mc.loadRealSegment, Seg.CS, selector);
      f.return();
    });
    const descriptor = checkReturn(f, selector);
    const rpl = selector.and(3);
    checkTarget(mc, f, descriptor, rip);
    f.call(mc.markAccessed, selector, descriptor);
    f.if(rpl.eq(S.cpl.get(f)), () => {
      leaveByReturn(mc, f, selector, descriptor, rip, 0);
      setStack(f, rsp.add(bytes.shl(1).add(release).extendU()), mask);
      commit(mc, f, selector, descriptor, rpl, rip);
    }, () => {
      const place = bytes.shl(1).add(release);
      const newSp = peek(mc, f, place, bits);
      const newSs = peek(mc, f, place.add(bytes), bits).wrap().and(0xffff);
      checkOuterStack(f, newSs, rpl, descriptor);
      leaveByReturn(mc, f, selector, descriptor, rip, 0);
      copySegment(f, Seg.SS, Seg.NEXT);
      commit(mc, f, selector, descriptor, rpl, rip);
      const outer = stackMask(f);
      setStack(f, newSp.add(release.extendU()), outer);
      f.call(dropSegments, rpl);
    });
  });

  module.body(mc.returnInterrupt, (f, bits) => {
    const bytes = bits.shrU(3);
    const old = f.call(mc.readFlags);
    const virtual = old.has(Rflags.VM);
    const long = S.efer.has(f, Efer.LMA);
    f.if(old.has(Rflags.NT).and(S.mode.has(f, Mode.REAL).eqz()), () => {
      f.if(long, () => f.call(mc.raiseError, Vector.GP, 0));
      // The way back is in the TSS.
      const link = f.call(mc.systemLoad, f.load64(0, TR + SegmentField.BASE), 16).wrap();
      f.call(mc.switchTask, link, TaskSwitch.RETURN, nextRipOf(f), old, 0, 0);
      unblockNmis(f);
      f.return();
    });
    const mask = stackMask(f);
    const rsp = f.load64(0, RSP);
    const narrow = bits.eq(16);
    const rip = peek(mc, f, i32(0), bits);
    const selector = peek(mc, f, bytes, bits).wrap().and(0xffff);
    const image = peek(mc, f, bytes.shl(1), bits);
    /** Flags after IRET: which bits may change depends on privilege and operand size. */
    const mergeFlags = (allowed: I64): I64 => {
      const reach = narrow.select(i64(0xffff), i64(-1)).and(allowed);
      return old.and(reach.xor(-1)).or(image.and(reach));
    };
    const always = Rflags.ARITHMETIC | Rflags.TF | Rflags.DF | Rflags.NT | Rflags.RF |
      Rflags.AC | Rflags.ID;
    const iopl = old.shrU(12).wrap().and(3);
    f.if(S.mode.has(f, Mode.REAL), () => {
      // Virtual-8086 mode needs IOPL 3 or, for 16 bits, VME: IF then is VIF, and must not let an interrupt
      // in that waits for the monitor to deliver it; nor may the program step itself.
      const below = virtual.and(iopl.ne(3));
      const waits = image.has(Rflags.IF).and(old.has(Rflags.VIP));
      const extended = narrow.and(S.cr4.has(f, Cr4.VME)).and(image.has(Rflags.TF).or(waits).eqz());
      f.if(below.and(extended.eqz()), () => f.call(mc.raiseError, Vector.GP, 0));
      const limit = f.load32(0, CS + SegmentField.LIMIT).extendU();
      f.if(rip.gtU(limit), () => f.call(mc.raiseError, Vector.GP, 0));
      setStack(f, rsp.add(bytes.mul(3).extendU()), mask);
      S.rip.set(f, rip);
      const mode = virtual.select(i64(always | Rflags.IF), i64(always | Rflags.IF | Rflags.IOPL));
      const pending = image.has(Rflags.IF).extendU().mul(Rflags.VIF);
      const virtualFlags = mergeFlags(i64(always)).and(~Rflags.VIF).or(pending);
      f.call(mc.writeFlags, below.select(virtualFlags, mergeFlags(mode)));
      f.call(mc.loadRealSegment, Seg.CS, selector);
      endNmi(f);
      f.return();
    });
    const cpl = S.cpl.get(f);
    const toVirtual = image.has(Rflags.VM).and(cpl.eqz()).and(long.eqz()).and(narrow.eqz());
    f.if(toVirtual, () => {
      const outer: I64[] = [];
      for (let k = 3; k < 9; k++) outer.push(peek(mc, f, i32(4 * k), i32(32)));
      const [sp, ss, es, ds, fs, gs] = outer as [I64, I64, I64, I64, I64, I64];
      f.if(
        S.cr4.has(f, Cr4.CET),
        () => f.call(mc.leaveShadowToVirtual),
        undefined,
        "unlikely",
      );
      S.rip.set(f, rip.and(0xffff));
      S.cpl.set(f, i32(3));
      f.call(mc.writeFlags, image);
      f.store64(0, sp.and(0xffff_ffff), RSP);
      const loads: [number, I32][] = [
        [Seg.CS, selector],
        [Seg.SS, ss.wrap()],
        [Seg.ES, es.wrap()],
        [Seg.DS, ds.wrap()],
        [Seg.FS, fs.wrap()],
        [Seg.GS, gs.wrap()],
      ];
      for (const [segment, value] of loads) f.call(mc.loadRealSegment, segment, value);
      endNmi(f);
      f.return();
    });
    const descriptor = checkReturn(f, selector);
    const rpl = selector.and(3);
    checkTarget(mc, f, descriptor, rip);
    f.call(mc.markAccessed, selector, descriptor);
    // IF needs CPL at most IOPL, IOPL itself and the virtual-interrupt bits need CPL 0.
    const withIf = cpl.leU(iopl).select(i64(always | Rflags.IF), i64(always));
    const system = i64(Rflags.IOPL | Rflags.VIF | Rflags.VIP);
    const flags = mergeFlags(withIf.or(cpl.eqz().select(system, i64(0))));
    // In 64-bit mode the stack is always popped; elsewhere only for an outer privilege.
    const pops = S.mode.has(f, Mode.LONG).or(rpl.ne(cpl));
    f.if(pops, () => {
      const newSp = peek(mc, f, bytes.mul(3), bits);
      const newSs = peek(mc, f, bytes.shl(2), bits).wrap().and(0xffff);
      checkOuterStack(f, newSs, rpl, descriptor);
      leaveByReturn(mc, f, selector, descriptor, rip, ShadowReturn.INTERRUPT);
      copySegment(f, Seg.SS, Seg.NEXT);
      commit(mc, f, selector, descriptor, rpl, rip);
      setStack(f, newSp, stackMask(f));
      f.if(rpl.ne(cpl), () => f.call(dropSegments, rpl));
    }, () => {
      leaveByReturn(mc, f, selector, descriptor, rip, ShadowReturn.INTERRUPT);
      setStack(f, rsp.add(bytes.mul(3).extendU()), mask);
      commit(mc, f, selector, descriptor, rpl, rip);
    });
    f.call(mc.writeFlags, flags);
    endNmi(f);
  });
}
