/**
 * AVIC and x2AVIC: the processor delivers a guest's interrupts by itself.
 *
 * The page of a vCPU's local APIC is AVIC's backing page, and the physical and logical APIC ID tables
 * tell hardware which pages and which host processors interrupts go to (APM vol. 2, 15.29). What hardware
 * leaves to software comes back as exits {@linkcode AvicReason.INCOMPLETE_IPI} (401h) and
 * {@linkcode AvicReason.NOACCEL} (402h). Where the guest is in x2APIC mode and the processor has no
 * x2AVIC, registers are emulated and only delivery is hardware's (KVM's hybrid mode).
 *
 * Acceleration is switched off and on again, between two entries of each vCPU, as reasons come and go
 * ({@linkcode AVIC_INHIBITS}); no interrupt is lost or doubled by that, for the page stays the same.
 *
 * Where the host has an `iommu`, interrupts of assigned devices ({@linkcode assignedInterruptsSlot}) go to
 * the guest without the hypervisor while AVIC is active for their target.
 *
 * What KVM's patches changed is a slot each, whose default is what KVM does now:
 *
 * | slot | decides on |
 * | --- | --- |
 * | {@linkcode x2apicReadSlot}, {@linkcode x2apicWriteSlot} | x2APIC MSRs that pass without an exit |
 * | {@linkcode vcpuIdSlot} | vCPUs whose id is too big |
 * | {@linkcode x2avicLimitSlot}, {@linkcode maxIndexSlot} | how far the physical table goes |
 * | {@linkcode cr8InterceptSlot} | the CR8 write intercept while AVIC is active |
 * | {@linkcode taskPrioritySyncSlot} | V_TPR at entries with AVIC active |
 * | {@linkcode vmcbInitSlot} | when a VMCB gets AVIC's pointers |
 * | {@linkcode activationFlushSlot} | whether activation flushes translations |
 * | {@linkcode ipiVirtualizationSlot} | whether hardware sees who is running |
 *
 * A provider can be swapped while the VM runs; what it decides at the creation of a vCPU stays.
 *
 * Limits: no Secure AVIC. A guest that moves its APIC's registers, or changes an xAPIC ID, does without
 * acceleration from then on.
 *
 * @module
 */
import {
  accelerationRequest,
  acceleratorSlot,
  ArgumentError,
  exitHook,
  hostMemorySlot,
  type InterruptAccelerator,
  type Plugin,
  type PluginContext,
  requestHook,
  type StateDefinition,
  type Vcpu,
  vcpuCreatedHook,
  vcpuLoadHook,
  vcpuPutHook,
  type Vm,
} from "../../../core/mod.ts";
import { processorsSlot } from "../../cpu/mod.ts";
import { gaLogHook, iommuSlot, remappedInterruptHook } from "../../iommu/mod.ts";
import {
  type AssignedInterrupt,
  assignedInterruptsSlot,
  deliverInterruptHook,
  lapicChangedHook,
  lapicSlot,
} from "../../lapic/mod.ts";
import {
  AvicReason,
  emulatedGifHook,
  interruptWindowHook,
  privatePageHook,
  svmSlot,
} from "../mod.ts";
import { Avic, readCapabilities } from "./avic.ts";
import type { AvicVcpu } from "./avic_vcpu.ts";
import { AvicExits } from "./exits.ts";
import { AVIC_INHIBITS, AvicInhibit } from "./inhibits.ts";
import { activationFlushSlot, vmcbInitSlot } from "./policy/activation.ts";
import { ipiVirtualizationSlot } from "./policy/ipi_virtualization.ts";
import { maxIndexSlot, x2avicLimitSlot } from "./policy/limits.ts";
import type { PolicyRefs } from "./policy/refs.ts";
import { cr8InterceptSlot, taskPrioritySyncSlot } from "./policy/task_priority.ts";
import { vcpuIdSlot } from "./policy/vcpu_id.ts";
import { PostedInterrupts } from "./posted.ts";
import { x2apicReadSlot, x2apicWriteSlot } from "./policy/x2apic_msrs.ts";

