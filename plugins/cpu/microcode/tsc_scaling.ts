/**
 * The time-stamp counter of a guest that runs at another rate than the processor's: TSC scaling of VMX
 * (SDM vol. 3, 25.6.5), a number with 48 fraction bits in the VMCS, and the TSC ratio of SVM (APM vol. 2,
 * 15.30.5), one with 32 in an MSR.
 *
 * @module
 */
import { S } from "../state/cpu_state.ts";
import { Secondary } from "../vmx/controls.ts";
import { readField, Vmcs } from "../vmx/fields.ts";
import { type FunctionBuilder, type I32, type I64, I64T } from "../wasm/mod.ts";

/** Fraction bits of VMX' multiplier, and of the TSC ratio. */
const VMX_FRACTION = 48;
const RATIO_FRACTION = 32;

/** The TSC ratio behind RESET: 1. */
export const TSC_RATIO_DEFAULT: bigint = 0x1_0000_0000n;

/** Bits 40 and up of the TSC ratio are reserved. */
export const TSC_RATIO_BITS = 40;

/** Bits `fraction` + 63 to `fraction`, of 32 and more, of the product of two unsigned values. */
function multiplyScaled(a: I64, b: I64, fraction: number): I64 {
  const half = (value: I64): I64 => value.and(0xffff_ffff);
  const [aLow, aHigh, bLow, bHigh] = [half(a), a.shrU(32), half(b), b.shrU(32)];
  const low = aLow.mul(bLow);
  const first = aLow.mul(bHigh);
  const second = aHigh.mul(bLow);
  const middle = low.shrU(32).add(half(first)).add(half(second));
  const bottom = middle.shl(32).or(half(low));
  const top = aHigh.mul(bHigh).add(first.shrU(32)).add(second.shrU(32)).add(middle.shrU(32));
  return top.shl(64 - fraction).or(bottom.shrU(fraction));
}

/** 1 if the counter that a guest reads has the processor's own rate; so it has for who is none. */
export function readsOwnRate(f: FunctionBuilder): I32 {
  const ratio = S.guestMode.get(f).and(S.tscRatio.get(f).ne(TSC_RATIO_DEFAULT));
  return S.secondaryControls.has(f, Secondary.TSC_SCALING).or(ratio).eqz();
}

/** A counter as an SVM guest sees it, to which the TSC ratio applies. */
export function ratioScaled(f: FunctionBuilder, counter: I64): I64 {
  const ratio = S.tscRatio.get(f);
  return f.choose(
    I64T,
    S.guestMode.get(f).and(ratio.ne(TSC_RATIO_DEFAULT)),
    () => multiplyScaled(counter, ratio, RATIO_FRACTION),
    () => counter,
    "unlikely",
  );
}

/** The counter `tsc` as a guest sees it, before its offset. */
export function scaledTsc(f: FunctionBuilder, tsc: I64): I64 {
  return f.choose(
    I64T,
    S.secondaryControls.has(f, Secondary.TSC_SCALING),
    () => multiplyScaled(tsc, readField(f, Vmcs.TSC_MULTIPLIER), VMX_FRACTION),
    () => ratioScaled(f, tsc),
    "unlikely",
  );
}
