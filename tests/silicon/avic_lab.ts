/**
 * Processors with AVIC on the bench: backing pages, ID tables, VMCBs and nested tables that a test
 * writes by hand, and guest code that makes one access.
 *
 * @module
 */
import type { HostMemory } from "../../core/mod.ts";
import {
  Attr,
  Control,
  Cr0,
  Cr4,
  createHost,
  Efer,
  type HostOptions,
  IntControl,
  InterceptWord,
  Misc1,
  Misc2,
  Msr,
  type Processor,
  S,
  Save,
  Seg,
  VMCB_BYTES,
} from "../../plugins/cpu/mod.ts";
import { code, dword, qword } from "./code.ts";
import { Flat, IN_VMCB, refuseOutside, REGISTER_SLOTS } from "./lab.ts";

const PAGE = 0x1000;
/** Where the guest sees its APIC in xAVIC mode. */
export const APIC_BASE = 0xfee0_0000;
/** Guest linear and physical addresses, 1 MiB a processor. */
export const Place = {
  CODE: 0x1000,
  /** 256 handlers of 16 bytes: each makes a hypercall. */
  HANDLERS: 0x2000,
  IDT: 0x4000,
  STACK: 0x8000,
  DATA: 0x9000,
} as const;

export const Exit = {
  EXCEPTION_GP: 0x4dn,
  MSR: 0x7cn,
  VMMCALL: 0x81n,
  INVALID: 0xffff_ffff_ffff_ffffn,
  INCOMPLETE_IPI: 0x401n,
  NOACCEL: 0x402n,
} as const;

export type Mode = "xavic" | "x2avic";

/** One guest on one processor. */
export class AvicCpu {
  readonly processor: Processor;
  readonly vmcb: number;
  readonly page: number;
  readonly base: number;
  readonly lab: AvicLab;
  readonly #registers: BigUint64Array;

  constructor(lab: AvicLab, index: number) {
    this.lab = lab;
    const { memory } = lab;
    this.processor = lab.processors(index);
    this.vmcb = memory.alloc(VMCB_BYTES);
    this.page = memory.alloc(PAGE);
    this.base = lab.ram + index * 0x10_0000;
    const stored = memory.view(memory.alloc(PAGE), 8 * REGISTER_SLOTS);
    this.#registers = new BigUint64Array(stored.buffer, stored.byteOffset, REGISTER_SLOTS);
    this.#start(memory.alloc(PAGE));
    for (let vector = 0; vector < 256; vector++) {
      const handler = BigInt(Place.HANDLERS + vector * 16);
      // Interrupt gate, present, selector 8.
      const low = (handler & 0xffffn) | (8n << 16n) | (0x8e00n << 32n);
      memory.writeU64(this.base + Place.IDT + vector * 16, low);
      memory.writeU64(this.base + Place.IDT + vector * 16 + 8, 0n);
      memory.write(this.base + Place.HANDLERS + vector * 16, new Uint8Array(code("0f 01 d9")));
    }
    const descriptors = [0n, 0x00af_9b00_0000_ffffn, 0x00cf_9300_0000_ffffn];
    memory.write(this.base + 0x7000, new Uint8Array(descriptors.flatMap(qword)));
  }