export { IncompleteIpi } from "./exits.ts";
export { AVIC_INHIBITS, AvicInhibit } from "./inhibits.ts";
export {
  type ActivationFlushPolicy,
  activationFlushSlot,
  flushBothModes,
  flushXavicOnly,
  initializeActive,
  initializeAlways,
  type VmcbInitPolicy,
  vmcbInitSlot,
} from "./policy/activation.ts";
export {
  ipiVirtualizationAlways,
  ipiVirtualizationByFamily,
  type IpiVirtualizationPolicy,
  ipiVirtualizationSlot,
} from "./policy/ipi_virtualization.ts";
export {
  type AvicCapabilities,
  configuredMaxIndex,
  type MaxIndexPolicy,
  maxIndexSlot,
  modeMaxIndex,
  X2AVIC_EXTENDED_MAX_ID,
  X2AVIC_MAX_ID,
  x2avicExtendedLimit,
  x2avicFormerLimit,
  type X2avicLimitPolicy,
  x2avicLimitSlot,
  XAVIC_MAX_ID,
} from "./policy/limits.ts";
export {
  cr8FollowsAvic,
  type Cr8InterceptPolicy,
  cr8InterceptSlot,
  cr8Untouched,
  syncAlways,
  syncWhileInactive,
  type TaskPrioritySyncPolicy,
  taskPrioritySyncSlot,
} from "./policy/task_priority.ts";
export {
  decideAtCreation,
  inhibitTooBig,
  refuseTooBig,
  type VcpuIdPolicy,
  vcpuIdSlot,
  type VcpuSetup,
} from "./policy/vcpu_id.ts";
export {
  acceleratedMsrs,
  formerMsrs,
  readableMsrs,
  type X2apicMsrPolicy,
  x2apicReadSlot,
  x2apicWriteSlot,
} from "./policy/x2apic_msrs.ts";

/** Most vCPU ids that a VM can have: 0 to 4095, as in KVM. */
const MOST_VCPU_IDS = 4096;

/** Options of {@linkcode avic}. */
export interface AvicOptions {
  /**
   * How many vCPU ids the VM is to have at most, 1 to 4096 (the default): ids are below this. KVM's
   * `KVM_CAP_MAX_VCPU_ID`.
   */
  readonly vcpuIds?: number;
}

/**
 * Lets the processor deliver interrupts, where it has AVIC. Needs `svm` and `lapic`.
 *
 * @throws {ArgumentError} If an option is out of range.
 */
export function avic(options: AvicOptions = {}): Plugin {
  const { vcpuIds = MOST_VCPU_IDS } = options;
  if (!Number.isInteger(vcpuIds) || vcpuIds < 1 || vcpuIds > MOST_VCPU_IDS) {
    throw new ArgumentError(
      `avic: vcpuIds ${vcpuIds} is not an integer from 1 to ${MOST_VCPU_IDS}`,
    );
  }
  return {
    name: "avic",
    version: "0.1.0",
    description: "AMD AVIC and x2AVIC: interrupts delivered by the processor",
    requires: ["cpu", "svm", "lapic", processorsSlot, hostMemorySlot, svmSlot, lapicSlot],
    optional: ["iommu", iommuSlot],
    provides: [acceleratorSlot, assignedInterruptsSlot],
    setup: (ctx) => setUp(ctx, vcpuIds),
  };
}

/** What is assigned goes along when the plugin is swapped. */
const ASSIGNED: StateDefinition<AssignedInterrupt[], Vm> = {
  name: "assigned-interrupts",
  version: 1,
  init: () => [],
  save: (state) => state.map((interrupt) => ({ ...interrupt })),
  load: (saved) => saved as unknown as AssignedInterrupt[],
};

