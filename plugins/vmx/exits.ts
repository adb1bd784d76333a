/**
 * From VM exits to the core's exits (SDM vol. 3, 28.2 and appendix C).
 *
 * @module
 */
import {
  ExitReason as ImportedExitReason,
  Gpr as ImportedGpr,
  type Registers,
  type VmExit,
} from "../../core/mod.ts";
import { ExitInformation as ImportedExitInformation, Vmcs, VmxExit } from "../cpu/mod.ts";
import { ApicvReason, DetectionReason, VmxReason } from "./exit_reasons.ts";
import type { LoadedVmcs } from "./loaded_vmcs.ts";

// V8 folds constants of the module itself into compiled code, and loads and checks imported ones at each use.
const ExitInformation = ImportedExitInformation;
const ExitReason = ImportedExitReason;
const Gpr = ImportedGpr;

/**
 * Fills in what goes with one exit reason; `info1` holds the exit qualification already. `extended` says
 * that registers have numbers of five bits, in the qualification and in the extended instruction
 * information, which processors have with APX.
 */
type Translator = (
  exit: VmExit,
  vmcs: LoadedVmcs,
  registers: Registers,
  extended: boolean,
) => void;

const plain = (reason: number): Translator => (exit) => {
  exit.reason = reason;
};

/** Interruption information: types in 10:8, and whether there is an error code. */
const TYPE = 0x700;
const TYPE_NMI = 0x200;
const HAS_ERROR = 0x800;
const PAGE_FAULT = 14;

const exceptionOrNmi: Translator = (exit, vmcs) => {
  const info = vmcs.get32(Vmcs.EXIT_INTERRUPTION_INFO);
  exit.info2Lo = info;
  if ((info & TYPE) === TYPE_NMI) {
    exit.reason = ExitReason.NMI;
    return;
  }
  exit.reason = ExitReason.EXCEPTION;
  exit.vector = info & 0xff;
  exit.hasErrorCode = (info & HAS_ERROR) !== 0;
  exit.errorCode = exit.hasErrorCode ? vmcs.get32(Vmcs.EXIT_INTERRUPTION_ERROR) : 0;
  const address = exit.vector === PAGE_FAULT;
  exit.gvaLo = address ? exit.info1Lo : 0;
  exit.gvaHi = address ? exit.info1Hi : 0;
};

/** The vector, where one was acknowledged; else the host's own timer, whose vector is nobody's business. */
const externalInterrupt: Translator = (exit, vmcs) => {
  exit.reason = ExitReason.EXTERNAL_INTERRUPT;
  exit.info2Lo = vmcs.get32(Vmcs.EXIT_INTERRUPTION_INFO);
};

const io: Translator = (exit, _vmcs, registers) => {
  const info = exit.info1Lo;
  exit.reason = ExitReason.IO;
  exit.port = info >>> 16;
  exit.size = (info & 7) + 1;
  exit.write = (info & 8) === 0;
  exit.string = (info & 0x10) !== 0;
  exit.rep = (info & 0x20) !== 0;
  const value = registers.lo(Gpr.RAX);
  exit.lo = exit.size === 4 ? value : value & (exit.size === 1 ? 0xff : 0xffff);
  exit.hi = 0;
};

const msr = (write: boolean): Translator => (exit, _vmcs, registers) => {
  exit.reason = write ? ExitReason.WRMSR : ExitReason.RDMSR;
  exit.write = write;
  exit.msr = registers.lo(Gpr.RCX);
  exit.lo = registers.lo(Gpr.RAX);
  exit.hi = registers.lo(Gpr.RDX);
};

/**
 * RDMSR and WRMSRNS with an immediate: the qualification is the MSR, the first register of the instruction
 * information the operand: bits 20:16 of the extended field, or 6:3 of the other.
 */
const immediateMsr = (write: boolean): Translator => (exit, vmcs, registers, extended) => {
  exit.reason = write ? ExitReason.WRMSR : ExitReason.RDMSR;
  exit.write = write;
  exit.msr = exit.info1Lo;
  exit.gpr = extended
    ? (vmcs.get32(Vmcs.EXTENDED_INSTRUCTION_INFO) >>> 16) & 31
    : (vmcs.get32(Vmcs.EXIT_INSTRUCTION_INFO) >>> 3) & 15;
  exit.lo = registers.lo(exit.gpr);
  exit.hi = registers.hi(exit.gpr);
};

