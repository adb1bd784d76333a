/**
 * Inhibits: reasons for which interrupts must not be accelerated for now.
 *
 * A processor may deliver interrupts to a running guest without an exit. Plugins whose work that would
 * upset say so with reasons; a reason may hold for the whole VM or for one vCPU. While any reason that
 * the accelerator minds holds, a vCPU runs without acceleration.
 *
 * @module
 */

import { PluginError } from "./errors.ts";
import type { Binding } from "./registration.ts";
import { accelerationRequest } from "./request.ts";
import { defineSlot, type Slot, type SlotRef, type Slots } from "./slot.ts";
import type { Vcpu } from "./vcpu.ts";

/** A reason not to accelerate interrupts: a token. */
export interface InhibitReason {
  /** For messages and listings. */
  readonly name: string;
  /** What causes it, in a sentence. */
  readonly description: string;
}

/** Defines a reason. Do so once, in a constant. */
export function defineInhibit(name: string, description: string): InhibitReason {
  return Object.freeze({ name, description });
}

/** Who accelerates the delivery of interrupts. */
export interface InterruptAccelerator {
  /** Short name for reports. */
  readonly name: string;
  /** The reasons it minds. Others may hold without effect. */
  readonly inhibits: readonly InhibitReason[];
  /** Switches acceleration for one vCPU, between two of its entries. Called only when it changes. */
  refresh(vcpu: Vcpu, active: boolean): void;
}

/** The interrupt accelerator; none unless a plugin provides one. */
export const acceleratorSlot: Slot<InterruptAccelerator | undefined> = defineSlot("accelerator");

/** The reasons that hold in a VM, as `vm.inhibits`. */
export class Inhibits {
  readonly #accelerator: SlotRef<InterruptAccelerator | undefined>;
  readonly #slots: Slots;
  readonly #vcpus: readonly Vcpu[];
  /**
   * Who set each reason: for the VM under `undefined`, for a vCPU under the vCPU. A reason holds while
   * anybody has it set, so each setting is counted by a key of its own.
   */
  readonly #holders: Map<Vcpu | undefined, Map<InhibitReason, Map<object, string>>> = new Map();
  #inhibited = false;

  /** The core's own. */
  constructor(slots: Slots, vcpus: readonly Vcpu[]) {
    this.#slots = slots;
    this.#accelerator = slots.ref(acceleratorSlot);
    this.#vcpus = vcpus;
  }

  /** The reasons that hold for the whole VM or, given a vCPU, for that one alone. */
  reasons(vcpu?: Vcpu): InhibitReason[] {
    return [...(this.#holders.get(vcpu)?.keys() ?? [])];
  }

  /** Names of the plugins that have set a reason. */
  holders(reason: InhibitReason, vcpu?: Vcpu): string[] {
    return [...new Set(this.#holders.get(vcpu)?.get(reason)?.values())];
  }

  /** A reason that a plugin is about to set, for the VM or for one vCPU. */
  bind(reason: InhibitReason, owner: string, vcpu: Vcpu | undefined): Binding {
    const key = {};
    return {
      attach: () => this.#set(reason, key, owner, vcpu),
      detach: () => this.#clear(reason, key, vcpu),
    };
  }

  #set(reason: InhibitReason, key: object, owner: string, vcpu: Vcpu | undefined): void {
    let reasons = this.#holders.get(vcpu);
    if (reasons === undefined) this.#holders.set(vcpu, reasons = new Map());
    let owners = reasons.get(reason);
    if (owners === undefined) reasons.set(reason, owners = new Map());
    owners.set(key, owner);
    this.#changed(vcpu);
  }

  #clear(reason: InhibitReason, key: object, vcpu: Vcpu | undefined): void {
    const reasons = this.#holders.get(vcpu);
    const owners = reasons?.get(reason);
    if (owners === undefined) return;
    owners.delete(key);
    if (owners.size === 0) reasons?.delete(reason);
    this.#changed(vcpu);
  }

  /**
   * Works out whether a vCPU is accelerated and tells the accelerator if that changed. The run loop
   * does so before the vCPU's next entry after any change; the accelerator may call it for a vCPU
   * that it sets up.
   */
  refresh(vcpu: Vcpu): void {
    const accelerator = this.#accelerator.current;
    const active = accelerator !== undefined && !this.#any(undefined) && !this.#any(vcpu);
    if (active === vcpu.accelerated) return;
    vcpu.accelerated = active;
    if (accelerator === undefined) return;
    tell(accelerator, this.#slots.providerOf(acceleratorSlot) ?? "core", vcpu, active);
  }

  /** The accelerator changed: all vCPUs are to look again, and none is accelerated by the old one. */
  acceleratorChanged(previous: InterruptAccelerator | undefined): void {
    this.#inhibited = this.#any(undefined);
    for (const vcpu of this.#vcpus) {
      if (vcpu.accelerated) {
        vcpu.accelerated = false;
        if (previous !== undefined) tell(previous, previous.name, vcpu, false);
      }
      vcpu.request(accelerationRequest);
    }
  }

  /** Whether a reason holds that the accelerator minds. */
  #any(vcpu: Vcpu | undefined): boolean {
    const reasons = this.#holders.get(vcpu);
    if (reasons === undefined) return false;
    const minded = this.#accelerator.current?.inhibits ?? [];
    return minded.some((reason) => reasons.has(reason));
  }

  #changed(vcpu: Vcpu | undefined): void {
    if (vcpu !== undefined) {
      vcpu.request(accelerationRequest);
      return;
    }
    const inhibited = this.#any(undefined);
    if (inhibited === this.#inhibited) return;
    this.#inhibited = inhibited;
    for (const one of this.#vcpus) one.request(accelerationRequest);
  }
}

function tell(accelerator: InterruptAccelerator, plugin: string, vcpu: Vcpu, on: boolean): void {
  try {
    accelerator.refresh(vcpu, on);
  } catch (error) {
    throw PluginError.wrap(plugin, 'slot "accelerator"', vcpu.id, error);
  }
}
