/**
 * Handling one exit: the fast path, the plugins' handlers, then the core's own.
 *
 * @module
 */

import { TraplineError, UnhandledExitError, UnimplementedError } from "./errors.ts";
import { Vector } from "./event.ts";
import {
  describeExit,
  ExitAction,
  exitBytes,
  ExitReason,
  exitReasonName,
  MAX_EXIT_REASONS,
  type VmExit,
} from "./exit.ts";
import { Gpr } from "./registers.ts";
import { eventRequest } from "./request.ts";
import { MpState, type Vcpu } from "./vcpu.ts";

type ExitHandler = (vcpu: Vcpu, exit: VmExit) => ExitAction;

// V8 folds a constant of the module itself into compiled code; an imported one it loads and checks at each use.
const { COMPLETE, RESUME } = ExitAction;

/** MSR 10h, the time-stamp counter. */
const MSR_TSC = 0x10;
/** MSR C000_0103h, what RDTSCP returns in ECX. */
const MSR_TSC_AUX = 0xc000_0103;

/** Page-fault bits: a write, a fetch of code. */
const FAULT_WRITE = 2;
const FAULT_FETCH = 0x10;

/** Answers to hypercalls, as KVM's `KVM_ENOSYS` and `KVM_EPERM`. */
const HYPERCALL_UNKNOWN = -1000;
const HYPERCALL_FORBIDDEN = -1;

/** Handles the exit that `vcpu` is at, and has the vendor commit the answer. */
export function dispatch(vcpu: Vcpu, exit: VmExit): void {
  const { points, vendor } = vcpu.vm;
  const { reason } = exit;
  const action = points.plain[reason] === 1
    ? HANDLERS[reason]!(vcpu, exit)
    : points.fastpath.table[reason]?.(vcpu, exit) ??
      points.exit.table[reason]?.(vcpu, exit) ??
      (HANDLERS[reason] ?? unhandled)(vcpu, exit);
  if (action === COMPLETE) vendor.current.complete(vcpu);
}

function complete(): ExitAction {
  return COMPLETE;
}

function resume(): ExitAction {
  return RESUME;
}

function emulate(vcpu: Vcpu): ExitAction {
  return vcpu.vm.vendor.current.emulate(vcpu);
}

function generalProtection(vcpu: Vcpu): ExitAction {
  vcpu.fault(Vector.GP, 0);
  return RESUME;
}

function window(vcpu: Vcpu): ExitAction {
  vcpu.request(eventRequest);
  return RESUME;
}

function io(vcpu: Vcpu, exit: VmExit): ExitAction {
  if (exit.string === true) return emulate(vcpu);
  const { pio } = vcpu.vm;
  if (exit.write === true) pio.write(exit.port, exit.size, exit.lo, vcpu);
  else exit.lo = pio.read(exit.port, exit.size, vcpu);
  return COMPLETE;
}

function mmio(vcpu: Vcpu, exit: VmExit): ExitAction {
  const bus = vcpu.vm.mmio;
  if (exit.write) {
    bus.write(exit.gpa, exit.size, exit.lo, exit.hi, vcpu);
  } else {
    exit.lo = bus.read(exit.gpa, exit.size, vcpu);
    exit.hi = exit.size === 8 ? bus.high : 0;
  }
  return COMPLETE;
}

function cpuid(vcpu: Vcpu, exit: VmExit): ExitAction {
  const result = vcpu.vm.cpuid(exit.leaf, exit.subleaf, vcpu);
  exit.eax = result.eax;
  exit.ebx = result.ebx;
  exit.ecx = result.ecx;
  exit.edx = result.edx;
  return COMPLETE;
}

function msr(vcpu: Vcpu, exit: VmExit): ExitAction {
  const { msrs } = vcpu.vm;
  const write = exit.reason === ExitReason.WRMSR;
  const access = msrs.guestAccess(exit.msr, write, exit.lo, exit.hi);
  if (!msrs.access(access, vcpu)) return generalProtection(vcpu);
  exit.lo = access.lo;
  exit.hi = access.hi;
  return COMPLETE;
}

function rdtsc(vcpu: Vcpu, exit: VmExit): ExitAction {
  const { msrs } = vcpu.vm;
  if (exit.reason === ExitReason.RDTSCP) {
    const aux = msrs.guestAccess(MSR_TSC_AUX, false, 0, 0);
    if (!msrs.access(aux, vcpu)) return generalProtection(vcpu);
    exit.ecx = aux.lo;
  }
  const tsc = msrs.guestAccess(MSR_TSC, false, 0, 0);
  if (!msrs.access(tsc, vcpu)) return generalProtection(vcpu);
  exit.lo = tsc.lo;
  exit.hi = tsc.hi;
  return COMPLETE;
}

function hlt(vcpu: Vcpu): ExitAction {
  vcpu.halt();
  return COMPLETE;
}

