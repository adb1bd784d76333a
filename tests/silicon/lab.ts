/**
 * A processor on the bench: guest mode entered from VMCBs that a test writes by hand, so that the
 * silicon is judged without any hypervisor of ours.
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
  InterceptWord,
  Misc1,
  Misc2,
  Msr,
  type Outside,
  type Processor,
  type Processors,
  S,
  Save,
  Seg,
  VMCB_BYTES,
} from "../../plugins/cpu/mod.ts";

/** Registers that the entry stub switches, by number; RAX and RSP are in the VMCB. */
/** Slots of the storage of registers: R0–R31, RIP, RFLAGS. */
export const REGISTER_SLOTS = 34;
const REGISTER_BYTES = 8 * REGISTER_SLOTS;
/** Those that a control block has: their slot, and where it has them. */
export const IN_VMCB: readonly (readonly [number, number])[] = [
  [0, Save.RAX],
  [4, Save.RSP],
  [32, Save.RIP],
  [33, Save.RFLAGS],
];
const PAGE = 0x1000;

/** Flat code and data segments for guest mode: selector, attributes. */
export const Flat = {
  CODE64: [0x08, 0x29b],
  CODE32: [0x08, 0xc9b],
  USER_CODE64: [0x33, 0x2fb],
  USER_CODE32: [0x23, 0xcfb],
  DATA: [0x10, 0xc93],
  USER_DATA: [0x2b, 0xcf3],
} as const;

/** What the guest meets outside is an error of the test unless it says otherwise. */
export function refuseOutside(): Outside {
  const refuse = (what: string) => (): never => {
    throw new Error(`the guest asked for ${what}`);
  };
  return {
    deviceRead: refuse("a device"),
    deviceWrite: refuse("a device"),
    portRead: refuse("a port"),
    portWrite: refuse("a port"),
    cpuid: refuse("CPUID"),
    msrRead: () => false,
    msrWrite: () => false,
    acknowledge: () => -1,
  };
}

/** Nothing outside answers, and nothing minds. */
export const silentOutside = (): Outside => ({
  ...refuseOutside(),
  deviceRead: () => {},
  deviceWrite: () => {},
  portRead: () => 0,
  portWrite: () => {},
  cpuid: () => {},
});

/** How the lab's first 2 MiB of linear addresses are mapped. */
export type Mapping = "user" | "supervisor";

/** One processor, one VMCB, and page tables that map what the test asks for. */
export class Lab {
  readonly processors: Processors;
  readonly processor: Processor;
  readonly memory: HostMemory;
  /** Host physical address that linear address 0 maps to. */
  readonly base: number;
  readonly vmcb: number;
  readonly registers: number;
  readonly #words: Uint32Array;
  readonly #quads: BigUint64Array;
  readonly #registers: BigUint64Array;
  readonly #pml4: number;
  readonly #table: number;

