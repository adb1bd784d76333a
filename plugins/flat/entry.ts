/**
 * The processor modes in which a loader can hand over: real mode, protected mode and 64-bit mode, with
 * the descriptor and page tables that go with them.
 *
 * In all of them interrupts are off, general registers are 0, SSE is as after RESET, and x87 as FNINIT
 * leaves it: firmware initializes it, and kernels have come to count on that. After RESET all x87
 * exceptions are unmasked.
 *
 * @module
 */

import { Gpr, type Segment, type SystemState, type Vcpu } from "../../core/mod.ts";

/** Selector of the code segment in the table of {@linkcode descriptorTable}. */
export const CODE_SELECTOR = 0x08;
/** Selector of the data segment in the table of {@linkcode descriptorTable}. */
export const DATA_SELECTOR = 0x10;

/** Attributes as in `Segment`: present, accessed, DPL 0, with the type, L, D/B and G bits. */
const REAL_CODE = 0x09b;
const REAL_DATA = 0x093;
const CODE_32 = 0xc9b;
const CODE_64 = 0xa9b;
const DATA_32 = 0xc93;

const CR0_PE = 1n;
const CR0_ET = 1n << 4n;
const CR0_PG = 1n << 31n;
const CR4_PAE = 1n << 5n;
const EFER_LME = 1n << 8n;
const EFER_LMA = 1n << 10n;

const RFLAGS_FIXED = 2n;

/** FCW, FSW and the abridged FTW behind FNINIT, as an XSAVE area begins (SDM vol. 1, 10.5.1, table 8-1). */
const FNINIT: readonly number[] = [0x7f, 0x03, 0, 0, 0];
/** XSTATE_BV in the header of an XSAVE area (SDM vol. 1, 13.4.2), and its bit of x87. */
const XSTATE_BV = 512;
const XSTATE_X87 = 1;

const PAGE = 4096;
const ENTRIES = 512;
const LARGE_PAGE = 2 ** 21;
/** Present and writable. */
const TABLE_ENTRY = 0x03n;
/** Present, writable, and a large page. */
const LARGE_ENTRY = 0x83n;
/** Devices lie below it, so that much is always mapped. */
const LEAST_MAPPED = 2 ** 32;

/** A table that lies in guest memory. */
export interface TableLocation {
  /** First guest physical address. */
  readonly gpa: number;
  /** Size in bytes. */
  readonly size: number;
}

function flatSegment(selector: number, attributes: number): Segment {
  return { selector, base: 0n, limit: 0xffff_ffff, attributes };
}

/** The descriptor of a flat segment (SDM vol. 3A, figure 3-8; APM vol. 2, section 4.7). */
function encode({ limit, attributes }: Segment): bigint {
  const pages = BigInt(limit >>> 12);
  const bits = BigInt(attributes);
  return (pages & 0xffffn) | (bits & 0xffn) << 40n | (pages >> 16n) << 48n | (bits >> 8n) << 52n;
}

/**
 * A global descriptor table of 24 bytes: the null descriptor, and flat segments for code
 * ({@linkcode CODE_SELECTOR}) and data ({@linkcode DATA_SELECTOR}).
 *
 * @param bits Width of the code.
 */
export function descriptorTable(bits: 32 | 64): Uint8Array {
  const bytes = new Uint8Array(24);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(CODE_SELECTOR, encode(codeSegment(bits)), true);
  view.setBigUint64(DATA_SELECTOR, encode(flatSegment(DATA_SELECTOR, DATA_32)), true);
  return bytes;
}

function codeSegment(bits: 32 | 64): Segment {
  return flatSegment(CODE_SELECTOR, bits === 64 ? CODE_64 : CODE_32);
}

/**
 * Size in bytes of page tables that map linear addresses to themselves, by pages of 2 MiB: up to 4 GiB,
 * and up to `end` if that is more.
 */
export function identityTableSize(end: number): number {
  const directories = Math.ceil(Math.max(end, LEAST_MAPPED) / (LARGE_PAGE * ENTRIES));
  return (1 + Math.ceil(directories / ENTRIES) + directories) * PAGE;
}

/**
 * The page tables of {@linkcode identityTableSize}, the top level first.
 *
 * @param gpa Where they will lie, a multiple of 4096.
 */
