/**
 * From #VMEXIT codes to the core's exits.
 *
 * @module
 */
import {
  ExitReason as ImportedExitReason,
  Gpr as ImportedGpr,
  type Registers,
  type VmExit,
} from "../../core/mod.ts";
import {
  Control as ImportedControl,
  IoioInfo as ImportedIoioInfo,
  SvmExit as ImportedSvmExit,
} from "../cpu/mod.ts";
import { AvicReason, SvmReason } from "./exit_reasons.ts";
import type { Vmcb } from "./vmcb.ts";

// V8 folds constants of the module itself into compiled code, and loads and checks imported ones at each use.
const Control = ImportedControl;
const ExitReason = ImportedExitReason;
const Gpr = ImportedGpr;
const SvmExit = ImportedSvmExit;
const IoioInfo = ImportedIoioInfo;

/** Fills in what goes with one exit code. */
type Translator = (exit: VmExit, vmcb: Vmcb, registers: Registers) => void;

const plain = (reason: number): Translator => (exit) => {
  exit.reason = reason;
};

/** MOV to or from a control or debug register; `first` is the code of register 0. */
const registerAccess =
  (reason: number, write: boolean, first: number): Translator => (exit, vmcb) => {
    exit.reason = reason;
    exit.write = write;
    exit.register = vmcb.get32(Control.EXITCODE) - first;
    exit.gpr = vmcb.get32(Control.EXITINFO1) & 31;
  };

const exception: Translator = (exit, vmcb) => {
  exit.reason = ExitReason.EXCEPTION;
  exit.vector = vmcb.get32(Control.EXITCODE) - SvmExit.EXCEPTION;
  exit.errorCode = vmcb.get32(Control.EXITINFO1);
  exit.hasErrorCode = ((1 << exit.vector) & WITH_ERROR) !== 0;
  exit.gvaLo = vmcb.get32(Control.EXITINFO2);
  exit.gvaHi = vmcb.get32(Control.EXITINFO2 + 4);
};

/** EXITINFO1 of an MSR exit: RDMSR or WRMSRNS with an immediate; EXITINFO2 has index and register. */
export const MSR_IMMEDIATE = 2;

/** Exceptions with an error code: 8, 10–14, 17. */
const WITH_ERROR = 0x2_7d00;

const ioio: Translator = (exit, vmcb, registers) => {
  const info = vmcb.get32(Control.EXITINFO1);
  exit.reason = ExitReason.IO;
  exit.port = info >>> IoioInfo.PORT_SHIFT;
  exit.size = (info >>> IoioInfo.SIZE_SHIFT) & 7;
  exit.write = (info & IoioInfo.IN) === 0;
  exit.string = (info & IoioInfo.STRING) !== 0;
  exit.rep = (info & IoioInfo.REP) !== 0;
  const value = registers.lo(Gpr.RAX);
  exit.lo = exit.size === 4 ? value : value & (exit.size === 1 ? 0xff : 0xffff);
  exit.hi = 0;
};

const msr: Translator = (exit, vmcb, registers) => {
  const write = vmcb.get32(Control.EXITINFO1) & 1;
  exit.reason = write !== 0 ? ExitReason.WRMSR : ExitReason.RDMSR;
  exit.write = write !== 0;
  if ((vmcb.get32(Control.EXITINFO1) & MSR_IMMEDIATE) !== 0) {
    exit.msr = vmcb.get32(Control.EXITINFO2);
    exit.gpr = vmcb.get32(Control.EXITINFO2 + 4) & 31;
    exit.lo = registers.lo(exit.gpr);
    exit.hi = registers.hi(exit.gpr);
    return;
  }
  exit.msr = registers.lo(Gpr.RCX);
  exit.lo = registers.lo(Gpr.RAX);
  exit.hi = registers.lo(Gpr.RDX);
};

const cpuid: Translator = (exit, _vmcb, registers) => {
  exit.reason = ExitReason.CPUID;
  exit.leaf = registers.lo(Gpr.RAX);
  exit.subleaf = registers.lo(Gpr.RCX);
};

