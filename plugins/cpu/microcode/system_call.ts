/**
 * SYSCALL, SYSRET, SYSENTER, SYSEXIT (APM vol. 2, 6.1; vol. 3; SDM vol. 2).
 *
 * The vendors differ. With Intel SYSCALL and SYSRET are of 64-bit mode only, SYSRET refuses to go to an
 * address that is not canonical and loads all of SS; SYSENTER and SYSEXIT exist in long mode as well.
 *
 * @module
 */
import {
  Attr,
  DR6_BS,
  Event,
  Mode,
  registerAddress,
  S,
  Seg,
  segmentAddress,
  SegmentField,
  SegmentUse,
} from "../state/cpu_state.ts";
import { canonical } from "../memory/canonical.ts";
import { type FunctionBuilder, type I32, i32, i64 } from "../wasm/mod.ts";
import { CetControl, PL_SSP, shadowStackOn, trackFar } from "./cet.ts";
import type { Microcode } from "./microcode.ts";
import { Vector } from "./raise.ts";
import { Cr0, Cr4, Efer, Rflags } from "./registers.ts";

const RCX = registerAddress(1);
const RDX = registerAddress(2);
const RSP = registerAddress(4);
const R11 = registerAddress(11);

const CODE = Attr.P | Attr.S | Attr.CODE | Attr.WRITABLE | Attr.ACCESSED;
const DATA = Attr.P | Attr.S | Attr.WRITABLE | Attr.ACCESSED;

/** Sets a segment to the flat one these instructions assume; nothing is read from a table. */
function flatSegment(
  f: FunctionBuilder,
  segment: number,
  selector: I32,
  attributes: I32 | number,
  use: number,
): void {
  const at = segmentAddress(segment);
  f.store32(0, selector.and(0xffff), at + SegmentField.SELECTOR);
  f.store32(0, i32(attributes).or(Attr.G), at + SegmentField.ATTRIBUTES);
  f.store32(0, -1, at + SegmentField.LIMIT);
  f.store32(0, use, at + SegmentField.USE);
  f.store64(0, 0, at + SegmentField.BASE);
}

function setCode(f: FunctionBuilder, selector: I32, cpl: number, long: I32): void {
  const size = long.select(i32(Attr.L), i32(Attr.DB));
  const attributes = size.or(CODE | (cpl << Attr.DPL_SHIFT));
  flatSegment(f, Seg.CS, selector, attributes, SegmentUse.READ);
}

function setStack(f: FunctionBuilder, selector: I32, cpl: number): void {
  const attributes = DATA | Attr.DB | (cpl << Attr.DPL_SHIFT);
  const use = SegmentUse.READ | SegmentUse.WRITE;
  flatSegment(f, Seg.SS, selector, attributes, use);
}

