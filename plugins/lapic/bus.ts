/**
 * The bus between local APICs: who a message is for.
 *
 * @module
 */

import type { Vcpu } from "../../core/mod.ts";
import { LapicMode } from "./base.ts";
import type { LapicBoard } from "./board.ts";
import type { Lapic } from "./lapic.ts";
import { type ApicMessage, BROADCAST, MessageType, Shorthand, WIDE_BROADCAST } from "./message.ts";
import { LapicRegister } from "./registers.ts";

/** All local APICs of a VM. */
export class ApicBus {
  readonly #of: (vcpu: Vcpu) => Lapic;
  readonly #vcpus: readonly Vcpu[];
  readonly #board: LapicBoard;

  /** Made by the plugin. */
  constructor(vcpus: readonly Vcpu[], board: LapicBoard, of: (vcpu: Vcpu) => Lapic) {
    this.#vcpus = vcpus;
    this.#board = board;
    this.#of = of;
  }

  /** The local APIC of a vCPU. */
  of(vcpu: Vcpu): Lapic {
    return this.#of(vcpu);
  }

  /**
   * Where bits 63:32 of all ICRs are in x2APIC mode: at 310h, or behind bits 31:0. It is what the vendor
   * of the local APICs has, unless a processor that accelerates interrupts insists on its own; KVM's
   * `x2apic_icr_is_split`.
   */
  get splitIcr(): boolean {
    return this.#board.splitIcr;
  }

  set splitIcr(split: boolean) {
    if (split === this.#board.splitIcr) return;
    this.#board.splitIcr = split;
    for (const vcpu of this.#vcpus) this.#of(vcpu).moveIcrHigh();
  }

  /** The first enabled local APIC with an APIC ID, `undefined` if there is none. */
  find(id: number): Lapic | undefined {
    for (const vcpu of this.#vcpus) {
      const lapic = this.#of(vcpu);
      if (lapic.mode !== LapicMode.DISABLED && lapic.id === id) return lapic;
    }
    return undefined;
  }

  /**
   * Sends a message.
   *
   * @param sender Who sends it, where it is an IPI: shorthands mean others by that.
   * @returns How many local APICs accepted it.
   */
  send(message: ApicMessage, sender?: Lapic): number {
    if (message.type === MessageType.LOWEST) return this.#sendLowest(message, sender);
    let accepted = 0;
    for (const vcpu of this.#vcpus) {
      const lapic = this.#of(vcpu);
      if (this.matches(lapic, message, sender) && lapic.receive(message)) accepted++;
    }
    return accepted;
  }

  /** Whether a message is for `lapic`. One that is disabled hears nothing. */
  matches(lapic: Lapic, message: ApicMessage, sender?: Lapic): boolean {
    const { mode } = lapic;
    if (mode === LapicMode.DISABLED) return false;
    switch (message.shorthand) {
      case Shorthand.SELF:
        return lapic === sender;
      case Shorthand.ALL:
        return true;
      case Shorthand.OTHERS:
        return lapic !== sender;
    }
    const { destination } = message;
    if (destination === (message.wide ? WIDE_BROADCAST : BROADCAST)) return true;
    if (!message.logical) return lapic.id === destination;
    return mode === LapicMode.X2APIC
      ? matchesCluster(lapic.ldr, destination)
      : matchesLogical(lapic.ldr, lapic.registers.get(LapicRegister.DFR), destination);
  }

  /**
   * Lowest priority (APM vol. 2, 16.6.1; SDM vol. 3A, 11.6.2.4): of those addressed, one that has the
   * vector in service or requested already, the focus processor, if it checks for that; else the one
   * with the lowest arbitration priority, and of several the one with the highest APIC ID. Those that
   * software has not enabled take no part.
   */
  #sendLowest(message: ApicMessage, sender: Lapic | undefined): number {
    let best: Lapic | undefined;
    for (const vcpu of this.#vcpus) {
      const lapic = this.#of(vcpu);
      if (!lapic.softwareEnabled || !this.matches(lapic, message, sender)) continue;
      lapic.collect();
      if (lapic.isFocus(message.vector)) {
        best = lapic;
        break;
      }
      if (best === undefined || before(lapic, best)) best = lapic;
    }
    return best?.receive(message) ? 1 : 0;
  }
}

function before(lapic: Lapic, best: Lapic): boolean {
  const difference = lapic.arbitrationPriority - best.arbitrationPriority;
  return difference < 0 || (difference === 0 && lapic.id > best.id);
}

/** Logical destinations of x2APIC mode: cluster in 31:16, a bit for each member in 15:0. */
function matchesCluster(ldr: number, destination: number): boolean {
  return ldr >>> 16 === destination >>> 16 && (ldr & destination & 0xffff) !== 0;
}

/** Logical destinations of xAPIC mode, 8 bits: the flat model, or the cluster model. */
function matchesLogical(ldr: number, dfr: number, destination: number): boolean {
  if (destination > 0xff) return false;
  const id = ldr >>> 24;
  if (dfr >>> 28 === 0xf) return (id & destination) !== 0;
  return id >>> 4 === destination >>> 4 && (id & destination & 0xf) !== 0;
}