function setUp(ctx: PluginContext, vcpuIds: number): void {
  const { vm } = ctx;
  const memory = ctx.use(hostMemorySlot).current;
  const processors = ctx.use(processorsSlot).current;
  const svm = ctx.use(svmSlot).current;
  const bus = ctx.use(lapicSlot).current;
  let unit: Avic | undefined;
  let exits: AvicExits | undefined;
  let looked = false;
  const remapper = ctx.useOptional(iommuSlot).current;
  const assigned = ctx.vmState(ASSIGNED);
  const of = (vcpu: Vcpu): AvicVcpu | undefined => unit?.of(vcpu);
  let first: number | undefined;
  // Asking a processor loads it, which must not happen while another one emulates an instruction.
  const hostId = (): number => first ??= processors.get(0).apicId;
  const posted = remapper === undefined
    ? undefined
    : new PostedInterrupts(vm, memory, remapper, bus, of, hostId, assigned.current);

  const activation = (): void => unit?.activationPolicyChanged();
  const policies: PolicyRefs = {
    x2apicReads: ctx.use(x2apicReadSlot, () => unit?.msrPoliciesChanged()),
    x2apicWrites: ctx.use(x2apicWriteSlot, () => unit?.msrPoliciesChanged()),
    vcpuId: ctx.use(vcpuIdSlot),
    x2avicLimit: ctx.use(x2avicLimitSlot, activation),
    maxIndex: ctx.use(maxIndexSlot, activation),
    cr8Intercept: ctx.use(cr8InterceptSlot, () => unit?.priorityPolicyChanged()),
    taskPrioritySync: ctx.use(taskPrioritySyncSlot, () => unit?.priorityPolicyChanged()),
    vmcbInit: ctx.use(vmcbInitSlot),
    activationFlush: ctx.use(activationFlushSlot, activation),
    ipiVirtualization: ctx.use(ipiVirtualizationSlot, () => unit?.ipiPolicyChanged()),
  };

  /** What the processors have is asked for with the first vCPU: there is no machine before. */
  const create = (vcpu: Vcpu, existing: boolean): void => {
    if (!looked) {
      looked = true;
      hostId();
      const capabilities = readCapabilities(vm, vcpu);
      if (capabilities.avic) {
        const parts = { ctx, memory, processors, svm, bus, policies, capabilities, vcpuIds };
        unit = new Avic({ ...parts, posted: () => posted });
        exits = new AvicExits(bus, capabilities.extendedLvt, of);
      } else {
        ctx.inhibit(AvicInhibit.DISABLED);
      }
    }
    unit?.create(vcpu, existing);
  };
  ctx.onLeave((reason) => {
    posted?.free();
    unit?.free(reason);
  });
  for (const vcpu of vm.vcpus) create(vcpu, true);

  const accelerator: InterruptAccelerator = {
    name: "avic",
    inhibits: AVIC_INHIBITS,
    refresh: (vcpu, active) => unit?.refresh(vcpu, active),
  };
  ctx.provide(acceleratorSlot, accelerator);
  ctx.provide(assignedInterruptsSlot, posted?.routes);
  ctx.on(remappedInterruptHook, (deviceId, index) => posted?.routes.send(deviceId, index));
  ctx.on(gaLogHook, () => posted?.readLog());
  ctx.on(requestHook, accelerationRequest.id, (vcpu) => unit?.refreshed(vcpu));
  ctx.on(vcpuCreatedHook, (vcpu) => create(vcpu, false));
  ctx.on(vcpuLoadHook, (vcpu, pcpu) => unit?.load(vcpu, pcpu));
  ctx.on(vcpuPutHook, (vcpu) => unit?.put(vcpu));
  ctx.on(deliverInterruptHook, (vcpu, vector) => unit?.deliver(vcpu, vector) ? true : undefined);
  ctx.on(lapicChangedHook, (vcpu, change) => unit?.lapicChanged(vcpu, change));
  ctx.on(privatePageHook, (_vcpu, gpa) => unit?.privatePage(gpa));
  ctx.on(interruptWindowHook, (vcpu, wanted) => unit?.interruptWindow(vcpu, wanted));
  ctx.on(emulatedGifHook, (vcpu, set) => unit?.emulatedGif(vcpu, set));
  ctx.on(exitHook, AvicReason.INCOMPLETE_IPI, (vcpu, exit) => exits?.incompleteIpi(vcpu, exit));
  ctx.on(exitHook, AvicReason.NOACCEL, (vcpu, exit) => exits?.unaccelerated(vcpu, exit));
}
