/**
 * APICv: the processor delivers a guest's interrupts by itself.
 *
 * The page of a vCPU's local APIC is its virtual-APIC page, whose registers the guest reads and writes
 * through the APIC-access page or MSRs; virtual-interrupt delivery finds what is requested there; and what
 * comes for a vCPU that runs is posted into its descriptor, with a notification that makes no exit (SDM
 * vol. 3, 30). What hardware leaves to software comes back as exits {@linkcode ApicvReason}. The end of a
 * level-triggered interrupt exits because its vector is in the EOI-exit bitmap; {@linkcode levelVectorsHook}
 * says which those are.
 *
 * Notifications for a vCPU that waits go to the wake-up vector of the processor that it ran on, as KVM does
 * it, so that interrupts which hardware posts, as the plugin `ipiv` has it do with IPIs, wake it.
 *
 * Acceleration is switched off and on again, between two entries of each vCPU, as reasons come and go
 * ({@linkcode APICV_INHIBITS}); no interrupt is lost or doubled by that.
 *
 * What KVM's patches changed is a slot each, whose default is what KVM does now:
 *
 * | slot | decides on |
 * | --- | --- |
 * | {@linkcode apicvReadSlot}, {@linkcode apicvWriteSlot} | x2APIC MSRs that pass without an exit |
 * | {@linkcode servicingSlot} | SVI when APICv is activated at run time |
 *
 * Where the host has a `vtd`, interrupts of assigned devices (`assignedInterruptsSlot` of the local APICs)
 * are posted by it; all others are posted by software.
 *
 * Limits: a guest that moves its APIC's registers, or changes an xAPIC ID, does without acceleration
 * from then on.
 *
 * @module
 */
import {
  accelerationRequest,
  acceleratorSlot,
  beforeEnterHook,
  defineSlot,
  exitHook,
  hostMemorySlot,
  type InterruptAccelerator,
  type Plugin,
  type PluginContext,
  requestHook,
  type Slot,
  type StateDefinition,
  type Vcpu,
  vcpuCreatedHook,
  vcpuLoadHook,
  vcpuPutHook,
  type Vm,
} from "../../../core/mod.ts";
import {
  type AssignedInterrupt,
  assignedInterruptsSlot,
  collectRequestsHook,
  deliverInterruptHook,
  endOfInterruptHook,
  lapicChangedHook,
  LapicInhibit,
  lapicSlot,
  levelVectorsChangedHook,
} from "../../lapic/mod.ts";
import {
  ApicvReason,
  hostInterruptHook,
  privatePageHook,
  type VmxCapabilities,
  vmxSlot,
} from "../mod.ts";
import { vtdInterruptHook, vtdNotifyHook, vtdSlot } from "../../vtd/mod.ts";
import { ApicvVm } from "./apicv.ts";
import { type ApicvVcpu, NOTIFICATION_VECTOR, WAKEUP_VECTOR } from "./apicv_vcpu.ts";
import type { PostedInterruptDescriptor } from "./descriptor.ts";
import { ApicvExits } from "./exits.ts";
import { APICV_INHIBITS } from "./inhibits.ts";
import type { PolicyRefs } from "./policy/refs.ts";
import { servicingSlot } from "./policy/servicing.ts";
import { apicvReadSlot, apicvWriteSlot } from "./policy/x2apic_msrs.ts";
import { PostedInterrupts } from "./posted.ts";

export { NOTIFICATION_VECTOR, WAKEUP_VECTOR } from "./apicv_vcpu.ts";
export { DescriptorControl, PostedInterruptDescriptor } from "./descriptor.ts";
export { APICV_INHIBITS } from "./inhibits.ts";
export {
  servicingFromIsr,
  type ServicingPolicy,
  servicingSlot,
  servicingStale,
} from "./policy/servicing.ts";
export {
  apicvAccelerated,
  type ApicvMsrPolicy,
  apicvReadable,
  apicvReadSlot,
  apicvWriteSlot,
} from "./policy/x2apic_msrs.ts";

/** APICv of a VM, for plugins that build upon it. */
export interface Apicv {
  /**
   * A vCPU's posted-interrupt descriptor: there from `vcpuCreatedHook` on, `undefined` where the
   * processors have no APICv.
   */
  descriptor(vcpu: Vcpu): PostedInterruptDescriptor | undefined;
  /** Whether IPIs are virtualized where APICv is active; false at first. */
  ipis: boolean;
}

/** APICv; provided by the `apicv` plugin. */
export const apicvSlot: Slot<Apicv> = defineSlot("apicv");

/** Lets the processor deliver interrupts, where it has APICv. Needs `vmx` and `lapic`. */
export function apicv(): Plugin {
  return {
    name: "apicv",
    version: "0.1.0",
    description: "Intel APICv: interrupts delivered by the processor",
    requires: ["cpu", "vmx", "lapic", hostMemorySlot, vmxSlot, lapicSlot],
    optional: ["vtd", vtdSlot],
    provides: [acceleratorSlot, apicvSlot, assignedInterruptsSlot],
    setup,
  };
}

