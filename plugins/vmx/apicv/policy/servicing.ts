/**
 * SVI when APICv is activated for a vCPU that runs already.
 *
 * @module
 */
import { defineSlot, type Slot } from "../../../../core/mod.ts";

/** What happens to SVI, the highest vector in service, at activation. */
export interface ServicingPolicy {
  /** Short name for reports. */
  readonly name: string;
  /** Whether it is set from ISR. */
  readonly fromIsr: boolean;
}

/**
 * It is set from ISR, which software has changed while APICv was off. (KVM b2849bec936b, "KVM: VMX: Update
 * SVI during runtime APICv activation".)
 */
export const servicingFromIsr: ServicingPolicy = { name: "from-isr", fromIsr: true };

/**
 * It stays what it was when APICv was deactivated, as before: the EOI of an interrupt that was taken in
 * between ends another one, or none, and its own bit stays in ISR for ever.
 */
export const servicingStale: ServicingPolicy = { name: "stale", fromIsr: false };

/** SVI at activation; {@linkcode servicingFromIsr} unless a plugin says otherwise. */
export const servicingSlot: Slot<ServicingPolicy> = defineSlot(
  "apicv-servicing",
  () => servicingFromIsr,
);
