/**
 * The Intel hypervisor: runs the guest with VMX and extended page tables, as KVM does it.
 *
 * It writes a VMCS with VMWRITE, an MSR bitmap and extended page tables into host physical memory,
 * executes VMLAUNCH and VMRESUME on a processor, and reads back what hardware wrote. What hardware does
 * not switch, it switches.
 *
 * Limits: no APIC virtualization, no VMX for guests (their VMX instructions raise #UD). The guest needs
 * a processor with EPT, unrestricted guests, VPIDs and virtual NMIs.
 *
 * @module
 */
import {
  cpuidHook,
  ExitAction,
  exitHook,
  ExitReason,
  hostMemorySlot,
  memslotHook,
  type Plugin,
  vendorSlot,
} from "../../core/mod.ts";
import { processorsSlot } from "../cpu/mod.ts";
import { VmxReason } from "./exit_reasons.ts";
import { VmxVendor } from "./vendor.ts";

export { VmxReason } from "./exit_reasons.ts";

/** CPUID 1 ECX: VMX, and a hypervisor is there. */
const CPUID_VMX = 1 << 5;
const CPUID_HYPERVISOR = 1 << 31;

/** Runs the guest under VMX. Throws when the first vCPU is made if the processors have no VMX. */
export function vmx(): Plugin {
  return {
    name: "vmx",
    version: "0.1.0",
    description: "Intel VMX with extended page tables",
    requires: ["cpu", processorsSlot, hostMemorySlot],
    provides: [vendorSlot],
    setup(ctx) {
      const processors = ctx.use(processorsSlot).current;
      const memory = ctx.use(hostMemorySlot).current;
      const vendor = new VmxVendor(ctx.vm, processors, memory);
      ctx.provide(vendorSlot, vendor);
      ctx.on(memslotHook, ({ gpa, size, hpa }, added) => {
        vendor.memslotChanged(gpa, size, hpa, added);
      });
      ctx.on(
        exitHook,
        ExitReason.NESTED_PAGE_FAULT,
        (vcpu) => vendor.mapFault(vcpu) ? ExitAction.RESUME : undefined,
      );
      for (const reason of Object.values(VmxReason)) {
        ctx.on(exitHook, reason, (vcpu) => vendor.undefined(vcpu));
      }
      ctx.on(cpuidHook, 1, (result) => {
        result.ecx = ((result.ecx & ~CPUID_VMX) | CPUID_HYPERVISOR) >>> 0;
        return result;
      });
    },
  };
}
