/**
 * A bare processor on the bench: no hypervisor, no guest mode. A test puts code and tables into memory,
 * writes the registers, runs, and looks at what was delivered.
 *
 * Faults are judged without handlers: with an IDT of no entries the first exception of a run becomes a
 * shutdown, which leaves the state of before, and the processor's log of events says how it began.
 * Where delivery itself is the matter, {@linkcode Bench.handlers} puts a HLT behind every vector.
 *
 * @module
 */
import type { HostMemory } from "../../core/mod.ts";
import {
  Attr,
  type CodeCache,
  type CpuModel,
  type CpuOptions,
  Cr0,
  Cr4,
  createHost,
  Efer,
  type FeatureChoice,
  type Outside,
  type Processor,
  type Processors,
  type RecentEvent,
  S,
  Seg,
  type StateView,
  Stop,
} from "../../plugins/cpu/mod.ts";
import { refuseOutside } from "./lab.ts";

/** Where things stand, at equal linear and physical addresses. */
export const Place = {
  GDT: 0x1000,
  IDT: 0x2000,
  TSS: 0x3000,
  LDT: 0x4000,
  HANDLERS: 0x8000,
  CODE: 0x1_0000,
  DATA: 0x2_0000,
  /** Tops of the stacks of CPL 0–3, 1000h apart. */
  STACK: 0x3_0000,
  /** Page tables of {@linkcode Bench.long}: PML4, PDPT, PD. */
  TABLES: 0x4_0000,
} as const;

/** Selectors of the standard descriptors, with RPL 0; for privilege n add 28h × n and RPL n. */
export const Sel = { CODE32: 0x08, CODE16: 0x10, CODE64: 0x18, DATA: 0x20, DATA16: 0x28 } as const;
const PER_LEVEL = 0x28;
/** First selector that is free for tests. */
export const FREE_SELECTOR = 0x100;

/** Selector of a standard segment for privilege `cpl`. */
export function selectorFor(selector: number, cpl: number): number {
  return selector + PER_LEVEL * cpl + cpl;
}

/** Fields of a descriptor; a flat present data segment unless told otherwise. */
export interface DescriptorFields {
  /** Base address, 32 bits. */
  readonly base?: number;
  /** Limit, 20 bits, in units of the granularity. */
  readonly limit?: number;
  /** Bits 7:0 as in byte 5 of the descriptor: P, DPL, S, type. */
  readonly access: number;
  /** Bits 3:0: AVL, L, D/B, G. */
  readonly flags?: number;
}

/** The eight bytes of a code, data or system-segment descriptor (APM vol. 2, 4.7). */
export function descriptor(
  { base = 0, limit = 0xf_ffff, access, flags = 0xc }: DescriptorFields,
): bigint {
  const low = (limit & 0xffff) | ((base & 0xffff) << 16);
  const high = ((base >>> 16) & 0xff) | (access << 8) | (limit & 0xf_0000) | (flags << 20) |
    (base & 0xff00_0000);
  return BigInt(low >>> 0) | (BigInt(high >>> 0) << 32n);
}

/** The eight bytes of a legacy gate, or the low eight of a long-mode one (APM vol. 2, 4.7.4). */
export function gate(selector: number, offset: number, access: number, count = 0): bigint {
  const low = (offset & 0xffff) | (selector << 16);
  const high = (offset & 0xffff_0000) | (access << 8) | count;
  return BigInt(low >>> 0) | (BigInt(high >>> 0) << 32n);
}

/** How a run ended. */
export interface Outcome {
  readonly stop: Stop;
  /** Events that delivery was begun of, the first sixteen lost if there were more. */
  readonly events: readonly RecentEvent[];
}

