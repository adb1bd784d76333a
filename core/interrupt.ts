/**
 * Where interrupt controllers meet the core.
 *
 * @module
 */

import { TraplineError } from "./errors.ts";
import { defineSlot, type Slot } from "./slot.ts";
import type { Vcpu } from "./vcpu.ts";

/** The controller whose output is a vCPU's interrupt pin. */
export interface InterruptController {
  /**
   * Whether an interrupt waits that the controller would deliver now (priorities considered).
   *
   * When this may have become true, the controller calls `vcpu.request(eventRequest)`.
   */
  hasInterrupt(vcpu: Vcpu): boolean;
  /**
   * Whether such an interrupt must be injected by software: what the processor delivers by itself,
   * because interrupts are accelerated for the vCPU, wakes it and is not injected. Without this every
   * interrupt is injected.
   */
  hasInjectable?(vcpu: Vcpu): boolean;
  /** Takes the waiting interrupt, as INTA does, and returns its vector, 0 to 255. */
  acknowledge(vcpu: Vcpu): number;
  /**
   * The task priority class, CR8 bits 3:0. Without these methods the vendor keeps CR8, and it has no
   * effect.
   */
  taskPriority?(vcpu: Vcpu): number;
  /** Writes CR8, 0 to 15. Interrupts may become deliverable: the controller requests as above. */
  setTaskPriority?(vcpu: Vcpu, priority: number): void;
  /** Whether an interrupt waits for a lower task priority, so that a write of CR8 must be noticed. */
  waitsForTaskPriority?(vcpu: Vcpu): boolean;
}

/** The interrupt controller. Without one a VM has no external interrupts. */
export const interruptControllerSlot: Slot<InterruptController> = defineSlot(
  "interrupt-controller",
  () => ({
    hasInterrupt: () => false,
    acknowledge: () => {
      throw new TraplineError("no interrupt controller is present, and none has an interrupt");
    },
  }),
);
