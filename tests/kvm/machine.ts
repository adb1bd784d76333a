/**
 * A virtual machine of `/dev/kvm` with one processor, stepped through instruction by instruction.
 *
 * Structures and numbers are those of Linux's `Documentation/virt/kvm/api.rst` for x86-64.
 *
 * @module
 */
import { resetSystemState, type Segment, type SystemState } from "../../core/mod.ts";
import { Msr } from "../../plugins/cpu/mod.ts";
import { Libc, type Mapping } from "./libc.ts";

const Request = {
  GET_API_VERSION: 0xae00,
  CREATE_VM: 0xae01,
  GET_VCPU_MMAP_SIZE: 0xae04,
  GET_SUPPORTED_CPUID: 0xc008_ae05,
  CREATE_VCPU: 0xae41,
  SET_USER_MEMORY_REGION: 0x4020_ae46,
  RUN: 0xae80,
  GET_REGS: 0x8090_ae81,
  SET_REGS: 0x4090_ae82,
  GET_SREGS: 0x8138_ae83,
  SET_SREGS: 0x4138_ae84,
  SET_MSRS: 0x4008_ae89,
  SET_CPUID2: 0x4008_ae90,
  SET_GUEST_DEBUG: 0x4048_ae9b,
  SET_VCPU_EVENTS: 0x4040_aea0,
  SET_DEBUGREGS: 0x4080_aea2,
  SET_XCRS: 0x4188_aea7,
} as const;

const API_VERSION = 12;
const MAX_CPUID_ENTRIES = 256;

/** Exit reasons. */
export const Exit = {
  IO: 2,
  DEBUG: 4,
  HLT: 5,
  MMIO: 6,
  SHUTDOWN: 8,
  FAIL_ENTRY: 9,
  INTR: 10,
  INTERNAL_ERROR: 17,
} as const;

/** Offsets into `struct kvm_run`. */
const RUN_REASON = 8;
const RUN_IO = 32;

/** General registers in the order of `struct kvm_regs`, by their numbers; then RIP and RFLAGS. */
const ORDER = [0, 3, 1, 2, 6, 7, 4, 5, 8, 9, 10, 11, 12, 13, 14, 15, 32, 33];
/** Segments in the order of `struct kvm_sregs`. */
const SEGMENTS = ["cs", "ds", "es", "fs", "gs", "ss", "tr", "ldt"] as const;
const SEGMENT_BYTES = 24;
const SREGS_BYTES = 312;
const SREGS_TABLES = 192;
const SREGS_CONTROL = 224;

/** What the machine holds: registers by number as in the core, and system registers. */
export interface KvmState {
  readonly registers: bigint[];
  readonly system: SystemState;
}

const MSRS = [
  [Msr.STAR, "star"],
  [Msr.LSTAR, "lstar"],
  [Msr.CSTAR, "cstar"],
  [Msr.SFMASK, "sfmask"],
  [Msr.SYSENTER_CS, "sysenterCs"],
  [Msr.SYSENTER_ESP, "sysenterEsp"],
  [Msr.SYSENTER_EIP, "sysenterEip"],
  [0xc000_0102, "kernelGsBase"],
] as const;

/** The machine. */
export class KvmMachine implements Disposable {
  readonly memory: Uint8Array<ArrayBuffer>;
  readonly #libc = new Libc();
  readonly #files: number[] = [];
  readonly #vcpu: number;
  readonly #run: Mapping;
  readonly #ram: Mapping;
  readonly #view: DataView;
  readonly #regs = new Uint8Array(144);
  readonly #sregs = new Uint8Array(SREGS_BYTES);

