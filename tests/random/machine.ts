/**
 * The machine that random programs run on: where everything lies, its descriptor and page tables, and
 * the system registers it starts with. One layout serves 64-bit, compatibility, protected,
 * virtual-8086 and real mode: linear addresses are physical ones, stacks lie below 64 KiB, code and
 * data each fill a segment of 64 KiB.
 *
 * @module
 */
import { resetSystemState, type Segment, type SystemState } from "../../core/mod.ts";
import { Cr0, Cr4, Efer } from "../../plugins/cpu/mod.ts";

/** Guest physical addresses. */
export const At = {
  /** Real mode's interrupt table. */
  IVT: 0x0000,
  GDT: 0x1000,
  LDT: 0x1800,
  /** Gates of 16 bytes. */
  LONG_IDT: 0x2000,
  /** Gates of 8 bytes. */
  IDT: 0x3000,
  TSS: 0x4000,
  /** The task that tasks call, and where the first one's state goes. */
  OTHER_TSS: 0x4800,
  /** What handlers were called for. */
  LOG: 0x6000,
  /** Top of the stack that interrupts from ring 3 get. */
  ENTRY_STACK: 0xa000,
  USER_STACK: 0xbf00,
  OTHER_STACK: 0xd000,
  KERNEL_STACK: 0xef00,
  CODE: 0x1_0000,
  LONG_TABLES: 0x2_0000,
  TABLES: 0x2_4000,
  /** Frames for IRET. */
  FRAMES: 0x2_9000,
  DATA: 0x3_0000,
  /** Behind everything: what is compared in the end. */
  END: 0x4_0000,
} as const;

export const LOG_BYTES = 0x2000;
/** An entry of the log: the vector, the error code, and the frame. */
export const LOG_ENTRY_BYTES = 64;
export const FRAME_BYTES = 40;
export const FRAMES: number = 0x7000 / FRAME_BYTES | 0;
/** RAM of the machine in bytes. */
export const MEMORY: number = 4 * 2 ** 20;

/** Offsets into the data. The first two pages are for everybody. */
export const Data = {
  /** Bytes that programs play with. */
  PLAY_BYTES: 0x2000,
  /** Only for ring 0. */
  SUPERVISOR: 0x4000,
  READ_ONLY: 0x5000,
  ABSENT: 0x6000,
  /** What nobody but the machinery writes. */
  CONTROL: 0x7000,
  /** Address of the frame to go on with after a fault. */
  RECOVER: 0x7000,
  /** Rounds that are left. */
  ROUNDS: 0x7008,
  /** End of what is logged, from {@linkcode At.LOG}. */
  LOGGED: 0x7010,
  /** Where SYSCALL and SYSENTER go on. */
  DISPATCH: 0x7018,
  /** Far pointers and descriptor-table registers. */
  POINTER: 0x7020,
  GDTR: 0x7040,
  LONG_IDTR: 0x7050,
  IDTR: 0x7060,
  IVTR: 0x7070,
  /** 512 bytes that FXRSTOR loads at the start. */
  FX_START: 0x7200,
  /** Where FXSAVE and then YMM0 to YMM15 go in the end. */
  FX_END: 0x7400,
  NO_EXECUTE: 0x8000,
} as const;

/**
 * Selectors, without RPL. The first ones stand as SYSCALL, SYSENTER and what returns from them want them.
 */
export const Sel = {
  /** Code of 64 bits; of 32 bits in a machine without long mode. */
  CODE64: 0x08,
  DATA: 0x10,
  USER_CODE32: 0x18,
  USER_DATA: 0x20,
  USER_CODE64: 0x28,
  USER_DATA_AGAIN: 0x30,
  CODE32: 0x38,
  CODE16: 0x40,
  /** Base at the data, 64 KiB. */
  DATA16: 0x48,
  STACK16: 0x50,
  EXPAND_DOWN: 0x58,
  USER_CODE16: 0x60,
  USER_DATA16: 0x68,
  USER_STACK16: 0x70,
  CONFORMING: 0x78,
  ABSENT: 0x80,
  TSS: 0x88,
  LDT: 0x98,
  USER_READ_ONLY: 0xa8,
  OTHER_TSS: 0xb0,
  EXECUTE_ONLY: 0xb8,
  /** Gates of 16 bytes from here on, or of 8 with as much space. */
  GATES: 0xc0,
} as const;

export const GATES = 12;
const GDT_BYTES = Sel.GATES + 16 * GATES;

/** Vectors from here on belong to programs. */
export const FIRST_VECTOR = 0x40;
export const VECTORS = 32;

/** A descriptor's attributes: type, S, DPL, P in bits 7:0; AVL, L, D/B, G in 11:8. */
function descriptor(base: number, limit: number, attributes: number): bigint {
  const pages = (attributes & 0x800) !== 0;
  const field = BigInt(pages ? limit >>> 12 : limit);
  return (field & 0xffffn) | (BigInt(base) & 0xff_ffffn) << 16n |
    BigInt(attributes & 0xff) << 40n | (field >> 16n & 0xfn) << 48n |
    BigInt(attributes >> 8 & 0xf) << 52n | BigInt(base >>> 24) << 56n;
}