const nestedPageFault: Translator = (exit, vmcb) => {
  exit.reason = ExitReason.NESTED_PAGE_FAULT;
  exit.gpa = vmcb.get32(Control.EXITINFO2) +
    vmcb.get32(Control.EXITINFO2 + 4) * 0x1_0000_0000;
  exit.errorCode = vmcb.get32(Control.EXITINFO1) & 0x1f;
  exit.write = (exit.errorCode & 2) !== 0;
  // Bit 33: a guest page table was being read.
  exit.walk = (vmcb.get32(Control.EXITINFO1 + 4) & 2) !== 0;
};

const softwareInterrupt: Translator = (exit, vmcb) => {
  exit.reason = ExitReason.SOFTWARE_INTERRUPT;
  exit.vector = vmcb.get32(Control.EXITINFO1) & 0xff;
};

const rdpmc: Translator = (exit, _vmcb, registers) => {
  exit.reason = ExitReason.RDPMC;
  exit.ecx = registers.lo(Gpr.RCX);
};

const xsetbv: Translator = (exit, _vmcb, registers) => {
  exit.reason = ExitReason.XSETBV;
  exit.ecx = registers.lo(Gpr.RCX);
  exit.lo = registers.lo(Gpr.RAX);
  exit.hi = registers.lo(Gpr.RDX);
};

const TRANSLATORS: (Translator | undefined)[] = new Array(SvmExit.NPF + 4).fill(undefined);

function range(first: number, count: number, translator: Translator): void {
  for (let k = 0; k < count; k++) TRANSLATORS[first + k] = translator;
}

range(SvmExit.CR_READ, 16, registerAccess(ExitReason.CR_ACCESS, false, SvmExit.CR_READ));
range(SvmExit.CR_WRITE, 16, registerAccess(ExitReason.CR_ACCESS, true, SvmExit.CR_WRITE));
range(SvmExit.DR_READ, 16, registerAccess(ExitReason.DR_ACCESS, false, SvmExit.DR_READ));
range(SvmExit.DR_WRITE, 16, registerAccess(ExitReason.DR_ACCESS, true, SvmExit.DR_WRITE));
range(SvmExit.EXCEPTION, 32, exception);