  /** `bytes` of memory from address 0. Throws `SystemCallError` where there is no `/dev/kvm` to use. */
  constructor(bytes: number) {
    const libc = this.#libc;
    const kvm = this.#file(libc.open("/dev/kvm"));
    const version = libc.ioctl("KVM_GET_API_VERSION", kvm, Request.GET_API_VERSION, 0);
    if (version !== API_VERSION) throw new Error(`KVM's version is ${version}`);
    const vm = this.#file(libc.ioctl("KVM_CREATE_VM", kvm, Request.CREATE_VM, 0));
    this.#ram = libc.map(bytes);
    this.memory = this.#ram.bytes;
    const region = new DataView(new ArrayBuffer(32));
    region.setBigUint64(16, BigInt(bytes), true);
    region.setBigUint64(24, this.#ram.address, true);
    this.#call("KVM_SET_USER_MEMORY_REGION", vm, Request.SET_USER_MEMORY_REGION, region);
    this.#vcpu = this.#file(libc.ioctl("KVM_CREATE_VCPU", vm, Request.CREATE_VCPU, 0));
    const size = libc.ioctl("KVM_GET_VCPU_MMAP_SIZE", kvm, Request.GET_VCPU_MMAP_SIZE, 0);
    this.#run = libc.map(size, this.#vcpu);
    this.#view = new DataView(this.#run.bytes.buffer);
    const cpuid = new DataView(new ArrayBuffer(8 + 40 * MAX_CPUID_ENTRIES));
    cpuid.setUint32(0, MAX_CPUID_ENTRIES, true);
    this.#call("KVM_GET_SUPPORTED_CPUID", kvm, Request.GET_SUPPORTED_CPUID, cpuid);
    this.#call("KVM_SET_CPUID2", this.#vcpu, Request.SET_CPUID2, cpuid);
    const xcrs = new DataView(new ArrayBuffer(392));
    xcrs.setUint32(0, 1, true);
    xcrs.setBigUint64(16, 7n, true);
    this.#call("KVM_SET_XCRS", this.#vcpu, Request.SET_XCRS, xcrs);
  }

  #file(file: number): number {
    this.#files.push(file);
    return file;
  }

