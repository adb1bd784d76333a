/**
 * Segment registers: descriptors, the checks of loading one, real-mode loads, LDTR and TR
 * (APM vol. 2, 4.5–4.10).
 *
 * @module
 */
import { canonicalForAny } from "../memory/canonical.ts";
import { segmentPointer } from "../memory/segmentation.ts";
import {
  Attr,
  Mode,
  S,
  Seg,
  segmentAddress,
  SegmentField,
  SegmentUse,
} from "../state/cpu_state.ts";
import { type FunctionBuilder, type I32, i32, type I64 } from "../wasm/mod.ts";
import type { Microcode } from "./microcode.ts";
import { Vector } from "./raise.ts";
import { Cr0, Efer, Rflags } from "./registers.ts";

/** Bits of a descriptor's second word, as bits of the whole. */
export const Descriptor = {
  /** 43:40 type. */
  TYPE_SHIFT: 40,
  /** Code or data. */
  S: 0x1000_0000_0000n,
  /** DPL in bits 46:45. */
  DPL_SHIFT: 45,
  /** Present. */
  P: 0x8000_0000_0000n,
  /** 64-bit code. */
  L: 0x20_0000_0000_0000n,
  /** Default size. */
  DB: 0x40_0000_0000_0000n,
} as const;

/** System descriptor types (APM vol. 2, table 4-5 and 4-6). */
export const SystemType = {
  TSS16_AVAILABLE: 1,
  LDT: 2,
  TSS16_BUSY: 3,
  CALL_GATE16: 4,
  TASK_GATE: 5,
  INTERRUPT_GATE16: 6,
  TRAP_GATE16: 7,
  TSS32_AVAILABLE: 9,
  TSS32_BUSY: 11,
  CALL_GATE32: 12,
  INTERRUPT_GATE32: 14,
  TRAP_GATE32: 15,
} as const;

/** Bits 3:0 of the type of a descriptor. */
export function typeOf(descriptor: I64): I32 {
  return descriptor.shrU(Descriptor.TYPE_SHIFT).wrap().and(15);
}

/** DPL of a descriptor. */
export function dplOf(descriptor: I64): I32 {
  return descriptor.shrU(Descriptor.DPL_SHIFT).wrap().and(3);
}

/** Base of a descriptor, 31:0. */
export function baseOf(descriptor: I64): I64 {
  return descriptor.shrU(16).and(0xff_ffff).or(descriptor.shrU(32).and(0xff00_0000));
}

/** Limit of a descriptor in bytes. */
export function limitOf(descriptor: I64): I32 {
  const raw = descriptor.and(0xffff).or(descriptor.shrU(32).and(0xf_0000)).wrap();
  const granular = descriptor.shrU(55).wrap().and(1);
  return granular.select(raw.shl(12).or(0xfff), raw);
}

/** Attributes of a descriptor in the state's format. */
export function attributesOf(descriptor: I64): I32 {
  return descriptor.shrU(40).and(0xff).or(descriptor.shrU(44).and(0xf00)).wrap();
}

/** A selector without its RPL: what an error code carries. */
export function errorOf(selector: I32): I32 {
  return selector.and(0xfffc);
}

/** What a segment with `attributes` may be used for. */
export function useOf(attributes: I32): I32 {
  const code = attributes.and(Attr.CODE).ne(0);
  const bit1 = attributes.and(Attr.WRITABLE).ne(0);
  const expandDown = attributes.and(Attr.EXPAND_DOWN).ne(0);
  const big = attributes.and(Attr.DB).ne(0).select(i32(SegmentUse.BIG), i32(0));
  const data = i32(SegmentUse.READ)
    .or(bit1.select(i32(SegmentUse.WRITE), i32(0)))
    .or(expandDown.select(big.or(SegmentUse.EXPAND_DOWN), i32(0)));
  const present = attributes.and(Attr.P).ne(0);
  return present.select(code.select(bit1.select(i32(SegmentUse.READ), i32(0)), data), i32(0));
}

/**
 * {@linkcode useOf} for a register that is filled from outside. In real and virtual-8086 mode (`real`)
 * any segment can be read and written; one that a null selector left not usable stays so until it is
 * loaded anew.
 */
export function useIn(attributes: I32, real: I32): I32 {
  const anything = real.and(attributes.and(Attr.P).ne(0));
  return anything.select(i32(SegmentUse.READ | SegmentUse.WRITE), useOf(attributes));
}

