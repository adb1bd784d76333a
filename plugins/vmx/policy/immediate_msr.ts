/**
 * Whether exits 84 and 85 are known, as a policy that can be exchanged.
 *
 * @module
 */
import { defineSlot, type Slot } from "../../../core/mod.ts";

/** Decides what becomes of RDMSR and WRMSRNS with an immediate that exit. */
export interface ImmediateMsrPolicy {
  /** For listings. */
  readonly name: string;
  /** Whether they are handled as RDMSR and WRMSR are; if not, their exits are ones that nobody knows. */
  readonly handled: boolean;
}

/** What KVM does from "Add support for RDMSR/WRMSRNS w/ immediate on Intel" on. */
export const immediateMsrHandled: ImmediateMsrPolicy = Object.freeze({
  name: "handled as RDMSR and WRMSR",
  handled: true,
});

/** Who decides what becomes of RDMSR and WRMSRNS with an immediate that exit. */
export const immediateMsrSlot: Slot<ImmediateMsrPolicy> = defineSlot(
  "vmx-immediate-msr",
  () => immediateMsrHandled,
);
