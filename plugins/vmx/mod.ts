/**
 * The Intel hypervisor: runs the guest with VMX and extended page tables, as KVM does it.
 *
 * It writes a VMCS with VMWRITE, an MSR bitmap and extended page tables into host physical memory,
 * executes VMLAUNCH and VMRESUME on a processor, and reads back what hardware wrote. What hardware does
 * not switch, it switches.
 *
 * CR8 accesses need no exit where there is a `lapic` and the processor has the TPR shadow; the plugins
 * `apicv` and `ipiv` build on {@linkcode vmxSlot} and have the processor deliver interrupts, too.
 *
 * Limits: no VMX for guests (their VMX instructions raise #UD). The guest needs
 * a processor with EPT, unrestricted guests, VPIDs and virtual NMIs.
 *
 * @module
 */
import {
  cpuidHook,
  eventRequest,
  ExitAction,
  exitHook,
  ExitReason,
  hostMemorySlot,
  memslotHook,
  type Plugin,
  vcpuCreatedHook,
  vcpuPutHook,
  vendorSlot,
} from "../../core/mod.ts";
import { extendedStateSlot, processorsSlot, Vector } from "../cpu/mod.ts";
import { lapicChangedHook, lapicSlot } from "../lapic/mod.ts";
import { ApicvReason, DetectionReason, VmxReason } from "./exit_reasons.ts";
import { busLockSlot } from "./policy/bus_lock.ts";
import { immediateMsrSlot } from "./policy/immediate_msr.ts";
import { pendingDebugSlot } from "./policy/pending_debug.ts";
import { registerFieldsSlot } from "./policy/register_fields.ts";
import { VmxVendor } from "./vendor.ts";
import { vmxSlot } from "./vmx_guest.ts";

export { ApicvReason, DetectionReason, VmxReason } from "./exit_reasons.ts";
export { busLockExits, type BusLockPolicy, busLockSlot, busLockUnseen } from "./policy/bus_lock.ts";
export {
  pendingDebugInjected,
  type PendingDebugPolicy,
  pendingDebugReflected,
  pendingDebugSlot,
  pendingDebugStale,
} from "./policy/pending_debug.ts";
export { MsrBitmap, msrBitmapBit } from "./msr_bitmap.ts";
export {
  type ApicVirtualization,
  hostInterruptHook,
  privatePageHook,
  type VmcsFields,
  type Vmx,
  type VmxCapabilities,
  type VmxGuest,
  vmxSlot,
} from "./vmx_guest.ts";
export {
  immediateMsrHandled,
  type ImmediateMsrPolicy,
  immediateMsrSlot,
} from "./policy/immediate_msr.ts";
export {
  registerFieldsExtended,
  type RegisterFieldsPolicy,
  registerFieldsSlot,
} from "./policy/register_fields.ts";

/** CPUID 1 ECX: VMX, and a hypervisor is there. */
const CPUID_VMX = 1 << 5;
const CPUID_APERFMPERF = 1;
const CPUID_HYPERVISOR = 1 << 31;

/** Options of {@linkcode vmx}. */
export interface VmxOptions {
  /**
   * Whether #DBs of the guest exit and are given back to it, as KVM has it; false if not given: hardware
   * delivers them.
   */
  readonly interceptDebug?: boolean;
}

/** Runs the guest under VMX. Throws when the first vCPU is made if the processors have no VMX. */
export function vmx({ interceptDebug = false }: VmxOptions = {}): Plugin {
  return {
    name: "vmx",
    version: "0.1.0",
    description: "Intel VMX with extended page tables",
    requires: ["cpu", processorsSlot, hostMemorySlot],
    optional: ["lapic", lapicSlot],
    provides: [vendorSlot, vmxSlot],
    setup(ctx) {
      const processors = ctx.use(processorsSlot).current;
      const memory = ctx.use(hostMemorySlot).current;
      const policies = {
        extended: ctx.use(extendedStateSlot),
        immediateMsr: ctx.use(immediateMsrSlot),
        registerFields: ctx.use(registerFieldsSlot),
        busLock: ctx.use(busLockSlot),
        pendingDebug: ctx.use(pendingDebugSlot),
      };
      const exceptions = interceptDebug ? 1 << Vector.DB : 0;
      const vendor = new VmxVendor(ctx.vm, processors, memory, policies, exceptions);
      ctx.provide(vendorSlot, vendor);
      ctx.provide(vmxSlot, vendor);
      const bus = ctx.useOptional(lapicSlot, (changed) => vendor.setLapics(changed));
      ctx.on(vcpuCreatedHook, (vcpu) => {
        vendor.setLapics(bus.current);
        vendor.lapicChanged(vcpu);
      });
      ctx.on(lapicChangedHook, (vcpu, change) => {
        if (change === "mode" || change === "reset") vendor.lapicChanged(vcpu);
      });
      ctx.on(vcpuPutHook, (vcpu) => vendor.put(vcpu));
      ctx.on(exitHook, ApicvReason.TPR_BELOW_THRESHOLD, (vcpu) => {
        vcpu.request(eventRequest);
        return ExitAction.RESUME;
      });
      ctx.on(exitHook, DetectionReason.BUS_LOCK, () => ExitAction.RESUME);
      ctx.on(
        exitHook,
        ExitReason.EXCEPTION,
        (vcpu, exit) => exit.vector === Vector.DB ? vendor.reflectDebug(vcpu) : undefined,
      );
      ctx.on(memslotHook, ({ gpa, size, hpa, readonly }, added) => {
        vendor.memslotChanged(gpa, size, hpa, readonly, added);
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
      // APERF and MPERF are the host's.
      ctx.on(cpuidHook, 6, (result) => {
        result.ecx = (result.ecx & ~CPUID_APERFMPERF) >>> 0;
        return result;
      });
    },
  };
}