export function identityTables(gpa: number, end: number): Uint8Array {
  const bytes = new Uint8Array(identityTableSize(end));
  const view = new DataView(bytes.buffer);
  const directories = Math.ceil(Math.max(end, LEAST_MAPPED) / (LARGE_PAGE * ENTRIES));
  const pointerTables = Math.ceil(directories / ENTRIES);
  const put = (index: number, entry: bigint) => view.setBigUint64(8 * index, entry, true);
  const table = (page: number) => BigInt(gpa + page * PAGE) | TABLE_ENTRY;
  for (let i = 0; i < pointerTables; i++) put(i, table(1 + i));
  for (let i = 0; i < directories; i++) put(ENTRIES + i, table(1 + pointerTables + i));
  const first = (1 + pointerTables) * ENTRIES;
  for (let i = 0; i < directories * ENTRIES; i++) {
    put(first + i, BigInt(i) * BigInt(LARGE_PAGE) | LARGE_ENTRY);
  }
  return bytes;
}

/**
 * Makes `vcpu` start in real mode at `segment`:`offset`. Data segments are at 0, and the interrupt
 * table is where a processor has it after RESET.
 */
export function enterReal(vcpu: Vcpu, segment: number, offset: number): void {
  const data: Segment = { selector: 0, base: 0n, limit: 0xffff, attributes: REAL_DATA };
  enter(vcpu, BigInt(offset), (state) => {
    setData(state, data);
    state.cs = {
      selector: segment,
      base: BigInt(segment * 16),
      limit: 0xffff,
      attributes: REAL_CODE,
    };
    state.cr0 = CR0_ET;
    state.idt = { base: 0n, limit: 0x3ff };
  });
}

/**
 * Makes `vcpu` start in 32-bit protected mode without paging, with flat segments and an empty IDT.
 *
 * @param gdt Where the table of {@linkcode descriptorTable} lies.
 */
export function enterProtected32(vcpu: Vcpu, eip: number, gdt: TableLocation): void {
  enter(vcpu, BigInt(eip), (state) => {
    setFlat(state, 32, gdt);
    state.cr0 = CR0_PE | CR0_ET;
  });
}

/**
 * Makes `vcpu` start in 64-bit mode, with flat segments and an empty IDT.
 *
 * @param gdt Where the table of {@linkcode descriptorTable} lies.
 * @param cr3 Where the top level of the page tables lies.
 */
export function enterLong64(vcpu: Vcpu, rip: number, gdt: TableLocation, cr3: number): void {
  enter(vcpu, BigInt(rip), (state) => {
    setFlat(state, 64, gdt);
    state.cr0 = CR0_PG | CR0_PE | CR0_ET;
    state.cr3 = BigInt(cr3);
    state.cr4 = CR4_PAE;
    state.efer = EFER_LME | EFER_LMA;
  });
}

/** What the modes have in common; `set` does the rest. */
function enter(vcpu: Vcpu, rip: bigint, set: (state: SystemState) => void): void {
  const { regs } = vcpu;
  const vendor = vcpu.vm.vendor.current;
  const state = vendor.getSystemState(vcpu);
  state.cr2 = 0n;
  state.cr3 = 0n;
  state.cr4 = 0n;
  state.efer = 0n;
  state.interruptShadow = false;
  set(state);
  vendor.setSystemState(vcpu, state);
  const area = vendor.getXsave(vcpu);
  area.set(FNINIT);
  area[XSTATE_BV] = (area[XSTATE_BV] ?? 0) | XSTATE_X87;
  vendor.setXsave(vcpu, area);
  for (let register = Gpr.RAX; register <= Gpr.R31; register++) regs.setPair(register, 0, 0);
  regs.rip = rip;
  regs.rflags = RFLAGS_FIXED;
}

function setFlat(state: SystemState, bits: 32 | 64, gdt: TableLocation): void {
  setData(state, flatSegment(DATA_SELECTOR, DATA_32));
  state.cs = codeSegment(bits);
  state.gdt = { base: BigInt(gdt.gpa), limit: gdt.size - 1 };
  state.idt = { base: 0n, limit: 0 };
}

function setData(state: SystemState, segment: Segment): void {
  for (const name of ["ds", "es", "ss", "fs", "gs"] as const) state[name] = { ...segment };
}
