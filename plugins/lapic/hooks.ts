/**
 * Where others meet the local APICs: the slot, and the hooks that they call.
 *
 * @module
 */

import { defineHook, defineSlot, type Hook, type Slot, type Vcpu } from "../../core/mod.ts";
import type { ApicBus } from "./bus.ts";

/** The local APICs of a VM, and the bus between them. */
export const lapicSlot: Slot<ApicBus> = defineSlot("lapic");

/**
 * A local APIC accepts a fixed interrupt; its TMR bit is set already. An accelerator that takes the
 * delivery over sets the IRR bit ({@linkcode Lapic.setIrr}), rings or wakes the vCPU, and answers
 * `true`. If nobody does, the local APIC sets the bit and has the run loop look; KVM's
 * `deliver_interrupt`.
 */
export const deliverInterruptHook: Hook<
  (vcpu: Vcpu, vector: number) => boolean | undefined,
  "first"
> = defineHook({ name: "deliver-interrupt", kind: "first", arity: 2 });

/**
 * Software is about to look at what a local APIC has been requested. An accelerator that keeps requests
 * elsewhere until then moves them into IRR; KVM's `sync_pir_to_irr`.
 */
export const collectRequestsHook: Hook<(vcpu: Vcpu) => void, "each"> = defineHook({
  name: "collect-requests",
  kind: "each",
  arity: 1,
});

/**
 * Somebody wants to know which interrupts of a vCPU have ends that must be announced. Whoever sends
 * level-triggered ones sets, in 256 bits, those of the vectors that it may send to the vCPU; KVM's
 * `ioapic_handled_vectors`.
 */
export const levelVectorsHook: Hook<(vcpu: Vcpu, vectors: Uint32Array) => void, "each"> =
  defineHook({ name: "level-vectors", kind: "each", arity: 2 });

/** What {@linkcode levelVectorsHook} answers has changed; KVM's `KVM_REQ_SCAN_IOAPIC`. */
export const levelVectorsChangedHook: Hook<() => void, "each"> = defineHook({
  name: "level-vectors-changed",
  kind: "each",
  arity: 0,
});

/** What of a local APIC changed. */
export type LapicChange =
  /** Its mode: off, xAPIC or x2APIC. IDs may have changed with it. */
  | "mode"
  /** The place of its registers in memory. */
  | "base"
  /** Its APIC ID. */
  | "id"
  /** Its logical ID. */
  | "ldr"
  /** The model of its logical ID. */
  | "dfr"
  /** Whether software has it enabled. */
  | "enable"
  /** All of it: it was made, reset, or given saved state. */
  | "reset";

/** Mode or IDs of a local APIC changed. For those who keep tables of them. */
export const lapicChangedHook: Hook<(vcpu: Vcpu, change: LapicChange) => void, "each"> = defineHook(
  { name: "lapic-changed", kind: "each", arity: 2 },
);

/**
 * The task priority was written by software that the local APIC emulates: by MMIO, by MSR, or as CR8
 * where that is intercepted. The argument is all eight bits of the register.
 */
export const taskPriorityHook: Hook<(vcpu: Vcpu, priority: number) => void, "each"> = defineHook({
  name: "task-priority",
  kind: "each",
  arity: 2,
});

/** A level-triggered interrupt was ended: the EOI message that goes to all I/O APICs. */
export const eoiMessageHook: Hook<(vcpu: Vcpu, vector: number) => void, "each"> = defineHook({
  name: "eoi-message",
  kind: "each",
  arity: 2,
});

/**
 * An interrupt was ended, level-triggered or not. Only what software emulates comes by here: a
 * processor that accelerates interrupts ends edge-triggered ones by itself.
 */
export const endOfInterruptHook: Hook<(vcpu: Vcpu, vector: number) => void, "each"> = defineHook({
  name: "end-of-interrupt",
  kind: "each",
  arity: 2,
});
