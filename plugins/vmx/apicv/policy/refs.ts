/**
 * All policies of APICv, looked up.
 *
 * @module
 */
import type { SlotRef } from "../../../../core/mod.ts";
import type { ServicingPolicy } from "./servicing.ts";
import type { ApicvMsrPolicy } from "./x2apic_msrs.ts";

/** References to the slots, by what they decide on. */
export interface PolicyRefs {
  readonly x2apicReads: SlotRef<ApicvMsrPolicy>;
  readonly x2apicWrites: SlotRef<ApicvMsrPolicy>;
  readonly servicing: SlotRef<ServicingPolicy>;
}
