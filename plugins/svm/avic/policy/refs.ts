/**
 * All policies of AVIC, looked up.
 *
 * @module
 */
import type { SlotRef } from "../../../../core/mod.ts";
import type { ActivationFlushPolicy, VmcbInitPolicy } from "./activation.ts";
import type { IpiVirtualizationPolicy } from "./ipi_virtualization.ts";
import type { MaxIndexPolicy, X2avicLimitPolicy } from "./limits.ts";
import type { Cr8InterceptPolicy, TaskPrioritySyncPolicy } from "./task_priority.ts";
import type { VcpuIdPolicy } from "./vcpu_id.ts";
import type { X2apicMsrPolicy } from "./x2apic_msrs.ts";

/** References to the slots, by what they decide on. */
export interface PolicyRefs {
  readonly x2apicReads: SlotRef<X2apicMsrPolicy>;
  readonly x2apicWrites: SlotRef<X2apicMsrPolicy>;
  readonly vcpuId: SlotRef<VcpuIdPolicy>;
  readonly x2avicLimit: SlotRef<X2avicLimitPolicy>;
  readonly maxIndex: SlotRef<MaxIndexPolicy>;
  readonly cr8Intercept: SlotRef<Cr8InterceptPolicy>;
  readonly taskPrioritySync: SlotRef<TaskPrioritySyncPolicy>;
  readonly vmcbInit: SlotRef<VmcbInitPolicy>;
  readonly activationFlush: SlotRef<ActivationFlushPolicy>;
  readonly ipiVirtualization: SlotRef<IpiVirtualizationPolicy>;
}