  #call(what: string, file: number, request: number, { buffer }: DataView): void {
    this.#libc.ioctl(what, file, request, new Uint8Array(buffer));
  }

  [Symbol.dispose](): void {
    this.#libc.unmap(this.#run);
    for (const file of this.#files.reverse()) this.#libc.close(file);
    this.#libc.unmap(this.#ram);
  }

  /** Puts a state in, with no event pending, and stops behind every instruction from now on. */
  load({ registers, system }: KvmState): void {
    const sregs = new DataView(new ArrayBuffer(SREGS_BYTES));
    for (const [k, name] of SEGMENTS.entries()) {
      writeSegment(sregs, k * SEGMENT_BYTES, system[name]);
    }
    for (const [k, { base, limit }] of [system.gdt, system.idt].entries()) {
      sregs.setBigUint64(SREGS_TABLES + 16 * k, base, true);
      sregs.setUint16(SREGS_TABLES + 16 * k + 8, limit, true);
    }
    const { cr0, cr2, cr3, cr4, cr8, efer, apicBase } = system;
    for (const [k, value] of [cr0, cr2, cr3, cr4, BigInt(cr8), efer, apicBase].entries()) {
      sregs.setBigUint64(SREGS_CONTROL + 8 * k, value, true);
    }
    this.#call("KVM_SET_SREGS", this.#vcpu, Request.SET_SREGS, sregs);
    const regs = new DataView(new ArrayBuffer(144));
    for (const [k, n] of ORDER.entries()) regs.setBigUint64(8 * k, registers[n] ?? 0n, true);
    this.#call("KVM_SET_REGS", this.#vcpu, Request.SET_REGS, regs);
    const msrs = new DataView(new ArrayBuffer(8 + 16 * MSRS.length));
    msrs.setUint32(0, MSRS.length, true);
    for (const [k, [index, name]] of MSRS.entries()) {
      msrs.setUint32(8 + 16 * k, index, true);
      msrs.setBigUint64(16 + 16 * k, system[name], true);
    }
    this.#call("KVM_SET_MSRS", this.#vcpu, Request.SET_MSRS, msrs);
    this.#call("KVM_SET_VCPU_EVENTS", this.#vcpu, Request.SET_VCPU_EVENTS, emptyOf(64));
    const debug = emptyOf(128);
    debug.setBigUint64(32, 0xffff_0ff0n, true);
    debug.setBigUint64(40, 0x400n, true);
    this.#call("KVM_SET_DEBUGREGS", this.#vcpu, Request.SET_DEBUGREGS, debug);
    const step = emptyOf(72);
    step.setUint32(0, Deno.env.get("NOSTEP") ? 0 : 3, true); // enabled, by single steps
    this.#call("KVM_SET_GUEST_DEBUG", this.#vcpu, Request.SET_GUEST_DEBUG, step);
  }

  /**
   * Runs to the next stop, and gives its reason. Ports read as ones.
   */
  step(): number {
    for (;;) {
      this.#libc.ioctl("KVM_RUN", this.#vcpu, Request.RUN, 0);
      const reason = this.#view.getUint32(RUN_REASON, true);
      if (reason !== Exit.IO) return reason;
      const view = this.#view;
      const size = view.getUint8(RUN_IO + 1);
      const count = view.getUint32(RUN_IO + 4, true);
      const at = Number(view.getBigUint64(RUN_IO + 8, true));
      if (view.getUint8(RUN_IO) === 0) this.#run.bytes.fill(0xff, at, at + size * count);
    }
  }

  /** What the machine holds now. MSRs and what else is not in `KVM_GET_SREGS` is as after RESET. */
  state(): KvmState {
    this.#libc.ioctl("KVM_GET_REGS", this.#vcpu, Request.GET_REGS, this.#regs);
    this.#libc.ioctl("KVM_GET_SREGS", this.#vcpu, Request.GET_SREGS, this.#sregs);
    const regs = new BigUint64Array(this.#regs.buffer);
    const registers = new Array<bigint>(34).fill(0n);
    for (const [k, n] of ORDER.entries()) registers[n] = regs[k]!;
    const sregs = new DataView(this.#sregs.buffer);
    const system = resetSystemState();
    for (const [k, name] of SEGMENTS.entries()) {
      system[name] = readSegment(sregs, k * SEGMENT_BYTES);
    }
    for (const [k, name] of (["gdt", "idt"] as const).entries()) {
      system[name] = {
        base: sregs.getBigUint64(SREGS_TABLES + 16 * k, true),
        limit: sregs.getUint16(SREGS_TABLES + 16 * k + 8, true),
      };
    }
    const control = (k: number) => sregs.getBigUint64(SREGS_CONTROL + 8 * k, true);
    [system.cr0, system.cr2, system.cr3, system.cr4] = [
      control(0),
      control(1),
      control(2),
      control(3),
    ];
    system.cr8 = Number(control(4));
    system.efer = control(5);
    return { registers, system };
  }
}

function emptyOf(bytes: number): DataView<ArrayBuffer> {
  return new DataView(new ArrayBuffer(bytes));
}

/** `struct kvm_segment`: the attributes are bytes. */
function writeSegment(view: DataView, at: number, segment: Segment): void {
  const { selector, base, limit, attributes } = segment;
  view.setBigUint64(at, base, true);
  view.setUint32(at + 8, limit, true);
  view.setUint16(at + 12, selector, true);
  const bit = (n: number) => attributes >> n & 1;
  const bytes = [
    attributes & 15,
    bit(7),
    attributes >> 5 & 3,
    bit(10),
    bit(4),
    bit(9),
    bit(11),
    bit(8),
  ];
  for (const [k, byte] of [...bytes, 1 - bit(7)].entries()) view.setUint8(at + 14 + k, byte);
}

function readSegment(view: DataView, at: number): Segment {
  const byte = (k: number) => view.getUint8(at + 14 + k);
  const attributes = byte(0) | byte(4) << 4 | byte(2) << 5 | byte(1) << 7 | byte(7) << 8 |
    byte(5) << 9 | byte(3) << 10 | byte(6) << 11;
  return {
    selector: view.getUint16(at + 12, true),
    base: view.getBigUint64(at, true),
    limit: view.getUint32(at + 8, true),
    attributes: byte(8) !== 0 ? attributes & ~0x80 : attributes,
  };
}
