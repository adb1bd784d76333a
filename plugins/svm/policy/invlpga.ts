/**
 * How an intercepted INVLPGA is handled, as a policy that can be exchanged.
 *
 * @module
 */
import { defineSlot, type Slot } from "../../../core/mod.ts";

/** Decides how an intercepted INVLPGA is handled. */
export interface InvlpgaPolicy {
  /** For listings. */
  readonly name: string;
  /**
   * Whether a guest whose EFER.SVME is clear gets #UD, as APM vol. 2, 15.4 says; the processor cannot
   * see to that, for which SVME is always set. (A CPL other than 0 never gets here: #GP comes before
   * the intercept.)
   */
  readonly checked: boolean;
}

/** What KVM does from "Inject #UD for INVLPGA if EFER.SVME=0" on (d99df02ff427). */
export const invlpgaChecked: InvlpgaPolicy = Object.freeze({
  name: "#UD while EFER.SVME is clear",
  checked: true,
});

/** Who decides how an intercepted INVLPGA is handled. */
export const invlpgaSlot: Slot<InvlpgaPolicy> = defineSlot("svm-invlpga", () => invlpgaChecked);
