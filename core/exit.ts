/**
 * VM exits: why a vCPU left the guest, and what a handler answers.
 *
 * @module
 */

import { ArgumentError } from "./errors.ts";

/** Keys of the exit hooks: reasons are integers from 0 to `MAX_EXIT_REASONS - 1`. */
export const MAX_EXIT_REASONS = 128;

/**
 * Why a vCPU left the guest, in words that fit every vendor. The numbers are dense, so that tables by
 * reason are arrays; they are not part of any file format. {@linkcode VmExit} says which of its fields
 * are valid for which reason.
 */
export const ExitReason = {
  /**
   * The instruction budget is used up, or the vendor was asked to leave: there is nothing to handle.
   * Not counted as an exit and not charged any time, so that how a run is sliced cannot be noticed.
   */
  BUDGET: 0,
  /** IN, OUT, INS or OUTS. */
  IO: 1,
  /** An access to guest physical memory that has no memslot, already decoded. */
  MMIO: 2,
  /** CPUID. */
  CPUID: 3,
  /** RDMSR. */
  RDMSR: 4,
  /** WRMSR. */
  WRMSR: 5,
  /** HLT. */
  HLT: 6,
  /** VMCALL or VMMCALL. */
  HYPERCALL: 7,
  /** An exception that the hypervisor asked to see, before it is delivered. */
  EXCEPTION: 8,
  /** A physical interrupt for the host. */
  EXTERNAL_INTERRUPT: 9,
  /** The guest can take an interrupt now, as asked by `requestInterruptWindow`. */
  INTERRUPT_WINDOW: 10,
  /** The guest can take an NMI now, as asked by `requestNmiWindow`. */
  NMI_WINDOW: 11,
  /** A triple fault. */
  SHUTDOWN: 12,
  /** The processor refused to enter the guest: the state or the controls are not consistent. */
  FAIL_ENTRY: 13,
  /** A guest physical address has no translation, or one that forbids the access. */
  NESTED_PAGE_FAULT: 14,
  /** MOV to or from a control register, CLTS, LMSW. */
  CR_ACCESS: 15,
  /** MOV to or from a debug register. */
  DR_ACCESS: 16,
  /** INVLPG or INVPCID. */
  INVLPG: 17,
  /** A task switch. */
  TASK_SWITCH: 18,
  /** MONITOR. */
  MONITOR: 19,
  /** MWAIT. */
  MWAIT: 20,
  /** PAUSE. */
  PAUSE: 21,
  /** RDTSC. */
  RDTSC: 22,
  /** RDTSCP. */
  RDTSCP: 23,
  /** RDPMC. */
  RDPMC: 24,
  /** WBINVD or WBNOINVD. */
  WBINVD: 25,
  /** INVD. */
  INVD: 26,
  /** XSETBV. */
  XSETBV: 27,
  /** An INIT signal. */
  INIT: 28,
  /** A start-up IPI. */
  SIPI: 29,
  /** A system-management interrupt. */
  SMI: 30,
  /** A physical NMI for the host. */
  NMI: 31,
  /** Access to GDTR, IDTR, LDTR or TR. */
  DESCRIPTOR_TABLE: 32,
  /** PUSHF. */
  PUSHF: 33,
  /** POPF. */
  POPF: 34,
  /** IRET. */
  IRET: 35,
  /** INT n. */
  SOFTWARE_INTERRUPT: 36,
  /** One instruction was completed, as asked by a debugger. */
  SINGLE_STEP: 37,
  /** The processor met something it does not implement; the bytes tell what. */
  UNIMPLEMENTED: 38,
  /** Something of the vendor's own; `vendorCode` tells what. */
  OTHER: 39,
} as const;

/**
 * What exits of one vendor's own reason are aimed at, for those who count and list exits. What goes
 * into a target is what tells two exits of the reason apart: a register, a port, a direction.
 */
export interface ExitTargets {
  /** The target as a number below 2^53. Called on the path of an exit: it must allocate nothing. */
  of(exit: VmExit): number;
  /** The target in words, and the name of what is there. Without it, and if the words are empty, the reason says it all. */
  describe?(target: number): { readonly text: string; readonly name?: string };
}

const names: string[] = [];
const targets: (ExitTargets | undefined)[] = [];
for (const [name, reason] of Object.entries(ExitReason)) names[reason] = name;

/** Name of an exit reason, for printing. */
export function exitReasonName(reason: number): string {
  return names[reason] ?? `reason ${reason}`;
}

/** All exit reasons defined so far, with their numbers. */
export function exitReasons(): { name: string; reason: number }[] {
  return names.map((name, reason) => ({ name, reason }));
}

/** The targets of an exit reason, as given to {@linkcode defineExitReason}. */
export function exitTargets(reason: number): ExitTargets | undefined {
  return targets[reason];
}

/**
 * Adds an exit reason that one vendor has and others do not, and returns its number. A name that is
 * already defined keeps its number and its targets.
 *
 * @param of What exits of this reason are aimed at; the vendor's own exit code if not given.
 * @throws {ArgumentError} If there are {@linkcode MAX_EXIT_REASONS} already.
 */
