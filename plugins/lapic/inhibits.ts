/**
 * Reasons not to accelerate interrupts that local APICs give, by the names that KVM has for them
 * (`APICV_INHIBIT_REASON_*`).
 *
 * @module
 */

import {
  defineInhibit,
  type InhibitReason,
  type PluginContext,
  type Registration,
  type Vcpu,
} from "../../core/mod.ts";
import { DEFAULT_APIC_BASE, LapicMode } from "./base.ts";
import type { ApicBus } from "./bus.ts";
import type { LapicChange } from "./hooks.ts";
import type { Lapic } from "./lapic.ts";
import { LapicRegister } from "./registers.ts";

/** The reasons: of local APICs, and those that no kind of acceleration goes with. */
export const LapicInhibit: {
  readonly DISABLED: InhibitReason;
  readonly HYPERV: InhibitReason;
  readonly ABSENT: InhibitReason;
  readonly BLOCKIRQ: InhibitReason;
  readonly APIC_DISABLED: InhibitReason;
  readonly APIC_ID_MODIFIED: InhibitReason;
  readonly APIC_BASE_MODIFIED: InhibitReason;
  readonly PHYSICAL_ID_ALIASED: InhibitReason;
  readonly LOGICAL_ID_ALIASED: InhibitReason;
} = {
  /** For an accelerator to set where the processor has nothing to accelerate with. */
  DISABLED: defineInhibit("DISABLED", "the processor does not accelerate interrupts"),
  /** For a plugin that ends interrupts by itself, as Hyper-V's synthetic controller does (AutoEOI). */
  HYPERV: defineInhibit("HYPERV", "interrupts end without an EOI"),
  /** For a plugin that takes the local APICs out of the VM. */
  ABSENT: defineInhibit("ABSENT", "there are no local APICs"),
  /** For a debugger that holds interrupts back while it steps. */
  BLOCKIRQ: defineInhibit("BLOCKIRQ", "a debugger holds interrupts back"),
  /** Of one vCPU, whose local APIC is off: KVM has no reason of its own for that, but the same effect. */
  APIC_DISABLED: defineInhibit("APIC_DISABLED", "the vCPU's local APIC is off"),
  /** A guest changed an xAPIC ID. It holds from then on. */
  APIC_ID_MODIFIED: defineInhibit("APIC_ID_MODIFIED", "the guest changed an xAPIC ID"),
  /** A guest moved the register page. It holds from then on. */
  APIC_BASE_MODIFIED: defineInhibit("APIC_BASE_MODIFIED", "the guest moved a register page"),
  /** Two enabled local APICs have one ID. */
  PHYSICAL_ID_ALIASED: defineInhibit("PHYSICAL_ID_ALIASED", "two local APICs have one APIC ID"),
  /** Logical IDs are not one to one: two alike, or one with several bits, or mixed models. */
  LOGICAL_ID_ALIASED: defineInhibit("LOGICAL_ID_ALIASED", "logical APIC IDs are ambiguous"),
};

/** Sets and clears the reasons as local APICs change. */
export class LapicInhibits {
  readonly #ctx: PluginContext;
  readonly #bus: ApicBus;
  readonly #held: Map<InhibitReason, Registration> = new Map();
  readonly #disabled: Map<Vcpu, Registration> = new Map();

  /** For the VM of `ctx`. */
  constructor(ctx: PluginContext, bus: ApicBus) {
    this.#ctx = ctx;
    this.#bus = bus;
  }

  /** A local APIC changed. */
  changed(lapic: Lapic, change: LapicChange): void {
    const { mode, vcpu } = lapic;
    const on = mode !== LapicMode.DISABLED;
    if (!on && !this.#disabled.has(vcpu)) {
      this.#disabled.set(vcpu, this.#ctx.inhibit(LapicInhibit.APIC_DISABLED, vcpu));
    } else if (on) {
      this.#disabled.get(vcpu)?.remove();
      this.#disabled.delete(vcpu);
    }
    const { APIC_ID_MODIFIED, APIC_BASE_MODIFIED } = LapicInhibit;
    if (change === "id" && lapic.id !== (vcpu.id & 0xff)) this.#hold(APIC_ID_MODIFIED, true);
    if (on && lapic.base !== DEFAULT_APIC_BASE) this.#hold(APIC_BASE_MODIFIED, true);
    this.refresh();
  }

  /** Looks for IDs that are not unique. */
  refresh(): void {
    const lapics: Lapic[] = [];
    for (const vcpu of this.#ctx.vm.vcpus) {
      const lapic = this.#bus.of(vcpu);
      if (lapic.mode !== LapicMode.DISABLED) lapics.push(lapic);
    }
    const ids = new Set(lapics.map(({ id }) => id));
    this.#hold(LapicInhibit.PHYSICAL_ID_ALIASED, ids.size < lapics.length);
    this.#hold(LapicInhibit.LOGICAL_ID_ALIASED, logicalAlias(lapics));
  }

  #hold(reason: InhibitReason, holds: boolean): void {
    const held = this.#held.get(reason);
    if (holds && held === undefined) this.#held.set(reason, this.#ctx.inhibit(reason));
    if (holds || held === undefined) return;
    held.remove();
    this.#held.delete(reason);
  }
}

/** Whether a logical ID could mean two of the enabled local APICs, or none that is known. */
function logicalAlias(lapics: readonly Lapic[]): boolean {
  const seen = new Set<number>();
  let model = -1;
  for (const lapic of lapics) {
    const { ldr, mode } = lapic;
    if (!lapic.softwareEnabled || ldr === 0) continue;
    const x2apic = mode === LapicMode.X2APIC;
    const own = x2apic ? 0 : lapic.registers.get(LapicRegister.DFR) >>> 28;
    if (model >= 0 && own !== model) return true;
    model = own;
    // In x2APIC mode logical IDs follow from APIC IDs: they are alike where those are.
    const flat = own === 0xf;
    const member = x2apic ? ldr & 0xffff : (ldr >>> 24) & (flat ? 0xff : 0xf);
    if (member === 0 || (member & (member - 1)) !== 0 || seen.has(ldr)) return true;
    seen.add(ldr);
  }
  return false;
}
