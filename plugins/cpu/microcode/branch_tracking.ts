/**
 * Indirect-branch tracking: what becomes of a branch that did not lead to an ENDBRANCH (SDM vol. 1, 17.3).
 *
 * @module
 */
import { S, Seg, segmentAddress, SegmentField } from "../state/cpu_state.ts";
import type { Field64 } from "../state/field.ts";
import { Mode } from "../state/cpu_state.ts";
import { type FunctionBuilder, i64 } from "../wasm/mod.ts";
import { CetControl, controlOf, CpError } from "./cet.ts";
import { type Microcode, Unwind } from "./microcode.ts";
import { ripOf, Vector } from "./raise.ts";

/** Bits of a linear address that the bitmap of legacy code pages goes by. */
const BITMAP_ADDRESS = (1n << 48n) - 1n;

/** Gives the function of branch tracking its body. */
export function defineBranchTracking(mc: Microcode): void {
  /** The page is one of legacy code: the branch is excused, and so are others until an ENDBRANCH. */
  const excuse = (f: FunctionBuilder, field: Field64): void => {
    const cleared = field.get(f).and(~(CetControl.TRACKER | CetControl.SUPPRESS));
    const suppress = field.has(f, CetControl.SUPPRESS_DISABLE)
      .select(i64(0), i64(CetControl.SUPPRESS));
    field.set(f, cleared.or(suppress));
  };

  mc.module.body(mc.missedEndbranch, (f) => {
    const cpl = S.cpl.get(f);
    const control = controlOf(f, cpl);
    f.if(control.has(CetControl.LEGACY), () => {
      const rip = ripOf(f, S.uop.get(f));
      const base = f.load64(0, segmentAddress(Seg.CS) + SegmentField.BASE);
      const legacy = rip.add(base).and(0xffff_ffff);
      const linear = S.mode.has(f, Mode.LONG).select(rip, legacy).and(BITMAP_ADDRESS);
      // The bitmap of CPL 3 is the program's: it is read with the rights of the code that has branched, as
      // SMAP would else forbid every such bitmap. The manual does not say whose the access is.
      const place = control.and(~0xfff).add(linear.shrU(15));
      const byte = f.call(mc.slowLoad, place, 8, S.mmu.get(f));
      f.if(byte.shrU(linear.shrU(12).and(7)).has(1), () => {
        f.if(cpl.eq(3), () => excuse(f, S.uCet), () => excuse(f, S.sCet));
        f.call(mc.updateMode);
        f.call(mc.unwindTo, Unwind.RESTART);
      });
    });
    f.call(mc.raiseError, Vector.CP, CpError.ENDBRANCH);
  });
}