/** What a bench is made of. */
export interface BenchOptions {
  readonly processors?: number;
  /** Bytes of memory from physical address 0 on. */
  readonly memory?: number;
  readonly outside?: Outside;
  /** Which processor, and what of SVM or VMX it has. */
  readonly model?: CpuModel;
  readonly features?: FeatureChoice;
  /** Bits of a physical address. */
  readonly physicalBits?: number;
  /** Which code may run: interpreted, compiled, or what is hot compiled. */
  readonly tier?: NonNullable<CpuOptions["tier"]>;
  /** Most bytes of WebAssembly made of guest code. */
  readonly codeLimit?: number;
  /** Where compiled code is kept. */
  readonly codeCache?: CodeCache;
  /** What random numbers start from. */
  readonly seed?: number;
}

/** The address space that maps the bench's memory at 0. */
const SPACE = 1;

/** Processors that share one memory. */
export class Bench {
  readonly processors: Processors;
  readonly memory: HostMemory;
  /** Host physical address of physical address 0. */
  readonly base: number;
  /** What the processors meet; tests replace members. */
  readonly outside: { -readonly [K in keyof Outside]: Outside[K] };
  #current: Processor;

  constructor(
    { processors = 1, memory = 0x80_0000, outside = refuseOutside(), ...kind }: BenchOptions = {},
  ) {
    const host = createHost({ processors, ...kind });
    this.processors = host.processors;
    this.memory = host.memory;
    this.base = host.memory.alloc(memory, 0x20_0000);
    host.processors.mapAlias(SPACE, 0, memory, this.base);
    this.outside = { ...outside };
    for (let k = 0; k < processors; k++) {
      host.processors.get(k).attach(this.outside, SPACE);
    }
    this.#current = host.processors.get(0);
    this.standardTables();
  }

  /** The processor that state and runs are of. */
  get processor(): Processor {
    return this.#current;
  }

  /** Makes processor `index` the current one. */
  select(index: number): void {
    this.#current = this.processors.get(index);
  }

  /** Registers of the current processor. */
  get state(): StateView {
    return this.#current.state;
  }

  // Memory.

  write(address: number, bytes: Uint8Array | readonly number[]): void {
    this.memory.write(this.base + address, Uint8Array.from(bytes));
  }

  read(address: number, length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    this.memory.read(this.base + address, bytes);
    return bytes;
  }

  fill(address: number, length: number, value: number): void {
    this.memory.fill(this.base + address, length, value);
  }

  get16(address: number): number {
    return this.memory.readU16(this.base + address);
  }

  get32(address: number): number {
    return this.memory.readU32(this.base + address);
  }

  get64(address: number): bigint {
    return this.memory.readU64(this.base + address);
  }

  set16(address: number, value: number): void {
    this.memory.writeU16(this.base + address, value);
  }

  set32(address: number, value: number): void {
    this.memory.writeU32(this.base + address, value);
  }

  set64(address: number, value: bigint): void {
    this.memory.writeU64(this.base + address, value);
  }

  // Tables.

  /** Flat segments of every size for every privilege, page tables for the first 8 MiB, one handler per vector. */
  standardTables(): void {
    for (let cpl = 0; cpl < 4; cpl++) {
      const dpl = cpl << 5;
      const at = Place.GDT + PER_LEVEL * cpl;
      this.set64(at + Sel.CODE32, descriptor({ access: 0x9b | dpl }));
      this.set64(at + Sel.CODE16, descriptor({ access: 0x9b | dpl, flags: 0, limit: 0xffff }));
      this.set64(at + Sel.CODE64, descriptor({ access: 0x9b | dpl, flags: 0xa }));
      this.set64(at + Sel.DATA, descriptor({ access: 0x93 | dpl }));
      this.set64(at + Sel.DATA16, descriptor({ access: 0x93 | dpl, flags: 0, limit: 0xffff }));
    }
    this.set64(Place.TABLES, BigInt(Place.TABLES + 0x1000) | 0x27n);
    this.set64(Place.TABLES + 0x1000, BigInt(Place.TABLES + 0x2000) | 0x27n);
    for (let k = 0; k < 4; k++) {
      this.set64(Place.TABLES + 0x2000 + 8 * k, BigInt(k * 0x20_0000) | 0xe7n);
    }
    this.fill(Place.HANDLERS, 0x400, 0xf4);
  }