const cpuid: Translator = (exit, _vmcs, registers) => {
  exit.reason = ExitReason.CPUID;
  exit.leaf = registers.lo(Gpr.RAX);
  exit.subleaf = registers.lo(Gpr.RCX);
};

/** The general register in 12:8 of the qualification, or in 11:8 as before APX. */
const generalRegister = (exit: VmExit, extended: boolean): number =>
  (exit.info1Lo >>> 8) & (extended ? 31 : 15);

/** Access types of control registers: qualification 5:4 (table 28-3). */
const MOV_FROM = 1;
const LMSW = 3;

const controlRegister: Translator = (exit, _vmcs, _registers, extended) => {
  const type = (exit.info1Lo >>> 4) & 3;
  exit.reason = ExitReason.CR_ACCESS;
  exit.register = type > MOV_FROM && type <= LMSW ? 0 : exit.info1Lo & 15;
  exit.write = type !== MOV_FROM;
  exit.gpr = generalRegister(exit, extended);
};

const debugRegister: Translator = (exit, _vmcs, _registers, extended) => {
  exit.reason = ExitReason.DR_ACCESS;
  exit.register = exit.info1Lo & 7;
  exit.write = (exit.info1Lo & 0x10) === 0;
  exit.gpr = generalRegister(exit, extended);
};

/** Exit qualification of an EPT violation (table 28-7), and the error code it would be under SVM. */
const Ept = { WRITE: 2, FETCH: 4, PERMISSIONS: 0x38, LINEAR: 0x80, FINAL: 0x100 } as const;
const FaultCode = { PRESENT: 1, WRITE: 2, USER: 4, FETCH: 0x10 } as const;
const TWO_32 = 0x1_0000_0000;

const eptViolation: Translator = (exit, vmcs) => {
  const info = exit.info1Lo;
  exit.reason = ExitReason.NESTED_PAGE_FAULT;
  const low = vmcs.get32(Vmcs.GUEST_PHYSICAL_ADDRESS);
  exit.gpa = low + vmcs.high(Vmcs.GUEST_PHYSICAL_ADDRESS) * TWO_32;
  exit.write = (info & Ept.WRITE) !== 0;
  exit.errorCode = FaultCode.USER | ((info & Ept.PERMISSIONS) !== 0 ? FaultCode.PRESENT : 0) |
    (exit.write ? FaultCode.WRITE : 0) | ((info & Ept.FETCH) !== 0 ? FaultCode.FETCH : 0);
  exit.walk = (info & (Ept.LINEAR | Ept.FINAL)) === Ept.LINEAR;
};

const rdpmc: Translator = (exit, _vmcs, registers) => {
  exit.reason = ExitReason.RDPMC;
  exit.ecx = registers.lo(Gpr.RCX);
};

const xsetbv: Translator = (exit, _vmcs, registers) => {
  exit.reason = ExitReason.XSETBV;
  exit.ecx = registers.lo(Gpr.RCX);
  exit.lo = registers.lo(Gpr.RAX);
  exit.hi = registers.lo(Gpr.RDX);
};

