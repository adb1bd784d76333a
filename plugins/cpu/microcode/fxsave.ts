/**
 * FXSAVE and FXRSTOR (APM vol. 4; SDM vol. 1, 10.5; vol. 2).
 *
 * XMM registers are left out where CR4.OSFXSR is clear, as the manuals allow, and with EFER.FFXSR in
 * 64-bit code at CPL 0, as AMD's manual demands. Selectors of the last x87 instruction and its operand are
 * not kept, as on processors that deprecate them: the 32-bit format has zeros there.
 *
 * @module
 */
import type { Fn, Unit } from "../semantics/unit.ts";
import { Mode, S } from "../state/cpu_state.ts";
import {
  type FunctionBuilder,
  type I32,
  I32T,
  type I64,
  I64T,
  type ModuleBuilder,
  reference,
  type TypeToken,
} from "../wasm/mod.ts";
import {
  loadSse,
  loadX87,
  MXCSR_BITS,
  storeMxcsr,
  storeSse,
  storeX87,
  XsaveArea,
} from "./extended_state.ts";
import type { Microcode } from "./microcode.ts";
import { Vector } from "./raise.ts";
import { Cr4, Efer } from "./registers.ts";

type I = TypeToken<I32>;
type L = TypeToken<I64>;

/** Functions of the unit. */
export const FxUnit: {
  /** `(area, wide)`: FXSAVE, in the 64-bit format if `wide`. */
  readonly save: Fn<[L, I]>;
  /** `(area, wide)`: FXRSTOR. */
  readonly restore: Fn<[L, I]>;
} = {
  save: reference("fx.save", [I64T, I32T], undefined),
  restore: reference("fx.restore", [I64T, I32T], undefined),
};

/** Bytes that FXSAVE writes at most, and FXRSTOR reads. */
const AREA_BYTES = 512;

/** Whether XMM registers take part. */
function withVectors(f: FunctionBuilder): I32 {
  const fast = S.efer.has(f, Efer.FFXSR).and(S.cpl.get(f).eqz()).and(S.mode.has(f, Mode.LONG));
  return S.cr4.has(f, Cr4.OSFXSR).and(fast.eqz());
}

function define(module: ModuleBuilder, mc: Microcode): void {
  module.body(FxUnit.save, (f, area, wide) => {
    f.call(mc.probeStore, area, AREA_BYTES);
    storeX87(mc, f, area);
    f.if(wide.eqz(), () => {
      f.call(mc.store64, area.add(XsaveArea.FIP), S.fpuInstruction.get(f).and(0xffff_ffff));
      f.call(mc.store64, area.add(XsaveArea.FDP), S.fpuData.get(f).and(0xffff_ffff));
    });
    storeMxcsr(mc, f, area);
    f.if(withVectors(f), () => storeSse(mc, f, area));
  });

  module.body(FxUnit.restore, (f, area, wide) => {
    // The area reaches into two pages at most: after this no load faults.
    f.call(mc.load8, area);
    f.call(mc.load8, area.add(AREA_BYTES - 1));
    const mxcsr = f.call(mc.load32, area.add(XsaveArea.MXCSR)).wrap();
    f.if(mxcsr.and(~MXCSR_BITS), () => f.call(mc.raiseError, Vector.GP, 0));
    loadX87(mc, f, area);
    f.if(wide.eqz(), () => {
      S.fpuInstruction.set(f, S.fpuInstruction.get(f).and(0xffff_ffff));
      S.fpuData.set(f, S.fpuData.get(f).and(0xffff_ffff));
    });
    S.mxcsr.set(f, mxcsr);
    f.if(withVectors(f), () => loadSse(mc, f, area));
  });
}

/** The unit. */
export const FX_UNIT: Unit = { name: "fx", functions: Object.values(FxUnit), define };