/** Gives the segment functions their bodies. */
export function defineSegments(mc: Microcode): void {
  const { module } = mc;

  module.body(mc.readDescriptor, (f, selector, vector, ext) => {
    const fault = (): void => f.call(mc.raiseError, vector, errorOf(selector).or(ext));
    const ldtr = segmentAddress(Seg.LDTR);
    const local = selector.and(4).ne(0);
    f.if(local.and(f.load32(0, ldtr + SegmentField.ATTRIBUTES).and(Attr.P).eqz()), fault);
    const limit = local.select(f.load32(0, ldtr + SegmentField.LIMIT), S.gdtLimit.get(f));
    const base = local.select(f.load64(0, ldtr + SegmentField.BASE), S.gdtBase.get(f));
    f.if(selector.or(7).gtU(limit), fault);
    f.return(f.call(mc.systemLoad, base.add(selector.and(0xfff8).extendU()), 64));
  });

  module.body(mc.markAccessed, (f, selector, descriptor) => {
    f.if(descriptor.shrU(40).wrap().and(Attr.ACCESSED).eqz(), () => {
      const local = selector.and(4).ne(0);
      const table = local.select(
        f.load64(0, segmentAddress(Seg.LDTR) + SegmentField.BASE),
        S.gdtBase.get(f),
      );
      const at = table.add(selector.and(0xfff8).extendU()).add(5);
      f.call(mc.systemStore, at, 8, descriptor.shrU(40).and(0xff).or(Attr.ACCESSED));
    });
  });

  module.body(mc.setSegment, (f, segment, selector, descriptor) => {
    const at = segmentPointer(segment);
    const code = descriptor.has(Descriptor.S);
    // Loading a code or data segment sets its accessed bit.
    const attributes = attributesOf(descriptor).or(code);
    f.store32(at, selector.and(0xffff), SegmentField.SELECTOR);
    f.store32(at, attributes, SegmentField.ATTRIBUTES);
    f.store32(at, limitOf(descriptor), SegmentField.LIMIT);
    f.store32(at, useOf(attributes), SegmentField.USE);
    f.store64(at, baseOf(descriptor), SegmentField.BASE);
  });

  module.body(mc.refreshSegments, (f) => {
    const real = S.cr0.has(f, Cr0.PE).eqz().or(S.rflags.has(f, Rflags.VM));
    for (let segment = Seg.ES as number; segment <= Seg.TR; segment++) {
      const at = segmentAddress(segment);
      const attributes = f.load32(0, at + SegmentField.ATTRIBUTES);
      f.store32(0, useIn(attributes, real), at + SegmentField.USE);
    }
  });

  module.body(mc.clearSegment, (f, segment, selector) => {
    const at = segmentPointer(segment);
    f.store32(at, selector.and(0xffff), SegmentField.SELECTOR);
    f.store32(at, 0, SegmentField.ATTRIBUTES);
    f.store32(at, 0, SegmentField.LIMIT);
    f.store32(at, 0, SegmentField.USE);
    // A null selector clears the base, as on processors that report NullSelectClearsBase.
    f.store64(at, 0, SegmentField.BASE);
  });

  module.body(mc.loadRealSegment, (f, segment, selector) => {
    const at = segmentPointer(segment);
    f.store32(at, selector.and(0xffff), SegmentField.SELECTOR);
    f.store64(at, selector.and(0xffff).shl(4).extendU(), SegmentField.BASE);
    // Real mode keeps limit and attributes as they are, but for those of a segment that was not usable;
    // virtual-8086 mode sets them.
    const usable = f.load32(at, SegmentField.ATTRIBUTES).and(Attr.P).ne(0);
    f.if(S.rflags.has(f, Rflags.VM), () => {
      f.store32(at, 0xffff, SegmentField.LIMIT);
      f.store32(at, 0xf3, SegmentField.ATTRIBUTES);
    }, () => {
      const large = f.load32(at, SegmentField.LIMIT).gtU(0xf_ffff);
      const attributes = large.select(i32(0x93 | Attr.G), i32(0x93));
      f.if(usable.eqz(), () => f.store32(at, attributes, SegmentField.ATTRIBUTES));
    });
    f.store32(at, SegmentUse.READ | SegmentUse.WRITE, SegmentField.USE);
    f.call(mc.updateMode);
  });

  module.body(mc.loadSegment, (f, segment, selector) => {
    f.if(S.mode.has(f, Mode.REAL), () => {
      f.call(mc.loadRealSegment, segment, selector);
      f.return();
    });
    const cpl = S.cpl.get(f);
    const rpl = selector.and(3);
    const isStack = segment.eq(Seg.SS);
    const bad = (vector: number): void => f.call(mc.raiseError, vector, errorOf(selector));
    f.if(selector.and(0xfffc).eqz(), () => {
      // A null stack segment exists in 64-bit mode only, below CPL 3, with a matching RPL.
      const allowed = S.mode.has(f, Mode.LONG).and(cpl.ne(3)).and(rpl.eq(cpl));
      f.if(isStack.and(allowed.eqz()), () => f.call(mc.raiseError, Vector.GP, 0));
      f.call(mc.clearSegment, segment, selector);
      // Its privilege is the selector's; the stack remains present and writable in 64-bit mode.
      f.if(isStack, () => {
        const at = segmentAddress(Seg.SS) + SegmentField.ATTRIBUTES;
        f.store32(0, cpl.shl(Attr.DPL_SHIFT), at);
      });
      f.call(mc.updateMode);
      f.return();
    });
    const descriptor = f.call(mc.readDescriptor, selector, Vector.GP, 0);
    const type = typeOf(descriptor);
    const dpl = dplOf(descriptor);
    f.if(descriptor.has(Descriptor.S).eqz(), () => bad(Vector.GP));
    const code = type.and(Attr.CODE).ne(0);
    const bit1 = type.and(Attr.WRITABLE).ne(0);
    f.if(isStack, () => {
      const wrong = code.or(bit1.eqz()).or(rpl.ne(cpl)).or(dpl.ne(cpl));
      f.if(wrong, () => bad(Vector.GP));
      f.if(descriptor.has(Descriptor.P).eqz(), () => bad(Vector.SS));
    }, () => {
      f.if(code.and(bit1.eqz()), () => bad(Vector.GP));
      const conforming = code.and(type.and(Attr.EXPAND_DOWN).ne(0));
      const beyond = rpl.gtU(dpl).or(cpl.gtU(dpl));
      f.if(conforming.eqz().and(beyond), () => bad(Vector.GP));
      f.if(descriptor.has(Descriptor.P).eqz(), () => bad(Vector.NP));
    });
    f.call(mc.markAccessed, selector, descriptor);
    f.call(mc.setSegment, segment, selector, descriptor);
    f.call(mc.updateMode);
  });

  /** The upper half of a base: long mode's system descriptors have 16 bytes. */
  const highBase = (f: FunctionBuilder, selector: I32): I64 =>
    f.call(
      mc.systemLoad,
      S.gdtBase.get(f).add(selector.and(0xfff8).extendU()).add(8),
      64,
    );
  const loadSystem = (
    f: FunctionBuilder,
    segment: number,
    selector: I32,
    typeFits: (type: I32) => I32,
    finish: (descriptor: I64) => void,
  ): void => {
    const bad = (vector: number): void => f.call(mc.raiseError, vector, errorOf(selector));
    f.if(selector.and(4).ne(0), () => bad(Vector.GP));
    const descriptor = f.call(mc.readDescriptor, selector, Vector.GP, 0);
    const system = descriptor.has(Descriptor.S).eqz();
    f.if(system.and(typeFits(typeOf(descriptor))).eqz(), () => bad(Vector.GP));
    f.if(descriptor.has(Descriptor.P).eqz(), () => bad(Vector.NP));
    f.if(S.efer.has(f, Efer.LMA), () => {
      f.if(selector.or(15).gtU(S.gdtLimit.get(f)), () => bad(Vector.GP));
      const upper = highBase(f, selector);
      const base = baseOf(descriptor).or(upper.shl(32));
      f.if(canonicalForAny(f, base).eqz(), () => bad(Vector.GP));
      finish(descriptor);
      f.call(mc.setSegment, segment, selector, descriptor);
      f.store64(0, base, segmentAddress(segment) + SegmentField.BASE);
    }, () => {
      finish(descriptor);
      f.call(mc.setSegment, segment, selector, descriptor);
    });
  };

  module.body(mc.loadLdt, (f, selector) => {
    f.if(selector.and(0xfffc).eqz(), () => {
      f.call(mc.clearSegment, Seg.LDTR, selector);
      f.return();
    });
    loadSystem(f, Seg.LDTR, selector, (type) => type.eq(SystemType.LDT), () => {});
  });

  module.body(mc.loadTask, (f, selector) => {
    f.if(selector.and(0xfffc).eqz(), () => f.call(mc.raiseError, Vector.GP, 0));
    const available = (type: I32): I32 =>
      type.eq(SystemType.TSS32_AVAILABLE)
        .or(type.eq(SystemType.TSS16_AVAILABLE).and(S.efer.has(f, Efer.LMA).eqz()));
    loadSystem(f, Seg.TR, selector, available, (descriptor) => {
      const at = S.gdtBase.get(f).add(selector.and(0xfff8).extendU()).add(5);
      f.call(mc.systemStore, at, 8, descriptor.shrU(40).or(2).and(0xff));
    });
    const attributes = segmentAddress(Seg.TR) + SegmentField.ATTRIBUTES;
    f.store32(0, f.load32(0, attributes).or(2), attributes);
  });
}
