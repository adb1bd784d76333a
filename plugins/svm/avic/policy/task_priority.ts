/**
 * The task priority while AVIC is active.
 *
 * @module
 */
import { defineSlot, type Slot } from "../../../../core/mod.ts";

/** The CR8 write intercept when AVIC is switched. */
export interface Cr8InterceptPolicy {
  /** Short name for reports. */
  readonly name: string;
  /** Whether switching AVIC switches the intercept with it: off while AVIC is active. */
  readonly follows: boolean;
}

/** Cleared on activation, for hardware does the work. (KVM 87d0f901a9bd, March 2026.) */
export const cr8FollowsAvic: Cr8InterceptPolicy = { name: "follows", follows: true };

/** Left as it was: one that was set before activation makes every MOV to CR8 exit from then on. */
export const cr8Untouched: Cr8InterceptPolicy = { name: "untouched", follows: false };

/** The CR8 write intercept; {@linkcode cr8FollowsAvic} unless a plugin says otherwise. */
export const cr8InterceptSlot: Slot<Cr8InterceptPolicy> = defineSlot(
  "avic-cr8-intercept",
  () => cr8FollowsAvic,
);

/** V_TPR at entries with AVIC active. */
export interface TaskPrioritySyncPolicy {
  /** Short name for reports. */
  readonly name: string;
  /** Whether V_TPR is set from the register page before entries with AVIC active. */
  readonly whileActive: boolean;
}

/**
 * V_TPR follows the page: VMRUN takes the priority from V_TPR alone, so what software wrote to the
 * page's TPR would not count. (KVM d02e48830e3f, "Sync TPR from LAPIC into VMCB::V_TPR even if AVIC is
 * active".)
 */
export const syncAlways: TaskPrioritySyncPolicy = { name: "always", whileActive: true };

/** Only while AVIC is off, as before. */
export const syncWhileInactive: TaskPrioritySyncPolicy = {
  name: "while-inactive",
  whileActive: false,
};

/** V_TPR with AVIC active; {@linkcode syncAlways} unless a plugin says otherwise. */
export const taskPrioritySyncSlot: Slot<TaskPrioritySyncPolicy> = defineSlot(
  "avic-task-priority",
  () => syncAlways,
);