  #start(hsave: number): void {
    const { processor } = this;
    processor.attach(refuseOutside(), 0);
    processor.reset();
    const { state } = processor;
    const attributes = Attr.P | Attr.S | Attr.CODE | Attr.WRITABLE | Attr.ACCESSED | Attr.L;
    state.setSegment(Seg.CS, { selector: 8, attributes, limit: 0xffff_ffff, base: 0n });
    state.set(S.cr0, 0x8000_0000n | BigInt(Cr0.PE | Cr0.WP | Cr0.ET | Cr0.NE));
    state.set(S.cr4, BigInt(Cr4.PAE));
    state.set(S.cr3, BigInt(this.lab.hostTables));
    state.set(S.efer, BigInt(Efer.LME | Efer.LMA | Efer.NXE));
    state.set(S.rflags, 0x202n);
    processor.refresh();
    processor.setHostOutside(true);
    const efer = BigInt(Efer.LME | Efer.LMA | Efer.NXE | Efer.SVME);
    if (!processor.writeMsr(Msr.EFER, efer)) throw new Error("EFER.SVME was refused");
    processor.writeMsr(Msr.VM_HSAVE_PA, BigInt(hsave));
  }

  get32(offset: number): number {
    return this.lab.memory.readU32(this.vmcb + offset);
  }

  set32(offset: number, value: number): void {
    this.lab.memory.writeU32(this.vmcb + offset, value >>> 0);
  }

  get64(offset: number): bigint {
    return this.lab.memory.readU64(this.vmcb + offset);
  }

  set64(offset: number, value: bigint): void {
    this.lab.memory.writeU64(this.vmcb + offset, value);
  }

  /** A register of the backing page. */
  apic(offset: number): number {
    return this.lab.memory.readU32(this.page + offset);
  }

  setApic(offset: number, value: number): void {
    this.lab.memory.writeU32(this.page + offset, value >>> 0);
  }

  /** Whether `vector` is set in the registers at `offset` (ISR 100h, TMR 180h, IRR 200h). */
  vector(offset: number, vector: number): boolean {
    return (this.apic(offset + (vector >> 5) * 16) & (1 << (vector & 31))) !== 0;
  }

  setVector(offset: number, vector: number, on = true): void {
    const at = offset + (vector >> 5) * 16;
    const bit = 1 << (vector & 31);
    this.setApic(at, on ? this.apic(at) | bit : this.apic(at) & ~bit);
  }

  /** The backing page, register by register. */
  registers(): number[] {
    return Array.from({ length: 256 }, (_, k) => this.apic(16 * k));
  }

  /**
   * A VMCB with AVIC in `mode`, and the guest in long mode at {@linkcode Place.CODE} with interrupts
   * as `interrupts` says.
   */
  prepare(mode: Mode, interrupts = false): void {
    const { lab } = this;
    lab.memory.fill(this.vmcb, VMCB_BYTES, 0);
    for (const offset of [Save.SS, Save.DS, Save.ES, Save.FS, Save.GS]) {
      this.#segment(offset, Flat.DATA);
    }
    this.#segment(Save.CS, Flat.CODE64);
    this.set32(InterceptWord.EXCEPTIONS, 0xffff_ffff & ~2);
    this.set32(InterceptWord.MISC1, Misc1.SHUTDOWN | Misc1.INTR | Misc1.HLT);
    this.set32(InterceptWord.MISC2, Misc2.VMRUN | Misc2.VMMCALL);
    this.set32(Control.ASID, 1);
    lab.memory.writeU8(this.vmcb + Control.TLB_CONTROL, 1);
    this.set32(Control.NESTED_CONTROL, 1);
    this.set64(Control.N_CR3, BigInt(lab.nested(this.base)));
    this.set64(Save.EFER, BigInt(Efer.LME | Efer.LMA | Efer.NXE | Efer.SVME));
    this.set64(Save.CR0, 0x8000_0000n | BigInt(Cr0.PE | Cr0.WP | Cr0.ET | Cr0.NE));
    this.set64(Save.CR3, 0xa000n);
    this.set64(Save.CR4, BigInt(Cr4.PAE));
    this.set64(Save.G_PAT, 0x0007_0406_0007_0406n);
    this.set64(Save.DR6, 0xffff_0ff0n);
    this.set64(Save.DR7, 0x400n);
    this.set64(Save.RFLAGS, interrupts ? 0x202n : 2n);
    this.set64(Save.RIP, BigInt(Place.CODE));
    this.set64(Save.RSP, BigInt(Place.STACK));
    this.set32(Save.IDTR + 4, 0xfff);
    this.set64(Save.IDTR + 8, BigInt(Place.IDT));
    this.set32(Save.GDTR + 4, 0x17);
    this.set64(Save.GDTR + 8, 0x7000n);
    // Guest page tables: 4 GiB one to one.
    lab.memory.writeU64(this.base + 0xa000, 0xb003n);
    for (let k = 0; k < 4; k++) {
      lab.memory.writeU64(this.base + 0xb000 + 8 * k, (BigInt(k) << 30n) | 0x83n);
    }
    const x2 = mode === "x2avic" ? IntControl.X2AVIC : 0;
    this.set32(Control.INT_CONTROL, IntControl.AVIC | IntControl.V_INTR_MASKING | x2);
    this.set64(Control.AVIC_APIC_BAR, BigInt(APIC_BASE));
    this.set64(Control.AVIC_BACKING_PAGE, BigInt(this.page));
    this.set64(Control.AVIC_LOGICAL_TABLE, BigInt(lab.logical));
    this.set64(Control.AVIC_PHYSICAL_TABLE, BigInt(lab.physical) | BigInt(lab.maxIndex));
  }

  #segment(offset: number, [selector, attributes]: readonly [number, number]): void {
    this.set32(offset, selector | (attributes << 16));
    this.set32(offset + 4, 0xffff_ffff);
    this.set64(offset + 8, 0n);
  }

  /** Puts guest code at {@linkcode Place.CODE}, with a hypercall behind it. */
  program(...parts: readonly (string | readonly number[])[]): number {
    const bytes = code(...parts);
    this.lab.memory.write(this.base + Place.CODE, new Uint8Array([...bytes, ...code("0f 01 d9")]));
    return bytes.length;
  }

  register(n: number): bigint {
    return n === 0 ? this.get64(Save.RAX) : this.#registers[n]!;
  }

  setRegister(n: number, value: bigint): void {
    if (n === 0) this.set64(Save.RAX, value);
    else this.#registers[n] = value;
  }

  get rip(): number {
    return Number(this.get64(Save.RIP));
  }

  /** The vector whose handler the guest is at, or −1. */
  get handled(): number {
    const at = this.rip - Place.HANDLERS;
    return at >= 0 && at < 0x1000 && at % 16 === 0 ? at / 16 : -1;
  }

  /** VMRUN; returns the exit code. */
  run(budget = 1_000_000): bigint {
    // The stub writes them into the control block, where they stand already.
    for (const [n, offset] of IN_VMCB) this.#registers[n] = this.get64(offset);
    this.processor.enterGuest(this.vmcb, this.#registers, budget);
    return this.get64(Control.EXITCODE);
  }
}

