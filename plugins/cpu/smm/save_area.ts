/**
 * The state-save areas of system management mode, field by field.
 *
 * AMD's is that of APM vol. 2, table 10-1. The manual does not say how its words of attributes are packed;
 * QEMU and KVM, which have the same area, agree that they are bits 55:40 of a descriptor with the limit's
 * four bits clear, and so it is here.
 *
 * Intel's is that of processors with Intel 64 (SDM vol. 3C, table 33-3; revision 3_0101h). The manual leaves
 * out where attributes, limits and most bases of segments stand: in what it calls reserved, and software is
 * told to leave alone. Here they are from FD00h on.
 *
 * @module
 */
import { Attr, registerAddress, S, Seg, segmentAddress, SegmentField } from "../state/cpu_state.ts";
import { type Field32, Field64 } from "../state/field.ts";
import { canonicalized } from "../memory/canonical.ts";
import { EPT_IN_FORCE } from "../vmx/controls.ts";
import { type FunctionBuilder, type I32, type I64, i64 } from "../wasm/mod.ts";

/** A field of a save area. */
export interface SaveField {
  /** Offset from SMBASE. */
  readonly offset: number;
  /** Width in bits: 8, 16, 32 or 64. */
  readonly bits: number;
  /** What an SMI stores there. */
  readonly save: (f: FunctionBuilder) => I64;
  /** What RSM makes of it; nothing if it does not look. */
  readonly restore?: (f: FunctionBuilder, value: I64) => void;
}

/** Where RSM finds what it checks before anything else, or treats in a way of its own. */
export interface SaveArea {
  /** Everything that is stored. */
  readonly fields: readonly SaveField[];
  /** Offset of the revision identifier (32 bits), and its value. */
  readonly revision: readonly [offset: number, value: number];
  /** Offset and width of SMBASE. */
  readonly smbase: readonly [offset: number, bits: number];
  /** Offset and width of the auto-halt restart entry. */
  readonly autoHalt: readonly [offset: number, bits: number];
  /** Offsets of the registers that are checked, and their widths. */
  readonly cr0: readonly [offset: number, bits: number];
  readonly cr3: readonly [offset: number, bits: number];
  readonly cr4: readonly [offset: number, bits: number];
  readonly efer: readonly [offset: number, bits: number];
  readonly dr6: readonly [offset: number, bits: number];
  readonly dr7: readonly [offset: number, bits: number];
  readonly rflags: readonly [offset: number, bits: number];
  /** Offset of the word of CS's attributes, in the packing above. */
  readonly csAttributes: number;
}

const wide = (offset: number, field: Field64): SaveField => ({
  offset,
  bits: 64,
  save: (f) => field.get(f),
  restore: (f, value) => field.set(f, value),
});

/** A field that RSM does not look at, or looks at in a way of its own. */
const told = (offset: number, bits: number, save: (f: FunctionBuilder) => I64): SaveField => ({
  offset,
  bits,
  save,
});

const generalRegister = (offset: number, n: number): SaveField => ({
  offset,
  bits: 64,
  save: (f) => f.load64(0, registerAddress(n)),
  restore: (f, value) => f.store64(0, value, registerAddress(n)),
});

const selector = (offset: number, bits: number, segment: number): SaveField => {
  const at = segmentAddress(segment) + SegmentField.SELECTOR;
  return {
    offset,
    bits,
    save: (f) => f.load32(0, at).extendU(),
    restore: (f, value) => f.store32(0, value.wrap().and(0xffff), at),
  };
};

/** Attributes (bits 55:40 of a descriptor), limit and base of a segment. CPL is SS's DPL. */
function hidden(offset: number, segment: number): readonly SaveField[] {
  const at = segmentAddress(segment);
  const attributes = (f: FunctionBuilder): I32 => {
    const stored = f.load32(0, at + SegmentField.ATTRIBUTES);
    if (segment !== Seg.SS) return stored;
    return stored.and(~(3 << Attr.DPL_SHIFT)).or(S.cpl.get(f).shl(Attr.DPL_SHIFT));
  };
  return [
    {
      offset: offset + 2,
      bits: 16,
      save: (f) => pack(attributes(f)).extendU(),
      restore: (f, value) => f.store32(0, unpack(value.wrap()), at + SegmentField.ATTRIBUTES),
    },
    {
      offset: offset + 4,
      bits: 32,
      save: (f) => f.load32(0, at + SegmentField.LIMIT).extendU(),
      restore: (f, value) => f.store32(0, value.wrap(), at + SegmentField.LIMIT),
    },
    {
      offset: offset + 8,
      bits: 64,
      save: (f) => f.load64(0, at + SegmentField.BASE),
      restore: (f, value) => f.store64(0, baseOf(f, segment, value), at + SegmentField.BASE),
    },
  ];
}

