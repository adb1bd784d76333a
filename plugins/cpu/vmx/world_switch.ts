/**
 * What VM entries and VM exits move between the processor and the current VMCS
 * (SDM vol. 3, 27.3.2, 28.3, 28.5).
 *
 * @module
 */
import { MicrocodeFeature } from "../isa_features.ts";
import { useIn, useOf } from "../microcode/segments.ts";
import { Cr0, Cr4, Dr7, Efer, Rflags } from "../microcode/registers.ts";
import { FlagsKind } from "../semantics/flags.ts";
import {
  Attr,
  registerAddress,
  S,
  Seg,
  SEGMENT_BYTES,
  segmentAddress,
  SegmentField,
} from "../state/cpu_state.ts";
import type { Field64 } from "../state/field.ts";
import { type FunctionBuilder, type I32, i32, type I64 } from "../wasm/mod.ts";
import { copyBlock, sameBlock } from "../state/copy.ts";
import { AccessRights, EntryControl, ExitControl } from "./controls.ts";
import { readField, readField32, Vmcs, VmcsGroup, writeField, writeField32 } from "./fields.ts";
import { type SegmentFields, SEGMENTS } from "./segments.ts";

const RSP = registerAddress(4);
/** CR0 bits that neither entries nor exits change. */
const CR0_KEPT = Cr0.NW | Cr0.CD;
/** Limit of the host's descriptor tables and of its TSS. */
const TABLE_LIMIT = 0xffff;
const TSS_LIMIT = 0x67;

/** Registers that are the guest's own, by field. */
const GUEST: readonly (readonly [Field64, number])[] = [
  [S.cr3, Vmcs.GUEST_CR3],
  [S.cr4, Vmcs.GUEST_CR4],
  [S.gdtBase, Vmcs.GUEST_GDTR_BASE],
  [S.idtBase, Vmcs.GUEST_IDTR_BASE],
  [S.sysenterCs, Vmcs.GUEST_SYSENTER_CS],
  [S.sysenterEsp, Vmcs.GUEST_SYSENTER_ESP],
  [S.sysenterEip, Vmcs.GUEST_SYSENTER_EIP],
];

/** Registers of the host, by field. */
const HOST: readonly (readonly [Field64, number])[] = [
  [S.cr3, Vmcs.HOST_CR3],
  [S.gdtBase, Vmcs.HOST_GDTR_BASE],
  [S.idtBase, Vmcs.HOST_IDTR_BASE],
  [S.sysenterCs, Vmcs.HOST_SYSENTER_CS],
  [S.sysenterEsp, Vmcs.HOST_SYSENTER_ESP],
  [S.sysenterEip, Vmcs.HOST_SYSENTER_EIP],
];

/** Control-flow enforcement of the guest and of the host, by field. */
const GUEST_CET: readonly (readonly [Field64, number])[] = [
  [S.sCet, Vmcs.GUEST_S_CET],
  [S.ssp, Vmcs.GUEST_SSP],
  [S.sspTable, Vmcs.GUEST_INTERRUPT_SSP_TABLE],
];
const HOST_CET: readonly (readonly [Field64, number])[] = [
  [S.sCet, Vmcs.HOST_S_CET],
  [S.ssp, Vmcs.HOST_SSP],
  [S.sspTable, Vmcs.HOST_INTERRUPT_SSP_TABLE],
];

/** Sets RFLAGS without looking at what follows from it; the caller updates the mode. */
export function setFlags(f: FunctionBuilder, value: I64 | number): void {
  const flags = typeof value === "number" ? i32(value).extendU() : value;
  S.flagsKind.set(f, FlagsKind.VALUE);
  S.flagsA.set(f, flags.and(Rflags.ARITHMETIC));
  S.rflags.set(f, flags.and(Rflags.ALL & ~Rflags.ARITHMETIC).or(Rflags.ONE));
}

function loadCr0(f: FunctionBuilder, value: I64): void {
  const defined = value.and(0xe005_003f).and(~CR0_KEPT);
  S.cr0.set(f, defined.or(S.cr0.get(f).and(CR0_KEPT)).or(Cr0.ET));
}

