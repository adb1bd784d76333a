/**
 * What the processor keeps of the two worlds that VMRUN and #VMEXIT switch between, in its own format.
 *
 * Of the host it is the state that goes to the host save area: the manual leaves the format to the
 * processor, and lets it keep all of it on the chip (APM vol. 2, 15.5.1, 15.30.4). With it goes what has been
 * worked out from that state. Of the guest it is the VMCB state cache (15.15): the state that the last
 * #VMEXIT saved, or VMRUN loaded, by the groups of the clean bits.
 *
 * @module
 */
import { MicrocodeFeature } from "../isa_features.ts";
import { exchangeWindows } from "../memory/windows.ts";
import type { Microcode } from "../microcode/microcode.ts";
import { Cr0, DebugCtl, Dr7, Rflags } from "../microcode/registers.ts";
import { useIn } from "../microcode/segments.ts";
import {
  Event,
  Mode,
  registerAddress,
  S,
  Seg,
  SEGMENT_BYTES,
  segmentAddress,
  SegmentField,
} from "../state/cpu_state.ts";
import { IMAGE_BYTES } from "../state/layout.ts";
import { Context, WINDOWS_BYTES } from "../state/tlb_layout.ts";
import { copyBlock } from "../state/copy.ts";
import type { Field32, Field64 } from "../state/field.ts";
import type { FunctionBuilder, I32 } from "../wasm/mod.ts";

/** Segments that VMRUN and #VMEXIT switch; they stand in a row in the state. */
const SWITCHED: readonly number[] = [Seg.ES, Seg.CS, Seg.SS, Seg.DS];

/** Offsets in an image. */
export const Image = {
  /** ES, CS, SS, DS, as in the state. */
  SEGMENTS: 0,
  GDT_BASE: 128,
  /** 32 */
  GDT_LIMIT: 136,
  /** 32 */
  IDT_LIMIT: 140,
  IDT_BASE: 144,
  CR0: 152,
  CR2: 160,
  CR3: 168,
  CR4: 176,
  DR6: 184,
  DR7: 192,
  EFER: 200,
  PAT: 208,
  /** 32, and whether `USE` of the segments is that of real and virtual-8086 mode: 0, 1, 2 unknown. */
  CPL: 216,
  USES: 220,
  RSP: 224,
  RAX: 232,
  RIP: 240,
  RFLAGS: 248,
  /** 1 if the derived state that follows is all there is to it. */
  PLAIN: 256,
  DERIVED: 260,
} as const;

/** Blocks of the state that stand in an image as they are: address, offset, bytes. */
type Block = readonly [number, number, number];
const SEGMENTS: Block = [segmentAddress(Seg.ES), Image.SEGMENTS, 4 * SEGMENT_BYTES];
const TABLES: Block = [S.gdtBase.address, Image.GDT_BASE, 24];
const CONTROL: Block = [S.cr0.address, Image.CR0, 32];
const DEBUG: Block = [S.dr6.address, Image.DR6, 16];
const EFER: Block = [S.efer.address, Image.EFER, 8];

/** What follows from the state, and is put back as it was where it still holds. */
const DERIVED: readonly Field32[] = [
  S.mode,
  S.mmu,
  S.tlbContext,
  S.tlbRead,
  S.tlbFetch,
  S.jumpCache,
];
const SHIFT: number = Image.DERIVED + 4 * DERIVED.length;
const XCR0: number = SHIFT + 8;
/** 32 */
const COUNTS: number = XCR0 + 8;
/** SSP, S_CET and ISST_ADDR. */
export const CET_STATE: number = COUNTS + 4;
const CET: Block = [S.ssp.address, CET_STATE, 24];
if (CET_STATE + 24 > IMAGE_BYTES) throw new Error("an image has outgrown its place");

const keep = (f: FunctionBuilder, image: number, [address, offset, bytes]: Block): void =>
  copyBlock(f, image + offset, address, bytes);
const put = (f: FunctionBuilder, image: number, [address, offset, bytes]: Block): void =>
  copyBlock(f, address, image + offset, bytes);
const keepField = (f: FunctionBuilder, at: number, field: Field64): void =>
  f.store64(0, field.get(f), at);

/** Runs `emit` on a processor that has shadow stacks. */
function withShadowStacks(f: FunctionBuilder, emit: () => void): void {
  f.if(S.features.has(f, MicrocodeFeature.SHSTK), emit, undefined, "unlikely");
}

