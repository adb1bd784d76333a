/**
 * The MSRs of control-flow enforcement (SDM vol. 4, table 2-2; APM vol. 2, 18.11).
 *
 * @module
 */
import { MicrocodeFeature } from "../isa_features.ts";
import { canonicalForAny } from "../memory/canonical.ts";
import { S } from "../state/cpu_state.ts";
import type { Field64 } from "../state/field.ts";
import { type FunctionBuilder, type I32, type I64, i64, I64T } from "../wasm/mod.ts";
import { CET_RESERVED, CET_SHADOW_BITS, CetControl, PL_SSP } from "./cet.ts";
import type { Microcode } from "./microcode.ts";

/** Indices of the MSRs. */
export const CetMsr = {
  U_CET: 0x6a0,
  S_CET: 0x6a2,
  PL0_SSP: 0x6a4,
  PL1_SSP: 0x6a5,
  PL2_SSP: 0x6a6,
  PL3_SSP: 0x6a7,
  INTERRUPT_SSP_TABLE: 0x6a8,
} as const;

const CONTROLS: readonly (readonly [number, Field64])[] = [
  [CetMsr.U_CET, S.uCet],
  [CetMsr.S_CET, S.sCet],
];

/** Those that hold linear addresses, and the bits that must be 0 in them. */
const ADDRESSES: readonly (readonly [number, Field64, number])[] = [
  ...PL_SSP.map((field, cpl): [number, Field64, number] => [CetMsr.PL0_SSP + cpl, field, 3]),
  [CetMsr.INTERRUPT_SSP_TABLE, S.sspTable, 0],
];

/** 1 if U_CET and S_CET can be `value` on this processor. */
export function validCetControl(f: FunctionBuilder, value: I64): I32 {
  const shadow = S.features.has(f, MicrocodeFeature.SHSTK).select(i64(CET_SHADOW_BITS), i64(0));
  const track = S.features.has(f, MicrocodeFeature.IBT)
    .select(i64(~(CET_SHADOW_BITS | CET_RESERVED)), i64(0));
  const both = i64(CetControl.SUPPRESS | CetControl.TRACKER);
  return value.and(shadow.or(track).xor(-1)).eqz()
    .and(value.and(both).ne(both))
    .and(canonicalForAny(f, value));
}

/** Gives the functions of these MSRs their bodies. */
export function defineCetMsr(mc: Microcode): void {
  const { module } = mc;
  const exists = (f: FunctionBuilder, features: number): I32 => S.features.has(f, features);
  const either = MicrocodeFeature.SHSTK | MicrocodeFeature.IBT;

  module.body(mc.readCetMsr, (f, index) => {
    const give = (number: number, field: Field64, features: number): void =>
      f.if(index.eq(number).and(exists(f, features)), () => {
        f.store64(0, field.get(f), S.exchange);
        f.return(1);
      });
    for (const [number, field] of CONTROLS) give(number, field, either);
    for (const [number, field] of ADDRESSES) give(number, field, MicrocodeFeature.SHSTK);
    f.return(0);
  });

  module.body(mc.writeCetMsr, (f, index) => {
    const value = f.variable(I64T, f.load64(0, S.exchange)).get();
    for (const [number, field] of CONTROLS) {
      f.if(index.eq(number).and(exists(f, either)), () => {
        f.if(validCetControl(f, value).eqz(), () => f.return(0));
        field.set(f, value);
        f.call(mc.updateMode);
        f.return(1);
      });
    }
    for (const [number, field, zero] of ADDRESSES) {
      f.if(index.eq(number).and(exists(f, MicrocodeFeature.SHSTK)), () => {
        f.if(canonicalForAny(f, value).eqz().or(value.has(zero)), () => f.return(0));
        field.set(f, value);
        f.return(1);
      });
    }
    f.return(0);
  });
}
