/**
 * Shadow stacks: what calls, returns and events do to them (SDM vol. 1, 17.2; vol. 2, CALL, RET, INT n, IRET;
 * APM vol. 2, 18.4–18.6).
 *
 * A return address of a near call is pushed as it is, in 8 bytes in 64-bit mode and 4 elsewhere. A far call or
 * an event pushes CS, the linear return address and the old SSP, 8 bytes each. An inner stack begins with a
 * token that holds its own address and, in bit 0, whether it is in use.
 *
 * Every function does first what may fault, and changes registers then.
 *
 * @module
 */
import { canonical } from "../memory/canonical.ts";
import { Mode, S, Seg, segmentAddress, SegmentField } from "../state/cpu_state.ts";
import { MmuIndex } from "../state/tlb_layout.ts";
import { type FunctionBuilder, type I32, i32, type I64, I64T } from "../wasm/mod.ts";
import {
  BUSY,
  CetControl,
  controlOf,
  CpError,
  PL_SSP,
  shadowMmu,
  shadowStackOn,
  trackFar,
} from "./cet.ts";
import type { Microcode } from "./microcode.ts";
import { Vector } from "./raise.ts";
import { Cr4, Efer } from "./registers.ts";

/** How code is entered, see `enterShadow`. */
export const ShadowEntry = {
  /** On another shadow stack, which begins with a token. */
  SWITCH: 1,
  /** It is 64-bit code. */
  LONG: 2,
} as const;

/** How code is returned to, see `leaveShadow`; bits 1:0 are its privilege level. */
export const ShadowReturn = {
  /** It is 64-bit code. */
  LONG: 4,
  /** By IRET, which gives the stack of an IST entry back. */
  INTERRUPT: 8,
} as const;

/** Bytes of what a far call pushes. */
const FRAME = 24;

/** 1 if `ssp` can be the shadow stack pointer of code of such a size. */
function fits(f: FunctionBuilder, ssp: I64, long: I32): I32 {
  return long.select(canonical(f, ssp), ssp.shrU(32).eqz());
}

/** Linear address of `rip` in the code segment at hand. */
export function linearRip(f: FunctionBuilder, rip: I64): I64 {
  const base = f.load64(0, segmentAddress(Seg.CS) + SegmentField.BASE);
  return S.mode.has(f, Mode.LONG).select(rip, rip.add(base).and(0xffff_ffff));
}

/** PL0_SSP to PL3_SSP, whichever is that of `cpl`. */
export function innerShadowStack(f: FunctionBuilder, cpl: I32): I64 {
  return f.load64(cpl.shl(3), S.plSsp);
}

/**
 * Makes the shadow stack at `ssp` busy, or raises #GP(0). Intel's processors also want the token and the frame
 * below it in 32 bytes that are aligned (SDM vol. 2, INT n); of AMD's the manual says no such thing.
 */
export function acquireShadow(
  mc: Microcode,
  f: FunctionBuilder,
  ssp: I64,
  long: I32,
  mmu: I32,
): void {
  const apart = S.intel.get(f).and(ssp.and(0x1f).ltU(FRAME));
  const bad = ssp.has(7).or(apart).or(fits(f, ssp, long).eqz());
  f.if(bad, () => f.call(mc.raiseError, Vector.GP, 0));
  const token = f.call(mc.shadowLoad, ssp, 64, mmu);
  f.if(token.ne(ssp), () => f.call(mc.raiseError, Vector.GP, 0));
  f.call(mc.shadowStore, ssp, 64, ssp.or(BUSY), mmu);
}