  /** Puts a descriptor into the GDT. */
  setDescriptor(selector: number, value: bigint): void {
    this.set64(Place.GDT + (selector & 0xfff8), value);
  }

  /** The descriptor in the GDT. */
  getDescriptor(selector: number): bigint {
    return this.get64(Place.GDT + (selector & 0xfff8));
  }

  /** Where the handler of `vector` stands; it is one HLT. */
  handler(vector: number): number {
    return Place.HANDLERS + 4 * vector;
  }

  /** Fills the IDT with interrupt gates of the mode's kind to {@linkcode Bench.handler}. */
  handlers(kind: 16 | 32 | 64, access = 0xee): void {
    const code = { 16: Sel.CODE16, 32: Sel.CODE32, 64: Sel.CODE64 }[kind];
    for (let vector = 0; vector < 256; vector++) {
      const type = kind === 16 ? access & ~8 : access;
      const value = gate(code, this.handler(vector), type);
      if (kind === 64) {
        this.set64(Place.IDT + 16 * vector, value);
        this.set64(Place.IDT + 16 * vector + 8, 0n);
      } else this.set64(Place.IDT + 8 * vector, value);
    }
    this.state.set(S.idtBase, BigInt(Place.IDT));
    this.state.set32(S.idtLimit, kind === 64 ? 0xfff : 0x7ff);
  }

  /** Makes TR a busy TSS whose stacks are the standard ones. */
  taskState(kind: 32 | 64): void {
    this.fill(Place.TSS, 0x100, 0);
    for (let cpl = 0; cpl < 3; cpl++) {
      if (kind === 64) this.set64(Place.TSS + 4 + 8 * cpl, BigInt(this.stack(cpl)));
      else {
        this.set32(Place.TSS + 4 + 8 * cpl, this.stack(cpl));
        this.set32(Place.TSS + 8 + 8 * cpl, selectorFor(Sel.DATA, cpl));
      }
    }
    this.state.setSegment(Seg.TR, {
      selector: 0xf8,
      attributes: Attr.P | 11,
      limit: 0x67,
      base: BigInt(Place.TSS),
    });
  }

  /** Top of the stack of privilege `cpl`. */
  stack(cpl: number): number {
    return Place.STACK + 0x1000 * (cpl + 1);
  }

  // Modes. Each sets every register that matters, so tests do not depend on each other.

