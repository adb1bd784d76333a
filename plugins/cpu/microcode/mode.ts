/**
 * The mode word and everything else that follows from control registers, segments and privilege.
 *
 * @module
 */
import {
  Attr,
  Event,
  Mode,
  S,
  Seg,
  segmentAddress,
  SegmentField,
  SegmentUse,
} from "../state/cpu_state.ts";
import { disturbed } from "../state/disturbed.ts";
import { exchangeWindows } from "../memory/windows.ts";
import { TLB_NEVER } from "../state/layout.ts";
import { Context, FETCH_BYTES, INDEX_BYTES, MmuIndex, WINDOWS_BYTES } from "../state/tlb_layout.ts";
import { type FunctionBuilder, type I32, i32, I32T, i64 } from "../wasm/mod.ts";
import { watchesData } from "./breakpoints.ts";
import { CetControl } from "./cet.ts";
import type { Microcode } from "./microcode.ts";
import { Cr0, Cr4, DebugCtl, Dr7, Efer, Rflags, Xcr0 } from "./registers.ts";
import { forgetInForce } from "./world.ts";

const at = (segment: number, field: number): number => segmentAddress(segment) + field;

/** 1 if `segment` starts at 0, reaches 4 GiB and may be used as `needed` ({@linkcode SegmentUse}). */
function flat(f: FunctionBuilder, segment: number, needed: number): I32 {
  return f.load64(0, at(segment, SegmentField.BASE)).eqz()
    .and(f.load32(0, at(segment, SegmentField.LIMIT)).eq(-1))
    .and(
      f.load32(0, at(segment, SegmentField.USE)).and(needed | SegmentUse.EXPAND_DOWN).eq(needed),
    );
}

const bit = (condition: I32, mask: number): I32 => condition.select(i32(mask), i32(0));

/** The bits of the mode word that CR4.CET brings; none in real and virtual-8086 mode. */
function cetMode(f: FunctionBuilder, real: I32, user: I32): I32 {
  const control = user.select(S.uCet.get(f), S.sCet.get(f));
  const suppressed = control.has(CetControl.SUPPRESS);
  const waits = control.has(CetControl.TRACKER).select(i32(Mode.AWAIT_ENDBRANCH), i32(0));
  const tracks = suppressed.select(i32(Mode.SUPPRESSED), waits.or(Mode.TRACK));
  const bits = bit(control.has(CetControl.SHADOW_STACK), Mode.SHADOW_STACK)
    .or(control.has(CetControl.ENDBRANCH).select(tracks, i32(0)));
  return real.eqz().select(bits, i32(0));
}

