/**
 * What a local APIC asks of its surroundings, and what it can be made again from.
 *
 * @module
 */

import type { Vcpu } from "../../core/mod.ts";
import type { LapicChange } from "./hooks.ts";
import type { Lapic } from "./lapic.ts";
import type { ApicMessage } from "./message.ts";
import type { LapicFeatures, RegisterMap } from "./registers.ts";
import type { ApicTimerSaved } from "./timer.ts";

/** What a local APIC asks of its surroundings. */
export interface LapicBoard {
  /** What it has. */
  readonly features: LapicFeatures;
  /** Its registers. */
  readonly map: RegisterMap;
  /** Size of physical addresses in bits. */
  physicalBits(vcpu: Vcpu): number;
  /** Sends a message over the bus; how many accepted it. */
  send(message: ApicMessage, sender: Lapic): number;
  /** An IPI's message, to be filled in and sent. */
  readonly message: ApicMessage;
  /**
   * Where bits 63:32 of the ICR are in x2APIC mode: behind bits 31:0 (at 304h), or at 310h as in xAPIC
   * mode. Intel's processors have them there, AMD's here.
   */
  splitIcr: boolean;
  /** An accelerator may have requests that are not in IRR yet. */
  collect(vcpu: Vcpu): void;
  /** An accelerator may take over delivery of a fixed interrupt. */
  deliver(vcpu: Vcpu, vector: number): boolean;
  /** Mode or IDs changed. */
  changed(lapic: Lapic, change: LapicChange): void;
  /** Emulated software wrote the task priority. */
  taskPriorityChanged(vcpu: Vcpu, priority: number): void;
  /** An interrupt was ended; `level` sends the EOI message. */
  ended(vcpu: Vcpu, vector: number, level: boolean): void;
  /** Level of the external controller's output, LINT0 where it is ExtINT. */
  externalInterrupt(): boolean;
  /** The external controller's INTA cycle: a vector. */
  externalAcknowledge(): number;
  /** Ticks of VM time until the guest's time-stamp counter reaches a value. */
  ticksUntilTsc(vcpu: Vcpu, low: number, high: number): number;
}

/** A local APIC's state, as plain data. */
export type LapicSaved = {
  /** The register page. */
  readonly page: Uint8Array;
  /** APIC base MSR, bits 31:0 and 63:32. */
  readonly base: readonly [number, number];
  /** Errors since the ESR was last written. */
  readonly errors: number;
  /** Levels of LINT0 and LINT1, bits 0 and 1. */
  readonly pins: number;
  /** An ExtINT message waits to be acknowledged. */
  readonly external: boolean;
  /** An INIT waits to be carried out. */
  readonly init: boolean;
  /** Vector of a start-up message that waits, −1 if none does. */
  readonly startup: number;
  /** The timer. */
  readonly timer: ApicTimerSaved;
};