function putSegment(
  f: FunctionBuilder,
  segment: number,
  selector: I32,
  attributes: I32,
  limit: I32,
  use: I32,
  base: I64,
): void {
  const at = segmentAddress(segment);
  f.store32(0, selector, at + SegmentField.SELECTOR);
  f.store32(0, attributes, at + SegmentField.ATTRIBUTES);
  f.store32(0, limit, at + SegmentField.LIMIT);
  f.store32(0, use, at + SegmentField.USE);
  f.store64(0, base, at + SegmentField.BASE);
}

function loadSegment(f: FunctionBuilder, fields: SegmentFields, real: I32): void {
  const rights = readField32(f, fields.rights);
  const packed = rights.and(0xff).or(rights.shrU(4).and(0xf00));
  // Not present is what an unusable segment is here; CS cannot be.
  const unusable = rights.and(AccessRights.UNUSABLE).ne(0);
  const attributes = fields.segment === Seg.CS
    ? packed
    : unusable.select(packed.and(~Attr.P), packed);
  putSegment(
    f,
    fields.segment,
    readField32(f, fields.selector),
    attributes,
    readField32(f, fields.limit),
    useIn(attributes, real),
    readField(f, fields.base),
  );
}

function saveSegment(f: FunctionBuilder, fields: SegmentFields): void {
  const at = segmentAddress(fields.segment);
  const stored = f.load32(0, at + SegmentField.ATTRIBUTES);
  // CPL is SS.DPL here, and is kept apart in the processor.
  const attributes = fields.segment === Seg.SS
    ? stored.and(~(3 << Attr.DPL_SHIFT)).or(S.cpl.get(f).shl(Attr.DPL_SHIFT))
    : stored;
  const present = attributes.and(Attr.P).ne(0);
  const usable = fields.segment === Seg.CS ? i32(1) : present;
  const rights = attributes.and(0xff).or(attributes.and(0xf00).shl(4))
    .or(usable.select(i32(0), i32(AccessRights.UNUSABLE)));
  writeField32(f, fields.selector, f.load32(0, at + SegmentField.SELECTOR));
  writeField32(f, fields.rights, rights);
  writeField32(f, fields.limit, f.load32(0, at + SegmentField.LIMIT));
  writeField(f, fields.base, f.load64(0, at + SegmentField.BASE));
}

/** Bits of `S.savedMode`. */
const SAVED = 1;
const SAVED_REAL = 2;

/**
 * Loads the registers of the guest-state area, of which groups of fields have been `written` since the last
 * VM exit; the mode is the caller's to update.
 */
export function loadGuest(f: FunctionBuilder, written: I32): void {
  const entry = readField32(f, Vmcs.ENTRY_CONTROLS);
  const wanted = (bit: number): I32 => entry.and(bit).ne(0);
  const cr0 = readField(f, Vmcs.GUEST_CR0);
  const flags = readField(f, Vmcs.GUEST_RFLAGS);
  const virtual = flags.has(Rflags.VM);
  const real = cr0.has(Cr0.PE).eqz().or(virtual);
  loadCr0(f, cr0);
  for (const [field, encoding] of GUEST) field.set(f, readField(f, encoding));
  S.gdtLimit.set(f, readField32(f, Vmcs.GUEST_GDTR_LIMIT));
  S.idtLimit.set(f, readField32(f, Vmcs.GUEST_IDTR_LIMIT));
  f.if(wanted(EntryControl.LOAD_DEBUG), () => {
    S.dr7.set(f, readField(f, Vmcs.GUEST_DR7).and(Dr7.WRITABLE).or(Dr7.FIXED));
    S.debugCtl.set(f, readField(f, Vmcs.GUEST_DEBUGCTL));
  });
  f.if(
    wanted(EntryControl.LOAD_CET),
    () => {
      for (const [field, encoding] of GUEST_CET) field.set(f, readField(f, encoding));
    },
    undefined,
    "unlikely",
  );
  f.if(wanted(EntryControl.LOAD_PAT), () => S.pat.set(f, readField(f, Vmcs.GUEST_PAT)));
  f.if(wanted(EntryControl.LOAD_EFER), () => S.efer.set(f, readField(f, Vmcs.GUEST_EFER)), () => {
    const long = wanted(EntryControl.IA32E_GUEST);
    const old = S.efer.get(f).and(~Efer.LMA);
    const paged = old.and(~Efer.LME).or(long.extendU().mul(Efer.LME));
    S.efer.set(f, cr0.has(Cr0.PG).select(paged, old).or(long.extendU().mul(Efer.LMA)));
  });
  const saved = S.savedMode.get(f).eq(real.select(i32(SAVED | SAVED_REAL), i32(SAVED)));
  f.if(
    saved.and(written.and(VmcsGroup.GUEST).eqz()),
    () => copyBlock(f, S.segments, S.savedSegments, 8 * SEGMENT_BYTES),
    () => {
      // An entry that fails from here on leaves nothing saved.
      S.savedMode.set(f, 0);
      for (const fields of SEGMENTS) loadSegment(f, fields, real);
    },
    "likely",
  );
  f.store64(0, readField(f, Vmcs.GUEST_RSP), RSP);
  S.rip.set(f, readField(f, Vmcs.GUEST_RIP));
  setFlags(f, flags);
  const dpl = readField32(f, Vmcs.GUEST_SS_ACCESS_RIGHTS).shrU(Attr.DPL_SHIFT).and(3);
  S.cpl.set(f, virtual.select(i32(3), dpl));
}