const BY_REASON: readonly (readonly [number, Translator])[] = [
  [VmxExit.EXCEPTION_OR_NMI, exceptionOrNmi],
  [VmxExit.EXTERNAL_INTERRUPT, externalInterrupt],
  [VmxExit.TRIPLE_FAULT, plain(ExitReason.SHUTDOWN)],
  [VmxExit.INIT, plain(ExitReason.INIT)],
  [VmxExit.SIPI, plain(ExitReason.SIPI)],
  [VmxExit.INTERRUPT_WINDOW, plain(ExitReason.INTERRUPT_WINDOW)],
  [VmxExit.NMI_WINDOW, plain(ExitReason.NMI_WINDOW)],
  [VmxExit.TASK_SWITCH, plain(ExitReason.TASK_SWITCH)],
  [VmxExit.CPUID, cpuid],
  [VmxExit.GETSEC, plain(VmxReason.GETSEC)],
  [VmxExit.HLT, plain(ExitReason.HLT)],
  [VmxExit.INVD, plain(ExitReason.INVD)],
  [VmxExit.INVLPG, plain(ExitReason.INVLPG)],
  [VmxExit.RDPMC, rdpmc],
  [VmxExit.RDTSC, plain(ExitReason.RDTSC)],
  [VmxExit.RSM, plain(VmxReason.RSM)],
  [VmxExit.VMCALL, plain(ExitReason.HYPERCALL)],
  [VmxExit.VMCLEAR, plain(VmxReason.VMCLEAR)],
  [VmxExit.VMLAUNCH, plain(VmxReason.VMLAUNCH)],
  [VmxExit.VMPTRLD, plain(VmxReason.VMPTRLD)],
  [VmxExit.VMPTRST, plain(VmxReason.VMPTRST)],
  [VmxExit.VMREAD, plain(VmxReason.VMREAD)],
  [VmxExit.VMRESUME, plain(VmxReason.VMRESUME)],
  [VmxExit.VMWRITE, plain(VmxReason.VMWRITE)],
  [VmxExit.VMXOFF, plain(VmxReason.VMXOFF)],
  [VmxExit.VMXON, plain(VmxReason.VMXON)],
  [VmxExit.CR_ACCESS, controlRegister],
  [VmxExit.DR_ACCESS, debugRegister],
  [VmxExit.IO, io],
  [VmxExit.RDMSR, msr(false)],
  [VmxExit.WRMSR, msr(true)],
  [VmxExit.INVALID_GUEST_STATE, plain(ExitReason.FAIL_ENTRY)],
  [VmxExit.MSR_LOADING, plain(ExitReason.FAIL_ENTRY)],
  [VmxExit.MWAIT, plain(ExitReason.MWAIT)],
  [VmxExit.MONITOR_TRAP, plain(ExitReason.SINGLE_STEP)],
  [VmxExit.MONITOR, plain(ExitReason.MONITOR)],
  [VmxExit.PAUSE, plain(ExitReason.PAUSE)],
  [VmxExit.TPR_BELOW_THRESHOLD, plain(ApicvReason.TPR_BELOW_THRESHOLD)],
  [VmxExit.APIC_ACCESS, plain(ApicvReason.APIC_ACCESS)],
  [VmxExit.VIRTUALIZED_EOI, plain(ApicvReason.EOI_INDUCED)],
  [VmxExit.APIC_WRITE, plain(ApicvReason.APIC_WRITE)],
  [VmxExit.GDTR_IDTR, plain(ExitReason.DESCRIPTOR_TABLE)],
  [VmxExit.LDTR_TR, plain(ExitReason.DESCRIPTOR_TABLE)],
  [VmxExit.EPT_VIOLATION, eptViolation],
  [VmxExit.INVEPT, plain(VmxReason.INVEPT)],
  [VmxExit.RDTSCP, plain(ExitReason.RDTSCP)],
  [VmxExit.INVVPID, plain(VmxReason.INVVPID)],
  [VmxExit.WBINVD, plain(ExitReason.WBINVD)],
  [VmxExit.XSETBV, xsetbv],
  [VmxExit.VMFUNC, plain(VmxReason.VMFUNC)],
  [VmxExit.RDMSR_IMMEDIATE, immediateMsr(false)],
  [VmxExit.WRMSRNS_IMMEDIATE, immediateMsr(true)],
  [VmxExit.BUS_LOCK, plain(DetectionReason.BUS_LOCK)],
];

const MOST_REASONS = 128;
const TRANSLATORS: (Translator | undefined)[] = new Array(MOST_REASONS).fill(undefined);
for (const [reason, translator] of BY_REASON) TRANSLATORS[reason] = translator;

/**
 * Fills `exit` from the exit `information` that the entry stub has read, from what else the VMCS has, and
 * from the guest's registers; `extended` if register numbers are to be read as five bits.
 */
export function translateExit(
  exit: VmExit,
  information: Uint32Array,
  vmcs: LoadedVmcs,
  registers: Registers,
  extended: boolean,
): void {
  const reason = information[ExitInformation.REASON]!;
  exit.vendorCodeLo = reason;
  exit.vendorCodeHi = 0;
  exit.info1Lo = information[ExitInformation.QUALIFICATION]!;
  exit.info1Hi = information[ExitInformation.QUALIFICATION_HIGH]!;
  exit.info2Lo = 0;
  exit.info2Hi = 0;
  exit.byteCount = 0;
  exit.instructionLength = information[ExitInformation.LENGTH]! & 15;
  const translator = TRANSLATORS[reason & 0xffff];
  if (translator === undefined) exit.reason = ExitReason.OTHER;
  else translator(exit, vmcs, registers, extended);
}
