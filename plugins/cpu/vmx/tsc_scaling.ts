/**
 * TSC scaling (SDM vol. 3, 25.6.5): the time-stamp counter times a number with 48 fraction bits.
 *
 * @module
 */
import { S } from "../state/cpu_state.ts";
import { type FunctionBuilder, type I64, I64T } from "../wasm/mod.ts";
import { Secondary } from "./controls.ts";
import { readField, Vmcs } from "./fields.ts";

const FRACTION_BITS = 48;

/** Bits 111:48 of the product of two unsigned values. */
export function multiplyScaled(a: I64, b: I64): I64 {
  const half = (value: I64): I64 => value.and(0xffff_ffff);
  const [aLow, aHigh, bLow, bHigh] = [half(a), a.shrU(32), half(b), b.shrU(32)];
  const low = aLow.mul(bLow);
  const first = aLow.mul(bHigh);
  const second = aHigh.mul(bLow);
  const middle = low.shrU(32).add(half(first)).add(half(second));
  const bottom = middle.shl(32).or(half(low));
  const top = aHigh.mul(bHigh).add(first.shrU(32)).add(second.shrU(32)).add(middle.shrU(32));
  return top.shl(64 - FRACTION_BITS).or(bottom.shrU(FRACTION_BITS));
}

/** The counter `tsc` as a guest with TSC scaling sees it, before its offset. */
export function scaledTsc(f: FunctionBuilder, tsc: I64): I64 {
  return f.choose(
    I64T,
    S.secondaryControls.has(f, Secondary.TSC_SCALING),
    () => multiplyScaled(tsc, readField(f, Vmcs.TSC_MULTIPLIER)),
    () => tsc,
    "unlikely",
  );
}