/** Saves the registers into the guest-state area. RIP and RFLAGS are the caller's. */
export function saveGuest(f: FunctionBuilder): void {
  const exit = readField32(f, Vmcs.EXIT_CONTROLS);
  const wanted = (bit: number): I32 => exit.and(bit).ne(0);
  writeField(f, Vmcs.GUEST_CR0, S.cr0.get(f));
  for (const [field, encoding] of GUEST) writeField(f, encoding, field.get(f));
  writeField32(f, Vmcs.GUEST_GDTR_LIMIT, S.gdtLimit.get(f));
  writeField32(f, Vmcs.GUEST_IDTR_LIMIT, S.idtLimit.get(f));
  f.if(wanted(ExitControl.SAVE_DEBUG), () => {
    writeField(f, Vmcs.GUEST_DR7, S.dr7.get(f));
    writeField(f, Vmcs.GUEST_DEBUGCTL, S.debugCtl.get(f));
  });
  // Saved whether entries load it or not, where there is a control for that (SDM vol. 3, 28.3.1).
  f.if(
    S.features.has(f, MicrocodeFeature.SHSTK | MicrocodeFeature.IBT),
    () => {
      for (const [field, encoding] of GUEST_CET) writeField(f, encoding, field.get(f));
    },
    undefined,
    "unlikely",
  );
  f.if(wanted(ExitControl.SAVE_PAT), () => writeField(f, Vmcs.GUEST_PAT, S.pat.get(f)));
  f.if(wanted(ExitControl.SAVE_EFER), () => writeField(f, Vmcs.GUEST_EFER, S.efer.get(f)));
  const real = S.cr0.has(f, Cr0.PE).eqz().or(S.rflags.has(f, Rflags.VM));
  const mode = real.select(i32(SAVED | SAVED_REAL), i32(SAVED));
  // What was saved last and put back at the entry is in the VMCS still.
  const saved = S.savedMode.get(f).eq(mode).and(S.savedCpl.get(f).eq(S.cpl.get(f)))
    .and(sameBlock(f, S.savedSegments, S.segments, 8 * SEGMENT_BYTES));
  f.if(
    saved.eqz(),
    () => {
      for (const fields of SEGMENTS) saveSegment(f, fields);
      copyBlock(f, S.savedSegments, S.segments, 8 * SEGMENT_BYTES);
      S.savedMode.set(f, mode);
      S.savedCpl.set(f, S.cpl.get(f));
    },
    undefined,
    "unlikely",
  );
  writeField(f, Vmcs.GUEST_RSP, f.load64(0, RSP));
  // IA32_VMX_MISC bit 5: the mode the guest is in is remembered for the next entry.
  const entry = readField32(f, Vmcs.ENTRY_CONTROLS).and(~EntryControl.IA32E_GUEST);
  const long = S.efer.has(f, Efer.LMA).select(i32(EntryControl.IA32E_GUEST), i32(0));
  writeField32(f, Vmcs.ENTRY_CONTROLS, entry.or(long));
}

