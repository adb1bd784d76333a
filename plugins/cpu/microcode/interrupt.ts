/**
 * Delivery of exceptions and interrupts: the real-mode table, IDT gates in protected mode, and 64-bit
 * gates (APM vol. 2, 8.6–8.9).
 *
 * Nothing is committed before the last write to the stack has succeeded, so a fault on the way leaves
 * the state of before the event.
 *
 * @module
 */
import {
  Attr,
  Event,
  EventLog,
  Mode,
  S,
  Seg,
  SEGMENT_BYTES,
  segmentAddress,
  SegmentField,
} from "../state/cpu_state.ts";
import { MicroOp } from "../engine/block_layout.ts";
import { registerAddress } from "../state/cpu_state.ts";
import { MmuIndex } from "../state/tlb_layout.ts";
import { canonical } from "../memory/canonical.ts";
import { Access } from "../memory/walk.ts";
import {
  type FunctionBuilder,
  type I32,
  i32,
  I32T,
  type I64,
  i64,
  I64T,
  type Variable,
} from "../wasm/mod.ts";
import { CetControl, controlOf } from "./cet.ts";
import type { Microcode } from "./microcode.ts";
import { EventFormat, ripOf, Vector } from "./raise.ts";
import { Cr4, Efer, Rflags } from "./registers.ts";
import { Descriptor, dplOf, errorOf, SystemType, typeOf } from "./segments.ts";
import { innerShadowStack, linearRip, ShadowEntry } from "./shadow_stack.ts";
import { TaskSwitch } from "./task_switch.ts";

/**
 * Internal bit of an event: it comes from INT n, INT3 or INTO, so the gate's DPL is checked. It stands
 * in a bit that EVENTINJ reserves and is removed wherever the event becomes visible.
 */
export const GATE_DPL_CHECKED = 0x1000;
/** Another: it comes from INT1. */
export const SINGLE_STEP_INTERRUPT = 0x2000;
const INTERNAL = GATE_DPL_CHECKED | SINGLE_STEP_INTERRUPT;

/** What no longer holds at the handler's first instruction. */
const ENDED_BY_DELIVERY = Event.SHADOW | Event.SHADOW_NEW | Event.SHADOW_SS | Event.HALTED |
  Event.RESUME | Event.RESUME_NEW;

const RSP = registerAddress(4);
const CS_SELECTOR = segmentAddress(Seg.CS) + SegmentField.SELECTOR;
const SS_SELECTOR = segmentAddress(Seg.SS) + SegmentField.SELECTOR;

/** What is known of the event while it is delivered. */
interface Delivery {
  readonly vector: I32;
  readonly event: I32;
  readonly error: I32;
  readonly returnRip: I64;
  /** EXT bit of error codes. */
  readonly ext: I32;
  /** RFLAGS to be pushed. */
  readonly flags: I64;
  /** 1 if the gate's DPL is checked against CPL. */
  readonly checked: I32;
}

/** RFLAGS that a handler starts with; `interrupt` is 1 for an interrupt gate. */
function handlerFlags(flags: I64, interrupt: I32): I64 {
  const cleared = Rflags.TF | Rflags.NT | Rflags.RF | Rflags.VM;
  return flags.and(~cleared).and(interrupt.select(i32(~Rflags.IF), i32(-1)).extendS());
}

/** A stack under construction: values go to linear addresses, nothing is committed. */
class Stack {
  readonly pointer: Variable<I64>;
  readonly #mc: Microcode;
  readonly #f: FunctionBuilder;
  readonly #mmu: I32;
  readonly #linear: (offset: I64, bytes: I32) => I64;
  readonly #mask: I64;

  constructor(
    mc: Microcode,
    f: FunctionBuilder,
    pointer: I64,
    mask: I64,
    mmu: I32,
    linear: (offset: I64, bytes: I32) => I64,
  ) {
    this.#mc = mc;
    this.#f = f;
    this.#mmu = mmu;
    this.#linear = linear;
    this.#mask = mask;
    this.pointer = f.variable(I64T, pointer);
  }

