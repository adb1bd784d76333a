/**
 * Reasons not to accelerate interrupts that APICv minds: KVM's `VMX_REQUIRED_APICV_INHIBITS`.
 *
 * @module
 */
import type { InhibitReason } from "../../../core/mod.ts";
import { LapicInhibit } from "../../lapic/mod.ts";

/**
 * The seven that KVM has for APICv, and a local APIC that is off, which KVM looks at beside them. What
 * AVIC minds besides is no trouble here: interrupt windows and virtual-interrupt delivery go together,
 * EOIs can be made to exit one by one, and logical IDs are software's in any case.
 */
export const APICV_INHIBITS: readonly InhibitReason[] = [
  LapicInhibit.DISABLED,
  LapicInhibit.HYPERV,
  LapicInhibit.ABSENT,
  LapicInhibit.BLOCKIRQ,
  LapicInhibit.PHYSICAL_ID_ALIASED,
  LapicInhibit.APIC_ID_MODIFIED,
  LapicInhibit.APIC_BASE_MODIFIED,
  LapicInhibit.APIC_DISABLED,
];
