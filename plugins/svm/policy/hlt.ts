/**
 * Which of a guest's HLTs exit, as a policy that can be exchanged.
 *
 * @module
 */
import { defineSlot, type Slot } from "../../../core/mod.ts";

/** Decides which HLTs exit. */
export interface HltInterceptPolicy {
  /** Short name for reports. */
  readonly name: string;
  /**
   * Whether a HLT exits only if no virtual interrupt or NMI is pending.
   *
   * @param available Whether the processor can tell (CPUID 8000_000Ah EDX[30]).
   */
  idleOnly(available: boolean): boolean;
}

/** Where the processor can tell: KVM from "Add Idle HLT intercept support" on (Linux 6.15). */
export const hltWhenIdle: HltInterceptPolicy = Object.freeze({
  name: "when idle",
  idleOnly: (available: boolean) => available,
});

/** Every HLT exits, as it was. */
export const hltAlways: HltInterceptPolicy = Object.freeze({
  name: "always",
  idleOnly: () => false,
});

/** Which HLTs exit; {@linkcode hltWhenIdle} unless a plugin says otherwise. */
export const hltInterceptSlot: Slot<HltInterceptPolicy> = defineSlot(
  "svm-hlt-intercept",
  () => hltWhenIdle,
);