/** FS, GS, LDTR and TR get canonical bases; those of the others have 32 bits (APM vol. 2, 10.4). */
function baseOf(f: FunctionBuilder, segment: number, value: I64): I64 {
  const short = segment === Seg.ES || segment === Seg.CS || segment === Seg.SS ||
    segment === Seg.DS;
  return short ? value.and(0xffff_ffff) : canonicalized(f, value);
}

/** Attributes in the processor's own packing (11:8 are bits 55:52 of the descriptor) as a save area has them. */
function pack(attributes: I32): I32 {
  return attributes.and(0xff).or(attributes.and(0xf00).shl(4));
}

/** The way back. */
export function unpack(attributes: I32): I32 {
  return attributes.and(0xff).or(attributes.shrU(4).and(0xf00));
}

/** Limit and base of a descriptor table, at distances 4 and 8. */
function table(offset: number, limit: Field32, base: Field64): readonly SaveField[] {
  return [
    {
      offset: offset + 4,
      bits: 16,
      save: (f) => limit.get(f).extendU(),
      restore: (f, value) => limit.set(f, value.wrap()),
    },
    {
      offset: offset + 8,
      bits: 64,
      save: (f) => base.get(f),
      restore: (f, value) => base.set(f, canonicalized(f, value)),
    },
  ];
}

const halted = (f: FunctionBuilder): I64 => S.smmHalted.get(f).extendU();

/** 0 unless in an SVM guest. */
const ofGuest = (field: Field64): (f: FunctionBuilder) => I64 => (f) =>
  S.guestMode.get(f).ne(0).select(field.get(f), i64(0));

const AMD_SEGMENTS: readonly (readonly [number, number])[] = [
  [0xfe00, Seg.ES],
  [0xfe10, Seg.CS],
  [0xfe20, Seg.SS],
  [0xfe30, Seg.DS],
  [0xfe40, Seg.FS],
  [0xfe50, Seg.GS],
  [0xfe70, Seg.LDTR],
  [0xfe90, Seg.TR],
];

/** AMD64's. */
export const AMD_SAVE_AREA: SaveArea = {
  fields: [
    ...AMD_SEGMENTS.flatMap(([offset, segment]) => [
      selector(offset, 16, segment),
      ...hidden(offset, segment),
    ]),
    ...table(0xfe60, S.gdtLimit, S.gdtBase),
    ...table(0xfe80, S.idtLimit, S.idtBase),
    // No I/O instruction is ever interrupted: VAL of the I/O restart dword is 0, and so is all of it.
    ...[0xfea0, 0xfea8, 0xfeb0, 0xfeb8].map((offset) => told(offset, 64, () => i64(0))),
    told(0xfec0, 32, () => i64(0)),
    told(0xfec8, 8, () => i64(0)),
    told(0xfec9, 8, halted),
    told(0xfed0, 64, (f) => S.efer.get(f)),
    told(0xfed8, 64, (f) => S.guestMode.get(f).extendU()),
    told(0xfee0, 64, ofGuest(S.vmcbPhysical)),
    told(0xfee8, 64, (f) => {
      const both = S.intControl.get(f).extendU().or(S.intVector.get(f).extendU().shl(32));
      return S.guestMode.get(f).ne(0).select(both, i64(0));
    }),
    told(0xfefc, 32, () => i64(0x3_0064)),
    told(0xff00, 32, (f) => S.smbase.get(f).extendU()),
    told(0xff20, 64, (f) => {
      const nested = S.guestMode.get(f).and(S.nestedPaging.get(f).ne(0));
      return nested.select(S.pat.get(f), i64(0));
    }),
    told(0xff28, 64, ofGuest(S.hostEfer)),
    told(0xff30, 64, ofGuest(S.hostCr4)),
    // Under nested paging the host's CR3 that counts is the one the nested tables hang on.
    told(0xff38, 64, (f) => {
      const root = S.nestedPaging.get(f).ne(0).select(S.nestedCr3.get(f), S.hostCr3.get(f));
      return S.guestMode.get(f).ne(0).select(root, i64(0));
    }),
    told(0xff40, 64, ofGuest(S.hostCr0)),
    told(0xff48, 64, (f) => S.cr4.get(f)),
    told(0xff50, 64, (f) => S.cr3.get(f)),
    told(0xff58, 64, (f) => S.cr0.get(f)),
    told(0xff60, 64, (f) => S.dr7.get(f)),
    told(0xff68, 64, (f) => S.dr6.get(f)),
    told(0xff70, 64, (f) => S.smmFlags.get(f)),
    wide(0xff78, S.rip),
    ...Array.from({ length: 16 }, (_, n) => generalRegister(0xfff8 - 8 * n, n)),
  ],
  revision: [0xfefc, 0x3_0064],
  smbase: [0xff00, 32],
  autoHalt: [0xfec9, 8],
  cr0: [0xff58, 64],
  cr3: [0xff50, 64],
  cr4: [0xff48, 64],
  efer: [0xfed0, 64],
  dr6: [0xff68, 64],
  dr7: [0xff60, 64],
  rflags: [0xff70, 64],
  csAttributes: 0xfe12,
};

