/**
 * What becomes of a vCPU whose id the physical APIC ID table has no place for.
 *
 * @module
 */
import { ArgumentError, defineSlot, type Slot } from "../../../../core/mod.ts";

/** A vCPU that is being made, as the policy sees it. */
export interface VcpuSetup {
  /** Its id. */
  readonly id: number;
  /** The highest id that the physical APIC ID table can have; see `avicLimitSlot`. */
  readonly limit: number;
  /** Whether no reason holds now that keeps AVIC off. */
  readonly permitted: boolean;
  /** KVM's `apicv_active`: whether the vCPU is taken to be accelerated. Set it before `initialize`. */
  accelerated: boolean;
  /** Puts the vCPU into the physical APIC ID table. Throws `RangeError` if its id is above the limit. */
  initialize(): void;
  /** Inhibits AVIC for the whole VM with PHYSICAL_ID_TOO_BIG, until the VM ends. */
  inhibit(): void;
}

/** What becomes of a vCPU at its creation. */
export interface VcpuIdPolicy {
  /** Short name for reports. */
  readonly name: string;
  /** A vCPU is made, and its local APIC is there. What is thrown here undoes the creation. */
  create(setup: VcpuSetup): void;
}

/**
 * Creation succeeds; the VM does without AVIC. KVM makes the local APIC with `apicv_active` set and
 * asks for an update, then clears it again for such a vCPU at once, for loading it on a processor takes
 * for granted that AVIC is set up; the update later finds nothing to do. ("KVM: SVM: Inhibit AVIC if ID
 * is too big instead of rejecting vCPU creation", June 2025.)
 */
export const inhibitTooBig: VcpuIdPolicy = {
  name: "inhibit",
  create(setup) {
    setup.accelerated = true;
    if (setup.id > setup.limit) {
      setup.inhibit();
      setup.accelerated = false;
      return;
    }
    setup.initialize();
  },
};

/** Creation fails, as KVM_CREATE_VCPU did with EINVAL before the patch. */
export const refuseTooBig: VcpuIdPolicy = {
  name: "refuse",
  create(setup) {
    setup.accelerated = true;
    if (setup.id > setup.limit) {
      throw new ArgumentError(
        `vCPU id ${setup.id} is above ${setup.limit}, the highest that AVIC can address`,
      );
    }
    setup.initialize();
  },
};

/**
 * The alternative raised in the patch's review: where the local APIC is made, an initialization hook
 * decides whether it is accelerated, so that this never has to be taken back.
 */
export const decideAtCreation: VcpuIdPolicy = {
  name: "decide-at-creation",
  create(setup) {
    if (setup.id > setup.limit) {
      setup.inhibit();
      return;
    }
    setup.initialize();
    setup.accelerated = setup.permitted;
  },
};

/** What becomes of a vCPU with a high id; {@linkcode inhibitTooBig} unless a plugin says otherwise. */
export const vcpuIdSlot: Slot<VcpuIdPolicy> = defineSlot("avic-vcpu-id", () => inhibitTooBig);