  #common(): void {
    const { state } = this;
    this.#current.reset();
    state.set32(S.events, 0);
    state.set32(S.delivering, 0);
    state.set(S.gdtBase, BigInt(Place.GDT));
    state.set32(S.gdtLimit, 0xfff);
    state.set(S.idtBase, BigInt(Place.IDT));
    state.set32(S.idtLimit, 0);
    state.set(S.rip, BigInt(Place.CODE));
  }

  /** Real mode with all segments at 0, CS:IP = 0:8000h less the handlers' place — see `rip`. */
  real(rip = 0x6000): void {
    this.#common();
    const { state } = this;
    const segment = { selector: 0, attributes: 0x93, limit: 0xffff, base: 0n };
    for (const n of [Seg.ES, Seg.SS, Seg.DS, Seg.FS, Seg.GS]) state.setSegment(n, segment);
    state.setSegment(Seg.CS, { ...segment, attributes: 0x9b });
    state.set(S.cr0, BigInt(Cr0.ET));
    state.set(S.rip, BigInt(rip));
    state.setRegister(4, 0x7000n);
    this.#current.refresh();
  }

  #flatSegments(code: number, cpl: number, codeAttributes: number): void {
    const { state } = this;
    const dpl = cpl << Attr.DPL_SHIFT;
    const limit = 0xffff_ffff;
    const data = { selector: selectorFor(Sel.DATA, cpl), attributes: 0xc93 | dpl, limit, base: 0n };
    for (const n of [Seg.ES, Seg.SS, Seg.DS, Seg.FS, Seg.GS]) state.setSegment(n, data);
    state.setSegment(Seg.CS, {
      selector: selectorFor(code, cpl),
      attributes: codeAttributes | dpl,
      limit,
      base: 0n,
    });
    state.setSegment(Seg.LDTR, { selector: 0, attributes: 0, limit: 0, base: 0n });
    state.set32(S.cpl, cpl);
    state.setRegister(4, BigInt(this.stack(cpl)));
  }

  /** Flat 32-bit protected mode, no paging unless `paging` gives CR3 and CR4. */
  protect(
    cpl = 0,
    paging?: { readonly cr3: number; readonly cr4: number; readonly efer?: number },
  ): void {
    this.#common();
    const { state } = this;
    this.#flatSegments(Sel.CODE32, cpl, 0xc9b);
    const cr0 = BigInt(Cr0.PE | Cr0.ET | Cr0.NE | Cr0.WP);
    state.set(S.cr0, paging === undefined ? cr0 : cr0 | 0x8000_0000n);
    if (paging !== undefined) {
      state.set(S.cr3, BigInt(paging.cr3));
      state.set(S.cr4, BigInt(paging.cr4));
      state.set(S.efer, BigInt(paging.efer ?? 0));
      if ((paging.cr4 & Cr4.PAE) !== 0) {
        for (let k = 0; k < 4; k++) state.setAt(S.pdptes + 8 * k, this.get64(paging.cr3 + 8 * k));
      }
    }
    this.taskState(32);
    this.#current.refresh();
  }

  /** Long mode with the standard page tables: 64-bit code, or 32-bit code in compatibility mode. */
  long(cpl = 0, bits: 64 | 32 = 64): void {
    this.#common();
    const { state } = this;
    const is64 = bits === 64;
    this.#flatSegments(is64 ? Sel.CODE64 : Sel.CODE32, cpl, is64 ? 0xa9b : 0xc9b);
    state.set(S.cr0, 0x8000_0000n | BigInt(Cr0.PE | Cr0.ET | Cr0.NE | Cr0.WP));
    state.set(S.cr3, BigInt(Place.TABLES));
    state.set(S.cr4, BigInt(Cr4.PAE));
    state.set(S.efer, BigInt(Efer.LME | Efer.LMA | Efer.NXE | Efer.SCE));
    this.taskState(64);
    this.#current.refresh();
  }

  /** All of RFLAGS. */
  get flags(): number {
    this.#current.exposeFlags();
    return Number(this.state.get(S.rflags));
  }

  set flags(value: number) {
    this.#current.exposeFlags();
    this.state.set(S.rflags, BigInt(value | 2));
    this.#current.absorbFlags();
  }

  /** Puts `code` at RIP (flat code segments) and runs. */
  execute(code: readonly number[] | Uint8Array, budget = 1): Outcome {
    this.write(Number(this.state.rip), code);
    return this.run(budget);
  }

  /** Runs for at most `budget` instructions and deliveries. */
  run(budget: number): Outcome {
    const before = this.state.get32(S.eventCount);
    const stop = this.#current.run(budget);
    this.#current.clearShutdown();
    const count = this.state.get32(S.eventCount) - before;
    return { stop, events: count === 0 ? [] : this.#current.recentEvents().slice(-count) };
  }

  /**
   * Runs the one instruction `code` and names what became of it: `"ok"`, or the exception that it
   * raised as `"#13(10)"` with its error code in hexadecimal.
   */
  judge(code: readonly number[] | Uint8Array): string {
    return verdict(this.execute(code));
  }
}

/** The first event of a run as text; `"ok"` if there was none. */
export function verdict({ stop, events }: Outcome): string {
  const [first] = events;
  if (first === undefined) return stop === Stop.SHUTDOWN ? "shutdown" : "ok";
  const { vector, errorCode } = first;
  return errorCode === undefined ? `#${vector}` : `#${vector}(${errorCode.toString(16)})`;
}
