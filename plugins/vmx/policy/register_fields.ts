/**
 * How many bits of a register's number exits are believed to have, as a policy that can be exchanged.
 *
 * @module
 */
import { defineSlot, type Slot } from "../../../core/mod.ts";

/** Decides where the number of an exit's register operand is read. */
export interface RegisterFieldsPolicy {
  /** For listings. */
  readonly name: string;
  /**
   * Whether numbers have five bits on processors with APX: in the extended instruction information, and in
   * qualifications of control and debug registers. If not, four bits of the fields that were there before.
   */
  readonly extended: boolean;
}

/** What KVM is to do from "Support extended register index in exit handling" on. */
export const registerFieldsExtended: RegisterFieldsPolicy = Object.freeze({
  name: "five bits where the processor has APX",
  extended: true,
});

/** Who decides where the number of an exit's register operand is read. */
export const registerFieldsSlot: Slot<RegisterFieldsPolicy> = defineSlot(
  "vmx-register-fields",
  () => registerFieldsExtended,
);
