/**
 * Which of a guest's own SVM instructions exit, as a policy that can be exchanged.
 *
 * Only VMLOAD, VMSAVE, STGI and CLGI are decided here: the other SVM instructions always exit. All four
 * must exit while the guest's EFER.SVME is clear, because the processor always sees it set and would
 * execute them instead of raising #UD.
 *
 * @module
 */
import { defineSlot, type Slot } from "../../../core/mod.ts";
import { Misc2 } from "../../cpu/mod.ts";

/** What the intercepts of VMLOAD, VMSAVE, STGI and CLGI depend on. */
export interface InstructionInterceptInput {
  /** EFER.SVME as the guest set it. */
  readonly svme: boolean;
  /** CPUID leaf 0 names Intel, or a maker of processors like Intel's. */
  readonly intelCompatible: boolean;
  /** The processor can execute a guest's VMLOAD and VMSAVE (CPUID 8000_000Ah EDX[15]). */
  readonly virtualVmload: boolean;
  /** The processor has a GIF for the guest (CPUID 8000_000Ah EDX[16]). */
  readonly virtualGif: boolean;
}

/** Decides on the intercepts of VMLOAD, VMSAVE, STGI and CLGI. Intercepts are bits of `Misc2`. */
export interface InstructionInterceptPolicy {
  /** For listings. */
  readonly name: string;
  /** The intercepts with which a vCPU's VMCB starts. */
  initial(input: InstructionInterceptInput): number;
  /**
   * The intercepts from here on. What the policy does not decide on for this input stays as it is in
   * `current`. Called when the vCPU is made and after every change of what it depends on.
   */
  recalculate(current: number, input: InstructionInterceptInput): number;
  /** Whether a change of EFER.SVME is such a change. */
  readonly followsSvme: boolean;
}

/** The intercepts of VMLOAD and VMSAVE. */
export const VMLOAD_VMSAVE: number = Misc2.VMLOAD | Misc2.VMSAVE;
/** The intercepts of STGI and CLGI. */
export const STGI_CLGI: number = Misc2.STGI | Misc2.CLGI;
/** All that a policy decides on. */
export const POLICY_INTERCEPTS: number = VMLOAD_VMSAVE | STGI_CLGI;

/**
 * What KVM does from "Recalc instructions intercepts when EFER.SVME is toggled" on (460c7eb2e759).
 *
 * A guest that is told it has an Intel processor has VMLOAD and VMSAVE emulated, so that VMLOAD drops
 * bits 63:32 of SYSENTER_ESP and SYSENTER_EIP; STGI and CLGI have nothing to do with that.
 */
export const recalculatedOnSvmeToggle: InstructionInterceptPolicy = Object.freeze({
  name: "recalculated when EFER.SVME toggles",
  followsSvme: true,
  initial: () => POLICY_INTERCEPTS,
  recalculate(current: number, input: InstructionInterceptInput): number {
    if (!input.svme) return POLICY_INTERCEPTS;
    let intercepts = current;
    if (input.intelCompatible) intercepts |= VMLOAD_VMSAVE;
    else if (input.virtualVmload) intercepts &= ~VMLOAD_VMSAVE;
    if (input.virtualGif) intercepts &= ~STGI_CLGI;
    return intercepts;
  },
});

/** Who decides on the intercepts of VMLOAD, VMSAVE, STGI and CLGI. */
export const instructionInterceptSlot: Slot<InstructionInterceptPolicy> = defineSlot(
  "svm-instruction-intercepts",
  () => recalculatedOnSvmeToggle,
);