/** VMRUN: keeps the host's state but RIP and RFLAGS, which are the caller's. */
export function keepHost(f: FunctionBuilder): void {
  const image = S.hostImage;
  for (const block of [SEGMENTS, TABLES, CONTROL, EFER]) keep(f, image, block);
  withShadowStacks(f, () => keep(f, image, CET));
  keepField(f, image + Image.PAT, S.pat);
  f.store64(0, f.load64(0, registerAddress(4)), image + Image.RSP);
  f.store64(0, f.load64(0, registerAddress(0)), image + Image.RAX);
  // Nothing is in force that #VMEXIT would take back.
  const special = S.rflags.has(f, Rflags.TF).or(S.dr7.has(f, Dr7.ENABLES))
    .or(S.debugCtl.has(f, DebugCtl.LBR | DebugCtl.BTF))
    .or(S.mode.has(f, Mode.LONG | Mode.FLAT_CS).eqz());
  f.store32(0, special.eqz(), image + Image.PLAIN);
  DERIVED.forEach((field, k) => f.store32(0, field.get(f), image + Image.DERIVED + 4 * k));
  keepField(f, image + SHIFT, S.canonicalShift);
  keepField(f, image + XCR0, S.xcr0);
  f.store32(0, S.countsBranches.get(f), image + COUNTS);
}

/** #VMEXIT: puts the host's state back. CR2 is not the host's alone. */
export function restoreHost(f: FunctionBuilder, mc: Microcode): void {
  const image = S.hostImage;
  for (const block of [SEGMENTS, TABLES, EFER]) put(f, image, block);
  withShadowStacks(f, () => put(f, image, CET));
  S.cr0.set(f, f.load64(0, image + Image.CR0));
  S.cr3.set(f, f.load64(0, image + Image.CR3));
  S.cr4.set(f, f.load64(0, image + Image.CR4));
  f.store64(0, f.load64(0, image + Image.RSP), registerAddress(4));
  f.store64(0, f.load64(0, image + Image.RAX), registerAddress(0));
  S.cpl.set(f, 0);
  // A host outside executes nothing: what follows from its state, and its TLB, would not be used before the
  // next VMRUN puts others in their place.
  f.if(S.hostOutside.get(f).eqz(), () => restoreDerived(f, mc), undefined, "unlikely");
}

/** Puts the host's TLB context back, and what follows from its state. */
function restoreDerived(f: FunctionBuilder, mc: Microcode): void {
  const image = S.hostImage;
  const kept = (field: Field32): I32 =>
    f.load32(0, image + Image.DERIVED + 4 * DERIVED.indexOf(field));
  f.call(mc.selectContext, 0);
  // XCR0 is not switched, nor is whether branches are counted; and another context may be the host's, if many
  // were used.
  const same = f.load32(0, image + Image.PLAIN)
    .and(f.load64(0, image + XCR0).eq(S.xcr0.get(f)))
    .and(f.load32(0, image + COUNTS).eq(S.countsBranches.get(f)))
    .and(kept(S.tlbContext).eq(S.tlbContext.get(f)));
  f.if(
    same,
    () => {
      const windows = kept(S.tlbContext).add(kept(S.mmu).mul(WINDOWS_BYTES)).add(Context.WINDOWS);
      f.if(kept(S.tlbRead).ne(S.tlbRead.get(f)), () => exchangeWindows(f, windows));
      for (const field of DERIVED) field.set(f, kept(field));
      S.canonicalShift.set(f, f.load64(0, image + SHIFT));
      S.events.clear(f, Event.SINGLE_STEP | Event.BREAKPOINTS | Event.BRANCHES);
    },
    () => f.call(mc.updateMode),
    "likely",
  );
}

/** 1 where segments are those of real or virtual-8086 mode. */
function isReal(f: FunctionBuilder): I32 {
  return S.cr0.has(f, Cr0.PE).eqz().or(S.rflags.has(f, Rflags.VM));
}

/** #VMEXIT: keeps what the clean bits are about. PAT is the guest's own only with nested paging. */
export function keepGuest(f: FunctionBuilder): void {
  const image = S.guestImage;
  for (const block of [SEGMENTS, TABLES, CONTROL, DEBUG, EFER]) keep(f, image, block);
  withShadowStacks(f, () => keep(f, image, CET));
  keepField(f, image + Image.PAT, S.pat);
  f.store32(0, S.cpl.get(f), image + Image.CPL);
  f.store32(0, isReal(f), image + Image.USES);
}

/** VMRUN: loads the guest's state; RFLAGS has been loaded. PAT and CPL are the caller's. */
export function loadGuest(f: FunctionBuilder): void {
  const image = S.guestImage;
  for (const block of [SEGMENTS, TABLES, CONTROL, DEBUG, EFER]) put(f, image, block);
  withShadowStacks(f, () => put(f, image, CET));
  const real = isReal(f);
  f.if(
    f.load32(0, image + Image.USES).ne(real),
    () => {
      for (const segment of SWITCHED) {
        const at = segmentAddress(segment);
        const attributes = f.load32(0, at + SegmentField.ATTRIBUTES);
        f.store32(0, useIn(attributes, real), at + SegmentField.USE);
      }
    },
    undefined,
    "unlikely",
  );
}