/** Gives the mode functions their bodies. */
export function defineMode(mc: Microcode): void {
  const { module } = mc;

  module.body(mc.updateMode, (f) => {
    const cr4 = S.cr4.get(f);
    const code = f.load32(0, at(Seg.CS, SegmentField.ATTRIBUTES));
    const long = S.efer.has(f, Efer.LMA).and(code.and(Attr.L).ne(0));
    const user = S.cpl.get(f).eq(3);
    const readWrite = SegmentUse.READ | SegmentUse.WRITE;
    const stack = f.load32(0, at(Seg.SS, SegmentField.ATTRIBUTES));
    const bySegments = f.choose(
      I32T,
      long,
      () => bit(cr4.has(Cr4.OSXSAVE).and(S.xcr0.has(f, Xcr0.APX)), Mode.APX).or(Mode.LONG),
      () =>
        bit(code.and(Attr.DB), Mode.BIG)
          .or(bit(stack.and(Attr.DB), Mode.STACK32))
          .or(bit(flat(f, Seg.CS, 0), Mode.FLAT_CS))
          .or(bit(flat(f, Seg.SS, readWrite), Mode.FLAT_SS))
          .or(bit(
            flat(f, Seg.DS, readWrite).and(flat(f, Seg.ES, readWrite)),
            Mode.FLAT_DATA,
          )),
    );
    const real = S.cr0.has(f, Cr0.PE).eqz().or(S.rflags.has(f, Rflags.VM));
    const cet = f.choose(
      I32T,
      cr4.has(Cr4.CET),
      () => cetMode(f, real, user),
      () => 0,
      "unlikely",
    );
    S.mode.set(
      f,
      bySegments
        .or(bit(user, Mode.USER))
        .or(bit(real, Mode.REAL))
        .or(bit(S.countsBranches.get(f), Mode.COUNT_BRANCHES))
        .or(cet),
    );
    S.canonicalShift.set(f, cr4.has(Cr4.LA57).select(i64(7), i64(16)));
    f.call(mc.modeChanged);
  });

  module.body(mc.modeChanged, (f) => {
    disturbed.set(f, 1);
    forgetInForce(f);
    const cr0 = S.cr0.get(f);
    const cr4 = S.cr4.get(f);
    const flags = S.rflags.get(f);
    const mode = S.mode.get(f);
    const user = mode.and(Mode.USER).ne(0);
    const context = S.tlbContext.get(f);
    // The jump cache finds blocks by RIP and mode; where CS has a base, another base means other code,
    // and under another limit code ends elsewhere.
    f.if(mode.and(Mode.LONG | Mode.FLAT_CS).eqz(), () => {
      const base = f.load32(0, at(Seg.CS, SegmentField.BASE));
      const limit = f.load32(0, at(Seg.CS, SegmentField.LIMIT));
      const other = f.load32(context, Context.JUMP_BASE).ne(base)
        .or(f.load32(context, Context.JUMP_LIMIT).ne(limit));
      f.if(other, () => {
        f.call(mc.flushJumps);
        f.store32(context, base, Context.JUMP_BASE);
        f.store32(context, limit, Context.JUMP_LIMIT);
      });
    }, () => {
      // In 64-bit code nothing has a base, and where the cache holds nothing that has, INVLPG can tell what
      // of it a page is about.
      const based = mode.and(Mode.LONG).ne(0).and(f.load32(context, Context.JUMP_BASE).ne(0));
      f.if(
        based,
        () => {
          f.call(mc.flushJumps);
          f.store32(context, 0, Context.JUMP_BASE);
        },
        undefined,
        "unlikely",
      );
    });

    const smap = cr4.has(Cr4.SMAP).and(flags.has(Rflags.AC).eqz());
    const supervisor = smap.select(i32(MmuIndex.SUPERVISOR), i32(MmuIndex.SUPERVISOR_AC));
    const index = user.select(i32(MmuIndex.USER), supervisor);
    S.mmu.set(f, index);
    const data = context.add(index.mul(INDEX_BYTES)).add(Context.DATA);
    // Alignment checks and breakpoints for data are the slow path's.
    const slow = f.variable(I32T, user.and(cr0.has(Cr0.AM)).and(flags.has(Rflags.AC)));
    const breakpoints = S.dr7.has(f, Dr7.ENABLES);
    f.if(breakpoints, () => slow.set(slow.get().or(watchesData(f))), undefined, "unlikely");
    const array = slow.get().select(i32(TLB_NEVER), data);
    f.if(array.ne(S.tlbRead.get(f)), () => {
      const windows = context.add(index.mul(WINDOWS_BYTES)).add(Context.WINDOWS);
      exchangeWindows(f, slow.get().select(i32(0), windows));
      S.tlbRead.set(f, array);
    });
    S.tlbFetch.set(f, context.add(Context.FETCH).add(user.select(i32(0), i32(FETCH_BYTES))));
    S.jumpCache.set(f, context.add(Context.JUMP));

    const control = S.debugCtl.get(f);
    const branches = control.has(DebugCtl.LBR)
      .or(control.has(DebugCtl.BTF).and(flags.has(Rflags.TF)));
    const derived = Event.SINGLE_STEP | Event.BREAKPOINTS | Event.BRANCHES;
    const events = S.events.get(f).and(~derived);
    S.events.set(
      f,
      events.or(bit(flags.has(Rflags.TF), Event.SINGLE_STEP))
        .or(bit(breakpoints, Event.BREAKPOINTS))
        .or(bit(branches, Event.BRANCHES)),
    );
  });
}
