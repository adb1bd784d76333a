/**
 * The pending single step that a VM entry insists on, as a policy that can be exchanged.
 *
 * With RFLAGS.TF set and blocking by STI or MOV SS in force, an entry fails unless BS is set in the pending
 * debug exceptions (SDM vol. 3, 27.3.1.5): the instruction that blocks was stepped over. Exits save it
 * so, but not the exit of the #DB itself, which takes the single step with it.
 *
 * @module
 */
import { defineSlot, type Slot } from "../../../core/mod.ts";

/** Decides for which #DBs BS is put right. */
export interface PendingDebugPolicy {
  /** Short name for reports. */
  readonly name: string;
  /** For those that have exited and are given back to the guest at once. */
  readonly reflected: boolean;
  /** For all that are injected. */
  readonly injected: boolean;
}

/** For all: KVM from "Refresh GUEST_PENDING_DBG_EXCEPTIONS.BS on all injected #DBs" on. */
export const pendingDebugInjected: PendingDebugPolicy = Object.freeze({
  name: "injected",
  reflected: true,
  injected: true,
});

/** For those given back: KVM from Linux 5.17 on. */
export const pendingDebugReflected: PendingDebugPolicy = Object.freeze({
  name: "reflected",
  reflected: true,
  injected: false,
});

/** For none, as it was. */
export const pendingDebugStale: PendingDebugPolicy = Object.freeze({
  name: "stale",
  reflected: false,
  injected: false,
});

/** For which #DBs; {@linkcode pendingDebugInjected} unless a plugin says otherwise. */
export const pendingDebugSlot: Slot<PendingDebugPolicy> = defineSlot(
  "vmx-pending-debug",
  () => pendingDebugInjected,
);
