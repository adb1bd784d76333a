/**
 * The TPR shadow: CR8, and in x2APIC mode MSR 808h, are the TPR of the virtual-APIC page, which is the
 * local APIC's own page (SDM vol. 3, 30.1 and 30.3). Lowering it exits only where that could let an
 * interrupt in that hardware does not know of (KVM's `vmx_update_cr8_intercept`).
 *
 * @module
 */
import { Secondary, Vmcs } from "../cpu/mod.ts";
import { type Lapic, LapicMode } from "../lapic/mod.ts";
import type { ApicVirtualization, VmcsFields, VmxCapabilities } from "./vmx_guest.ts";

const MSR_TPR: readonly number[] = [0x808];
const NONE: readonly number[] = [];

/** The task priority of one vCPU. */
export class TaskPriority {
  readonly #vmcs: VmcsFields;
  readonly #apic: ApicVirtualization;
  readonly #capabilities: VmxCapabilities;
  #lapic: Lapic | undefined;
  /** The page that the VMCS names; −1 for none. */
  #page = -1;
  #threshold = 0;

  constructor(vmcs: VmcsFields, apic: ApicVirtualization, capabilities: VmxCapabilities) {
    this.#vmcs = vmcs;
    this.#apic = apic;
    this.#capabilities = capabilities;
  }

  /**
   * The local APIC is another one, or its mode has changed. With `undefined` there is none, and accesses
   * to CR8 exit.
   */
  setLapic(lapic: Lapic | undefined): void {
    const { tprShadow, x2apic } = this.#capabilities;
    this.#lapic = tprShadow ? lapic : undefined;
    const wide = this.#lapic?.mode === LapicMode.X2APIC && x2apic;
    const rest = this.#apic.secondary & ~Secondary.VIRTUALIZE_X2APIC;
    this.#apic.secondary = rest | (wide ? Secondary.VIRTUALIZE_X2APIC : 0);
    this.#apic.tprShadow = this.#lapic !== undefined;
  }

  /** x2APIC MSRs that are TPR accesses without an exit. */
  get msrs(): readonly number[] {
    return (this.#apic.secondary & Secondary.VIRTUALIZE_X2APIC) !== 0 ? MSR_TPR : NONE;
  }

  /** Before an entry. */
  enter(accelerated: boolean): void {
    const lapic = this.#lapic;
    if (lapic === undefined) return;
    if (lapic.pageHpa !== this.#page) {
      this.#page = lapic.pageHpa;
      this.#vmcs.setAddress(Vmcs.VIRTUAL_APIC_ADDRESS, this.#page);
    }
    const threshold = !accelerated && lapic.waitsForTaskPriority ? lapic.highestIrr >> 4 : 0;
    if (threshold === this.#threshold) return;
    this.#threshold = threshold;
    this.#vmcs.set32(Vmcs.TPR_THRESHOLD, threshold);
  }
}