const SINGLE: readonly (readonly [number, Translator])[] = [
  [SvmExit.INTR, plain(ExitReason.EXTERNAL_INTERRUPT)],
  [SvmExit.NMI, plain(ExitReason.NMI)],
  [SvmExit.SMI, plain(ExitReason.SMI)],
  [SvmExit.INIT, plain(ExitReason.INIT)],
  [SvmExit.VINTR, plain(ExitReason.INTERRUPT_WINDOW)],
  [SvmExit.CR0_SEL_WRITE, (exit) => {
    exit.reason = ExitReason.CR_ACCESS;
    exit.register = 0;
    exit.write = true;
  }],
  [SvmExit.IDTR_READ, plain(ExitReason.DESCRIPTOR_TABLE)],
  [SvmExit.GDTR_READ, plain(ExitReason.DESCRIPTOR_TABLE)],
  [SvmExit.LDTR_READ, plain(ExitReason.DESCRIPTOR_TABLE)],
  [SvmExit.TR_READ, plain(ExitReason.DESCRIPTOR_TABLE)],
  [SvmExit.IDTR_WRITE, plain(ExitReason.DESCRIPTOR_TABLE)],
  [SvmExit.GDTR_WRITE, plain(ExitReason.DESCRIPTOR_TABLE)],
  [SvmExit.LDTR_WRITE, plain(ExitReason.DESCRIPTOR_TABLE)],
  [SvmExit.TR_WRITE, plain(ExitReason.DESCRIPTOR_TABLE)],
  [SvmExit.RDTSC, plain(ExitReason.RDTSC)],
  [SvmExit.RDTSCP, plain(ExitReason.RDTSCP)],
  [SvmExit.RDPMC, rdpmc],
  [SvmExit.PUSHF, plain(ExitReason.PUSHF)],
  [SvmExit.POPF, plain(ExitReason.POPF)],
  [SvmExit.CPUID, cpuid],
  [SvmExit.IRET, plain(ExitReason.IRET)],
  [SvmExit.SWINT, softwareInterrupt],
  [SvmExit.INVD, plain(ExitReason.INVD)],
  [SvmExit.WBINVD, plain(ExitReason.WBINVD)],
  [SvmExit.PAUSE, plain(ExitReason.PAUSE)],
  [SvmExit.HLT, plain(ExitReason.HLT)],
  [SvmExit.IDLE_HLT, plain(ExitReason.HLT)],
  [SvmExit.INVLPG, plain(ExitReason.INVLPG)],
  [SvmExit.IOIO, ioio],
  [SvmExit.MSR, msr],
  [SvmExit.TASK_SWITCH, plain(ExitReason.TASK_SWITCH)],
  [SvmExit.SHUTDOWN, plain(ExitReason.SHUTDOWN)],
  [SvmExit.VMMCALL, plain(ExitReason.HYPERCALL)],
  [SvmExit.MONITOR, plain(ExitReason.MONITOR)],
  [SvmExit.MWAIT, plain(ExitReason.MWAIT)],
  [SvmExit.MWAIT_CONDITIONAL, plain(ExitReason.MWAIT)],
  [SvmExit.XSETBV, xsetbv],
  [SvmExit.NPF, nestedPageFault],
  [SvmExit.VMRUN, plain(SvmReason.VMRUN)],
  [SvmExit.VMLOAD, plain(SvmReason.VMLOAD)],
  [SvmExit.VMSAVE, plain(SvmReason.VMSAVE)],
  [SvmExit.STGI, plain(SvmReason.STGI)],
  [SvmExit.CLGI, plain(SvmReason.CLGI)],
  [SvmExit.SKINIT, plain(SvmReason.SKINIT)],
  [SvmExit.INVLPGA, plain(SvmReason.INVLPGA)],
  [SvmExit.RSM, plain(SvmReason.RSM)],
  [SvmExit.RDPRU, plain(SvmReason.RDPRU)],
  [SvmExit.AVIC_INCOMPLETE_IPI, plain(AvicReason.INCOMPLETE_IPI)],
  [SvmExit.AVIC_NOACCEL, plain(AvicReason.NOACCEL)],
];
for (const [code, translator] of SINGLE) TRANSLATORS[code] = translator;

/** Fills `exit` from the VMCB's exit fields and the guest's registers. */
export function translateExit(exit: VmExit, vmcb: Vmcb, registers: Registers): void {
  const code = vmcb.get32(Control.EXITCODE);
  exit.vendorCodeLo = code;
  exit.vendorCodeHi = vmcb.get32(Control.EXITCODE + 4);
  exit.info1Lo = vmcb.get32(Control.EXITINFO1);
  exit.info1Hi = vmcb.get32(Control.EXITINFO1 + 4);
  exit.info2Lo = vmcb.get32(Control.EXITINFO2);
  exit.info2Hi = vmcb.get32(Control.EXITINFO2 + 4);
  exit.byteCount = 0;
  const next = vmcb.get32(Control.NRIP);
  exit.instructionLength = next === 0 ? 0 : (next - registers.lo(Gpr.RIP)) & 15;
  if (exit.vendorCodeHi === 0xffff_ffff) {
    exit.reason = ExitReason.FAIL_ENTRY;
    return;
  }
  const translator = TRANSLATORS[code];
  if (translator === undefined) {
    exit.reason = ExitReason.OTHER;
    return;
  }
  translator(exit, vmcb, registers);
  if (code === SvmExit.NPF || code === SvmExit.EXCEPTION + 14) copyBytes(exit, vmcb);
}

function copyBytes(exit: VmExit, vmcb: Vmcb): void {
  const count = Math.min(vmcb.bytes[Control.FETCHED]! & 15, exit.bytes.length);
  for (let k = 0; k < count; k++) exit.bytes[k] = vmcb.bytes[Control.FETCHED + 1 + k]!;
  exit.byteCount = count;
}