/** Gives the system-call functions their bodies. */
export function defineSystemCall(mc: Microcode): void {
  const { module } = mc;
  const enter = (f: FunctionBuilder, cpl: number): void => {
    S.cpl.set(f, cpl);
    f.call(mc.updateMode);
  };
  /**
   * The same for SYSENTER and SYSEXIT outside of long mode, which make CS and SS flat: of the mode word only what
   * ES, DS and counting say stays, unless control flow is enforced.
   */
  const enterFlat = (f: FunctionBuilder, cpl: number): void => {
    const others = S.efer.has(f, Efer.LMA).or(S.cr4.has(f, Cr4.CET));
    f.if(others, () => enter(f, cpl), () => {
      S.cpl.set(f, cpl);
      const flat = Mode.BIG | Mode.STACK32 | Mode.FLAT_CS | Mode.FLAT_SS;
      const kept = S.mode.get(f).and(Mode.FLAT_DATA | Mode.COUNT_BRANCHES);
      S.mode.set(f, kept.or(cpl === 3 ? flat | Mode.USER : flat));
      f.call(mc.modeChanged);
    }, "unlikely");
  };
  /** SYSCALL and SYSRET: whether a single-step trap follows is decided by TF as they leave it. */
  const trapAfter = (f: FunctionBuilder): void => {
    S.stepping.set(f, 0);
    f.if(S.rflags.has(f, Rflags.TF), () => {
      S.trapBits.or(f, DR6_BS);
      S.events.or(f, Event.TRAP);
    });
  };

  /** To CPL 0: the program's SSP is put aside, the kernel's is to be set by it, and an ENDBRANCH awaited. */
  const enterCet = (f: FunctionBuilder): void => {
    f.if(
      S.cr4.has(f, Cr4.CET),
      () => {
        f.if(shadowStackOn(f, S.cpl.get(f)), () => PL_SSP[3].set(f, S.ssp.get(f)));
        f.if(shadowStackOn(f, i32(0)), () => S.ssp.set(f, 0));
        trackFar(f, i32(0));
      },
      undefined,
      "unlikely",
    );
  };
  /** To CPL 3: SSP is the program's again. */
  const leaveCet = (f: FunctionBuilder): void => {
    const on = S.cr4.has(f, Cr4.CET).and(S.uCet.has(f, CetControl.SHADOW_STACK));
    f.if(on, () => S.ssp.set(f, PL_SSP[3].get(f)), undefined, "unlikely");
  };

  /** SYSCALL and SYSRET exist: EFER.SCE is set, and with Intel this is 64-bit mode. */
  const checkCall = (f: FunctionBuilder): void => {
    const elsewhere = S.intel.get(f).and(S.mode.has(f, Mode.LONG).eqz());
    f.if(S.efer.has(f, Efer.SCE).eqz().or(elsewhere), () => f.call(mc.raise, Vector.UD));
  };

  module.body(mc.systemCall, (f, nextRip) => {
    checkCall(f);
    const flags = f.call(mc.readFlags);
    enterCet(f);
    const star = S.star.get(f);
    const selector = star.shrU(32).and(0xfffc).wrap();
    f.if(S.efer.has(f, Efer.LMA), () => {
      f.store64(0, nextRip, RCX);
      f.store64(0, flags.and(~Rflags.RF), R11);
      const long = S.mode.has(f, Mode.LONG);
      S.rip.set(f, long.select(S.lstar.get(f), S.cstar.get(f)));
      setCode(f, selector, 0, i32(1));
      setStack(f, selector.add(8), 0);
      const kept = flags.and(S.sfmask.get(f).xor(-1)).and(~Rflags.RF);
      f.call(mc.writeFlags, kept);
    }, () => {
      f.store64(0, nextRip.and(0xffff_ffff), RCX);
      S.rip.set(f, star.and(0xffff_ffff));
      setCode(f, selector, 0, i32(0));
      setStack(f, selector.add(8), 0);
      f.call(mc.writeFlags, flags.and(~(Rflags.VM | Rflags.IF | Rflags.RF)));
    });
    enter(f, 0);
    trapAfter(f);
  });

  module.body(mc.systemReturn, (f, bits) => {
    checkCall(f);
    const privileged = S.cpl.get(f).eqz().and(S.cr0.has(f, Cr0.PE));
    f.if(privileged.eqz(), () => f.call(mc.raiseError, Vector.GP, 0));
    const star = S.star.get(f).shrU(48).wrap();
    const rcx = f.load64(0, RCX);
    const long = S.mode.has(f, Mode.LONG);
    f.if(S.intel.get(f).and(bits.eq(64)), () => {
      f.if(canonical(f, rcx).eqz(), () => f.call(mc.raiseError, Vector.GP, 0));
    });
    f.if(long, () => {
      const to64 = bits.eq(64);
      // To 64-bit code the selector is STAR's plus 16.
      const selector = to64.select(star.add(16), star).or(3);
      S.rip.set(f, to64.select(rcx, rcx.and(0xffff_ffff)));
      setCode(f, selector, 3, to64);
      const image = f.load64(0, R11);
      f.call(mc.writeFlags, image.and(~(Rflags.RF | Rflags.VM)));
    }, () => {
      S.rip.set(f, rcx.and(0xffff_ffff));
      setCode(f, star.or(3), 3, i32(0));
      S.rflags.set(f, S.rflags.get(f).or(Rflags.IF));
    });
    f.if(S.intel.get(f), () => setStack(f, star.add(8).or(3), 3), () => {
      // Only the selector of SS is loaded; the rest stays as it is (APM vol. 3, SYSRET). Its DPL then
      // no longer tells the CPL, which is kept apart here.
      const ss = segmentAddress(Seg.SS) + SegmentField.SELECTOR;
      f.store32(0, star.add(8).or(3).and(0xffff), ss);
    });
    leaveCet(f);
    enter(f, 3);
    trapAfter(f);
  });

  /** On AMD's processors SYSENTER and SYSEXIT do not exist in long mode, compatibility mode included. */
  const checkEnter = (f: FunctionBuilder): I32 => {
    const long = S.efer.has(f, Efer.LMA);
    f.if(long.and(S.intel.get(f).eqz()), () => f.call(mc.raise, Vector.UD));
    return long;
  };

  module.body(mc.systemEnter, (f) => {
    const long = checkEnter(f);
    const cs = S.sysenterCs.get(f).wrap();
    const unusable = S.cr0.has(f, Cr0.PE).eqz().or(cs.and(0xfffc).eqz());
    f.if(unusable, () => f.call(mc.raiseError, Vector.GP, 0));
    enterCet(f);
    const flags = S.rflags.get(f).and(~(Rflags.VM | Rflags.IF));
    S.rflags.set(f, flags);
    const width = long.select(i64(-1), i64(0xffff_ffff));
    S.rip.set(f, S.sysenterEip.get(f).and(width));
    f.store64(0, S.sysenterEsp.get(f).and(width), RSP);
    setCode(f, cs.and(0xfffc), 0, long);
    setStack(f, cs.and(0xfffc).add(8), 0);
    enterFlat(f, 0);
  });

  module.body(mc.systemExit, (f, bits) => {
    checkEnter(f);
    const cs = S.sysenterCs.get(f).wrap();
    const denied = S.cr0.has(f, Cr0.PE).eqz().or(S.cpl.get(f).ne(0)).or(cs.and(0xfffc).eqz());
    f.if(denied, () => f.call(mc.raiseError, Vector.GP, 0));
    const rip = f.load64(0, RDX);
    const rsp = f.load64(0, RCX);
    const wide = bits.eq(64);
    f.if(wide, () => {
      const bad = canonical(f, rip).and(canonical(f, rsp)).eqz();
      f.if(bad, () => f.call(mc.raiseError, Vector.GP, 0));
    });
    const width = wide.select(i64(-1), i64(0xffff_ffff));
    S.rip.set(f, rip.and(width));
    f.store64(0, rsp.and(width), RSP);
    // To 64-bit code the selectors are 16 further on.
    const base = cs.add(wide.select(i32(32), i32(16)));
    setCode(f, base.or(3), 3, wide);
    setStack(f, base.add(8).or(3), 3);
    leaveCet(f);
    enterFlat(f, 3);
  });
}
