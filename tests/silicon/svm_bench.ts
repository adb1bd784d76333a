/**
 * A bench with SVM switched on: a host program of two instructions, VMRUN and HLT, and a guest whose
 * control block the test writes field by field. No hypervisor is involved.
 *
 * @module
 */
import {
  Attr,
  Control,
  Cr0,
  Cr4,
  Efer,
  InterceptWord,
  Misc1,
  Misc2,
  Msr,
  S,
  Save,
  SaveSegment,
  Stop,
  VMCB_BYTES,
} from "../../plugins/cpu/mod.ts";
import { Bench, type BenchOptions, gate, type Outcome, Place, Sel, selectorFor } from "./bench.ts";
import { hex } from "./code.ts";

/** Where things stand, besides those of {@linkcode Place}; linear addresses equal physical ones. */
export const SvmPlace = {
  HSAVE: 0x5_0000,
  VMCB: 0x5_1000,
  /** A second control block. */
  VMCB2: 0x5_2000,
  /** Three pages. */
  IOPM: 0x5_4000,
  /** Two pages. */
  MSRPM: 0x5_8000,
  /** Nested page tables: PML4, PDPT, PD, PT of the first 2 MiB. */
  NPT: 0x6_0000,
  /** The guest's page tables in the same order, with 4 KiB pages below 2 MiB. */
  GUEST_TABLES: 0x7_0000,
  GUEST_IDT: 0x8_0000,
  /** One HLT for each vector, at multiples of 4. */
  GUEST_HANDLERS: 0x8_2000,
  GUEST_CODE: 0x10_0000,
  GUEST_DATA: 0x11_0000,
  /** Top of the guest's stack. */
  GUEST_STACK: 0x12_0000,
} as const;

/** What runs in the guest: its mode, by the size of code. */
export type GuestMode = "long" | "compat" | "protected" | "real" | "v86";

/** Bits of the standard page tables: present, writable, user, accessed. */
const TABLE_BITS = 0x27n;
/** The same and dirty. */
const PAGE_BITS = 0x67n;

/** Identity mapping at `root`: 4 KiB pages below 2 MiB, large ones up to 8 MiB. */
function tablesAt(root: number): BigUint64Array {
  const entries = new BigUint64Array(0x4000 / 8);
  for (let level = 0; level < 3; level++) {
    entries[512 * level] = BigInt(root + 0x1000 * (level + 1)) | TABLE_BITS;
  }
  for (let page = 0; page < 512; page++) entries[3 * 512 + page] = BigInt(page << 12) | PAGE_BITS;
  for (let k = 1; k < 4; k++) {
    entries[2 * 512 + k] = BigInt(k * 0x20_0000) | PAGE_BITS | 0x80n;
  }
  return entries;
}
const TABLES = [SvmPlace.GUEST_TABLES, SvmPlace.NPT].map((root) => [root, tablesAt(root)] as const);

const VMRUN_HLT = hex("0f 01 d8 f4");

/** Attributes of code segments by mode, for CPL 0. */
const CODE_ATTRIBUTES: Readonly<Record<GuestMode, number>> = {
  long: 0xa9b,
  compat: 0xc9b,
  protected: 0xc9b,
  real: 0x9b,
  v86: 0xf3,
};

/** A bench whose processor is in 64-bit mode with EFER.SVME set. */
export class SvmBench extends Bench {
  /** Physical address of the control block that the accessors and VMRUN mean. */
  vmcb: number = SvmPlace.VMCB;

  constructor(options: BenchOptions = {}) {
    super(options);
    this.guest();
  }

  // The control block.

  /** Reads 32 bits of the control block. */
  control32(offset: number): number {
    return this.get32(this.vmcb + offset);
  }

  /** Reads 64 bits of the control block. */
  control64(offset: number): bigint {
    return this.get64(this.vmcb + offset);
  }

  /** Writes 32 bits of the control block. */
  setControl32(offset: number, value: number): void {
    this.set32(this.vmcb + offset, value);
  }

  /** Writes 64 bits of the control block. */
  setControl64(offset: number, value: bigint | number): void {
    this.set64(this.vmcb + offset, BigInt.asUintN(64, BigInt(value)));
  }