export function defineExitReason(name: string, of?: ExitTargets): number {
  const known = names.indexOf(name);
  if (known >= 0) return known;
  if (names.length === MAX_EXIT_REASONS) {
    throw new ArgumentError(`exit reason "${name}": all ${MAX_EXIT_REASONS} numbers are taken`);
  }
  targets[names.length] = of;
  return names.push(name) - 1;
}

/** What a handler of an exit answers. */
export const ExitAction = {
  /**
   * The answer is in the exit record (or there is none to give): the vendor commits it to the guest
   * and moves RIP past the instruction.
   */
  COMPLETE: 1,
  /**
   * Enter the guest as it is now: the instruction is to be executed again, or the handler did
   * everything itself, or it made a fault pending.
   */
  RESUME: 2,
} as const;

/** One of {@linkcode ExitAction}. */
export type ExitAction = (typeof ExitAction)[keyof typeof ExitAction];

/**
 * The exit a vCPU is at. There is one record for each vCPU, filled anew at each exit; who wants to
 * keep an exit copies what it needs. Fields that the reason does not name hold leftovers.
 *
 * | reason | fields |
 * | --- | --- |
 * | IO | `port`, `size`, `write`, `string`, `rep`, `lo` |
 * | MMIO | `gpa`, `size`, `write`, `lo`, `hi` |
 * | CPUID | `leaf`, `subleaf`; answer in `eax`, `ebx`, `ecx`, `edx` |
 * | RDMSR, WRMSR | `msr`, `write`, `lo`, `hi` |
 * | EXCEPTION | `vector`, `errorCode`, `hasErrorCode`; for page faults `gvaLo`, `gvaHi` |
 * | NESTED_PAGE_FAULT | `gpa`, `errorCode` (page-fault bits: 0 P, 1 W, 2 U, 3 reserved, 4 fetch), `walk` |
 * | CR_ACCESS, DR_ACCESS | `register`, `gpr`, `write` |
 * | RDTSC, RDTSCP, RDPMC | answer in `lo`, `hi`; TSC_AUX for RDTSCP in `ecx` |
 * | XSETBV | `lo`, `hi`, index in `ecx` |
 * | SOFTWARE_INTERRUPT, SIPI | `vector` |
 * | UNIMPLEMENTED | `bytes`, `byteCount` |
 *
 * `instructionLength`, the bytes and the vendor's own fields may be valid for any reason.
 */
export class VmExit {
  /** One of {@linkcode ExitReason}, or a number from {@linkcode defineExitReason}. */
  reason: number = ExitReason.BUDGET;
  /** Length of the instruction that exited, in bytes; 0 if the vendor does not know it. */
  instructionLength = 0;
  /** First bytes of the instruction, as far as the vendor knows them. */
  readonly bytes: Uint8Array = new Uint8Array(15);
  /** How many of {@linkcode VmExit.bytes} are valid. */
  byteCount = 0;

  /** Whether the guest writes; for INS and IN it does not. */
  write = false;
  /** Width of the access in bytes. */
  size = 0;
  /** I/O port, 16 bits. */
  port = 0;
  /** INS or OUTS. */
  string = false;
  /** With a REP prefix. */
  rep = false;
  /** Guest physical address, below 2^52. */
  gpa = 0;
  /** Whether a nested page fault hit a guest page-table access, not the final address. */
  walk = false;
  /** MSR index, 32 bits. */
  msr = 0;
  /** Bits 31:0 of the data written, or of the answer to a read. */
  lo = 0;
  /** Bits 63:32 of the same. */
  hi = 0;

  /** CPUID leaf: EAX. */
  leaf = 0;
  /** CPUID subleaf: ECX. */
  subleaf = 0;
  /** Answer in EAX. */
  eax = 0;
  /** Answer in EBX. */
  ebx = 0;
  /** Answer in ECX, or the index of RDPMC and XSETBV. */
  ecx = 0;
  /** Answer in EDX. */
  edx = 0;

  /** Exception or interrupt vector. */
  vector = 0;
  /** Error code of the exception, or page-fault bits of a nested page fault. */
  errorCode = 0;
  /** Whether the exception has an error code. */
  hasErrorCode = false;
  /** Guest linear address, bits 31:0. */
  gvaLo = 0;
  /** Guest linear address, bits 63:32. */
  gvaHi = 0;
  /** Number of the control or debug register. */
  register = 0;
  /** General register on the other side of the move, as in `Gpr`. */
  gpr = 0;

  /** The vendor's own exit code, bits 31:0. */
  vendorCodeLo = 0;
  /** The vendor's own exit code, bits 63:32. */
  vendorCodeHi = 0;
  /** First word of the vendor's exit information, bits 31:0. */
  info1Lo = 0;
  /** First word of the vendor's exit information, bits 63:32. */
  info1Hi = 0;
  /** Second word of the vendor's exit information, bits 31:0. */
  info2Lo = 0;
  /** Second word of the vendor's exit information, bits 63:32. */
  info2Hi = 0;