const DATA = Attr.P | Attr.S | Attr.WRITABLE | Attr.ACCESSED | Attr.DB | Attr.G;
const CODE = Attr.P | Attr.S | Attr.CODE | Attr.WRITABLE | Attr.ACCESSED | Attr.G;
const TSS = Attr.P | 11;

/** Data segments of the host: register, selector, and base where it is not 0. */
const HOST_DATA: readonly (readonly [number, number, number | undefined])[] = [
  [Seg.ES, Vmcs.HOST_ES_SELECTOR, undefined],
  [Seg.SS, Vmcs.HOST_SS_SELECTOR, undefined],
  [Seg.DS, Vmcs.HOST_DS_SELECTOR, undefined],
  [Seg.FS, Vmcs.HOST_FS_SELECTOR, Vmcs.HOST_FS_BASE],
  [Seg.GS, Vmcs.HOST_GS_SELECTOR, Vmcs.HOST_GS_BASE],
];

/** Loads the registers of the host-state area; the mode is the caller's to update. */
export function loadHost(f: FunctionBuilder): void {
  const exit = readField32(f, Vmcs.EXIT_CONTROLS);
  const wide = exit.and(ExitControl.HOST_64BIT).ne(0);
  loadCr0(f, readField(f, Vmcs.HOST_CR0));
  for (const [field, encoding] of HOST) field.set(f, readField(f, encoding));
  const cr4 = readField(f, Vmcs.HOST_CR4);
  S.cr4.set(f, wide.select(cr4.or(Cr4.PAE), cr4.and(~Cr4.PCIDE)));
  S.gdtLimit.set(f, TABLE_LIMIT);
  S.idtLimit.set(f, TABLE_LIMIT);
  S.dr7.set(f, Dr7.FIXED);
  S.debugCtl.set(f, 0);
  f.if(
    exit.and(ExitControl.LOAD_PAT).ne(0),
    () => S.pat.set(f, readField(f, Vmcs.HOST_PAT)),
  );
  f.if(
    exit.and(ExitControl.LOAD_EFER).ne(0),
    () => S.efer.set(f, readField(f, Vmcs.HOST_EFER)),
    () => {
      const modes = Efer.LMA | Efer.LME;
      S.efer.set(f, S.efer.get(f).and(~modes).or(wide.extendU().mul(modes)));
    },
  );
  f.if(
    exit.and(ExitControl.LOAD_CET).ne(0),
    () => {
      for (const [field, encoding] of HOST_CET) field.set(f, readField(f, encoding));
    },
    undefined,
    "unlikely",
  );
  f.if(
    S.hostSegmentsKnown.get(f),
    () => copyBlock(f, S.segments, S.hostSegments, 8 * SEGMENT_BYTES),
    () => {
      loadHostSegments(f, wide);
      copyBlock(f, S.hostSegments, S.segments, 8 * SEGMENT_BYTES);
      S.hostSegmentsKnown.set(f, 1);
    },
    "likely",
  );
  f.store64(0, readField(f, Vmcs.HOST_RSP), RSP);
  S.rip.set(f, readField(f, Vmcs.HOST_RIP));
  setFlags(f, Rflags.ONE);
  S.cpl.set(f, 0);
}

function loadHostSegments(f: FunctionBuilder, wide: I32): void {
  const zero = i32(0).extendU();
  const all = i32(-1);
  const code = wide.select(i32(CODE | Attr.L), i32(CODE | Attr.DB));
  putSegment(f, Seg.CS, readField32(f, Vmcs.HOST_CS_SELECTOR), code, all, useOf(code), zero);
  for (const [segment, selector, base] of HOST_DATA) {
    const value = readField32(f, selector);
    const attributes = value.eqz().select(i32(0), i32(DATA));
    const at = base === undefined ? zero : readField(f, base);
    putSegment(f, segment, value, attributes, all, useOf(attributes), at);
  }
  const task = readField32(f, Vmcs.HOST_TR_SELECTOR);
  const taskBase = readField(f, Vmcs.HOST_TR_BASE);
  putSegment(f, Seg.TR, task, i32(TSS), i32(TSS_LIMIT), useOf(i32(TSS)), taskBase);
  putSegment(f, Seg.LDTR, i32(0), i32(0), i32(0), i32(0), zero);
}
