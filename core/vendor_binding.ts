/**
 * The vCPUs' ties to the vendor, and their move from one vendor to another.
 *
 * @module
 */

import { PluginError } from "./errors.ts";
import { HELD_NOTHING } from "./event.ts";
import type { Registers } from "./registers.ts";
import { eventRequest } from "./request.ts";
import type { Saved } from "./saved.ts";
import type { SystemState } from "./system_state.ts";
import type { Vcpu } from "./vcpu.ts";
import { type Vendor, vendorSlot } from "./vendor.ts";
import type { Vm } from "./vm.ts";

/** A vCPU's architectural state on its way to another vendor. */
interface Carried {
  readonly regs: Registers;
  readonly system: SystemState;
  readonly xsave: Uint8Array;
  /** The vendor it comes from, and what that one alone knows of it. */
  readonly vendor: string;
  readonly own: Saved;
}

/** Makes, moves and destroys the vendor's part of each vCPU. */
export class VendorBinding {
  readonly #vm: Vm;
  /** Register storage of the vCPUs that each vendor has made and not destroyed. */
  readonly #made: Map<Vendor, Uint32Array[]> = new Map();
  #carried: Carried[] = [];

  /** For `vm`. */
  constructor(vm: Vm) {
    this.#vm = vm;
  }

  /** Has the vendor make its part of a vCPU. */
  create(vcpu: Vcpu, vendor: Vendor = this.#vm.vendor.current): void {
    try {
      const storage = vendor.createVcpu(vcpu);
      vcpu.regs.bind(storage);
      const made = this.#made.get(vendor);
      if (made === undefined) this.#made.set(vendor, [storage]);
      else made.push(storage);
    } catch (error) {
      const plugin = this.#vm.slots.providerOf(vendorSlot) ?? "core";
      throw PluginError.wrap(plugin, "createVcpu", vcpu.id, error);
    }
  }

  /** Has the vendor destroy its part of the vCPU that was made last. */
  destroyLast(vcpu: Vcpu): void {
    const vendor = this.#vm.vendor.current;
    this.#made.get(vendor)?.pop();
    vendor.destroyVcpu(vcpu);
  }

  /**
   * The vendor changed: moves every vCPU. The previous vendor keeps its part until
   * {@linkcode VendorBinding.release}, so that a swap that fails finds it untouched.
   */
  changed(current: Vendor | undefined, previous: Vendor | undefined): void {
    const { vcpus } = this.#vm;
    if (this.#vm.closed) return;
    for (const vcpu of vcpus) {
      // What the previous vendor was to deliver, the next one is asked to deliver again.
      vcpu.events.held = HELD_NOTHING;
      vcpu.request(eventRequest);
    }
    const made = current && this.#made.get(current);
    if (made !== undefined) {
      for (const [i, storage] of made.entries()) vcpus[i]?.regs.bind(storage);
      return;
    }
    if (previous !== undefined && this.#made.has(previous)) {
      this.#carried = vcpus.map((vcpu) => ({
        regs: vcpu.regs.clone(),
        system: previous.getSystemState(vcpu),
        xsave: previous.getXsave(vcpu),
        vendor: previous.name,
        own: previous.saveVcpu(vcpu),
      }));
    }
    if (current === undefined) return;
    for (const vcpu of vcpus) {
      this.create(vcpu, current);
      const carried = this.#carried[vcpu.index];
      if (carried === undefined) continue;
      current.setSystemState(vcpu, carried.system);
      current.setXsave(vcpu, carried.xsave);
      if (current.name === carried.vendor) current.loadVcpu(vcpu, carried.own);
      vcpu.regs.copyFrom(carried.regs);
    }
    this.#carried = [];
  }

  /** Has every vendor but the present one destroy its part of the vCPUs. */
  release(): void {
    const present = this.#vm.vendor.current;
    for (const [vendor, made] of [...this.#made]) {
      if (vendor === present) continue;
      this.#made.delete(vendor);
      for (const i of made.keys()) {
        const vcpu = this.#vm.vcpus[i];
        if (vcpu !== undefined) vendor.destroyVcpu(vcpu);
      }
    }
  }
}