  push(bits: I32, value: I64): void {
    const bytes = bits.shrU(3);
    const next = this.pointer.get().sub(bytes.extendU()).and(this.#mask);
    this.#f.call(this.#mc.slowStore, this.#linear(next, bytes), bits, value, this.#mmu);
    this.pointer.set(next);
  }
}

const mmuOf = (cpl: I32): I32 => cpl.eq(3).select(i32(MmuIndex.USER), i32(MmuIndex.SUPERVISOR));

/** Reads a code-segment descriptor for a gate and checks it; the new CPL and the descriptor. */
function gateTarget(
  mc: Microcode,
  f: FunctionBuilder,
  selector: I32,
  ext: I32,
): { descriptor: I64; conforming: I32; dpl: I32 } {
  f.if(selector.and(0xfffc).eqz(), () => f.call(mc.raiseError, Vector.GP, ext));
  const descriptor = f.call(mc.readDescriptor, selector, Vector.GP, ext);
  const bad = (vector: number): void => f.call(mc.raiseError, vector, errorOf(selector).or(ext));
  const type = typeOf(descriptor);
  const dpl = dplOf(descriptor);
  const code = descriptor.has(Descriptor.S).and(type.and(Attr.CODE).ne(0));
  f.if(code.eqz().or(dpl.gtU(S.cpl.get(f))), () => bad(Vector.GP));
  f.if(descriptor.has(Descriptor.P).eqz(), () => bad(Vector.NP));
  return { descriptor, conforming: type.and(Attr.EXPAND_DOWN).ne(0), dpl };
}

/** What a gate leads to, as shadow stacks see it. */
interface Entered {
  readonly cpl: I32;
  /** 1 if the stack is another one. */
  readonly switches: I32;
  /** Number of the interrupt stack; 0 for none. */
  readonly ist: I32;
  /** 64-bit code. */
  readonly long: boolean;
}

/** Shadow stacks and branch tracking of an event; the last thing that may fault. */
function enterByEvent(
  mc: Microcode,
  f: FunctionBuilder,
  { cpl, switches, ist, long }: Entered,
  returnRip: I64,
): void {
  f.if(
    S.cr4.has(f, Cr4.CET),
    () => {
      // The interrupt SSP table is only read where there is a shadow stack to switch to.
      const fromTable = ist.ne(0).and(controlOf(f, cpl).has(CetControl.SHADOW_STACK));
      const place = S.sspTable.get(f).add(ist.shl(3).extendU());
      const ssp = f.choose(
        I64T,
        fromTable,
        () => f.call(mc.systemLoad, place, 64),
        () => innerShadowStack(f, cpl),
      );
      const how = switches.select(i32(ShadowEntry.SWITCH), i32(0)).or(long ? ShadowEntry.LONG : 0);
      const cs = f.load32(0, CS_SELECTOR);
      f.call(mc.enterShadow, cpl, how, ssp, cs, linearRip(f, returnRip));
    },
    undefined,
    "unlikely",
  );
}

/** Gives the delivery function its body. */
export function defineInterrupt(mc: Microcode): void {
  const { module } = mc;
  const params = [I32T, I32T, I64T] as const;
  const real = module.define("deliverReal", params, undefined, (f, event, error, rip) => {
    deliverReal(mc, f, begin(mc, f, event, error, rip));
  });
  const legacy = module.define("deliverLegacy", params, undefined, (f, event, error, rip) => {
    deliverLegacy(mc, f, begin(mc, f, event, error, rip));
  });
  const long = module.define("deliverLong", params, undefined, (f, event, error, rip) => {
    deliverLong(mc, f, begin(mc, f, event, error, rip));
  });

  module.body(mc.deliver, (f, event, error, rip) => {
    S.delivering.set(f, event.and(~INTERNAL));
    S.deliveringKind.set(f, event);
    // INT n and the like come with their own record; all others have RIP in the state.
    const uop = S.uop.get(f);
    f.if(
      uop,
      () => S.injectionLength.set(f, f.load8(uop, MicroOp.LENGTH)),
      () => S.breakpointHits.set(f, 0),
    );
    const from = f.choose(I64T, uop, () => ripOf(f, uop), () => S.rip.get(f), "unlikely");
    S.deliveringError.set(f, error);
    const number = S.eventCount.get(f);
    S.eventCount.set(f, number.add(1));
    const log = number.and(EventLog.ENTRIES - 1).mul(EventLog.BYTES).add(S.eventLog);
    f.store32(log, event.and(~INTERNAL), EventLog.EVENT);
    f.store32(log, error, EventLog.ERROR);
    f.store64(log, S.rip.get(f), EventLog.RIP);
    f.store64(log, S.cr2.get(f), EventLog.CR2);
    f.store32(log, 0, EventLog.DELIVERED);
    f.if(S.efer.has(f, Efer.LMA), () => f.call(long, event, error, rip), () => {
      const virtual = S.rflags.has(f, Rflags.VM);
      f.if(
        S.mode.has(f, Mode.REAL).and(virtual.eqz()),
        () => f.call(real, event, error, rip),
        () => f.call(legacy, event, error, rip),
      );
    });
    f.store32(log, 1, EventLog.DELIVERED);
    S.delivering.set(f, 0);
    S.events.clear(f, ENDED_BY_DELIVERY);
    f.if(S.debugCtl.get(f).ne(0), () => f.call(mc.recordEvent, event, from), undefined, "unlikely");
    // AMD's event "retired branch instructions" has exceptions and interrupts among them (PPR, PMCx0C2).
    // What an instruction delivers has been counted as the instruction that it is.
    const counted = S.countsBranches.get(f).and(S.intel.get(f).eqz()).and(uop.eqz());
    S.branches.set(f, S.branches.get(f).add(counted.extendU()));
    S.stepping.set(f, 0);
    // What is pushed may meet a breakpoint: a trap before the handler's first instruction. What an
    // instruction delivers is part of the instruction.
    const hits = uop.eqz().select(S.breakpointHits.get(f), i32(0));
    f.if(
      hits,
      () => {
        S.trapBits.or(f, hits);
        S.breakpointHits.set(f, 0);
        S.events.or(f, Event.TRAP);
      },
      undefined,
      "unlikely",
    );
    chargeDelivery(f, mc);
    // The monitor trap flag exits before the handler's first instruction.
    f.if(S.events.has(f, Event.MTF), () => S.events.or(f, Event.MTF_PENDING));
  });
}

/** Deliveries in a row with no instruction retired between them; those beyond count as instructions. */
const IDLE_DELIVERIES = 1000;

/**
 * A delivery costs one of the budget, so that a run ends, and no time. But where deliveries follow one
 * another without an instruction, time passes with each: a guest that does nothing else would stop it for
 * everybody.
 */
export function chargeDelivery(f: FunctionBuilder, mc: Microcode): void {
  const now = f.call(mc.readHostTsc);
  const row = S.deliveryTsc.get(f).eq(now).select(S.deliveryRow.get(f), i32(0)).add(1);
  const counts = row.gtU(IDLE_DELIVERIES);
  S.deliveryRow.set(f, row);
  S.budget.set(f, S.budget.get(f).sub(1));
  f.if(counts, () => {
    const next = now.add(1);
    S.deliveryTsc.set(f, next);
    f.if(S.windowlessTsc.get(f).eq(now), () => S.windowlessTsc.set(f, next));
  }, () => {
    S.deliveryTsc.set(f, now);
    S.deliveries.set(f, S.deliveries.get(f).add(1));
  }, "unlikely");
}

function begin(
  mc: Microcode,
  f: FunctionBuilder,
  event: I32,
  error: I32,
  returnRip: I64,
): Delivery {
  const vector = event.and(0xff);
  const type = event.and(EventFormat.TYPE);
  const checked = event.and(GATE_DPL_CHECKED).ne(0);
  // Faults are restarted without meeting the same instruction breakpoint again.
  const trap = vector.eq(Vector.DB).or(vector.eq(Vector.BP)).or(vector.eq(Vector.OF));
  const fault = type.eq(EventFormat.EXCEPTION).and(trap.eqz());
  const flags = f.call(mc.readFlags).or(fault.select(i32(Rflags.RF), i32(0)).extendU());
  return { vector, event, error, returnRip, ext: checked.xor(1), flags, checked };
}

/** Its descriptor has been marked accessed: that may fault, so it comes before anything is committed. */
function commitCode(
  mc: Microcode,
  f: FunctionBuilder,
  selector: I32,
  descriptor: I64,
  cpl: I32,
  rip: I64,
  flags: I64,
): void {
  f.call(mc.setSegment, Seg.CS, selector.and(0xfffc).or(cpl), descriptor);
  S.cpl.set(f, cpl);
  S.rip.set(f, rip);
  f.call(mc.writeFlags, flags);
  f.call(mc.updateMode);
}

function deliverReal(mc: Microcode, f: FunctionBuilder, delivery: Delivery): void {
  const { vector, returnRip, flags } = delivery;
  f.if(vector.shl(2).add(3).gtU(S.idtLimit.get(f)), () => {
    f.call(mc.raiseError, Vector.GP, vector.shl(3).or(2));
  });
  const entry = f.call(mc.systemLoad, S.idtBase.get(f).add(vector.shl(2).extendU()), 32);
  const linear = (offset: I64, bytes: I32): I64 =>
    f.call(mc.segmentAddress, Seg.SS, offset, bytes, Access.WRITE);
  const old = f.load64(0, RSP);
  const stack = new Stack(mc, f, old.and(0xffff), i64Mask(16), i32(MmuIndex.SUPERVISOR_AC), linear);
  stack.push(i32(16), flags);
  stack.push(i32(16), f.load32(0, CS_SELECTOR).extendU());
  stack.push(i32(16), returnRip);
  f.store64(0, old.and(~0xffff).or(stack.pointer.get()), RSP);
  S.rip.set(f, entry.and(0xffff));
  f.call(mc.writeFlags, handlerFlags(flags, i32(1)).and(~Rflags.AC));
  f.call(mc.loadRealSegment, Seg.CS, entry.shrU(16).wrap());
}

function deliverLong(mc: Microcode, f: FunctionBuilder, delivery: Delivery): void {
  const { vector, event, error, returnRip, ext, flags, checked } = delivery;
  const gateError = vector.shl(3).or(2).or(ext);
  const bad = (number: number, code: I32): void => f.call(mc.raiseError, number, code);
  f.if(vector.shl(4).add(15).gtU(S.idtLimit.get(f)), () => bad(Vector.GP, gateError));
  const at = S.idtBase.get(f).add(vector.shl(4).extendU());
  const low = f.call(mc.systemLoad, at, 64);
  const high = f.call(mc.systemLoad, at.add(8), 64);
  const type = typeOf(low);
  const isGate = type.eq(SystemType.INTERRUPT_GATE32).or(type.eq(SystemType.TRAP_GATE32))
    .and(low.has(Descriptor.S).eqz());
  f.if(isGate.eqz(), () => bad(Vector.GP, gateError));
  const cpl = S.cpl.get(f);
  f.if(checked.and(dplOf(low).ltU(cpl)), () => bad(Vector.GP, gateError));
  f.if(low.has(Descriptor.P).eqz(), () => bad(Vector.NP, gateError));
  const selector = low.shrU(16).and(0xffff).wrap();
  const { descriptor, conforming, dpl } = gateTarget(mc, f, selector, ext);
  // The target is 64-bit code.
  const is64 = descriptor.has(Descriptor.L).and(descriptor.has(Descriptor.DB).eqz());
  f.if(is64.eqz(), () => bad(Vector.GP, errorOf(selector).or(ext)));
  const offset = low.and(0xffff).or(low.shrU(48).shl(16)).or(high.shl(32));
  f.if(canonical(f, offset).eqz(), () => bad(Vector.GP, i32(0)));

  const newCpl = conforming.select(cpl, dpl);
  const inner = newCpl.ltU(cpl);
  const ist = low.shrU(32).wrap().and(7);
  const rsp = f.load64(0, RSP);
  const start = f.choose(I64T, ist.ne(0).or(inner), () => {
    // IST1 is at 24h of the TSS, RSP0 at 4.
    const place = ist.ne(0).select(ist.shl(3).add(0x1c), newCpl.shl(3).add(4));
    const tr = segmentAddress(Seg.TR);
    f.if(place.add(7).gtU(f.load32(0, tr + SegmentField.LIMIT)), () => {
      bad(Vector.TS, errorOf(f.load32(0, tr + SegmentField.SELECTOR)).or(ext));
    });
    const base = f.load64(0, tr + SegmentField.BASE);
    return f.call(mc.systemLoad, base.add(place.extendU()), 64);
  }, () => rsp);
  f.if(canonical(f, start).eqz(), () => bad(Vector.SS, ext));
  const stack = new Stack(mc, f, start.and(~15), i64Mask(64), mmuOf(newCpl), (address) => address);
  const wide = i32(64);
  stack.push(wide, f.load32(0, SS_SELECTOR).extendU());
  stack.push(wide, rsp);
  stack.push(wide, flags);
  stack.push(wide, f.load32(0, CS_SELECTOR).extendU());
  stack.push(wide, returnRip);
  f.if(event.and(EventFormat.ERROR).ne(0), () => stack.push(wide, error.extendU()));

  f.call(mc.markAccessed, selector, descriptor);
  const gate = { cpl: newCpl, switches: ist.ne(0).or(inner), ist, long: true };
  enterByEvent(mc, f, gate, returnRip);
  f.store64(0, stack.pointer.get(), RSP);
  f.if(inner, () => {
    f.call(mc.clearSegment, Seg.SS, newCpl);
    const attributes = segmentAddress(Seg.SS) + SegmentField.ATTRIBUTES;
    f.store32(0, newCpl.shl(Attr.DPL_SHIFT), attributes);
  });
  const interrupt = type.eq(SystemType.INTERRUPT_GATE32);
  commitCode(mc, f, selector, descriptor, newCpl, offset, handlerFlags(flags, interrupt));
}

/** Finds the inner stack in the TSS and checks its segment, which is left in `Seg.NEXT`; yields ESP. */
export function innerStack(mc: Microcode, f: FunctionBuilder, cpl: I32, ext: I32): I64 {
  const tr = segmentAddress(Seg.TR);
  const trError = errorOf(f.load32(0, tr + SegmentField.SELECTOR)).or(ext);
  const type = f.load32(0, tr + SegmentField.ATTRIBUTES).and(15);
  const wide = type.and(8).ne(0);
  const place = wide.select(cpl.shl(3).add(4), cpl.shl(2).add(2));
  const last = place.add(wide.select(i32(5), i32(3)));
  f.if(last.gtU(f.load32(0, tr + SegmentField.LIMIT)), () => {
    f.call(mc.raiseError, Vector.TS, trError);
  });
  const at = f.load64(0, tr + SegmentField.BASE).add(place.extendU());
  const bits = wide.select(i32(32), i32(16));
  const pointer = f.call(mc.systemLoad, at, bits);
  const selector = f.call(mc.systemLoad, at.add(bits.shrU(3).extendU()), 16).wrap();
  f.if(selector.and(0xfffc).eqz(), () => f.call(mc.raiseError, Vector.TS, ext));
  const descriptor = f.call(mc.readDescriptor, selector, Vector.TS, ext);
  const kind = typeOf(descriptor);
  const fits = descriptor.has(Descriptor.S)
    .and(kind.and(Attr.CODE | Attr.WRITABLE).eq(Attr.WRITABLE))
    .and(dplOf(descriptor).eq(cpl))
    .and(selector.and(3).eq(cpl));
  f.if(fits.eqz(), () => f.call(mc.raiseError, Vector.TS, errorOf(selector).or(ext)));
  f.if(descriptor.has(Descriptor.P).eqz(), () => {
    f.call(mc.raiseError, Vector.SS, errorOf(selector).or(ext));
  });
  f.call(mc.setSegment, Seg.NEXT, selector, descriptor);
  return pointer;
}

/** Copies segment register `from` to `to`. */
export function copySegment(f: FunctionBuilder, to: number, from: number): void {
  for (let offset = 0; offset < SEGMENT_BYTES; offset += 8) {
    f.store64(0, f.load64(0, segmentAddress(from) + offset), segmentAddress(to) + offset);
  }
}

/** Mask of the stack pointer that goes with segment `Seg.NEXT`. */
export function nextStackMask(f: FunctionBuilder): I64 {
  const attributes = f.load32(0, segmentAddress(Seg.NEXT) + SegmentField.ATTRIBUTES);
  return attributes.and(Attr.DB).ne(0).select(i64Mask(32), i64Mask(16));
}

function deliverLegacy(mc: Microcode, f: FunctionBuilder, delivery: Delivery): void {
  const { vector, event, error, returnRip, ext, flags, checked } = delivery;
  const gateError = vector.shl(3).or(2).or(ext);
  const bad = (number: number, code: I32): void => f.call(mc.raiseError, number, code);
  f.if(vector.shl(3).add(7).gtU(S.idtLimit.get(f)), () => bad(Vector.GP, gateError));
  const gate = f.call(mc.systemLoad, S.idtBase.get(f).add(vector.shl(3).extendU()), 64);
  const type = typeOf(gate);
  const cpl = S.cpl.get(f);
  const system = gate.has(Descriptor.S).eqz();
  // 6, 7, 14, 15 are interrupt and trap gates of both sizes, 5 is a task gate.
  const isGate = type.and(6).eq(6);
  const isTask = type.eq(SystemType.TASK_GATE);
  f.if(system.and(isGate.or(isTask)).eqz(), () => bad(Vector.GP, gateError));
  f.if(checked.and(dplOf(gate).ltU(cpl)), () => bad(Vector.GP, gateError));
  f.if(gate.has(Descriptor.P).eqz(), () => bad(Vector.NP, gateError));
  const selector = gate.shrU(16).and(0xffff).wrap();
  f.if(isTask, () => {
    const pushes = event.and(EventFormat.ERROR).ne(0);
    const how = pushes.select(i32(TaskSwitch.EVENT | TaskSwitch.ERROR), i32(TaskSwitch.EVENT));
    f.call(mc.switchTask, selector, how, returnRip, flags, error, ext);
    f.return();
  });
  const { descriptor, conforming, dpl } = gateTarget(mc, f, selector, ext);
  const wide = type.and(8).ne(0);
  const bits = wide.select(i32(32), i32(16));
  const high = gate.shrU(32).and(0xffff_0000);
  const offset = gate.and(0xffff).or(wide.extendU().mul(high));

  const virtual = S.rflags.has(f, Rflags.VM);
  const newCpl = conforming.select(cpl, dpl);
  const inner = newCpl.ltU(cpl);
  // Virtual-8086 code may only be interrupted by ring-0 handlers.
  f.if(virtual.and(newCpl.ne(0)), () => bad(Vector.GP, errorOf(selector).or(ext)));
  const old = f.load64(0, RSP);
  const start = f.choose(I64T, inner, () => innerStack(mc, f, newCpl, ext), () => {
    copySegment(f, Seg.NEXT, Seg.SS);
    return old;
  });
  const mask = nextStackMask(f);
  const linear = (at: I64, bytes: I32): I64 =>
    f.call(mc.segmentAddress, Seg.NEXT, at, bytes, Access.WRITE);
  const stack = new Stack(mc, f, start.and(mask), mask, mmuOf(newCpl), linear);
  f.if(inner, () => {
    f.if(virtual, () => {
      for (const segment of [Seg.GS, Seg.FS, Seg.DS, Seg.ES]) {
        const selectorAt = segmentAddress(segment) + SegmentField.SELECTOR;
        stack.push(bits, f.load32(0, selectorAt).extendU());
      }
    });
    stack.push(bits, f.load32(0, SS_SELECTOR).extendU());
    stack.push(bits, old);
  });
  stack.push(bits, flags);
  stack.push(bits, f.load32(0, CS_SELECTOR).extendU());
  stack.push(bits, returnRip);
  f.if(event.and(EventFormat.ERROR).ne(0), () => stack.push(bits, error.extendU()));

  f.call(mc.markAccessed, selector, descriptor);
  enterByEvent(mc, f, { cpl: newCpl, switches: inner, ist: i32(0), long: false }, returnRip);
  const kept = inner.select(start, old).and(mask.xor(-1)).and(0xffff_ffff);
  f.store64(0, kept.or(stack.pointer.get()), RSP);
  f.if(inner, () => copySegment(f, Seg.SS, Seg.NEXT));
  f.if(virtual, () => {
    for (const segment of [Seg.GS, Seg.FS, Seg.DS, Seg.ES]) f.call(mc.clearSegment, segment, 0);
  });
  const interrupt = type.and(1).eqz();
  commitCode(mc, f, selector, descriptor, newCpl, offset, handlerFlags(flags, interrupt));
}

/** The low `bits` (16, 32 or 64) ones. */
function i64Mask(bits: number): I64 {
  return i64((1n << BigInt(bits)) - 1n);
}
