/**
 * A guest that is put into any state, executes a few instructions, and is looked at: the same on the bare
 * processor and under each hypervisor.
 *
 * @module
 */
import {
  Gpr,
  type MsrAccess,
  type Plugin,
  type SystemState,
  type Vcpu,
  type Vm,
} from "../../core/mod.ts";
import { apx } from "../../plugins/apx/mod.ts";
import { DATA, DATA_BYTES, EVERYTHING, type Snapshot } from "../silicon/apx/apx_bench.ts";
import { qword } from "../silicon/code.ts";
import { type HostName, longGuest } from "./long_guest.ts";

const GDT = 0x5000;
const IDT = 0x6000;
/** Handler of vector 0; each is 16 bytes, and jumps to itself. */
const HANDLERS = 0x8000;
const HANDLER_BYTES = 16;
/** A selector whose descriptor is an available 64-bit TSS. */
export const FREE_TASK = 0x40;
export const CODE64 = 8;
export const DATA_SEGMENT = 0x10;
const ARITHMETIC = 0x8d5;

/** Extended state in its initial configuration: FCW 37Fh, MXCSR 1F80h, R16–R31 zero. */
const INITIAL_XSAVE: Uint8Array = new Uint8Array(1088);
INITIAL_XSAVE.set([0x7f, 0x03], 0);
INITIAL_XSAVE.set([0x80, 0x1f], 24);
INITIAL_XSAVE[512] = 3;

/** An MSR that every host keeps in the same place, for accesses that must exit. */
function msr830(written: bigint[]): Plugin {
  const value = ({ lo, hi }: MsrAccess): bigint => (BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0);
  return {
    name: "msr-830",
    version: "1.0.0",
    setup: (ctx) =>
      void ctx.registerMsr({
        name: "msr-830",
        base: 0x830,
        write: (access) => written.push(value(access)) > 0,
      }),
  };
}

/** One VM of one vCPU. */
export class Stepper {
  readonly host: HostName;
  /** What was written to MSR 830h. */
  readonly written: bigint[] = [];
  readonly #vm: Vm;
  readonly #vcpu: Vcpu;
  readonly #system: SystemState;

  constructor(host: HostName) {
    this.host = host;
    const plugins = [msr830(this.written), ...(host === "metal" ? [] : [apx()])];
    this.#vm = longGuest([], { host, features: EVERYTHING, plugins });
    this.#vcpu = this.#vm.vcpus[0]!;
    const { memory } = this.#vm;
    memory.writeU64(GDT + CODE64, 0x00af_9b00_0000_ffffn);
    memory.writeU64(GDT + DATA_SEGMENT, 0x00cf_9300_0000_ffffn);
    memory.writeU64(GDT + 0x18, 0x0000_8b00_0000_0067n);
    for (let vector = 0; vector < 32; vector++) {
      const at = HANDLERS + HANDLER_BYTES * vector;
      memory.write(at, Uint8Array.from([0xeb, 0xfe]));
      const low = BigInt(at) | (BigInt(CODE64) << 16n) | (0x8e00n << 32n);
      memory.writeU64(IDT + 16 * vector, low);
    }
    this.#system = {
      ...this.#vm.vendor.current.getSystemState(this.#vcpu),
      gdt: { base: BigInt(GDT), limit: 0xfff },
      idt: { base: BigInt(IDT), limit: 0xfff },
    };
    this.restore();
  }

  /** System registers as they were in the beginning, and descriptors that instructions mark. */
  restore(): void {
    const { memory } = this.#vm;
    memory.writeU64(GDT + FREE_TASK, 0x0000_8900_0000_0067n);
    memory.write(GDT + FREE_TASK + 8, Uint8Array.from(qword(0n)));
    const vendor = this.#vm.vendor.current;
    vendor.setSystemState(this.#vcpu, this.#system);
    vendor.setXsave(this.#vcpu, INITIAL_XSAVE);
  }

  /** Registers, flags and data. */
  load({ registers, flags, rip, memory }: Snapshot): void {
    const { regs } = this.#vcpu;
    for (const [n, value] of registers.entries()) regs.set(n, value);
    regs.set(Gpr.RIP, rip);
    regs.set(Gpr.RFLAGS, BigInt(flags | 2));
    this.#vm.memory.write(DATA, memory);
  }

  /** Retires `count` instructions; how the run ended. */
  run(count: number): string {
    const result = this.#vm.runSync({ instructions: count });
    return result.reason;
  }

  /** What is there now. */
  snapshot(): Snapshot {
    const { regs } = this.#vcpu;
    const memory = new Uint8Array(DATA_BYTES);
    this.#vm.memory.read(DATA, memory);
    return {
      registers: Array.from({ length: 32 }, (_, n) => regs.get(n)),
      flags: Number(regs.rflags) & ARITHMETIC,
      rip: regs.rip,
      memory,
    };
  }

  /** The vector whose handler RIP is at; −1 if it is at none. */
  vector(): number {
    const at = Number(this.#vcpu.regs.rip) - HANDLERS;
    return at >= 0 && at < 32 * HANDLER_BYTES ? at / HANDLER_BYTES : -1;
  }

  /** System registers that every host shows alike. */
  system(): Record<string, bigint | number> {
    const state = this.#vm.vendor.current.getSystemState(this.#vcpu);
    const { cr0, cr2, cr4, cr8, efer, dr7, xcr0, sysenterCs, sysenterEsp, kernelGsBase } = state;
    return {
      ...{ cr0, cr2, cr4, cr8, efer, dr7, xcr0, sysenterCs, sysenterEsp, kernelGsBase },
      gdt: state.gdt.base,
      idt: state.idt.base,
      ds: state.ds.selector,
      ldt: state.ldt.selector,
      tr: state.tr.selector,
    };
  }

  /** x87, SSE and APX state as an XSAVE area. */
  extended(): Uint8Array {
    return this.#vm.vendor.current.getXsave(this.#vcpu);
  }

  /** Gives the VM back. */
  close(): void {
    this.#vm.close();
  }
}
