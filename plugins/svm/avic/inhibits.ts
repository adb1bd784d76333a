/**
 * Reasons not to accelerate interrupts, by the names that KVM has for them
 * (`APICV_INHIBIT_REASON_*`), and which of them this accelerator minds.
 *
 * @module
 */
import { defineInhibit, type InhibitReason } from "../../../core/mod.ts";
import { LapicInhibit } from "../../lapic/mod.ts";

/** Reasons besides the local APICs' own, with those of {@linkcode LapicInhibit} that no accelerator goes with. */
export const AvicInhibit: {
  readonly DISABLED: InhibitReason;
  readonly HYPERV: InhibitReason;
  readonly ABSENT: InhibitReason;
  readonly BLOCKIRQ: InhibitReason;
  readonly NESTED: InhibitReason;
  readonly IRQWIN: InhibitReason;
  readonly PIT_REINJ: InhibitReason;
  readonly SEV: InhibitReason;
  readonly PHYSICAL_ID_TOO_BIG: InhibitReason;
} = {
  /** Set by this plugin where the processor has no AVIC. */
  DISABLED: LapicInhibit.DISABLED,
  HYPERV: LapicInhibit.HYPERV,
  ABSENT: LapicInhibit.ABSENT,
  BLOCKIRQ: LapicInhibit.BLOCKIRQ,
  /**
   * Of one vCPU, while it runs a guest of the guest's; set by this plugin while the guest has its own
   * GIF clear and the processor has none to keep it in, so that hardware cannot know.
   */
  NESTED: defineInhibit("NESTED", "the vCPU runs a guest of the guest's, or between two such runs"),
  /** Set by this plugin while a vCPU waits for an interrupt window: V_IRQ has no effect under AVIC. */
  IRQWIN: defineInhibit("IRQWIN", "a vCPU waits until it can take an interrupt"),
  /** For a timer that must see the EOI of each tick to send the next. */
  PIT_REINJ: defineInhibit("PIT_REINJ", "the PIT waits for the EOI of each tick"),
  /** For guests with encrypted memory. */
  SEV: defineInhibit("SEV", "the guest's memory is encrypted"),
  /** Set by `inhibitTooBig`. */
  PHYSICAL_ID_TOO_BIG: defineInhibit("PHYSICAL_ID_TOO_BIG", "a vCPU's id is too big for AVIC"),
};

/**
 * What AVIC minds: KVM's thirteen reasons, and a local APIC that is off, which KVM looks at beside them.
 */
export const AVIC_INHIBITS: readonly InhibitReason[] = [
  AvicInhibit.DISABLED,
  AvicInhibit.HYPERV,
  AvicInhibit.ABSENT,
  AvicInhibit.BLOCKIRQ,
  LapicInhibit.PHYSICAL_ID_ALIASED,
  LapicInhibit.APIC_ID_MODIFIED,
  LapicInhibit.APIC_BASE_MODIFIED,
  AvicInhibit.NESTED,
  AvicInhibit.IRQWIN,
  AvicInhibit.PIT_REINJ,
  AvicInhibit.SEV,
  LapicInhibit.LOGICAL_ID_ALIASED,
  AvicInhibit.PHYSICAL_ID_TOO_BIG,
  LapicInhibit.APIC_DISABLED,
];
