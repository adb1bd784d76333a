/**
 * A vCPU's memory as it sees it, for reading only: no faults, no accessed bits.
 *
 * @module
 */

import type { Segment, SystemState, Vcpu } from "../../core/mod.ts";
import { type PageWalk, walkPages } from "../cpu/mod.ts";
import { placeText, type Symbolizer, symbolsSlot } from "../symbols/mod.ts";
import { hex } from "./hexadecimal.ts";

/** How the processor executes code. */
export type CpuMode =
  | "real mode"
  | "virtual-8086 mode"
  | "16-bit protected mode"
  | "32-bit protected mode"
  | "16-bit compatibility mode"
  | "32-bit compatibility mode"
  | "64-bit mode";

const PE = 1n;
const PG = 0x8000_0000n;
const WP = 0x1_0000n;
const LMA = 0x400n;
const VM = 0x2_0000n;
const MASK32 = 0xffff_ffffn;

/** One vCPU with its system registers as they are now. */
export class GuestView {
  /** The vCPU. */
  readonly vcpu: Vcpu;
  /** Its system registers. */
  readonly system: SystemState;
  /** Its mode. */
  readonly mode: CpuMode;
  /** Whether long mode is active, in 64-bit or compatibility mode. */
  readonly long: boolean;
  /** Current privilege level. */
  readonly cpl: number;

  readonly #symbols: Symbolizer | undefined;

  /** Reads the system registers. */
  constructor(vcpu: Vcpu) {
    this.vcpu = vcpu;
    const { slots } = vcpu.vm;
    this.#symbols = slots.filled(symbolsSlot) ? slots.ref(symbolsSlot).current : undefined;
    const vendor = vcpu.vm.vendor.current;
    const system = this.system = vendor.getSystemState(vcpu);
    this.long = (system.efer & LMA) !== 0n;
    this.mode = modeOf(system, vcpu.regs.rflags, this.long);
    this.cpl = vendor.cpl(vcpu);
  }

  /** A linear address as `name+1fh`, `undefined` if it has no name. */
  place(linear: bigint): string | undefined {
    return this.#symbols === undefined ? undefined : placeText(this.#symbols, linear);
  }

  /** `RIP 1fh`, with the name of the place if it has one. */
  ripText(rip: bigint): string {
    const place = this.place(this.linear(this.system.cs, rip));
    return place === undefined ? `RIP ${hex(rip)}` : `RIP ${hex(rip)} (${place})`;
  }

  /** Whether linear addresses are translated. */
  get paging(): boolean {
    return (this.system.cr0 & PG) !== 0n;
  }

  /** Whether supervisor writes honour read-only pages. */
  get writeProtect(): boolean {
    return (this.system.cr0 & WP) !== 0n;
  }

  /** Whether the processor is in real mode. */
  get real(): boolean {
    return (this.system.cr0 & PE) === 0n;
  }

  /** Size of the code. */
  get codeBits(): 16 | 32 | 64 {
    if (this.mode === "64-bit mode") return 64;
    return (this.system.cs.attributes & 0x400) !== 0 ? 32 : 16;
  }

  /** Bytes of a stack slot and of an address. */
  get width(): 2 | 4 | 8 {
    if (this.mode === "64-bit mode") return 8;
    return (this.system.ss.attributes & 0x400) !== 0 ? 4 : 2;
  }

  /** The linear address of an offset into CS or SS. */
  linear(segment: Segment, offset: bigint): bigint {
    if (this.mode === "64-bit mode") return offset;
    return (segment.base + offset) & MASK32;
  }

  /** Linear address of RIP. */
  get rip(): bigint {
    return this.linear(this.system.cs, this.vcpu.regs.rip);
  }

  /** Linear address of the top of the stack. */
  get rsp(): bigint {
    const { rsp } = this.vcpu.regs;
    return this.linear(this.system.ss, this.width === 2 ? rsp & 0xffffn : rsp);
  }

  /** Whether an address has all of bits 63:47 (63:56 with five levels) equal. */
  canonical(linear: bigint): boolean {
    if (!this.long) return true;
    const bits = (this.system.cr4 & 0x1000n) !== 0n ? 57 : 48;
    return BigInt.asUintN(64, BigInt.asIntN(bits, linear)) === BigInt.asUintN(64, linear);
  }