const FLAT = 0xffff_ffff;
const SMALL = 0xffff;
/** Segment descriptors by selector: base, limit, attributes. */
const SEGMENTS: readonly (readonly [number, number, number, number])[] = [
  [Sel.CODE64, 0, FLAT, 0xa9a],
  [Sel.DATA, 0, FLAT, 0xc92],
  [Sel.CODE32, 0, FLAT, 0xc9a],
  [Sel.CODE16, At.CODE, SMALL, 0x09a],
  [Sel.DATA16, At.DATA, SMALL, 0x092],
  [Sel.STACK16, 0, SMALL, 0x092],
  [Sel.EXPAND_DOWN, At.DATA, 0x1fff, 0x496],
  [Sel.USER_CODE32, 0, FLAT, 0xcfa],
  [Sel.USER_DATA, 0, FLAT, 0xcf2],
  [Sel.USER_DATA_AGAIN, 0, FLAT, 0xcf2],
  [Sel.USER_CODE64, 0, FLAT, 0xafa],
  [Sel.USER_CODE16, At.CODE, SMALL, 0x0fa],
  [Sel.USER_DATA16, At.DATA, SMALL, 0x0f2],
  [Sel.USER_STACK16, 0, SMALL, 0x0f2],
  [Sel.CONFORMING, 0, FLAT, 0xc9e],
  [Sel.ABSENT, 0, FLAT, 0xc72],
  [Sel.USER_READ_ONLY, At.DATA, SMALL, 0x0f0],
  [Sel.EXECUTE_ONLY, 0, FLAT, 0xc98],
];

const TSS_LIMIT = 0x67;
const LDT_LIMIT = 0x1f;
const PRESENT = 1n;
const WRITABLE = 2n;
const USER = 4n;
const NO_EXECUTE = 1n << 63n;

/** Which pages ring 3 sees, and how. */
function pageFlags(page: number, noExecute: boolean): bigint {
  const at = page * 0x1000;
  if (at === At.DATA + Data.SUPERVISOR) return PRESENT | WRITABLE;
  if (at === At.DATA + Data.READ_ONLY) return PRESENT | USER;
  if (at === At.DATA + Data.ABSENT) return 0n;
  if (at === At.DATA + Data.NO_EXECUTE) {
    return PRESENT | WRITABLE | USER | (noExecute ? NO_EXECUTE : 0n);
  }
  const user = (at >= At.ENTRY_STACK && at < At.LONG_TABLES && at !== 0xe000) || at >= At.DATA;
  // Virtual-8086 code looks at the interrupt table.
  return PRESENT | WRITABLE | (user || at === At.IVT ? USER : 0n);
}

/** Physical memory of a machine before a program is put in. */
export class Machine {
  readonly bytes: Uint8Array<ArrayBuffer> = new Uint8Array(At.END);
  readonly view: DataView = new DataView(this.bytes.buffer);
  /** Whether it starts in long mode. */
  readonly long: boolean;

  constructor(long: boolean) {
    this.long = long;
    for (const [selector, base, limit, attributes] of SEGMENTS) {
      this.#quad(At.GDT + selector, descriptor(base, limit, attributes));
    }
    if (!long) this.#quad(At.GDT + Sel.CODE64, descriptor(0, FLAT, 0xc9a));
    this.#quad(At.GDT + Sel.TSS, descriptor(At.TSS, TSS_LIMIT, 0x89));
    this.#quad(At.GDT + Sel.LDT, descriptor(At.LDT, LDT_LIMIT, 0x82));
    if (!long) this.#quad(At.GDT + Sel.OTHER_TSS, descriptor(At.OTHER_TSS, TSS_LIMIT, 0x89));
    // The LDT: data for both rings, code, and nothing.
    this.#quad(At.LDT, descriptor(0, FLAT, 0xc92));
    this.#quad(At.LDT + 8, descriptor(At.DATA, SMALL, 0x0f2));
    this.#quad(At.LDT + 16, descriptor(0, FLAT, 0xcfa));
    this.#tables();
    this.#stacks();
    this.#tableRegister(Data.GDTR, At.GDT, GDT_BYTES - 1);
    this.#tableRegister(Data.LONG_IDTR, At.LONG_IDT, 0xfff);
    this.#tableRegister(Data.IDTR, At.IDT, 0x7ff);
    this.#tableRegister(Data.IVTR, At.IVT, 0x3ff);
    const fx = At.DATA + Data.FX_START;
    this.view.setUint16(fx, 0x37f, true);
    this.view.setUint32(fx + 24, 0x1f80, true);
  }

