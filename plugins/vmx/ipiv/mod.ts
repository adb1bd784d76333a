/**
 * IPI virtualization: the processor sends a guest's IPIs by itself.
 *
 * A write of the ICR that names one vCPU by its physical APIC ID, with a fixed and edge-triggered
 * interrupt, is posted into that vCPU's descriptor and notified, all by hardware. Everything else exits
 * behind the write (`ApicvReason.APIC_WRITE`, register 300h), and software sends it: logical destinations,
 * shorthands but for self, broadcasts, lowest priority, NMI, INIT, start-up and system management messages,
 * level-triggered ones, vectors below 16, and IDs without a vCPU.
 *
 * Limits: a vCPU with id 255 cannot be told from the broadcast of xAPIC mode and has no entry.
 *
 * @module
 */
import {
  ArgumentError,
  hostMemorySlot,
  type Plugin,
  type PluginContext,
  type Vcpu,
  vcpuCreatedHook,
} from "../../../core/mod.ts";
import { Vmcs } from "../../cpu/mod.ts";
import { BROADCAST } from "../../lapic/mod.ts";
import { apicvSlot } from "../apicv/mod.ts";
import { vmxSlot } from "../mod.ts";
import { PidPointerTable } from "./pid_table.ts";

export { PidPointerTable } from "./pid_table.ts";

/** Most vCPU ids that a VM can have: 0 to 4095, as in KVM. */
const MOST_VCPU_IDS = 4096;

/** Options of {@linkcode ipiv}. */
export interface IpivOptions {
  /**
   * How many vCPU ids the VM is to have at most, 1 to 4096 (the default): ids are below this. KVM's
   * `KVM_CAP_MAX_VCPU_ID`. IPIs to others exit.
   */
  readonly vcpuIds?: number;
}

/**
 * Lets the processor send IPIs, where it can. Needs `apicv`.
 *
 * @throws {ArgumentError} If an option is out of range.
 */
export function ipiv(options: IpivOptions = {}): Plugin {
  const { vcpuIds = MOST_VCPU_IDS } = options;
  if (!Number.isInteger(vcpuIds) || vcpuIds < 1 || vcpuIds > MOST_VCPU_IDS) {
    throw new ArgumentError(
      `ipiv: vcpuIds ${vcpuIds} is not an integer from 1 to ${MOST_VCPU_IDS}`,
    );
  }
  return {
    name: "ipiv",
    version: "0.1.0",
    description: "Intel IPI virtualization: IPIs sent by the processor",
    requires: ["cpu", "vmx", "apicv", "lapic", hostMemorySlot, vmxSlot, apicvSlot],
    setup: (ctx) => setUp(ctx, vcpuIds),
  };
}

function setUp(ctx: PluginContext, vcpuIds: number): void {
  const { vm } = ctx;
  const memory = ctx.use(hostMemorySlot).current;
  const vmx = ctx.use(vmxSlot).current;
  const apicv = ctx.use(apicvSlot, () => {
    for (const vcpu of vm.vcpus) create(vcpu);
  });
  let table: PidPointerTable | undefined;

  /** What the processors have is known with the first vCPU. */
  const create = (vcpu: Vcpu): void => {
    const descriptor = apicv.current.descriptor(vcpu);
    if (descriptor === undefined || !vmx.capabilities.ipis) return;
    table ??= new PidPointerTable(memory, vcpuIds - 1);
    apicv.current.ipis = true;
    const { vmcs } = vmx.of(vcpu);
    vmcs.setAddress(Vmcs.PID_POINTER_TABLE, table.hpa);
    vmcs.set32(Vmcs.LAST_PID_POINTER_INDEX, table.lastIndex);
    if (vcpu.id <= table.lastIndex && vcpu.id !== BROADCAST) table.set(vcpu.id, descriptor.hpa);
  };
  ctx.onLeave((reason) => {
    if (reason !== "close") apicv.current.ipis = false;
    table?.free();
  });
  for (const vcpu of vm.vcpus) create(vcpu);
  ctx.on(vcpuCreatedHook, create);
}
