/**
 * What VMRUN and #VMEXIT move between the processor, the VMCB and the host save area
 * (APM vol. 2, 15.5–15.6).
 *
 * The host save area uses the VMCB's own save layout; the manual leaves its format open.
 *
 * @module
 */
import { registerAddress, S, Seg, segmentAddress, SegmentField } from "../state/cpu_state.ts";
import type { Field64 } from "../state/field.ts";
import { canonicalized } from "../memory/canonical.ts";
import { CR0_WRITABLE } from "../microcode/control.ts";
import { Cr0, DebugCtl, Dr6, Dr7, Efer } from "../microcode/registers.ts";
import { useIn } from "../microcode/segments.ts";
import { type FunctionBuilder, type I32, i32 } from "../wasm/mod.ts";
import { SvmFeature } from "./features.ts";
import { Save, SaveSegment, VirtExt } from "./vmcb.ts";

/** Segments that VMRUN and #VMEXIT switch. */
const SWITCHED: readonly (readonly [number, number])[] = [
  [Seg.ES, Save.ES],
  [Seg.CS, Save.CS],
  [Seg.SS, Save.SS],
  [Seg.DS, Save.DS],
];

/** Segments that VMLOAD and VMSAVE move. */
const EXTRA: readonly (readonly [number, number])[] = [
  [Seg.FS, Save.FS],
  [Seg.GS, Save.GS],
  [Seg.LDTR, Save.LDTR],
  [Seg.TR, Save.TR],
];

/** MSRs that VMLOAD and VMSAVE move. */
const EXTRA_MSRS: readonly (readonly [Field64, number])[] = [
  [S.star, Save.STAR],
  [S.lstar, Save.LSTAR],
  [S.cstar, Save.CSTAR],
  [S.sfmask, Save.SFMASK],
  [S.kernelGsBase, Save.KERNEL_GS_BASE],
  [S.sysenterCs, Save.SYSENTER_CS],
  [S.sysenterEsp, Save.SYSENTER_ESP],
  [S.sysenterEip, Save.SYSENTER_EIP],
];

/** Registers both worlds have a copy of; RIP and RFLAGS apart, which need care. */
const COMMON: readonly (readonly [number, number])[] = [
  [S.efer.address, Save.EFER],
  [S.cr4.address, Save.CR4],
  [S.cr3.address, Save.CR3],
  [S.cr0.address, Save.CR0],
  [registerAddress(4), Save.RSP],
  [registerAddress(0), Save.RAX],
];

/** Registers of the guest alone. */
const GUEST_ONLY: readonly (readonly [number, number])[] = [
  [S.cr2.address, Save.CR2],
  [S.dr6.address, Save.DR6],
  [S.dr7.address, Save.DR7],
];

const move = (f: FunctionBuilder, to: I32, toOffset: number, from: I32, fromOffset: number): void =>
  f.store64(to, f.load64(from, fromOffset), toOffset);

const state = i32(0);

/** Bases are sign-extended from bit 47, not checked (APM vol. 2, 15.5.1). */

function storeSegment(f: FunctionBuilder, area: I32, segment: number, offset: number): void {
  const at = segmentAddress(segment);
  f.store16(area, f.load32(0, at + SegmentField.SELECTOR), offset + SaveSegment.SELECTOR);
  f.store16(area, f.load32(0, at + SegmentField.ATTRIBUTES), offset + SaveSegment.ATTRIBUTES);
  f.store32(area, f.load32(0, at + SegmentField.LIMIT), offset + SaveSegment.LIMIT);
  move(f, area, offset + SaveSegment.BASE, state, at + SegmentField.BASE);
}

function loadSegment(
  f: FunctionBuilder,
  area: I32,
  segment: number,
  offset: number,
  real: I32,
): void {
  const at = segmentAddress(segment);
  const attributes = f.load16(area, offset + SaveSegment.ATTRIBUTES).and(0xfff);
  f.store32(0, f.load16(area, offset + SaveSegment.SELECTOR), at + SegmentField.SELECTOR);
  f.store32(0, attributes, at + SegmentField.ATTRIBUTES);
  f.store32(0, f.load32(area, offset + SaveSegment.LIMIT), at + SegmentField.LIMIT);
  f.store32(0, useIn(attributes, real), at + SegmentField.USE);
  f.store64(0, canonicalized(f, f.load64(area, offset + SaveSegment.BASE)), at + SegmentField.BASE);
}

function storeTables(f: FunctionBuilder, area: I32): void {
  f.store32(area, S.gdtLimit.get(f), Save.GDTR + SaveSegment.LIMIT);
  move(f, area, Save.GDTR + SaveSegment.BASE, state, S.gdtBase.address);
  f.store32(area, S.idtLimit.get(f), Save.IDTR + SaveSegment.LIMIT);
  move(f, area, Save.IDTR + SaveSegment.BASE, state, S.idtBase.address);
}