  #quad(at: number, value: bigint): void {
    this.view.setBigUint64(at, value, true);
  }

  #tableRegister(offset: number, base: number, limit: number): void {
    this.view.setUint16(At.DATA + offset, limit, true);
    this.view.setUint32(At.DATA + offset + 2, base, true);
  }

  #tables(): void {
    const { view } = this;
    const table = (at: number) => BigInt(at) | PRESENT | WRITABLE | USER;
    for (let level = 0; level < 3; level++) {
      this.#quad(At.LONG_TABLES + 0x1000 * level, table(At.LONG_TABLES + 0x1000 * (level + 1)));
    }
    view.setUint32(At.TABLES, Number(table(At.TABLES + 0x1000)), true);
    for (let page = 0; page < 512; page++) {
      const frame = BigInt(page * 0x1000);
      this.#quad(At.LONG_TABLES + 0x3000 + 8 * page, frame | pageFlags(page, true));
      view.setUint32(At.TABLES + 0x1000 + 4 * page, Number(frame | pageFlags(page, false)), true);
    }
  }

  #stacks(): void {
    const { view } = this;
    if (this.long) {
      this.#quad(At.TSS + 4, BigInt(At.ENTRY_STACK));
      // The first interrupt stack, for double faults.
      this.#quad(At.TSS + 0x24, BigInt(At.OTHER_STACK));
    } else {
      view.setUint32(At.TSS + 4, At.ENTRY_STACK, true);
      view.setUint32(At.TSS + 8, Sel.DATA, true);
      view.setUint32(At.TSS + 0x1c, At.TABLES, true);
    }
    // No map of ports.
    view.setUint16(At.TSS + 0x66, TSS_LIMIT + 1, true);
  }

  /** A task that begins at `eip`, in ring 0 with flat segments. */
  setOtherTask(eip: number): void {
    const { view } = this;
    const fields: readonly (readonly [number, number])[] = [
      [4, At.ENTRY_STACK],
      [8, Sel.DATA],
      [0x1c, At.TABLES],
      [0x20, eip],
      [0x24, 2],
      [0x38, At.OTHER_STACK],
      [0x48, Sel.DATA],
      [0x4c, Sel.CODE32],
      [0x50, Sel.DATA],
      [0x54, Sel.DATA],
    ];
    for (const [offset, value] of fields) view.setUint32(At.OTHER_TSS + offset, value, true);
    view.setUint16(At.OTHER_TSS + 0x66, TSS_LIMIT + 1, true);
  }

  /** Writes a gate of an IDT or, for calls, of the GDT. `attributes` are bits 15:0 of its second dword. */
  setGate(at: number, selector: number, offset: number, attributes: number, wide: boolean): void {
    const { view } = this;
    view.setUint16(at, offset & 0xffff, true);
    view.setUint16(at + 2, selector, true);
    view.setUint16(at + 4, attributes, true);
    view.setUint16(at + 6, offset >>> 16, true);
    if (wide) this.#quad(at + 8, 0n);
  }

  /** The system registers that the machine starts with, in ring 0 with everything set up. */
  system(): SystemState {
    const state = resetSystemState();
    const segment = (selector: number, attributes: number): Segment => ({
      selector,
      base: 0n,
      limit: 0xffff_ffff,
      attributes,
    });
    for (const name of ["ds", "es", "ss", "fs", "gs"] as const) {
      state[name] = segment(Sel.DATA, 0xc93);
    }
    state.cs = this.long ? segment(Sel.CODE64, 0xa9b) : segment(Sel.CODE32, 0xc9b);
    state.tr = { selector: Sel.TSS, base: BigInt(At.TSS), limit: TSS_LIMIT, attributes: 0x8b };
    // LTR has left its mark.
    this.view.setUint8(At.GDT + Sel.TSS + 5, 0x8b);
    state.ldt = { selector: Sel.LDT, base: BigInt(At.LDT), limit: LDT_LIMIT, attributes: 0x82 };
    state.gdt = { base: BigInt(At.GDT), limit: GDT_BYTES - 1 };
    state.idt = this.long
      ? { base: BigInt(At.LONG_IDT), limit: 0xfff }
      : { base: BigInt(At.IDT), limit: 0x7ff };
    state.cr0 = 0x8000_0000n | BigInt(Cr0.PE | Cr0.MP | Cr0.ET | Cr0.NE | Cr0.WP);
    state.cr4 = BigInt(Cr4.OSFXSR | Cr4.OSXMMEXCPT | Cr4.OSXSAVE | (this.long ? Cr4.PAE : 0));
    state.cr3 = BigInt(this.long ? At.LONG_TABLES : At.TABLES);
    state.xcr0 = 7n;
    state.efer = BigInt(Efer.NXE | Efer.SCE | (this.long ? Efer.LME | Efer.LMA : 0));
    state.star = (BigInt(Sel.USER_CODE32 | 3) << 48n) | (BigInt(Sel.CODE64) << 32n);
    state.sysenterCs = BigInt(Sel.CODE64);
    state.sysenterEsp = BigInt(At.ENTRY_STACK);
    state.sfmask = 0x4_7700n;
    return state;
  }
}