function hypercall(vcpu: Vcpu): ExitAction {
  const { regs, vm } = vcpu;
  const vendor = vm.vendor.current;
  if (vendor.cpl(vcpu) !== 0) answerHypercall(vcpu, HYPERCALL_FORBIDDEN);
  else if (vm.points.hypercall.get(regs.lo(Gpr.RAX))?.(vcpu) !== true) {
    answerHypercall(vcpu, HYPERCALL_UNKNOWN);
  }
  return COMPLETE;
}

/** Sign-extended in 64-bit code, 32 bits elsewhere. */
function answerHypercall(vcpu: Vcpu, code: number): void {
  const wide = vcpu.vm.vendor.current.is64Bit(vcpu);
  vcpu.regs.setPair(Gpr.RAX, code, wide ? code >> 31 : 0);
}

function pause(vcpu: Vcpu): ExitAction {
  vcpu.vm.yieldVcpu(vcpu);
  return COMPLETE;
}

/** The guest was to see it, had nobody asked: so it does. */
function reflect(vcpu: Vcpu, exit: VmExit): ExitAction {
  const { events } = vcpu;
  const errorCode = exit.hasErrorCode ? exit.errorCode : undefined;
  if (exit.vector === Vector.PF) events.queuePageFault(exit.errorCode, exit.gvaLo, exit.gvaHi);
  else events.queueException(exit.vector, errorCode);
  return RESUME;
}

function shutdown(vcpu: Vcpu): ExitAction {
  vcpu.mpState = MpState.STOPPED;
  vcpu.vm.stop({ reason: "shutdown", vcpuId: vcpu.id });
  return RESUME;
}

/** A translation the vendor does not have is the vendor's to make; the rest is device memory. */
function nestedPageFault(vcpu: Vcpu, exit: VmExit): ExitAction {
  const { memory, vendor } = vcpu.vm;
  const slot = memory.lookup(exit.gpa);
  if (slot !== undefined && !(slot.readonly && (exit.errorCode & FAULT_WRITE) !== 0)) {
    return unhandled(vcpu, exit);
  }
  const data = !exit.walk && (exit.errorCode & FAULT_FETCH) === 0;
  return vendor.current.emulate(vcpu, data ? exit.gpa : undefined);
}

function failEntry(vcpu: Vcpu, exit: VmExit): never {
  throw new TraplineError(
    `vCPU ${vcpu.id}: the processor refused to enter the guest (${describeExit(exit)})`,
  );
}

function unimplemented(vcpu: Vcpu, exit: VmExit): never {
  const rip = vcpu.regs.rip.toString(16);
  throw new UnimplementedError(
    `vCPU ${vcpu.id}: the processor does not implement "${exitBytes(exit)}" at RIP ${rip}h`,
  );
}

function unhandled(vcpu: Vcpu, exit: VmExit): never {
  throw new UnhandledExitError(vcpu.id, exitReasonName(exit.reason), describeExit(exit));
}

const HANDLERS: ExitHandler[] = new Array(MAX_EXIT_REASONS).fill(unhandled);

const TABLE: { [reason: number]: ExitHandler } = {
  [ExitReason.IO]: io,
  [ExitReason.MMIO]: mmio,
  [ExitReason.CPUID]: cpuid,
  [ExitReason.RDMSR]: msr,
  [ExitReason.WRMSR]: msr,
  [ExitReason.HLT]: hlt,
  [ExitReason.HYPERCALL]: hypercall,
  [ExitReason.EXCEPTION]: reflect,
  [ExitReason.EXTERNAL_INTERRUPT]: resume,
  [ExitReason.NMI]: resume,
  [ExitReason.INTERRUPT_WINDOW]: window,
  [ExitReason.NMI_WINDOW]: window,
  [ExitReason.SHUTDOWN]: shutdown,
  [ExitReason.FAIL_ENTRY]: failEntry,
  [ExitReason.NESTED_PAGE_FAULT]: nestedPageFault,
  [ExitReason.MONITOR]: complete,
  [ExitReason.MWAIT]: complete,
  [ExitReason.PAUSE]: pause,
  [ExitReason.RDTSC]: rdtsc,
  [ExitReason.RDTSCP]: rdtsc,
  [ExitReason.WBINVD]: complete,
  [ExitReason.INVD]: complete,
  [ExitReason.CR_ACCESS]: emulate,
  [ExitReason.DR_ACCESS]: emulate,
  [ExitReason.INVLPG]: emulate,
  [ExitReason.TASK_SWITCH]: emulate,
  [ExitReason.RDPMC]: generalProtection,
  [ExitReason.XSETBV]: emulate,
  [ExitReason.DESCRIPTOR_TABLE]: emulate,
  [ExitReason.PUSHF]: emulate,
  [ExitReason.POPF]: emulate,
  [ExitReason.IRET]: emulate,
  [ExitReason.SOFTWARE_INTERRUPT]: emulate,
  [ExitReason.UNIMPLEMENTED]: unimplemented,
};
for (const [reason, handler] of Object.entries(TABLE)) HANDLERS[Number(reason)] = handler;
