/**
 * The AMD hypervisor: runs the guest with SVM and nested paging, as KVM does it.
 *
 * It writes a VMCB, an I/O and an MSR permission map and nested page tables into host physical memory,
 * executes VMRUN on a processor, and reads back what hardware wrote. What hardware does not switch, it
 * switches.
 *
 * Limits: no AVIC, no nested virtualization (a guest's own SVM instructions are #UD, and CPUID hides
 * SVM), no virtual NMI, no LBR virtualization.
 *
 * @module
 */
import {
  cpuidHook,
  type ExitAction,
  ExitAction as Action,
  exitHook,
  ExitReason,
  hostMemorySlot,
  memslotHook,
  type Plugin,
  type Vcpu,
  vendorSlot,
  type VmExit,
} from "../../core/mod.ts";
import { processorsSlot, SvmExit, Vector } from "../cpu/mod.ts";
import { svmSlot } from "./svm_guest.ts";
import { SvmVendor } from "./vendor.ts";

export { MsrPermissionMap, msrpmBit } from "./permission_maps.ts";
export {
  interruptWindowHook,
  privatePageHook,
  type Svm,
  type SvmGuest,
  svmSlot,
} from "./svm_guest.ts";
export { Clean, Vmcb } from "./vmcb.ts";

/** CPUID 8000_0001h ECX bit 2. */
const CPUID_SVM = 1 << 2;
/** CPUID 1 ECX bit 31: a hypervisor is there. */
const CPUID_HYPERVISOR = 1 << 31;

/** SVM instructions of the guest, which has no SVM. */
const SVM_INSTRUCTIONS: ReadonlySet<number> = new Set([
  SvmExit.VMRUN,
  SvmExit.VMLOAD,
  SvmExit.VMSAVE,
  SvmExit.STGI,
  SvmExit.CLGI,
  SvmExit.SKINIT,
  SvmExit.INVLPGA,
  SvmExit.RSM,
]);

/** Runs the guest under SVM. */
export function svm(): Plugin {
  return {
    name: "svm",
    version: "0.1.0",
    description: "AMD SVM with nested paging",
    requires: ["cpu", processorsSlot, hostMemorySlot],
    provides: [vendorSlot, svmSlot],
    setup(ctx) {
      const processors = ctx.use(processorsSlot).current;
      const vendor = new SvmVendor(ctx.vm, processors, ctx.use(hostMemorySlot).current);
      ctx.provide(vendorSlot, vendor);
      ctx.provide(svmSlot, vendor);
      ctx.on(memslotHook, ({ gpa, size, hpa }, added) => {
        vendor.memslotChanged(gpa, size, hpa, added);
      });
      ctx.on(
        exitHook,
        ExitReason.NESTED_PAGE_FAULT,
        (vcpu) => vendor.mapFault(vcpu) ? Action.RESUME : undefined,
      );
      ctx.on(exitHook, ExitReason.IRET, (vcpu) => vendor.finishNmi(vcpu));
      ctx.on(exitHook, ExitReason.OTHER, refuseSvm);
      ctx.on(cpuidHook, 1, (result) => {
        result.ecx = (result.ecx | CPUID_HYPERVISOR) >>> 0;
        return result;
      });
      ctx.on(cpuidHook, 0x8000_0001, (result) => {
        result.ecx &= ~CPUID_SVM;
        return result;
      });
      ctx.on(cpuidHook, 0x8000_000a, (result) => {
        result.eax =
          result.ebx =
          result.ecx =
          result.edx =
            0;
        return result;
      });
    },
  };
}

/** EFER.SVME cannot be set by the guest, so its SVM instructions are undefined. */
function refuseSvm(vcpu: Vcpu, exit: VmExit): ExitAction | undefined {
  if (!SVM_INSTRUCTIONS.has(exit.vendorCodeLo)) return undefined;
  vcpu.fault(Vector.UD);
  return Action.RESUME;
}