  /** Fills in an {@linkcode ExitReason.IO} exit that is not a string instruction. */
  setIo(port: number, size: number, write: boolean, value: number): void {
    this.reason = ExitReason.IO;
    this.port = port;
    this.size = size;
    this.write = write;
    this.lo = value;
    this.hi = 0;
    this.string = false;
    this.rep = false;
  }

  /** Fills in an {@linkcode ExitReason.MMIO} exit. */
  setMmio(gpa: number, size: number, write: boolean, lo: number, hi: number): void {
    this.reason = ExitReason.MMIO;
    this.gpa = gpa;
    this.size = size;
    this.write = write;
    this.lo = lo;
    this.hi = hi;
  }

  /** Fills in an {@linkcode ExitReason.CPUID} exit. */
  setCpuid(leaf: number, subleaf: number): void {
    this.reason = ExitReason.CPUID;
    this.leaf = leaf;
    this.subleaf = subleaf;
  }

  /** Fills in an {@linkcode ExitReason.RDMSR} or {@linkcode ExitReason.WRMSR} exit. */
  setMsr(msr: number, write: boolean, lo: number, hi: number): void {
    this.reason = write ? ExitReason.WRMSR : ExitReason.RDMSR;
    this.msr = msr;
    this.write = write;
    this.lo = lo;
    this.hi = hi;
  }
}

function hex(value: number): string {
  return `${(value >>> 0).toString(16)}h`;
}

function hexPair(lo: number, hi: number): string {
  const text = hi === 0 ? "" : (hi >>> 0).toString(16);
  return `${text}${(lo >>> 0).toString(16).padStart(text === "" ? 1 : 8, "0")}h`;
}

/** What {@linkcode describeExit} says of the fields of each reason. */
const DETAILS: { [reason: number]: (exit: VmExit) => string } = {
  [ExitReason.IO]: (exit) =>
    `${exit.rep ? "rep " : ""}${exit.write ? "out" : "in"}${exit.string ? "s" : ""}, ` +
    `port ${hex(exit.port)}, ${exit.size} bytes` +
    (exit.write && !exit.string ? `, value ${hex(exit.lo)}` : ""),
  [ExitReason.MMIO]: (exit) =>
    `${exit.write ? "write" : "read"}, gpa ${exit.gpa.toString(16)}h, ${exit.size} bytes` +
    (exit.write ? `, value ${hexPair(exit.lo, exit.hi)}` : ""),
  [ExitReason.CPUID]: (exit) => `leaf ${hex(exit.leaf)}, subleaf ${hex(exit.subleaf)}`,
  [ExitReason.RDMSR]: (exit) => `MSR ${hex(exit.msr)}`,
  [ExitReason.WRMSR]: (exit) => `MSR ${hex(exit.msr)}, value ${hexPair(exit.lo, exit.hi)}`,
  [ExitReason.EXCEPTION]: (exit) =>
    `vector ${exit.vector}` + (exit.hasErrorCode ? `, error code ${hex(exit.errorCode)}` : ""),
  [ExitReason.NESTED_PAGE_FAULT]: (exit) =>
    `gpa ${exit.gpa.toString(16)}h, error code ${hex(exit.errorCode)}` +
    (exit.walk ? ", in a page walk" : ""),
  [ExitReason.CR_ACCESS]: (exit) =>
    `${exit.write ? "write" : "read"} of CR${exit.register}, register ${exit.gpr}`,
  [ExitReason.DR_ACCESS]: (exit) =>
    `${exit.write ? "write" : "read"} of DR${exit.register}, register ${exit.gpr}`,
  [ExitReason.SOFTWARE_INTERRUPT]: (exit) => `vector ${exit.vector}`,
  [ExitReason.SIPI]: (exit) => `vector ${exit.vector}`,
  [ExitReason.UNIMPLEMENTED]: (exit) => `bytes ${exitBytes(exit)}`,
  [ExitReason.FAIL_ENTRY]: describeVendor,
  [ExitReason.OTHER]: describeVendor,
};

function describeVendor(exit: VmExit): string {
  return `vendor code ${hexPair(exit.vendorCodeLo, exit.vendorCodeHi)}, ` +
    `info ${hexPair(exit.info1Lo, exit.info1Hi)} ${hexPair(exit.info2Lo, exit.info2Hi)}`;
}

/** The instruction bytes of an exit in hexadecimal, separated by spaces. */
export function exitBytes(exit: VmExit): string {
  return [...exit.bytes.subarray(0, exit.byteCount)]
    .map((byte) => byte.toString(16).padStart(2, "0"))
    .join(" ");
}

/** The fields of an exit that its reason makes valid, in words; empty if there are none. */
export function describeExit(exit: VmExit): string {
  const details = exit.reason < Object.keys(ExitReason).length ? DETAILS[exit.reason] : undefined;
  if (details !== undefined) return details(exit);
  return exit.reason < Object.keys(ExitReason).length ? "" : describeVendor(exit);
}