/** Gives the functions of shadow stacks their bodies. */
export function defineShadowStack(mc: Microcode): void {
  const { module } = mc;
  const violation = (f: FunctionBuilder, condition: I32, error: number): void =>
    f.if(condition, () => f.call(mc.raiseError, Vector.CP, error), undefined, "unlikely");

  /** SSP moved by `bytes`; outside of 64-bit mode it has 32 bits. */
  const moved = (ssp: I64, bytes: I64, bits: I32): I64 => {
    const sum = ssp.add(bytes);
    return bits.eq(64).select(sum, sum.and(0xffff_ffff));
  };

  module.body(mc.shadowPush, (f, bits, value) => {
    const top = moved(S.ssp.get(f), i32(0).sub(bits.shrU(3)).extendS(), bits);
    f.call(mc.shadowStore, top, bits, value, shadowMmu(S.cpl.get(f)));
    S.ssp.set(f, top);
  });

  module.body(mc.shadowPop, (f, bits, target) => {
    const ssp = S.ssp.get(f);
    const kept = f.call(mc.shadowLoad, ssp, bits, shadowMmu(S.cpl.get(f)));
    violation(f, kept.ne(target), CpError.NEAR_RETURN);
    S.ssp.set(f, moved(ssp, bits.shrU(3).extendU(), bits));
  });

  module.body(mc.pushShadowFrame, (f, ssp, mmu, cs, lip, old) => {
    const base = ssp.and(~7);
    // Where SSP is a multiple of 4 only, the hole is filled with zeros.
    f.if(ssp.has(7), () => f.call(mc.shadowStore, base, 32, 0, mmu));
    f.call(mc.shadowStore, base.sub(8), 64, cs.extendU(), mmu);
    f.call(mc.shadowStore, base.sub(16), 64, lip, mmu);
    f.call(mc.shadowStore, base.sub(FRAME), 64, old, mmu);
    f.return(base.sub(FRAME));
  });

  module.body(mc.releaseShadow, (f, at, mmu) => {
    const token = f.call(mc.shadowLoad, at, 64, mmu);
    const busy = token.eq(at.or(BUSY)).and(at.has(7).eqz());
    // The exchange is locked: it writes whether the token is as it should be or not.
    f.call(mc.shadowStore, at, 64, busy.select(at, token), mmu);
    f.return(busy);
  });

  module.body(mc.enterShadow, (f, cpl, how, ssp, cs, lip) => {
    const old = S.cpl.get(f);
    const current = S.ssp.get(f);
    const left = shadowStackOn(f, old).and(old.eq(3)).and(cpl.ne(3));
    // Virtual-8086 mode is left by what enters.
    const on = S.cr4.has(f, Cr4.CET).and(controlOf(f, cpl).has(CetControl.SHADOW_STACK));
    const switches = how.and(ShadowEntry.SWITCH).ne(0);
    const next = f.variable(I64T, current);
    f.if(on, () => {
      const mmu = shadowMmu(cpl);
      f.if(switches, () => {
        acquireShadow(mc, f, ssp, how.and(ShadowEntry.LONG).ne(0), mmu);
        next.set(ssp);
      });
      // From CPL 3 nothing is pushed on the inner stack: PL3_SSP has the old one.
      f.if(switches.eqz().or(old.ne(3)), () => {
        next.set(f.call(mc.pushShadowFrame, next.get(), mmu, cs, lip, current));
      });
    });
    f.if(left, () => PL_SSP[3].set(f, current));
    f.if(on, () => S.ssp.set(f, next.get()));
    trackFar(f, cpl);
  });

  module.body(mc.leaveShadow, (f, cs, lip, how) => {
    const old = S.cpl.get(f);
    const cpl = how.and(3);
    const ssp = S.ssp.get(f);
    const on = shadowStackOn(f, old);
    const outer = cpl.ne(old);
    const mmu = shadowMmu(old);
    const next = f.variable(I64T, PL_SSP[3].get(f));
    // Where the token stands, if the stack that is left has one.
    const token = f.variable(I64T, ssp);
    f.if(on, () => {
      violation(f, ssp.has(7), CpError.FAR_RETURN);
      f.if(outer.eqz().or(cpl.ne(3)), () => {
        const previous = f.call(mc.shadowLoad, ssp, 64, mmu);
        const keptLip = f.call(mc.shadowLoad, ssp.add(8), 64, mmu);
        const keptCs = f.call(mc.shadowLoad, ssp.add(16), 64, mmu);
        const differs = keptCs.ne(cs.extendU()).or(keptLip.ne(lip));
        violation(f, differs.or(previous.has(3)), CpError.FAR_RETURN);
        next.set(previous);
        token.set(ssp.add(FRAME));
      });
    });
    const after = shadowStackOn(f, cpl);
    const bad = after.and(fits(f, next.get(), how.and(ShadowReturn.LONG).ne(0)).eqz());
    f.if(bad, () => f.call(mc.raiseError, Vector.GP, 0), undefined, "unlikely");
    // In long mode an interrupt may have come by the interrupt stack table, without a change of privilege.
    const long = how.and(ShadowReturn.INTERRUPT).ne(0).and(S.efer.has(f, Efer.LMA));
    const releases = on.and(outer.or(long.and(next.get().ne(token.get()))));
    f.if(releases, () => f.call(mc.releaseShadow, token.get(), mmu));
    f.if(after, () => S.ssp.set(f, next.get()));
  });

  module.body(mc.leaveShadowToVirtual, (f) => {
    const control = CetControl.SHADOW_STACK | CetControl.ENDBRANCH;
    f.if(S.uCet.has(f, control), () => f.call(mc.raiseError, Vector.GP, 0));
    f.if(shadowStackOn(f, i32(0)), () => {
      const ssp = S.ssp.get(f);
      violation(f, ssp.has(7), CpError.FAR_RETURN);
      f.call(mc.releaseShadow, ssp, MmuIndex.SUPERVISOR_AC);
    });
  });
}
