/**
 * What #VMEXIT, VMLOAD and VMSAVE move between the processor and the VMCB (APM vol. 2, 15.5–15.6). What
 * VMRUN loads is in `checks.ts`.
 *
 * Of the host save area only the place of last-branch records is used, in the VMCB's own layout; the manual
 * leaves its format open.
 *
 * @module
 */
import { MicrocodeFeature } from "../isa_features.ts";
import { registerAddress, S, Seg, segmentAddress, SegmentField } from "../state/cpu_state.ts";
import type { Field64 } from "../state/field.ts";
import { canonicalized } from "../memory/canonical.ts";
import { DebugCtl } from "../microcode/registers.ts";
import { useOf } from "../microcode/segments.ts";
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

/** Registers of the guest; RIP and RFLAGS apart, which need care. */
const COMMON: readonly (readonly [number, number])[] = [
  [S.efer.address, Save.EFER],
  [S.cr4.address, Save.CR4],
  [S.cr3.address, Save.CR3],
  [S.cr0.address, Save.CR0],
  [registerAddress(4), Save.RSP],
  [registerAddress(0), Save.RAX],
  [S.cr2.address, Save.CR2],
  [S.dr6.address, Save.DR6],
  [S.dr7.address, Save.DR7],
];

const move = (f: FunctionBuilder, to: I32, toOffset: number, from: I32, fromOffset: number): void =>
  f.store64(to, f.load64(from, fromOffset), toOffset);

const state = i32(0);

function storeSegment(f: FunctionBuilder, area: I32, segment: number, offset: number): void {
  const at = segmentAddress(segment);
  const selector = f.load32(0, at + SegmentField.SELECTOR).and(0xffff);
  const first = selector.or(f.load32(0, at + SegmentField.ATTRIBUTES).shl(16));
  const limit = f.load32(0, at + SegmentField.LIMIT).extendU().shl(32);
  f.store64(area, first.extendU().or(limit), offset);
  move(f, area, offset + SaveSegment.BASE, state, at + SegmentField.BASE);
}

function loadSegment(f: FunctionBuilder, area: I32, segment: number, offset: number): void {
  const at = segmentAddress(segment);
  const attributes = f.load16(area, offset + SaveSegment.ATTRIBUTES).and(0xfff);
  f.store32(0, f.load16(area, offset + SaveSegment.SELECTOR), at + SegmentField.SELECTOR);
  f.store32(0, attributes, at + SegmentField.ATTRIBUTES);
  f.store32(0, f.load32(area, offset + SaveSegment.LIMIT), at + SegmentField.LIMIT);
  f.store32(0, useOf(attributes), at + SegmentField.USE);
  f.store64(0, canonicalized(f, f.load64(area, offset + SaveSegment.BASE)), at + SegmentField.BASE);
}

function storeTables(f: FunctionBuilder, area: I32): void {
  f.store32(area, S.gdtLimit.get(f), Save.GDTR + SaveSegment.LIMIT);
  move(f, area, Save.GDTR + SaveSegment.BASE, state, S.gdtBase.address);
  f.store32(area, S.idtLimit.get(f), Save.IDTR + SaveSegment.LIMIT);
  move(f, area, Save.IDTR + SaveSegment.BASE, state, S.idtBase.address);
}

/** What a processor with shadow stacks switches besides. */
const SHADOW_STACK: readonly (readonly [Field64, number])[] = [
  [S.sCet, Save.S_CET],
  [S.ssp, Save.SSP],
  [S.sspTable, Save.ISST_ADDR],
];

/** #VMEXIT: stores the guest's state but RFLAGS, RIP, CPL and PAT, which are the caller's. */
export function storeGuest(f: FunctionBuilder, area: I32): void {
  for (const [segment, offset] of SWITCHED) storeSegment(f, area, segment, offset);
  storeTables(f, area);
  for (const [address, offset] of COMMON) move(f, area, offset, state, address);
  f.if(
    S.features.has(f, MicrocodeFeature.SHSTK),
    () => {
      for (const [field, offset] of SHADOW_STACK) move(f, area, offset, state, field.address);
    },
    undefined,
    "unlikely",
  );
}

/** VMSAVE. */
export function storeExtra(f: FunctionBuilder, area: I32): void {
  for (const [segment, offset] of EXTRA) storeSegment(f, area, segment, offset);
  for (const [field, offset] of EXTRA_MSRS) move(f, area, offset, state, field.address);
}

/** VMLOAD. KernelGSBase, a base that SWAPGS will put into a segment register, is one of the bases. */
export function loadExtra(f: FunctionBuilder, area: I32): void {
  for (const [segment, offset] of EXTRA) loadSegment(f, area, segment, offset);
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
