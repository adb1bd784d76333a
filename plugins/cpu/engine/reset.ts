/**
 * The state of a processor after RESET and INIT (APM vol. 2, 14.1.3, table 14-1).
 *
 * @module
 */
import { PL_SSP } from "../microcode/cet.ts";
import { VmCr } from "../microcode/msr.ts";
import { Rflags } from "../microcode/registers.ts";
import { TSC_RATIO_DEFAULT } from "../microcode/tsc_scaling.ts";
import { Attr, registerAddress, S, Seg } from "../state/cpu_state.ts";
import type { Field32, Field64 } from "../state/field.ts";
import type { StateView } from "../state/view.ts";

/** SMBASE after RESET (APM vol. 2, 10.2.2; SDM vol. 3C, 33.4). */
const SMBASE = 0x3_0000;

const DATA = Attr.P | Attr.S | Attr.WRITABLE | Attr.ACCESSED;
const CODE = DATA | Attr.CODE;
const LDT = Attr.P | 2;
const TSS = Attr.P | 11;

/** Registers that RESET sets to something other than 0. */
const VALUES: readonly (readonly [Field64, bigint])[] = [
  [S.rip, 0xfff0n],
  [S.rflags, BigInt(Rflags.ONE)],
  [S.cr0, 0x6000_0010n],
  [S.dr6, 0xffff_0ff0n],
  [S.dr7, 0x400n],
];

/** Registers that RESET sets and INIT keeps. */
const KEPT_BY_INIT: readonly (readonly [Field64, bigint])[] = [
  [S.pat, 0x0007_0406_0007_0406n],
  [S.xcr0, 1n],
  ...[
    S.star,
    S.lstar,
    S.cstar,
    S.sfmask,
    S.kernelGsBase,
    S.sysenterCs,
    S.sysenterEsp,
    S.sysenterEip,
    S.tscAux,
    S.tscAdjust,
    S.vmCr,
    S.hsavePa,
  ].map((field) => [field, 0n] as const),
  [S.tscRatio, TSC_RATIO_DEFAULT],
  [S.featureControl, 0n],
  [S.pkru, 0n],
  [S.pkrs, 0n],
  ...[S.uCet, S.sCet, ...PL_SSP, S.sspTable, S.xss].map((field) => [field, 0n] as const),
  [S.mperfOffset, 0n],
  [S.aperfOffset, 0n],
  // FEE0_0000h, enabled; that it is the boot processor's is the APIC's affair.
  [S.apicBase, 0xfee0_0800n],
];

/** VMX operation is left; a guest with it. */
const LEFT: readonly Field32[] = [
  S.vmxOn,
  S.nonRoot,
  S.vmcs,
  S.nestedPaging,
  S.pinControls,
  S.primaryControls,
  S.secondaryControls,
  S.tertiaryControls,
  S.vapic,
];

/** Registers that are 0 after RESET and INIT alike. */
const ZERO: readonly Field64[] = [
  S.cr2,
  S.cr3,
  S.cr4,
  S.cr8,
  S.efer,
  S.gdtBase,
  S.idtBase,
  S.debugCtl,
  S.ssp,
];

/** The eight x87 registers, and the vector registers that XMM registers are part of. */
const X87_BYTES = 128;
const VECTOR_BYTES = 32 * 64;

/**
 * Sets the loaded processor to the state after RESET or, with `init`, after INIT; RDX holds the
 * `signature`.
 */
export function resetProcessor(state: StateView, init: boolean, signature: number): void {
  for (let n = 0; n < 16; n++) state.setRegister(n, 0n);
  state.setRegister(2, BigInt(signature));
  for (const field of ZERO) state.set(field, 0n);
  for (const [field, value] of VALUES) state.set(field, value);
  for (let n = 0; n < 4; n++) state.setAt(S.dr + 8 * n, 0n);
  for (const segment of [Seg.ES, Seg.SS, Seg.DS, Seg.FS, Seg.GS]) {
    state.setSegment(segment, { selector: 0, attributes: DATA, limit: 0xffff, base: 0n });
  }
  const base = 0xffff_0000n;
  state.setSegment(Seg.CS, { selector: 0xf000, attributes: CODE, limit: 0xffff, base });
  state.setSegment(Seg.LDTR, { selector: 0, attributes: LDT, limit: 0xffff, base: 0n });
  state.setSegment(Seg.TR, { selector: 0, attributes: TSS, limit: 0xffff, base: 0n });
  state.set32(S.gdtLimit, 0xffff);
  state.set32(S.idtLimit, 0xffff);
  state.set32(S.cpl, 0);
  state.set32(S.events, 0);
  state.set32(S.flagsKind, 25);
  state.set(S.flagsA, 0n);
  state.set(S.flagsB, 0n);
  state.set32(S.nmiBlocked, 0);
  state.set32(S.gif, 1);
  state.set32(S.smm, 0);
  state.set32(S.guestMode, 0);
  state.set(S.cachedVmcb, 0n);
  state.set32(S.delivering, 0);
  state.set32(S.trapBits, 0);
  // INIT clears VM_CR.SVMDIS unless LOCK keeps it (APM vol. 2, 15.30.1).
  const vmCr = state.get(S.vmCr);
  if ((vmCr & BigInt(VmCr.LOCK)) === 0n) state.set(S.vmCr, vmCr & ~BigInt(VmCr.SVMDIS));
  for (const field of LEFT) state.set32(field, 0);
  if (init) return;
  for (let n = 16; n < 32; n++) state.setAt(registerAddress(n), 0n);
  for (const [field, value] of KEPT_BY_INIT) state.set(field, value);
  state.set32(S.smbase, SMBASE);
  state.set32(S.smmLocked, 0);
  state.set32(S.mxcsr, 0x1f80);
  state.set32(S.fpuControl, 0x40);
  state.set32(S.fpuTag, 0x5555);
  for (const field of [S.fpuStatus, S.fpuOpcode]) state.set32(field, 0);
  for (const field of [S.fpuInstruction, S.fpuData]) state.set(field, 0n);
  for (let at = 0; at < X87_BYTES; at += 8) state.setAt(S.st + at, 0n);
  for (let at = 0; at < VECTOR_BYTES; at += 8) state.setAt(S.vectors + at, 0n);
}
