/**
 * VMRUN's consistency checks, row by row from the manual (APM vol. 2, 15.5.1, 15.20, 15.21.10, 15.25.3,
 * 15.29), on the bytes of a VMCB. Written apart from the processor's own, to be compared with it.
 *
 * @module
 */
import {
  Control,
  Cr0,
  Cr4,
  Efer,
  IntControl,
  InterceptWord,
  Misc1,
  Misc2,
  Save,
} from "../../plugins/cpu/mod.ts";

/** A VMCB with what the checks look at besides. */
export class VmcbView {
  readonly #read: (offset: number) => bigint;
  /** MAXPHYADDR. */
  readonly physicalBits: bigint;
  /** 64 bits of physical memory; `undefined` where there is none. */
  readonly memory: (address: bigint) => bigint | undefined;
  /** Bits that CR4 can have on this processor. */
  readonly cr4: bigint;

  constructor(
    read: (offset: number) => bigint,
    machine: {
      readonly physicalBits: number;
      readonly memory: (address: bigint) => bigint | undefined;
      readonly cr4: bigint;
    },
  ) {
    this.#read = read;
    this.physicalBits = BigInt(machine.physicalBits);
    this.memory = machine.memory;
    this.cr4 = machine.cr4;
  }

  /** 64 bits at `offset`. */
  at(offset: number): bigint {
    return this.#read(offset);
  }

  /** 32 bits. */
  word(offset: number): number {
    return Number(this.at(offset) & 0xffff_ffffn);
  }

  /** Whether any of `bits` is set. */
  has(offset: number, bits: number | bigint): boolean {
    return (this.at(offset) & (typeof bits === "bigint" ? bits : BigInt(bits >>> 0))) !== 0n;
  }

  /** Whether `bytes` from an address of a page on reach the end of the physical address space. */
  beyond(address: bigint, bytes: bigint): boolean {
    return ((address & ~0xfffn) + bytes) >> this.physicalBits !== 0n;
  }

  /** EFER.LME with paging: IA-32e mode. */
  get long(): boolean {
    return this.has(Save.EFER, Efer.LME) && this.has(Save.CR0, Cr0.PG);
  }

  /** Nested paging. */
  get nested(): boolean {
    return this.has(Control.NESTED_CONTROL, 1);
  }

  /** CS's attributes. */
  get code(): number {
    return this.word(Save.CS) >>> 16;
  }
}

/** One row of the list. */
export interface VmcbCheck {
  /** What it asks for. */
  readonly rule: string;
  /** Whether a VMCB breaks it. */
  readonly fails: (v: VmcbView) => boolean;
}

const EFER_BITS = BigInt(
  Efer.SCE | Efer.LME | Efer.LMA | Efer.NXE | Efer.SVME | Efer.FFXSR | Efer.TCE,
);
/** Attributes of a code segment: L and D. */
const LONG_AND_BIG = 0x600;
const LONG = 0x200;
/** 64 Ki ports and three more, a bit each. */
const IOPM_BYTES = 0x2001n;
const MSRPM_BYTES = 0x2000n;
/** What the processor has an exception for: without SEV-ES, no 29. */
const EXCEPTIONS: ReadonlySet<number> = new Set([
  0,
  1,
  3,
  4,
  5,
  6,
  7,
  8,
  10,
  11,
  12,
  13,
  14,
  16,
  17,
  18,
  19,
  21,
  28,
  30,
]);

/** S_CET's bits where there is no indirect-branch tracking: SH_STK_EN and WR_SHSTK_EN. */
const SHADOW_STACK_BITS = 3n;

const badPat = (pat: bigint): boolean =>
  Array.from({ length: 8 }, (_, k) => (pat >> BigInt(8 * k)) & 0xffn)
    .some((type) => ![0n, 1n, 4n, 5n, 6n, 7n].includes(type));

const check = (rule: string, fails: (v: VmcbView) => boolean): VmcbCheck => ({ rule, fails });

const EVENT: readonly VmcbCheck[] = [
  check("an event's type is not reserved", (v) => {
    const event = v.word(Control.EVENTINJ);
    return (event & 0x8000_0000) !== 0 && [1, 5, 6, 7].includes((event >>> 8) & 7);
  }),
  check("an exception's vector is one", (v) => {
    const event = v.word(Control.EVENTINJ);
    return (event & 0x8000_0000) !== 0 && ((event >>> 8) & 7) === 3 &&
      !EXCEPTIONS.has(event & 0xff);
  }),
  check("no #OF and no #BR in 64-bit code", (v) => {
    const event = v.word(Control.EVENTINJ);
    return (event & 0x8000_0000) !== 0 && ((event >>> 8) & 7) === 3 && v.long &&
      (v.code & LONG) !== 0 && [4, 5].includes(event & 0xff);
  }),
];

