/**
 * What the hypervisor shows to plugins that build upon it: a vCPU's control block, and the hooks that it
 * calls.
 *
 * @module
 */
import { defineHook, defineSlot, type Hook, type Slot, type Vcpu } from "../../core/mod.ts";
import type { MsrPermissionMap } from "./permission_maps.ts";
import type { Vmcb } from "./vmcb.ts";

/** How the task priority is kept while a vCPU's interrupts are accelerated; who accelerates says it. */
export interface AcceleratedTaskPriority {
  /** Whether V_TPR is set from the interrupt controller before entries; true at first. */
  syncs: boolean;
  /**
   * Whether the CR8 write intercept stays as it was when acceleration began, instead of being off;
   * false at first.
   */
  keepsIntercept: boolean;
}

/** One vCPU under SVM. */
export interface SvmGuest {
  /** The vCPU. */
  readonly vcpu: Vcpu;
  /** Its VMCB. Who changes a field marks its group with `Vmcb.dirty`. */
  readonly vmcb: Vmcb;
  /** Its MSR permission map. Who changes it marks `Clean.PERMISSION_MAPS`. */
  readonly msrpm: MsrPermissionMap;
  /** Set to drop all translations of the guest at its next entry (TLB_CONTROL 3). */
  flush: boolean;
  /** What holds of the task priority while `vcpu.accelerated`. */
  readonly taskPriority: AcceleratedTaskPriority;
}

/** The hypervisor, for plugins that build upon it. */
export interface Svm {
  /** What it keeps for a vCPU: there from `vcpuCreatedHook` on. */
  of(vcpu: Vcpu): SvmGuest;
  /**
   * Drops the nested translation of a page that {@linkcode privatePageHook} answered for, for all
   * vCPUs: at the next access the hook is asked again.
   *
   * @param gpa Any guest physical address in the page, below 2^52.
   */
  dropPrivatePage(gpa: number): void;
}

/** The hypervisor; provided by the `svm` plugin. */
export const svmSlot: Slot<Svm> = defineSlot("svm");

/**
 * The guest is to exit as soon as it can take an interrupt (`wanted`), or that has come to pass or is
 * off. Under it lies a virtual interrupt (V_IRQ) and the VINTR intercept (APM vol. 2, 15.21.4), which
 * whoever uses V_IRQ for something else must make room for.
 */
export const interruptWindowHook: Hook<(vcpu: Vcpu, wanted: boolean) => void, "each"> = defineHook({
  name: "svm-interrupt-window",
  kind: "each",
  arity: 2,
});

/**
 * The guest accessed a guest physical address that has no memslot. Answers the host physical address of
 * a page of the hypervisor's own to map there, readable and writable; without an answer the access is
 * emulated.
 */
export const privatePageHook: Hook<(vcpu: Vcpu, gpa: number) => number | undefined, "first"> =
  defineHook({ name: "svm-private-page", kind: "first", arity: 2 });

/**
 * The guest's own GIF, which the hypervisor keeps where the processor has no vGIF, was set or cleared.
 * Interrupts that do not come by way of the hypervisor must heed it, too.
 */
export const emulatedGifHook: Hook<(vcpu: Vcpu, set: boolean) => void, "each"> = defineHook({
  name: "svm-emulated-gif",
  kind: "each",
  arity: 2,
});
