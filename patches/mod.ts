/**
 * Hypervisor patches as modules.
 *
 * A {@linkcode Patch} holds a patch that was posted for a hypervisor: the behaviour before and after it
 * as two plugins that provide one slot, versions of it that were discussed, what it changes and what
 * that shows, and guests that make the difference visible. The lab (`@trapline/trapline/lab`) runs
 * them against each other.
 *
 * @example Run a VM as it was before a patch, and swap the patch in
 * ```ts ignore
 * import { findPatch } from "@trapline/trapline/patches";
 *
 * const { before, after } = findPatch("svme-intercepts")!;
 * const vm = await createVm({ memory, plugins: [cpu(), svm({ nested: true }), before.plugin()] });
 * // … and between two entries, while the guest runs:
 * vm.swap(before.plugin().name, after.plugin());
 * ```
 *
 * Limits: dates and commits are those known to the authors of the modules; a behaviour is modelled as
 * far as a guest or a count of exits can tell it from the other, not line by line.
 *
 * @module
 */
import { apxCpuid, apxOrder, apxSwitch } from "./apx.ts";
import { apicvServicing } from "./apicv_servicing.ts";
import { avicIpiv, avicVmcbInit, x2avicFlush } from "./avic_activation.ts";
import { avicDefault } from "./avic_default.ts";
import { avicCr8, avicTprSync } from "./avic_task_priority.ts";
import { avicIdTooBig, x2avic4k } from "./avic_vcpu_ids.ts";
import { idleHlt } from "./idle_hlt.ts";
import { extendedRegisterIndex } from "./register_index.ts";
import { immediateMsr } from "./immediate_msr.ts";
import { invlpgaUd } from "./invlpga_ud.ts";
import type { Patch } from "./patch.ts";
import { svmeIntercepts } from "./svme_intercepts.ts";
import { vmxBusLock } from "./vmx_bus_lock.ts";
import { vmxDebugInjected, vmxDebugShadow } from "./vmx_debug.ts";
import { x2avicRdmsr, x2avicWrmsr } from "./x2avic_msrs.ts";

export { apicHost, type ApicHostOptions } from "./apic_host.ts";
export { guestMaker } from "./guest_maker.ts";
export { guestImage, type GuestName } from "./images.ts";
export { type Patch, type PatchScenario, type PatchVariant, patchVariants } from "./patch.ts";
export { provider } from "./providers.ts";
export { x2apicFastpath } from "./x2apic_fastpath.ts";

/** All patches, in the order in which they are listed. */
export const PATCHES: readonly Patch[] = [
  x2avicWrmsr,
  x2avicRdmsr,
  avicDefault,
  avicIdTooBig,
  x2avic4k,
  avicCr8,
  avicTprSync,
  avicVmcbInit,
  x2avicFlush,
  avicIpiv,
  svmeIntercepts,
  invlpgaUd,
  idleHlt,
  apicvServicing,
  vmxBusLock,
  vmxDebugShadow,
  vmxDebugInjected,
  apxSwitch,
  apxOrder,
  apxCpuid,
  immediateMsr,
  extendedRegisterIndex,
];

/** The patch of that id. */
export function findPatch(id: string): Patch | undefined {
  return PATCHES.find((patch) => patch.id === id);
}