  /** Sets bits of 32 bits of the control block. */
  orControl32(offset: number, bits: number): void {
    this.setControl32(offset, this.control32(offset) | bits);
  }

  /** Sets bits of 64 bits of the control block. */
  orControl64(offset: number, bits: bigint | number): void {
    this.setControl64(offset, this.control64(offset) | BigInt(bits));
  }

  /** Clears bits of 64 bits of the control block. */
  clearControl64(offset: number, bits: bigint | number): void {
    this.setControl64(offset, this.control64(offset) & ~BigInt(bits));
  }

  /** All of the control block. */
  get block(): Uint8Array {
    return this.read(this.vmcb, VMCB_BYTES);
  }

  /** Writes a segment register of the control block. */
  setSegment(offset: number, selector: number, attributes: number, limit: number, base = 0n): void {
    this.set16(this.vmcb + offset + SaveSegment.SELECTOR, selector);
    this.set16(this.vmcb + offset + SaveSegment.ATTRIBUTES, attributes);
    this.setControl32(offset + SaveSegment.LIMIT, limit);
    this.setControl64(offset + SaveSegment.BASE, base);
  }

  /** Asks for an event: EVENTINJ. */
  inject(event: number, error = 0): void {
    this.setControl64(Control.EVENTINJ, BigInt(event >>> 0) | (BigInt(error) << 32n));
  }

  // Guests.

  /**
   * A guest that VMRUN accepts, and the host. No interrupt table, so an exception that is not intercepted
   * ends in a shutdown, which is. HLT exits. Identity mapping, no nested paging.
   */
  guest(mode: GuestMode = "long", cpl = 0): void {
    this.fill(this.vmcb, VMCB_BYTES, 0);
    this.#tables();
    const flat = mode === "long" || mode === "compat" || mode === "protected";
    const limit = flat ? 0xffff_ffff : 0xffff;
    const dpl = mode === "v86" ? 0 : cpl << Attr.DPL_SHIFT;
    const code = mode === "long" ? Sel.CODE64 : Sel.CODE32;
    const base = flat ? 0n : BigInt(SvmPlace.GUEST_CODE);
    const codeSelector = flat ? selectorFor(code, cpl) : SvmPlace.GUEST_CODE >> 4;
    this.setSegment(Save.CS, codeSelector, CODE_ATTRIBUTES[mode] | dpl, limit, base);
    const data = flat ? 0xc93 : mode === "v86" ? 0xf3 : 0x93;
    const dataSelector = flat ? selectorFor(Sel.DATA, cpl) : SvmPlace.GUEST_DATA >> 4;
    const dataBase = flat ? 0n : BigInt(SvmPlace.GUEST_DATA);
    for (const offset of [Save.ES, Save.SS, Save.DS, Save.FS, Save.GS]) {
      this.setSegment(offset, dataSelector, data | dpl, limit, dataBase);
    }
    this.setSegment(Save.GDTR, 0, 0, 0xfff, BigInt(Place.GDT));
    this.setSegment(Save.IDTR, 0, 0, 0, BigInt(SvmPlace.GUEST_IDT));
    this.write(this.vmcb + Save.CPL, [mode === "v86" ? 3 : cpl]);
    const longMode = mode === "long" || mode === "compat";
    this.setControl64(Save.EFER, Efer.SVME | (longMode ? Efer.LME | Efer.LMA | Efer.NXE : 0));
    const paging = longMode ? BigInt(Cr0.PG) : 0n;
    const protection = mode === "real" ? 0 : Cr0.PE;
    this.setControl64(Save.CR0, paging | BigInt(protection | Cr0.ET | Cr0.NE | Cr0.WP));
    this.setControl64(Save.CR3, SvmPlace.GUEST_TABLES);
    this.setControl64(Save.CR4, longMode ? Cr4.PAE : 0);
    this.setControl64(Save.DR6, 0xffff_0ff0n);
    this.setControl64(Save.DR7, 0x400n);
    this.setControl64(Save.G_PAT, 0x0007_0406_0007_0406n);
    this.setControl64(Save.RFLAGS, mode === "v86" ? 0x2_0002n : 2n);
    this.setControl64(Save.RIP, flat ? SvmPlace.GUEST_CODE : 0);
    this.setControl64(Save.RSP, flat ? SvmPlace.GUEST_STACK : 0x8000);
    this.setControl32(InterceptWord.MISC1, Misc1.SHUTDOWN | Misc1.HLT);
    this.setControl32(InterceptWord.MISC2, Misc2.VMRUN);
    this.setControl32(Control.ASID, 1);
    this.setControl64(Control.IOPM_BASE_PA, SvmPlace.IOPM);
    this.setControl64(Control.MSRPM_BASE_PA, SvmPlace.MSRPM);
    this.host();
  }

