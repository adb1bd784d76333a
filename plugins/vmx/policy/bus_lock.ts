/**
 * Whether a guest's bus locks exit, as a policy that can be exchanged.
 *
 * @module
 */
import { defineSlot, type Slot } from "../../../core/mod.ts";

/** Decides whether bus locks exit. */
export interface BusLockPolicy {
  /** Short name for reports. */
  readonly name: string;
  /** Whether they do, where the processor can tell: exit reason 74. */
  readonly exits: boolean;
}

/** They do not: KVM unless its user asks for it, and every KVM before Linux 5.12. */
export const busLockUnseen: BusLockPolicy = Object.freeze({ name: "unseen", exits: false });

/** They do: KVM with `KVM_BUS_LOCK_DETECTION_EXIT`. */
export const busLockExits: BusLockPolicy = Object.freeze({ name: "exits", exits: true });

/** Whether bus locks exit; {@linkcode busLockUnseen} unless a plugin says otherwise. */
export const busLockSlot: Slot<BusLockPolicy> = defineSlot("vmx-bus-lock", () => busLockUnseen);
