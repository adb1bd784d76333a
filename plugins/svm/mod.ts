/**
 * The AMD hypervisor: runs the guest with SVM and nested paging, as KVM does it.
 *
 * It writes a VMCB, an I/O and an MSR permission map and nested page tables into host physical memory,
 * executes VMRUN on a processor, and reads back what hardware wrote. What hardware does not switch, it
 * switches.
 *
 * A guest may have SVM of its own ({@linkcode SvmOptions.nested}). What KVM's patches changed are
 * policies, slots that a plugin can provide: which of the guest's SVM instructions exit
 * ({@linkcode instructionInterceptSlot}), what INVLPGA checks ({@linkcode invlpgaSlot}), and which
 * HLTs exit ({@linkcode hltInterceptSlot}).
 *
 * Interrupts delivered by the processor (AVIC) are a plugin of its own, `avic`, built upon {@linkcode
 * svmSlot}.
 *
 * Limits: no guests of guests (VMRUN of a guest stops it with an error), virtual NMIs and
 * LBR virtualization are not used. A guest that is told it has an Intel processor gets no 64-bit SYSENTER.
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
  requestHook,
  vendorSlot,
} from "../../core/mod.ts";
import { extendedStateSlot, processorsSlot } from "../cpu/mod.ts";
import { SvmReason } from "./exit_reasons.ts";
import type { GuestCpu } from "./guest_cpu.ts";
import { interceptsRequest } from "./virtual_svm.ts";
import {
  clgi,
  invlpga,
  recalculateInstructions,
  stgi,
  undefinedInstruction,
  vmloadVmsave,
  vmrun,
} from "./instructions.ts";
import { hltInterceptSlot } from "./policy/hlt.ts";
import { instructionInterceptSlot } from "./policy/instruction_intercepts.ts";
import { invlpgaSlot } from "./policy/invlpga.ts";
import { svmSlot } from "./svm_guest.ts";
import { SvmVendor } from "./vendor.ts";

export { AvicReason, SvmReason } from "./exit_reasons.ts";
export { interceptsRequest } from "./virtual_svm.ts";
export { hltAlways, type HltInterceptPolicy, hltInterceptSlot, hltWhenIdle } from "./policy/hlt.ts";
export {
  type InstructionInterceptInput,
  type InstructionInterceptPolicy,
  instructionInterceptSlot,
  POLICY_INTERCEPTS,
  recalculatedOnSvmeToggle,
  STGI_CLGI,
  VMLOAD_VMSAVE,
} from "./policy/instruction_intercepts.ts";
export { invlpgaChecked, type InvlpgaPolicy, invlpgaSlot } from "./policy/invlpga.ts";
export { MsrPermissionMap, msrpmBit } from "./permission_maps.ts";
export {
  type AcceleratedTaskPriority,
  emulatedGifHook,
  interruptWindowHook,
  privatePageHook,
  type Svm,
  type SvmGuest,
  svmSlot,
} from "./svm_guest.ts";
export { CLEAN_ALL, Vmcb } from "./vmcb.ts";

/** CPUID 8000_0001h ECX bit 2. */
const CPUID_SVM = 1 << 2;
const CPUID_APERFMPERF = 1;
const CPUID_RDPRU = 1 << 4;
/** CPUID 1 ECX bit 31: a hypervisor is there. */
const CPUID_HYPERVISOR = 1 << 31;

/** SVM revision and number of ASIDs that a guest's CPUID 8000_000Ah shows. */
const NESTED_REVISION = 1;
const NESTED_ASIDS = 8;

/** Options of {@linkcode svm}. */
export interface SvmOptions {
  /**
   * Whether guests have SVM: CPUID shows it and EFER.SVME can be set; false if not given. All SVM
   * instructions but VMRUN work; VMRUN stops the vCPU with an `UnimplementedError`.
   */
  readonly nested?: boolean;
}

/** Runs the guest under SVM. Throws when the first vCPU is made if the processors have no SVM. */
export function svm(options: SvmOptions = {}): Plugin {
  const { nested = false } = options;
  return {
    name: "svm",
    version: "0.1.0",
    description: "AMD SVM with nested paging",
    requires: ["cpu", processorsSlot, hostMemorySlot],
    provides: [vendorSlot, svmSlot],
    setup(ctx) {
      const processors = ctx.use(processorsSlot).current;
      const memory = ctx.use(hostMemorySlot).current;
      const instructions = ctx.use(instructionInterceptSlot, () => {
        vendor.instructionPolicyChanged();
      });
      const hlt = ctx.use(hltInterceptSlot, () => vendor.instructionPolicyChanged());
      const extended = ctx.use(extendedStateSlot);
      const settings = { nested, instructions, hlt, extended };
      const vendor = new SvmVendor(ctx.vm, processors, memory, settings);
      ctx.provide(vendorSlot, vendor);
      ctx.provide(svmSlot, vendor);
      ctx.on(memslotHook, ({ gpa, size, hpa, readonly }, added) => {
        vendor.memslotChanged(gpa, size, hpa, readonly, added);
      });
      ctx.on(
        exitHook,
        ExitReason.NESTED_PAGE_FAULT,
        (vcpu) => vendor.mapFault(vcpu) ? Action.RESUME : undefined,
      );
      ctx.on(exitHook, ExitReason.IRET, (vcpu) => vendor.finishNmi(vcpu));
      ctx.on(requestHook, interceptsRequest.id, (vcpu) => {
        recalculateInstructions(vendor.of(vcpu), ctx.vm);
      });
      const invlpgaPolicy = ctx.use(invlpgaSlot);
      const instruction = (reason: number, handle: (guest: GuestCpu) => ExitAction): void => {
        ctx.on(exitHook, reason, (vcpu) => handle(vendor.of(vcpu)));
      };
      instruction(SvmReason.VMRUN, vmrun);
      instruction(SvmReason.VMLOAD, (guest) => vmloadVmsave(guest, memory, true));
      instruction(SvmReason.VMSAVE, (guest) => vmloadVmsave(guest, memory, false));
      instruction(SvmReason.STGI, (guest) => stgi(guest, vendor));
      instruction(SvmReason.CLGI, (guest) => clgi(guest, vendor));
      instruction(SvmReason.INVLPGA, (guest) => invlpga(guest, invlpgaPolicy));
      ctx.on(exitHook, SvmReason.SKINIT, undefinedInstruction);
      ctx.on(exitHook, SvmReason.RSM, undefinedInstruction);
      ctx.on(cpuidHook, 1, (result) => {
        result.ecx = (result.ecx | CPUID_HYPERVISOR) >>> 0;
        return result;
      });
      // APERF and MPERF are the host's, and with them RDPRU.
      ctx.on(cpuidHook, 6, (result) => {
        result.ecx = (result.ecx & ~CPUID_APERFMPERF) >>> 0;
        return result;
      });
      ctx.on(cpuidHook, 0x8000_0008, (result) => {
        result.ebx = (result.ebx & ~CPUID_RDPRU) >>> 0;
        result.edx &= 0xffff;
        return result;
      });
      ctx.on(exitHook, SvmReason.RDPRU, undefinedInstruction);
      ctx.on(cpuidHook, 0x8000_0001, (result) => {
        if (!nested) result.ecx &= ~CPUID_SVM;
        return result;
      });
      ctx.on(cpuidHook, 0x8000_000a, (result) => {
        // None of the optional features, all of which are for guests of the guest.
        result.eax = nested ? NESTED_REVISION : 0;
        result.ebx = nested ? NESTED_ASIDS : 0;
        result.ecx = result.edx = 0;
        return result;
      });
    },
  };
}