  /** The host: 64-bit mode at CPL 0, interrupts enabled, GIF set, about to execute VMRUN. */
  host(): void {
    this.long();
    const efer = this.state.get(S.efer) | BigInt(Efer.SVME);
    if (!this.processor.writeMsr(Msr.EFER, efer)) throw new Error("EFER.SVME was refused");
    if (!this.processor.writeMsr(Msr.VM_HSAVE_PA, BigInt(SvmPlace.HSAVE))) {
      throw new Error("VM_HSAVE_PA was refused");
    }
    this.flags = 0x202;
  }

  /** Page tables for the guest and nested ones: both map everything to itself, for everyone. */
  #tables(): void {
    for (const [root, entries] of TABLES) this.write(root, new Uint8Array(entries.buffer));
  }

  /** Address of the last entry for `address` (below 2 MiB) in the tables at `root`. */
  pageEntry(root: number, address: number): number {
    return root + 0x3000 + (address >>> 12) * 8;
  }

  /** Switches nested paging on. */
  nested(): void {
    this.setControl64(Control.NESTED_CONTROL, 1);
    this.setControl64(Control.N_CR3, SvmPlace.NPT);
  }

  /** Gives the guest an interrupt table whose gates lead to one HLT each. */
  guestHandlers(kind: 16 | 32 | 64 = 64, access = 0xee): void {
    this.fill(SvmPlace.GUEST_HANDLERS, 0x400, 0xf4);
    const code = { 16: Sel.CODE16, 32: Sel.CODE32, 64: Sel.CODE64 }[kind];
    for (let vector = 0; vector < 256; vector++) {
      const value = gate(code, this.guestHandler(vector), access);
      if (kind === 64) {
        this.set64(SvmPlace.GUEST_IDT + 16 * vector, value);
        this.set64(SvmPlace.GUEST_IDT + 16 * vector + 8, 0n);
      } else this.set64(SvmPlace.GUEST_IDT + 8 * vector, value);
    }
    this.setControl32(Save.IDTR + SaveSegment.LIMIT, kind === 64 ? 0xfff : 0x7ff);
  }

  /** Where the handler of `vector` stands. */
  guestHandler(vector: number): number {
    return SvmPlace.GUEST_HANDLERS + 4 * vector;
  }

  // Running.

  /** Writes the guest's code and starts the host program. */
  enter(code: readonly number[] | string, budget = 100): string {
    const base = this.control64(Save.CS + SaveSegment.BASE);
    const at = Number(base + this.control64(Save.RIP));
    this.write(at, typeof code === "string" ? hex(code) : code);
    return this.resume(budget);
  }

  /** VMRUN of what the control block holds; the exit's code in hexadecimal, or what happened instead. */
  resume(budget = 100): string {
    this.write(Place.CODE, VMRUN_HLT);
    this.processor.wake();
    this.state.setRegister(0, BigInt(this.vmcb));
    this.state.set(S.rip, BigInt(Place.CODE));
    return this.exitOf(this.run(budget));
  }

  /** Code of the exit that ended `outcome`: `"invalid"`, hexadecimal; or what happened instead. */
  exitOf({ stop, events }: Outcome): string {
    if (this.state.get32(S.guestMode) !== 0) return stop === Stop.HALT ? "halted" : "running";
    if (this.state.get(S.rip) !== BigInt(Place.CODE + VMRUN_HLT.length)) {
      return `host at ${this.state.get(S.rip).toString(16)} after ${events.length} events`;
    }
    const code = BigInt.asIntN(64, this.control64(Control.EXITCODE));
    return code === -1n ? "invalid" : code.toString(16);
  }

  /** EXITINFO1 and EXITINFO2. */
  get info(): [bigint, bigint] {
    return [this.control64(Control.EXITINFO1), this.control64(Control.EXITINFO2)];
  }
}