/** KVM asks for the last three, which no processor has without the TPR shadow. */
function complete(has: VmxCapabilities): boolean {
  return has.tprShadow && has.registers && has.virtualInterrupts && has.postedInterrupts;
}

/** What is assigned goes along when the plugin is swapped. */
const ASSIGNED: StateDefinition<AssignedInterrupt[], Vm> = {
  name: "assigned-interrupts",
  version: 1,
  init: () => [],
  save: (state) => state.map((interrupt) => ({ ...interrupt })),
  load: (saved) => saved as unknown as AssignedInterrupt[],
};

function setup(ctx: PluginContext): void {
  const { vm } = ctx;
  const memory = ctx.use(hostMemorySlot).current;
  const vmx = ctx.use(vmxSlot).current;
  const bus = ctx.use(lapicSlot).current;
  const exits = new ApicvExits(bus);
  let unit: ApicvVm | undefined;
  let looked = false;
  let ipis = false;
  const remapper = ctx.useOptional(vtdSlot).current;
  const assigned = ctx.vmState(ASSIGNED);
  const of = (vcpu: Vcpu): ApicvVcpu | undefined => unit?.of(vcpu);
  const hostId = (): number => vmx.hostId(0);
  const posted = remapper === undefined
    ? undefined
    : new PostedInterrupts(vm, memory, remapper, bus, of, hostId, assigned.current);

  const policies: PolicyRefs = {
    x2apicReads: ctx.use(apicvReadSlot, () => unit?.msrPoliciesChanged()),
    x2apicWrites: ctx.use(apicvWriteSlot, () => unit?.msrPoliciesChanged()),
    servicing: ctx.use(servicingSlot),
  };
  // Hardware reads and writes 64 bits of the ICR at once.
  const { splitIcr } = bus;

  /** What the processors have is known with the first vCPU. */
  const create = (vcpu: Vcpu, existing: boolean): void => {
    if (!looked) {
      looked = true;
      if (complete(vmx.capabilities)) {
        bus.splitIcr = false;
        unit = new ApicvVm(
          { ctx, memory, vmx, bus, policies, exits, routes: posted?.routes },
          ipis,
        );
      } else {
        ctx.inhibit(LapicInhibit.DISABLED);
      }
    }
    unit?.create(vcpu, existing);
  };
  ctx.onLeave((reason) => {
    posted?.free();
    unit?.free(reason);
    if (reason === "unload") bus.splitIcr = splitIcr;
  });
  for (const vcpu of vm.vcpus) create(vcpu, true);

  const accelerator: InterruptAccelerator = {
    name: "apicv",
    inhibits: APICV_INHIBITS,
    refresh: (vcpu, active) => unit?.refresh(vcpu, active),
  };
  ctx.provide(acceleratorSlot, accelerator);
  ctx.provide(apicvSlot, {
    descriptor: (vcpu) => unit?.of(vcpu)?.descriptor,
    get ipis() {
      return ipis;
    },
    set ipis(on) {
      ipis = on && vmx.capabilities.ipis;
      if (unit !== undefined) unit.ipis = ipis;
    },
  });
  ctx.provide(assignedInterruptsSlot, posted?.routes);
  ctx.on(vtdInterruptHook, (_deviceId, handle) => posted?.remapped(handle));
  ctx.on(vtdNotifyHook, (destination, vector) => vmx.interruptId(destination, vector));
  ctx.on(vcpuCreatedHook, (vcpu) => create(vcpu, false));
  ctx.on(requestHook, accelerationRequest.id, (vcpu) => unit?.refreshed(vcpu));
  ctx.on(beforeEnterHook, (vcpu) => unit?.of(vcpu)?.beforeEnter());
  ctx.on(vcpuLoadHook, (vcpu, pcpu) => unit?.load(vcpu, pcpu));
  ctx.on(vcpuPutHook, (vcpu) => unit?.put(vcpu));
  ctx.on(deliverInterruptHook, (vcpu, vector) => unit?.deliver(vcpu, vector) ? true : undefined);
  ctx.on(collectRequestsHook, (vcpu) => unit?.of(vcpu)?.collect());
  ctx.on(endOfInterruptHook, (vcpu) => unit?.ended(vcpu));
  ctx.on(lapicChangedHook, (vcpu, change) => unit?.lapicChanged(vcpu, change));
  ctx.on(levelVectorsChangedHook, () => unit?.levelVectorsChanged());
  ctx.on(hostInterruptHook, NOTIFICATION_VECTOR, (pcpu) => unit?.notified(pcpu));
  ctx.on(hostInterruptHook, WAKEUP_VECTOR, (pcpu) => unit?.wake(pcpu));
  ctx.on(privatePageHook, (_vcpu, gpa) => unit?.privatePage(gpa));
  ctx.on(exitHook, ApicvReason.APIC_ACCESS, (vcpu, exit) => exits.access(vcpu, exit));
  ctx.on(exitHook, ApicvReason.EOI_INDUCED, (vcpu, exit) => exits.ended(vcpu, exit));
  ctx.on(exitHook, ApicvReason.APIC_WRITE, (vcpu, exit) => exits.written(vcpu, exit));
}
