/**
 * Control-flow enforcement: its MSRs, the errors of #CP, and what is enabled where (SDM vol. 1, ch. 17; APM
 * vol. 2, ch. 18).
 *
 * Shadow stacks are both vendors', indirect-branch tracking is Intel's.
 *
 * @module
 */
import { S } from "../state/cpu_state.ts";
import { Field64 } from "../state/field.ts";
import { MmuIndex } from "../state/tlb_layout.ts";
import { type FunctionBuilder, type I32, i32, type I64 } from "../wasm/mod.ts";
import { Cr0, Cr4, Rflags } from "./registers.ts";

/** Bits of U_CET and S_CET (SDM vol. 4, table 2-2). */
export const CetControl = {
  /** Shadow stacks are enabled. */
  SHADOW_STACK: 0x1,
  /** WRSS may write to them. */
  WRITE_SHADOW_STACK: 0x2,
  /** Indirect branches are tracked. */
  ENDBRANCH: 0x4,
  /** The bitmap of legacy code pages excuses targets. */
  LEGACY: 0x8,
  /** The NOTRACK prefix is honoured. */
  NO_TRACK: 0x10,
  /** A target that is excused does not suppress tracking. */
  SUPPRESS_DISABLE: 0x20,
  /** Tracking is suppressed. */
  SUPPRESS: 0x400,
  /** The tracker awaits an ENDBRANCH. */
  TRACKER: 0x800,
} as const;

/** Bits 9:6 are reserved. */
export const CET_RESERVED = 0x3c0;
/** What AMD's processors have of it. */
export const CET_SHADOW_BITS: number = CetControl.SHADOW_STACK | CetControl.WRITE_SHADOW_STACK;

/** Error codes of #CP (SDM vol. 3A, 6.15, interrupt 21). */
export const CpError = {
  NEAR_RETURN: 1,
  /** RETF and IRET. */
  FAR_RETURN: 2,
  ENDBRANCH: 3,
  RSTORSSP: 4,
  SETSSBSY: 5,
} as const;

/** Bit 0 of a shadow-stack token: it is in use. */
export const BUSY = 1;

/** PL0_SSP to PL3_SSP, by privilege level. */
export const PL_SSP: readonly [Field64, Field64, Field64, Field64] = [
  new Field64(S.plSsp),
  new Field64(S.plSsp + 8),
  new Field64(S.plSsp + 16),
  new Field64(S.plSsp + 24),
];

/** U_CET for CPL 3, S_CET for the others. */
export function controlOf(f: FunctionBuilder, cpl: I32): I64 {
  return cpl.eq(3).select(S.uCet.get(f), S.sCet.get(f));
}

/** 1 where control-flow enforcement can be on: protected mode, not virtual-8086 mode, with CR4.CET. */
export function cetOn(f: FunctionBuilder): I32 {
  return S.cr4.has(f, Cr4.CET).and(S.cr0.has(f, Cr0.PE)).and(S.rflags.has(f, Rflags.VM).eqz());
}

/** 1 if shadow stacks are enabled at `cpl`. */
export function shadowStackOn(f: FunctionBuilder, cpl: I32): I32 {
  return cetOn(f).and(controlOf(f, cpl).has(CetControl.SHADOW_STACK));
}

/**
 * A far transfer or an event has led to code at `cpl`: where branches are tracked there, an ENDBRANCH is
 * awaited, whether tracking was suppressed or not. Emits the change of MSRs; the mode word is the caller's.
 */
export function trackFar(f: FunctionBuilder, cpl: I32): void {
  const wait = (field: Field64): void => {
    f.if(field.has(f, CetControl.ENDBRANCH), () => {
      field.set(f, field.get(f).and(~CetControl.SUPPRESS).or(CetControl.TRACKER));
    });
  };
  f.if(
    S.cr4.has(f, Cr4.CET),
    () => f.if(cpl.eq(3), () => wait(S.uCet), () => wait(S.sCet)),
    undefined,
    "unlikely",
  );
}

/** MMU index for the shadow-stack accesses of `cpl`: SMAP has no say in them. */
export function shadowMmu(cpl: I32): I32 {
  return cpl.eq(3).select(i32(MmuIndex.USER), i32(MmuIndex.SUPERVISOR_AC));
}
