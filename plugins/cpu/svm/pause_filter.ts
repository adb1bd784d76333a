/**
 * The filter of PAUSE intercepts (APM vol. 2, 15.14.4): a loop that waits is let go on for a while.
 *
 * Cycles are retired instructions here, whatever the guest's time-stamp counter makes of them. The manual leaves open what happens when exactly as many have
 * passed as the threshold says; they count as close together.
 *
 * @module
 */
import type { Microcode } from "../microcode/microcode.ts";
import { S } from "../state/cpu_state.ts";
import { type FunctionBuilder, type I32, i32 } from "../wasm/mod.ts";
import { SvmFeature } from "./features.ts";
import { Control } from "./vmcb.ts";

/** VMRUN: the counter and its threshold come from the control block at memory address `vmcb`. */
export function startPauseFilter(mc: Microcode, f: FunctionBuilder, vmcb: I32): void {
  const field = (feature: number, offset: number): I32 =>
    S.svmFeatures.has(f, feature).select(f.load16(vmcb, offset), i32(0));
  const count = field(SvmFeature.PAUSE_FILTER, Control.PAUSE_COUNT);
  S.pauseCount.set(f, count);
  S.pauseReload.set(f, count);
  S.pauseThreshold.set(f, field(SvmFeature.PAUSE_FILTER_THRESHOLD, Control.PAUSE_THRESHOLD));
  f.if(count.ne(0), () => S.pauseTime.set(f, f.call(mc.readHostTsc)));
}

/** Gives the filter its body. */
export function definePauseFilter(mc: Microcode): void {
  mc.module.body(mc.pauseExits, (f) => {
    // Without a count every PAUSE exits.
    f.if(S.pauseReload.get(f).eqz(), () => f.return(1));
    const threshold = S.pauseThreshold.get(f);
    const now = f.call(mc.readHostTsc);
    const elapsed = now.sub(S.pauseTime.get(f));
    S.pauseTime.set(f, now);
    f.if(threshold.ne(0).and(elapsed.gtU(threshold.extendU())), () => {
      S.pauseCount.set(f, S.pauseReload.get(f));
      f.return(0);
    });
    const left = S.pauseCount.get(f).sub(1);
    S.pauseCount.set(f, left);
    f.return(left.ltS(0));
  });
}
