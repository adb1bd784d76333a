/**
 * A guest's own SVM instructions where they exit: what the processor does for them, done in software.
 *
 * The processor has raised what it can see: #UD in real mode, #GP for a CPL other than 0 or an rAX that
 * is no page (APM vol. 2, table 15-7). What it cannot see is the guest's EFER.SVME, for which it is
 * always set.
 *
 * @module
 */
import {
  eventRequest,
  type ExitAction,
  ExitAction as Action,
  Gpr,
  type HostMemory,
  initRequest,
  type SlotRef,
  UnimplementedError,
  type Vcpu,
  type Vm,
} from "../../core/mod.ts";
import { Misc2, Save, Vector } from "../cpu/mod.ts";
import type { GuestCpu } from "./guest_cpu.ts";
import { POLICY_INTERCEPTS, STGI_CLGI } from "./policy/instruction_intercepts.ts";
import type { InvlpgaPolicy } from "./policy/invlpga.ts";

/** #UD for a guest whose EFER.SVME is clear. */
function refused({ svm, vcpu }: GuestCpu): boolean {
  if (svm.svme) return false;
  vcpu.fault(Vector.UD);
  return true;
}

/** VMRUN. What is no VMCB is refused as on the processor; one that is would need a guest of the guest. */
export function vmrun(guest: GuestCpu): ExitAction {
  if (refused(guest)) return Action.RESUME;
  const { vcpu } = guest;
  const gpa = vcpu.regs.hi(Gpr.RAX) * 0x1_0000_0000 + vcpu.regs.lo(Gpr.RAX);
  if (vcpu.vm.memory.lookup(gpa) === undefined) {
    vcpu.fault(Vector.GP, 0);
    return Action.RESUME;
  }
  throw new UnimplementedError(
    `vCPU ${vcpu.id}: VMRUN at RIP ${vcpu.regs.rip.toString(16)}h: a guest cannot run guests yet`,
  );
}

/** VMLOAD and VMSAVE; `load` tells which. */
export function vmloadVmsave(guest: GuestCpu, memory: HostMemory, load: boolean): ExitAction {
  if (refused(guest)) return Action.RESUME;
  const { vcpu, vmcb, svm } = guest;
  const gpa = vcpu.regs.hi(Gpr.RAX) * 0x1_0000_0000 + vcpu.regs.lo(Gpr.RAX);
  const slot = vcpu.vm.memory.lookup(gpa);
  if (slot === undefined || (slot.readonly && !load)) {
    vcpu.fault(Vector.GP, 0);
    return Action.RESUME;
  }
  const hpa = slot.hpa + (gpa - slot.gpa);
  for (const { offset, bytes } of svm.moved) {
    if (load) memory.read(hpa + offset, bytes);
    else memory.write(hpa + offset, bytes);
  }
  // Bits 63:32 of the two SYSENTER addresses are not in a VMCB of a processor like Intel's.
  if (load && svm.intelCompatible) {
    svm.setSysenter(Save.SYSENTER_ESP, vmcb.get32(Save.SYSENTER_ESP), 0);
    svm.setSysenter(Save.SYSENTER_EIP, vmcb.get32(Save.SYSENTER_EIP), 0);
  }
  return Action.COMPLETE;
}

/** Who asks for an exit as soon as the guest can take an interrupt. */
interface Windows {
  setInterruptWindow(guest: GuestCpu, wanted: boolean): void;
}

/** STGI. */
export function stgi(guest: GuestCpu, windows: Windows): ExitAction {
  if (refused(guest)) return Action.RESUME;
  const { svm, vcpu } = guest;
  // With a GIF of the guest's own STGI only exits to tell that an event can be delivered.
  if (svm.virtualGif) svm.intercepts &= ~Misc2.STGI;
  svm.gif = true;
  windows.setInterruptWindow(guest, false);
  vcpu.request(eventRequest);
  return Action.COMPLETE;
}

/** CLGI. */
export function clgi(guest: GuestCpu, windows: Windows): ExitAction {
  if (refused(guest)) return Action.RESUME;
  const { svm } = guest;
  svm.gif = false;
  // With a GIF of the guest's own the processor holds the window back until STGI.
  if (!svm.virtualGif) windows.setInterruptWindow(guest, false);
  return Action.COMPLETE;
}

/** INVLPGA: more is dropped than asked for, which no guest can tell. */
export function invlpga(guest: GuestCpu, policy: SlotRef<InvlpgaPolicy>): ExitAction {
  if (policy.current.checked && refused(guest)) return Action.RESUME;
  guest.flush = true;
  return Action.COMPLETE;
}

/**
 * SKINIT, on processors that have it, and RSM: there is no secure launch, and no system-management mode
 * to leave.
 */
export function undefinedInstruction(vcpu: Vcpu): ExitAction {
  vcpu.fault(Vector.UD);
  return Action.RESUME;
}

/**
 * Works out which SVM instructions of the guest exit from here on.
 *
 * Where STGI and CLGI stop exiting while an event waits, the event is looked at again: who waited for
 * an STGI must see to it anew that it exits.
 */
export function recalculateInstructions(guest: GuestCpu, vm: Vm): void {
  const { svm, vcpu } = guest;
  svm.readCpuid(vm);
  const before = svm.intercepts;
  const after = svm.settings.instructions.current.recalculate(before, svm) & POLICY_INTERCEPTS;
  svm.intercepts = after;
  guest.recalculate();
  if ((before & ~after & STGI_CLGI) !== 0 && hasEvent(vcpu)) vcpu.request(eventRequest);
}

/** Whether an event waits that GIF may hold back. */
function hasEvent(vcpu: Vcpu): boolean {
  return vcpu.events.nmiPending > 0 || vcpu.hasRequest(initRequest) ||
    vcpu.vm.interruptController.current.hasInterrupt(vcpu);
}