/** Selectors of Intel's area, 32 bits each. */
const INTEL_SELECTORS: readonly (readonly [number, number])[] = [
  [0xffc4, Seg.TR],
  [0xffc0, Seg.LDTR],
  [0xffbc, Seg.GS],
  [0xffb8, Seg.FS],
  [0xffb4, Seg.DS],
  [0xffb0, Seg.SS],
  [0xffac, Seg.CS],
  [0xffa8, Seg.ES],
];

/** General registers of Intel's area: RDI first, by machine encoding. */
const INTEL_REGISTERS: readonly (readonly [number, number])[] = [
  [0xff94, 7],
  [0xff8c, 6],
  [0xff84, 5],
  [0xff7c, 4],
  [0xff74, 3],
  [0xff6c, 2],
  [0xff64, 1],
  [0xff5c, 0],
  ...Array.from({ length: 8 }, (_, k) => [0xff54 - 8 * k, 8 + k] as const),
];

/** A base that stands in two halves. */
const halves = (low: number, high: number, base: Field64): readonly SaveField[] => [
  {
    offset: low,
    bits: 32,
    save: (f) => base.get(f),
    restore: (f, value) => base.set(f, value),
  },
  {
    offset: high,
    bits: 32,
    save: (f) => base.get(f).shrU(32),
    restore: (f, value) =>
      base.set(f, canonicalized(f, base.get(f).and(0xffff_ffff).or(value.shl(32)))),
  },
];

/** Where segment `n` has its hidden part in Intel's area. */
const INTEL_HIDDEN = 0xfd00;
const INTEL_CS_ATTRIBUTES: number = INTEL_HIDDEN + 0x10 * Seg.CS + 2;

const tableLimit = (offset: number, limit: Field32): SaveField => ({
  offset,
  bits: 16,
  save: (f) => limit.get(f).extendU(),
  restore: (f, value) => limit.set(f, value.wrap()),
});

/** Intel 64's. */
export const INTEL_SAVE_AREA: SaveArea = {
  fields: [
    told(0xfff8, 64, (f) => S.cr0.get(f)),
    told(0xfff0, 64, (f) => S.cr3.get(f)),
    told(0xffe8, 64, (f) => S.smmFlags.get(f)),
    told(0xffe0, 64, (f) => S.efer.get(f)),
    wide(0xffd8, S.rip),
    told(0xffd0, 64, (f) => S.dr6.get(f)),
    told(0xffc8, 64, (f) => S.dr7.get(f)),
    ...INTEL_SELECTORS.map(([offset, segment]) => selector(offset, 32, segment)),
    // IO_MISC, whose bit 0 says that an I/O instruction was interrupted, and IO_MEM_ADDR.
    told(0xffa4, 32, () => i64(0)),
    told(0xff9c, 64, () => i64(0)),
    ...INTEL_REGISTERS.map(([offset, n]) => generalRegister(offset, n)),
    told(0xff02, 16, halted),
    told(0xff00, 16, () => i64(0)),
    told(0xfefc, 32, () => i64(0x3_0101)),
    told(0xfef8, 32, (f) => S.smbase.get(f).extendU()),
    told(0xfee0, 32, (f) => S.nestedPaging.get(f).eq(EPT_IN_FORCE).extendU()),
    told(0xfed8, 64, (f) => S.eptPointer.get(f)),
    told(0xfe40, 32, (f) => S.cr4.get(f)),
    told(0xfde8, 64, () => i64(0)),
    ...halves(0xfe8c, 0xfdd0, S.gdtBase),
    ...halves(0xfe94, 0xfdd8, S.idtBase),
    ...Array.from({ length: 8 }, (_, n) => hidden(INTEL_HIDDEN + 0x10 * n, n)).flat(),
    // The base of LDTR has a documented place as well, and that is the one that counts.
    ...halves(0xfe9c, 0xfdd4, new Field64(segmentAddress(Seg.LDTR) + SegmentField.BASE)),
    tableLimit(INTEL_HIDDEN + 0x84, S.gdtLimit),
    tableLimit(INTEL_HIDDEN + 0x94, S.idtLimit),
  ],
  revision: [0xfefc, 0x3_0101],
  smbase: [0xfef8, 32],
  autoHalt: [0xff02, 16],
  cr0: [0xfff8, 64],
  cr3: [0xfff0, 64],
  cr4: [0xfe40, 32],
  efer: [0xffe0, 64],
  dr6: [0xffd0, 64],
  dr7: [0xffc8, 64],
  rflags: [0xffe8, 64],
  csAttributes: INTEL_CS_ATTRIBUTES,
};