function loadTables(f: FunctionBuilder, area: I32): void {
  S.gdtLimit.set(f, f.load32(area, Save.GDTR + SaveSegment.LIMIT).and(0xffff));
  S.gdtBase.set(f, canonicalized(f, f.load64(area, Save.GDTR + SaveSegment.BASE)));
  S.idtLimit.set(f, f.load32(area, Save.IDTR + SaveSegment.LIMIT).and(0xffff));
  S.idtBase.set(f, canonicalized(f, f.load64(area, Save.IDTR + SaveSegment.BASE)));
}

/** Stores what both worlds have. RFLAGS and RIP are the caller's. */
export function storeWorld(f: FunctionBuilder, area: I32): void {
  for (const [segment, offset] of SWITCHED) storeSegment(f, area, segment, offset);
  storeTables(f, area);
  for (const [address, offset] of COMMON) move(f, area, offset, state, address);
}

/**
 * Loads what both worlds have; `real` is 1 for real and virtual-8086 mode. Bits of CR0 that do not exist
 * read as they always do, and EFER.LMA follows from LME and CR0.PG, as it does everywhere else: the manual
 * checks LME and PG and says nothing of an LMA that contradicts them.
 */
export function loadWorld(f: FunctionBuilder, area: I32, real: I32): void {
  for (const [segment, offset] of SWITCHED) loadSegment(f, area, segment, offset, real);
  loadTables(f, area);
  for (const [address, offset] of COMMON) move(f, state, address, area, offset);
  S.cr0.set(f, S.cr0.get(f).and(CR0_WRITABLE).or(Cr0.ET));
  const efer = S.efer.get(f);
  const active = efer.has(Efer.LME).and(S.cr0.has(f, Cr0.PG));
  const lma = active.select(i32(Efer.LMA), i32(0)).extendU();
  S.efer.set(f, efer.and(~Efer.LMA).or(lma));
}

/** Stores CR2, DR6, DR7. */
export function storeGuestOnly(f: FunctionBuilder, area: I32): void {
  for (const [address, offset] of GUEST_ONLY) move(f, area, offset, state, address);
}

/** Loads CR2, DR6, DR7; bits of the latter two that do not exist read as they always do. */
export function loadGuestOnly(f: FunctionBuilder, area: I32): void {
  S.cr2.set(f, f.load64(area, Save.CR2));
  S.dr6.set(f, f.load64(area, Save.DR6).and(Dr6.WRITABLE).or(Dr6.FIXED));
  S.dr7.set(f, f.load64(area, Save.DR7).and(Dr7.WRITABLE).or(Dr7.FIXED));
}

/** VMSAVE. */
export function storeExtra(f: FunctionBuilder, area: I32): void {
  for (const [segment, offset] of EXTRA) storeSegment(f, area, segment, offset);
  for (const [field, offset] of EXTRA_MSRS) move(f, area, offset, state, field.address);
}

/** VMLOAD. KernelGSBase, a base that SWAPGS will put into a segment register, is one of the bases. */
export function loadExtra(f: FunctionBuilder, area: I32): void {
  for (const [segment, offset] of EXTRA) loadSegment(f, area, segment, offset, i32(0));
  for (const [field, offset] of EXTRA_MSRS) move(f, state, field.address, area, offset);
  S.kernelGsBase.set(f, canonicalized(f, S.kernelGsBase.get(f)));
}

/** What LBR virtualization switches (APM vol. 2, 15.23.1). */
const LAST_BRANCH: readonly (readonly [Field64, number])[] = [
  [S.debugCtl, Save.DBGCTL],
  [S.lastBranchFrom, Save.BR_FROM],
  [S.lastBranchTo, Save.BR_TO],
  [S.lastIntFrom, Save.LASTEXCPFROM],
  [S.lastIntTo, Save.LASTEXCPTO],
];

/** 1 in a guest whose last-branch records are switched with it. */
export function hasVirtualLbr(f: FunctionBuilder): I32 {
  return S.virtExt.has(f, VirtExt.LBR).and(S.svmFeatures.has(f, SvmFeature.LBR_VIRT));
}

/** Stores DebugCtl and the last-branch records. */
export function storeLastBranch(f: FunctionBuilder, area: I32): void {
  for (const [field, offset] of LAST_BRANCH) move(f, area, offset, state, field.address);
}

/** Loads them; bits of DebugCtl that do not exist read as they always do. */
export function loadLastBranch(f: FunctionBuilder, area: I32): void {
  for (const [field, offset] of LAST_BRANCH) move(f, state, field.address, area, offset);
  S.debugCtl.set(f, S.debugCtl.get(f).and(DebugCtl.LBR | DebugCtl.BTF));
}