  /** Walks the page tables. */
  walk(linear: bigint): PageWalk {
    return walkPages(this.system, linear, (address) => this.#physical64(address));
  }

  /** 64 bits of guest physical memory, `undefined` where there is none. */
  #physical64(address: number): bigint | undefined {
    const { memory } = this.vcpu.vm;
    if (memory.lookup(address) === undefined) return undefined;
    // The last entry of 32-bit tables may be the last four bytes of memory.
    if (memory.lookup(address + 7) === undefined) return BigInt(memory.readU32(address));
    return memory.readU64(address);
  }

  /** Whether there is memory at a guest physical address. */
  backed(gpa: number): boolean {
    return this.vcpu.vm.memory.lookup(gpa) !== undefined;
  }

  /** Bytes at a linear address; `null` for those that cannot be read. */
  bytes(linear: bigint, count: number): (number | null)[] {
    const found: (number | null)[] = [];
    let page = -1n;
    let base: number | undefined;
    for (let i = 0; i < count; i++) {
      const at = BigInt.asUintN(64, linear + BigInt(i));
      if (at >> 12n !== page) {
        page = at >> 12n;
        const gpa = this.canonical(at) ? this.walk(at).address : undefined;
        base = gpa === undefined ? undefined : gpa - Number(at & 0xfffn);
      }
      const gpa = base === undefined ? -1 : base + Number(at & 0xfffn);
      found.push(gpa >= 0 && this.backed(gpa) ? this.vcpu.vm.memory.readU8(gpa) : null);
    }
    return found;
  }

  /** A little-endian number at a linear address, `undefined` if any byte cannot be read. */
  read(linear: bigint, size: number): bigint | undefined {
    let value = 0n;
    for (const [i, byte] of this.bytes(linear, size).entries()) {
      if (byte === null) return undefined;
      value |= BigInt(byte) << BigInt(8 * i);
    }
    return value;
  }

  /**
   * Why an access to a linear address cannot be made, in words; `undefined` if it can.
   *
   * @param access What is to be allowed, beyond being there: a supervisor read if nothing is given.
   */
  problem(linear: bigint, access: { write?: boolean; user?: boolean; fetch?: boolean } = {}):
    | string
    | undefined {
    if (!this.canonical(linear)) return `${hex(linear)} is not canonical`;
    const walk = this.walk(linear);
    const last = walk.steps.at(-1);
    if (walk.address === undefined && last !== undefined) {
      const where = `${last.name} at ${hex(last.address)}`;
      if (last.entry === undefined) return `no memory where its ${where} would be`;
      return last.entry === 0n ? `${where} is 0` : `${where} is ${hex(last.entry)}, not present`;
    }
    const forbids = (mask: bigint, wanted: bigint) => {
      const step = walk.steps.find(({ entry }) => ((entry ?? 0n) & mask) !== wanted);
      return step === undefined ? "an entry" : `${step.name} at ${hex(step.address)}`;
    };
    if (access.user && !walk.user) return `${forbids(4n, 4n)} is for the supervisor only`;
    if (access.write && !walk.writable && (access.user || this.writeProtect)) {
      return `${forbids(2n, 2n)} is read-only`;
    }
    if (access.fetch && walk.noExecute) return `${forbids(1n << 63n, 0n)} is no-execute`;
    if (walk.address !== undefined && !this.backed(walk.address)) {
      return `it leads to gpa ${hex(walk.address)}, where no memory is`;
    }
    return undefined;
  }
}

function modeOf(system: SystemState, rflags: bigint, long: boolean): CpuMode {
  if ((system.cr0 & PE) === 0n) return "real mode";
  const { attributes } = system.cs;
  if (long && (attributes & 0x200) !== 0) return "64-bit mode";
  if (!long && (rflags & VM) !== 0n) return "virtual-8086 mode";
  const size = (attributes & 0x400) !== 0 ? 32 : 16;
  return `${size}-bit ${long ? "compatibility" : "protected"} mode`;
}