/** A host with processors, host RAM and AVIC's tables. */
export class AvicLab {
  readonly memory: HostMemory;
  readonly ram: number;
  readonly physical: number;
  readonly logical: number;
  readonly hostTables: number;
  /** What the guest finds at the APIC's address where AVIC does not answer. */
  readonly scratch: number;
  readonly cpus: AvicCpu[];
  readonly processors: (index: number) => Processor;
  readonly #nested = new Map<number, number>();
  maxIndex: number;

  constructor(cpus: number, maxIndex: number, options: HostOptions = {}) {
    const host = createHost({ model: "zen5", ...options, processors: cpus, memory: 64 << 20 });
    const { memory } = host;
    this.memory = memory;
    this.maxIndex = maxIndex;
    this.processors = (index) => host.processors.get(index);
    this.ram = memory.alloc(cpus * 0x10_0000, 0x20_0000);
    this.physical = memory.alloc(8 * PAGE);
    this.logical = memory.alloc(PAGE);
    this.scratch = memory.alloc(PAGE);
    this.hostTables = memory.alloc(PAGE);
    this.cpus = Array.from({ length: cpus }, (_, index) => new AvicCpu(this, index));
  }

  /** Nested tables that map the first MiB to `base`, and the APIC page to {@linkcode AvicLab.scratch}. */
  nested(base: number): number {
    const known = this.#nested.get(base);
    if (known !== undefined) return known;
    const { memory } = this;
    const tables = Array.from({ length: 6 }, () => memory.alloc(PAGE));
    const [pml4, pdpt, lowDirectory, lowTable, highDirectory, highTable] = tables as [
      number,
      number,
      number,
      number,
      number,
      number,
    ];
    memory.writeU64(pml4, BigInt(pdpt) | 7n);
    memory.writeU64(pdpt, BigInt(lowDirectory) | 7n);
    memory.writeU64(pdpt + 24, BigInt(highDirectory) | 7n);
    memory.writeU64(lowDirectory, BigInt(lowTable) | 7n);
    for (let k = 0; k < 256; k++) memory.writeU64(lowTable + 8 * k, BigInt(base + k * PAGE) | 7n);
    memory.writeU64(highDirectory + 8 * ((APIC_BASE >>> 21) & 511), BigInt(highTable) | 7n);
    memory.writeU64(highTable, BigInt(this.scratch) | 7n);
    this.#nested.set(base, pml4);
    return pml4;
  }

  /** Writes an entry of the physical APIC ID table. */
  setPhysical(id: number, page: number, running: boolean, hostId = 0, valid = true): void {
    const flags = (valid ? 1n << 63n : 0n) | (running ? 1n << 62n : 0n);
    this.memory.writeU64(this.physical + 8 * id, flags | BigInt(page) | BigInt(hostId));
  }

  clearPhysical(): void {
    this.memory.fill(this.physical, 8 * PAGE, 0);
  }

  /** Writes an entry of the logical APIC ID table. */
  setLogical(index: number, id: number, valid = true): void {
    this.memory.writeU32(this.logical + 4 * index, (id | (valid ? 0x8000_0000 : 0)) >>> 0);
  }
}

/** `mov dword [APIC + offset], value` through RBX. */
export const store32 = (offset: number, value: number): number[] =>
  code("bb", dword(APIC_BASE + offset), "c7 03", dword(value));
/** `mov eax, [APIC + offset]` */
export const load32 = (offset: number): number[] => code("bb", dword(APIC_BASE + offset), "8b 03");
/** `wrmsr` of `value` */
export const wrmsr = (index: number, value: bigint): number[] =>
  code(
    "b9",
    dword(index),
    "b8",
    dword(Number(value & 0xffff_ffffn)),
    "ba",
    dword(Number(value >> 32n)),
    "0f 30",
  );
/** `rdmsr` */
export const rdmsr = (index: number): number[] => code("b9", dword(index), "0f 32");
/** Bytes of {@linkcode store32} up to the access itself. */
export const STORE_AT = 5;
/** Bytes of {@linkcode wrmsr} up to WRMSR itself. */
export const WRMSR_AT = 15;
/** Bytes of {@linkcode rdmsr} up to RDMSR itself. */
export const RDMSR_AT = 5;