  constructor(outside: Outside = refuseOutside(), options: HostOptions = {}) {
    const { processors, memory } = createHost(options);
    this.processors = processors;
    this.memory = memory;
    this.base = memory.alloc(0x20_0000, 0x20_0000);
    this.vmcb = memory.alloc(VMCB_BYTES);
    this.registers = memory.alloc(PAGE);
    const hsave = memory.alloc(PAGE);
    this.#pml4 = memory.alloc(PAGE);
    const pdpt = memory.alloc(PAGE);
    const directory = memory.alloc(PAGE);
    this.#table = memory.alloc(PAGE);
    const view = memory.view(this.vmcb, VMCB_BYTES);
    this.#words = new Uint32Array(view.buffer, view.byteOffset, VMCB_BYTES / 4);
    this.#quads = new BigUint64Array(view.buffer, view.byteOffset, VMCB_BYTES / 8);
    const stored = memory.view(this.registers, REGISTER_BYTES);
    this.#registers = new BigUint64Array(stored.buffer, stored.byteOffset, REGISTER_SLOTS);
    memory.writeU64(this.#pml4, BigInt(pdpt) | 7n);
    memory.writeU64(pdpt, BigInt(directory) | 7n);
    memory.writeU64(directory, BigInt(this.#table) | 7n);

    this.processor = processors.get(0);
    this.processor.attach(outside, 0);
    this.processor.reset();
    const { state } = this.processor;
    const code = Attr.P | Attr.S | Attr.CODE | Attr.WRITABLE | Attr.ACCESSED | Attr.L;
    state.setSegment(Seg.CS, { selector: 8, attributes: code, limit: 0xffff_ffff, base: 0n });
    state.set(S.cr0, 0x8000_0000n | BigInt(Cr0.PE | Cr0.WP | Cr0.ET | Cr0.NE));
    state.set(S.cr4, BigInt(Cr4.PAE));
    state.set(S.cr3, BigInt(this.#pml4));
    state.set(S.efer, BigInt(Efer.LME | Efer.LMA | Efer.NXE | Efer.SCE));
    state.set(S.rflags, 0x202n);
    this.processor.refresh();
    this.processor.setHostOutside(true);
    const efer = BigInt(Efer.LME | Efer.LMA | Efer.NXE | Efer.SCE | Efer.SVME);
    if (!this.processor.writeMsr(Msr.EFER, efer)) throw new Error("EFER.SVME was refused");
    if (!this.processor.writeMsr(Msr.VM_HSAVE_PA, BigInt(hsave))) {
      throw new Error("VM_HSAVE_PA was refused");
    }
  }

  /** Address of the level-1 entry for a linear address below 2 MiB. */
  pte(linear: number): number {
    return this.#table + (linear >>> 12) * 8;
  }

  /** Maps pages one to one (plus {@linkcode Lab.base}); `flags` are those of the last entry. */
  map(linear: number, bytes: number, flags: bigint): void {
    for (let at = linear; at < linear + bytes; at += PAGE) {
      this.memory.writeU64(this.pte(at), BigInt(this.base + at) | flags);
    }
  }

  /** Copies bytes to a linear address below 2 MiB, whether it is mapped or not. */
  write(linear: number, bytes: Uint8Array): void {
    this.memory.write(this.base + linear, bytes);
  }

  /** Bytes at a linear address below 2 MiB. */
  read(linear: number, length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    this.memory.read(this.base + linear, bytes);
    return bytes;
  }

  get32(offset: number): number {
    return this.#words[offset >> 2]!;
  }

  set32(offset: number, value: number): void {
    this.#words[offset >> 2] = value;
  }

  get64(offset: number): bigint {
    return this.#quads[offset >> 3]!;
  }

  set64(offset: number, value: bigint): void {
    this.#quads[offset >> 3] = value;
  }

  /** Writes a segment of the VMCB's save area. */
  setSegment(offset: number, [selector, attributes]: readonly [number, number]): void {
    this.set32(offset, selector | (attributes << 16));
    this.set32(offset + 4, 0xffff_ffff);
    this.set64(offset + 8, 0n);
  }

  /**
   * A VMCB that VMRUN accepts: long mode with the lab's page tables, flat segments, every exception and
   * shutdown intercepted, no nested paging.
   */
  prepare(mode: 64 | 32, privilege: 0 | 3): void {
    this.#words.fill(0);
    const user = privilege === 3;
    const code = mode === 64
      ? (user ? Flat.USER_CODE64 : Flat.CODE64)
      : (user ? Flat.USER_CODE32 : Flat.CODE32);
    this.setSegment(Save.CS, code);
    for (const offset of [Save.SS, Save.DS, Save.ES, Save.FS, Save.GS]) {
      this.setSegment(offset, user ? Flat.USER_DATA : Flat.DATA);
    }
    this.set32(InterceptWord.EXCEPTIONS, 0xffff_ffff);
    this.set32(InterceptWord.MISC1, Misc1.SHUTDOWN | Misc1.INTR);
    this.set32(InterceptWord.MISC2, Misc2.VMRUN);
    this.set32(Control.ASID, 1);
    this.memory.writeU8(this.vmcb + Save.CPL, privilege);
    this.memory.writeU8(this.vmcb + Control.TLB_CONTROL, 1);
    this.set64(Save.EFER, BigInt(Efer.LME | Efer.LMA | Efer.NXE | Efer.SVME));
    this.set64(Save.CR0, 0x8000_0000n | BigInt(Cr0.PE | Cr0.WP | Cr0.ET | Cr0.NE));
    this.set64(Save.CR3, BigInt(this.#pml4));
    this.set64(Save.CR4, BigInt(Cr4.PAE));
    this.set64(Save.DR6, 0xffff_0ff0n);
    this.set64(Save.DR7, 0x400n);
    this.set64(Save.RFLAGS, 2n);
  }

  /** General register `n` of the guest. */
  register(n: number): bigint {
    if (n === 0) return this.get64(Save.RAX);
    return n === 4 ? this.get64(Save.RSP) : this.#registers[n]!;
  }

  /** Sets general register `n` of the guest. */
  setRegister(n: number, value: bigint): void {
    if (n === 0) this.set64(Save.RAX, value);
    else if (n === 4) this.set64(Save.RSP, value);
    else this.#registers[n] = value;
  }

  /** VMRUN; returns the exit code. */
  run(budget = 1_000_000): bigint {
    // The stub writes them into the control block, where they stand already.
    for (const [n, offset] of IN_VMCB) this.#registers[n] = this.get64(offset);
    this.processor.enterGuest(this.vmcb, this.#registers, budget);
    return this.get64(Control.EXITCODE);
  }
}