const avic = (v: VmcbView): boolean => v.has(Control.INT_CONTROL, IntControl.AVIC);
const x2 = (v: VmcbView): boolean => v.has(Control.INT_CONTROL, IntControl.X2AVIC);
const badPointer = (v: VmcbView, address: bigint): boolean =>
  (address & 0xfffn) !== 0n || address >> v.physicalBits !== 0n;

const AVIC: readonly VmcbCheck[] = [
  check("x2AVIC goes with AVIC", (v) => x2(v) && !avic(v)),
  check("AVIC needs nested paging", (v) => avic(v) && !v.nested),
  check(
    "AVIC's highest index",
    (v) => avic(v) && !x2(v) && (v.word(Control.AVIC_PHYSICAL_TABLE) & 0xfff) > 255,
  ),
  check(
    "AVIC's backing page",
    (v) => {
      if (!avic(v)) return false;
      const page = v.at(Control.AVIC_BACKING_PAGE);
      return badPointer(v, page) || v.memory(page) === undefined;
    },
  ),
  check(
    "AVIC's physical table",
    (v) => avic(v) && badPointer(v, v.at(Control.AVIC_PHYSICAL_TABLE) & ~0xfffn),
  ),
  check(
    "AVIC's logical table and base address, without x2AVIC",
    (v) =>
      avic(v) && !x2(v) &&
      (badPointer(v, v.at(Control.AVIC_LOGICAL_TABLE)) ||
        badPointer(v, v.at(Control.AVIC_APIC_BAR))),
  ),
];

/** Whether the PAE entries that CR3 names have a reserved bit set. */
function badPdptes(v: VmcbView): boolean {
  const pae = v.has(Save.CR0, Cr0.PG) && v.has(Save.CR4, Cr4.PAE) && !v.has(Save.EFER, Efer.LME);
  if (!pae || v.nested) return false;
  const start = v.at(Save.CR3) & 0xffff_ffe0n;
  const reserved = 0x1e6n | BigInt.asUintN(64, -1n << v.physicalBits);
  return [0n, 8n, 16n, 24n].some((offset) => {
    const entry = v.memory(start + offset) ?? 0xffff_ffff_ffff_ffffn;
    return (entry & 1n) !== 0n && (entry & reserved) !== 0n;
  });
}

/** All of them. */
export const VMCB_CHECKS: readonly VmcbCheck[] = [
  check("EFER.SVME is set", (v) => !v.has(Save.EFER, Efer.SVME)),
  check("EFER's reserved bits", (v) => (v.at(Save.EFER) & ~EFER_BITS) !== 0n),
  check("CR0.NW goes with CR0.CD", (v) => v.has(Save.CR0, Cr0.NW) && !v.has(Save.CR0, Cr0.CD)),
  check("CR0 has 32 bits", (v) => v.at(Save.CR0) >> 32n !== 0n),
  check("CR3", (v) => v.at(Save.CR3) >> v.physicalBits !== 0n),
  check("CR4's reserved bits", (v) => (v.at(Save.CR4) & ~v.cr4) !== 0n),
  check("CR4.CET goes with CR0.WP", (v) => v.has(Save.CR4, Cr4.CET) && !v.has(Save.CR0, Cr0.WP)),
  check("S_CET's reserved bits", (v) => (v.at(Save.S_CET) & ~SHADOW_STACK_BITS) !== 0n),
  check("DR6 has 32 bits", (v) => v.at(Save.DR6) >> 32n !== 0n),
  check("DR7 has 32 bits", (v) => v.at(Save.DR7) >> 32n !== 0n),
  check("IA-32e mode needs PAE", (v) => v.long && !v.has(Save.CR4, Cr4.PAE)),
  check("IA-32e mode needs protection", (v) => v.long && !v.has(Save.CR0, Cr0.PE)),
  check(
    "64-bit code has D 0",
    (v) => v.long && v.has(Save.CR4, Cr4.PAE) && (v.code & LONG_AND_BIG) === LONG_AND_BIG,
  ),
  check("VMRUN is intercepted", (v) => !v.has(InterceptWord.MISC2, Misc2.VMRUN)),
  check("the ASID is not 0", (v) => v.word(Control.ASID) === 0),
  check("the I/O map", (v) => v.beyond(v.at(Control.IOPM_BASE_PA), IOPM_BYTES)),
  check("the MSR map", (v) => v.beyond(v.at(Control.MSRPM_BASE_PA), MSRPM_BYTES)),
  ...EVENT,
  check("nested CR3", (v) => v.nested && v.at(Control.N_CR3) >> v.physicalBits !== 0n),
  check("guest PAT", (v) => v.nested && badPat(v.at(Save.G_PAT))),
  check("PAE page-directory-pointer entries", badPdptes),
  check(
    "virtual NMIs need the NMI intercept",
    (v) =>
      v.has(Control.INT_CONTROL, IntControl.V_NMI_ENABLE) && !v.has(InterceptWord.MISC1, Misc1.NMI),
  ),
  ...AVIC,
];
