/**
 * All policies of the hypervisor, looked up.
 *
 * @module
 */
import type { SlotRef } from "../../../core/mod.ts";
import type { BusLockPolicy } from "./bus_lock.ts";
import type { PendingDebugPolicy } from "./pending_debug.ts";

/** References to the slots, by what they decide on. */
export interface PolicyRefs {
  readonly busLock: SlotRef<BusLockPolicy>;
  readonly pendingDebug: SlotRef<PendingDebugPolicy>;
}
