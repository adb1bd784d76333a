/**
 * The local vector table: what becomes of interrupts that a local APIC has of its own, and of its pins
 * LINT0 and LINT1 (APM vol. 2, 16.4; SDM vol. 3A, 11.5).
 *
 * @module
 */

import { eventRequest, type Vcpu } from "../../core/mod.ts";
import { LapicMode } from "./base.ts";
import { MessageType } from "./message.ts";
import type { RegisterPage } from "./page.ts";
import { type LapicFeatures, LapicRegister, Lvt } from "./registers.ts";
import type { ApicTimer } from "./timer.ts";

const R = LapicRegister;

/** The local APIC that a table is of. */
export interface LocalVectorOwner {
  /** The vCPU. */
  readonly vcpu: Vcpu;
  /** Its registers, the table's entries among them. */
  readonly registers: RegisterPage;
  /** Its mode. */
  readonly mode: LapicMode;
  /** What it has. */
  readonly features: LapicFeatures;
  /** Whether software has it enabled. */
  readonly softwareEnabled: boolean;
  /** Its timer. */
  readonly timer: ApicTimer;
  /** Takes a fixed interrupt. */
  accept(vector: number, level: boolean): boolean;
  /** Takes what has no vector. */
  signal(type: number): boolean;
}

/** The table of one local APIC. Entries are in its registers. */
export class LocalVectorTable {
  /** Levels of LINT0 and LINT1, bits 0 and 1. */
  pins = 0;
  readonly #owner: LocalVectorOwner;
  readonly #offsets: readonly number[];

  /** With entries at `offsets`. */
  constructor(owner: LocalVectorOwner, offsets: readonly number[]) {
    this.#owner = owner;
    this.#offsets = offsets;
  }

  /** Drives LINT0 (0) or LINT1 (1). */
  setPin(pin: 0 | 1, level: boolean): void {
    const { vcpu, registers, mode } = this.#owner;
    const bit = 1 << pin;
    const rose = level && (this.pins & bit) === 0;
    this.pins = level ? this.pins | bit : this.pins & ~bit;
    const offset = pin === 0 ? R.LVT_LINT0 : R.LVT_LINT1;
    if (mode === LapicMode.DISABLED) {
      // Without an APIC the pins are INTR and NMI.
      if (pin === 0) vcpu.request(eventRequest);
      else if (rose) vcpu.events.queueNmi();
      return;
    }
    const entry = registers.get(offset);
    if ((entry & Lvt.MASK) !== 0) return;
    const type = (entry & Lvt.MODE) >> 8;
    if (type === MessageType.EXTINT) return vcpu.request(eventRequest);
    const levelTriggered = type === MessageType.FIXED && (entry & Lvt.LEVEL) !== 0;
    if (levelTriggered ? level && (entry & Lvt.REMOTE_IRR) === 0 : rose) this.fire(offset);
  }

  /**
   * A source fires: the entry at `offset` says what comes of it.
   *
   * @returns Whether anything does: the entry is not masked.
   */
  fire(offset: number): boolean {
    const { registers, mode, features } = this.#owner;
    if (mode === LapicMode.DISABLED) return false;
    const entry = registers.get(offset);
    if ((entry & Lvt.MASK) !== 0) return false;
    const type = (entry & Lvt.MODE) >> 8;
    if (type === MessageType.FIXED) {
      const pin = offset === R.LVT_LINT0 || offset === R.LVT_LINT1;
      const level = pin && (entry & Lvt.LEVEL) !== 0;
      if (level) registers.set(offset, entry | Lvt.REMOTE_IRR);
      this.#owner.accept(entry & Lvt.VECTOR, level);
    } else if (!this.#owner.signal(type)) return false;
    // A counter overflow masks its entry, so that the handler is not interrupted by the next
    // (SDM vol. 3A, 11.5.1); AMD's does not.
    if (offset === R.LVT_PERF && features.vendor === "intel") {
      registers.set(offset, entry | Lvt.MASK);
    }
    return true;
  }

  /** A level-triggered interrupt ended. If it was a pin's, that fires again if it is still high. */
  ended(vector: number): void {
    const { registers } = this.#owner;
    for (const pin of [0, 1] as const) {
      const offset = pin === 0 ? R.LVT_LINT0 : R.LVT_LINT1;
      const entry = registers.get(offset);
      if ((entry & Lvt.REMOTE_IRR) === 0 || (entry & Lvt.VECTOR) !== vector) continue;
      registers.set(offset, entry & ~Lvt.REMOTE_IRR);
      if ((this.pins & (1 << pin)) !== 0) this.fire(offset);
    }
  }

  // Effects of writes

  /** Software disabled the local APIC: all entries are masked. */
  maskAll(): void {
    const { registers, timer } = this.#owner;
    for (const offset of this.#offsets) {
      registers.set(offset, registers.get(offset) | Lvt.MASK);
    }
    timer.setMasked(true);
  }

  /** An entry was written: read-only bits, and the mask while the local APIC is disabled. */
  settle(offset: number): void {
    const { registers, softwareEnabled, vcpu } = this.#owner;
    const entry = registers.get(offset);
    if (!softwareEnabled) registers.set(offset, entry | Lvt.MASK);
    const pin = offset === R.LVT_LINT0 ? 0 : offset === R.LVT_LINT1 ? 1 : -1;
    // A pin that is high when its entry is unmasked fires now if it is level-triggered or ExtINT.
    if (pin < 0 || (this.pins & (1 << pin)) === 0) return;
    const type = (entry & Lvt.MODE) >> 8;
    if (type === MessageType.EXTINT) vcpu.request(eventRequest);
    else if (type === MessageType.FIXED && (entry & Lvt.LEVEL) !== 0) this.fire(offset);
  }
}
