/**
 * APICv for one vCPU: its VMCS fields, its posted-interrupt descriptor, and where it is.
 *
 * Fields of the VMCS are written before an entry and not earlier, for what asks for a change may come from
 * an instruction that is being emulated.
 *
 * @module
 */
import { eventRequest, type Vcpu } from "../../../core/mod.ts";
import { Secondary, Vmcs } from "../../cpu/mod.ts";
import { type Lapic, LapicMode, LapicRegister } from "../../lapic/mod.ts";
import type { Vmx, VmxGuest } from "../mod.ts";
import type { PostedInterruptDescriptor } from "./descriptor.ts";
import { EoiExitBitmap } from "./eoi_bitmap.ts";

const R = LapicRegister;

/** Vector at which host processors take notifications for vCPUs that run; Linux's number, as the next. */
export const NOTIFICATION_VECTOR = 0xf2;
/** Vector at which host processors take notifications for vCPUs that wait. */
export const WAKEUP_VECTOR = 0xf1;

/** What acceleration sets in the secondary controls. */
const ACCELERATED: number = Secondary.APIC_REGISTERS | Secondary.VIRTUAL_INTERRUPTS;
const OWN: number = ACCELERATED | Secondary.VIRTUALIZE_APIC_ACCESSES;

/** What a vCPU asks of the VM's APICv. */
export interface ApicvBoard {
  /** The hypervisor. */
  readonly vmx: Vmx;
  /** Whether IPIs are virtualized where APICv is active. */
  readonly ipis: boolean;
  /** Whether activation sets SVI from ISR. */
  readonly servicingFromIsr: boolean;
  /** x2APIC MSRs that pass. */
  readonly passedReads: readonly number[];
  readonly passedWrites: readonly number[];
  /** Sets the vectors whose ends somebody waits for. */
  levelVectors(vcpu: Vcpu, vectors: Uint32Array): void;
}

/** One vCPU. */
export class ApicvVcpu {
  /** The vCPU. */
  readonly vcpu: Vcpu;
  /** Its local APIC. */
  readonly lapic: Lapic;
  /** Its descriptor. */
  readonly descriptor: PostedInterruptDescriptor;
  /** The EOI-exit bitmap. */
  readonly eois: EoiExitBitmap = new EoiExitBitmap();
  readonly #guest: VmxGuest;
  readonly #board: ApicvBoard;
  /** Software has changed ISR, or SVI has never been written. */
  #servicingStale = true;
  /** The host processor whose wake-up vector is to wake it, −1 if none. */
  #wakesOn = -1;
  readonly #sources: (vectors: Uint32Array) => void;

  constructor(
    lapic: Lapic,
    guest: VmxGuest,
    descriptor: PostedInterruptDescriptor,
    board: ApicvBoard,
  ) {
    this.vcpu = lapic.vcpu;
    this.lapic = lapic;
    this.descriptor = descriptor;
    this.#guest = guest;
    this.#board = board;
    this.#sources = (vectors) => board.levelVectors(this.vcpu, vectors);
  }

  /** Writes what never changes (KVM's `init_vmcs`). Between entries only. */
  initializeVmcs(accessPage: number): void {
    const { vmcs } = this.#guest;
    vmcs.set32(Vmcs.POSTED_INTERRUPT_VECTOR, NOTIFICATION_VECTOR);
    vmcs.setAddress(Vmcs.POSTED_INTERRUPT_DESCRIPTOR, this.descriptor.hpa);
    vmcs.set32(Vmcs.GUEST_INTERRUPT_STATUS, 0);
    for (let k = 0; k < 4; k++) vmcs.setHalves(Vmcs.EOI_EXIT_BITMAP0 + 2 * k, 0, 0);
    if (this.#board.vmx.capabilities.apicAccesses) {
      vmcs.setAddress(Vmcs.APIC_ACCESS_ADDRESS, accessPage);
    }
  }

  /** Makes the controls what `active` asks for (KVM's `vmx_refresh_apicv_exec_ctrl`). */
  refresh(active: boolean): void {
    const board = this.#board;
    const { apic } = this.#guest;
    const { mode } = this.lapic;
    const page = mode === LapicMode.XAPIC && board.vmx.capabilities.apicAccesses;
    const own = !active ? 0 : page ? OWN : ACCELERATED;
    apic.secondary = (apic.secondary & ~OWN) | own;
    apic.postedInterrupts = active;
    apic.ipis = active && board.ipis;
    this.passMsrs(active);
    if (!active) {
      // What hardware would have delivered is for software now.
      this.vcpu.request(eventRequest);
      return;
    }
    this.eois.invalidate();
    // The guest may have had something else at the page's place.
    if (page) this.#guest.flush = true;
  }

  /** APICv has gone on for a vCPU that ran without it, or the local APIC is another one. */
  activated(): void {
    if (this.#board.servicingFromIsr) this.#servicingStale = true;
  }

  /** Lets x2APIC MSRs pass as the policies say, or what passes without APICv. */
  passMsrs(active: boolean): void {
    const { passedReads, passedWrites, vmx } = this.#board;
    const x2apic = this.lapic.mode === LapicMode.X2APIC && vmx.capabilities.x2apic;
    if (active && x2apic) this.#guest.passX2apic(passedReads, passedWrites);
    else this.#guest.passX2apic();
  }

  /** Software has ended an interrupt. */
  ended(): void {
    if (this.vcpu.accelerated) this.#servicingStale = true;
  }

  /** The local APIC was reset. */
  reset(): void {
    this.descriptor.clear();
    this.#servicingStale = true;
  }

  // Requests

  /** Posts a request (KVM's `vmx_deliver_posted_interrupt`). */
  post(vector: number): void {
    const { descriptor, vcpu } = this;
    if (this.lapic.registers.hasVector(R.TMR, vector)) this.eois.arrived(vector);
    if (descriptor.request(vector) || descriptor.outstanding) return;
    descriptor.outstanding = true;
    const { vmx } = this.#board;
    if (vmx.inGuest(vcpu)) vmx.interrupt(vcpu.pcpu, NOTIFICATION_VECTOR);
    else vcpu.request(eventRequest);
  }

  /** Puts what is posted into IRR. What comes while notifications are suppressed does not set ON. */
  collect(): void {
    const { descriptor } = this;
    const wanted = descriptor.outstanding || (descriptor.suppressed && !descriptor.empty);
    if (wanted) descriptor.collect(this.lapic.registers);
  }

  /**
   * Before an entry: what was posted while the guest did not run is put into IRR (KVM's
   * `vmx_sync_pir_to_irr`), and RVI and SVI are made right. A notification that waits at the processor
   * came while the guest was on it: that is hardware's work.
   */
  beforeEnter(): void {
    const { vcpu, lapic, descriptor } = this;
    if (!vcpu.accelerated) return;
    const { vmx } = this.#board;
    const { vmcs } = this.#guest;
    if (descriptor.outstanding && !vmx.interruptWaits(vcpu.pcpu, NOTIFICATION_VECTOR)) {
      descriptor.collect(lapic.registers);
    }
    this.eois.update(vmcs, lapic, descriptor, this.#sources);
    const status = vmcs.get32(Vmcs.GUEST_INTERRUPT_STATUS) & 0xffff;
    const requesting = Math.max(0, lapic.registers.highest(R.IRR));
    const servicing = this.#servicingStale ? Math.max(0, lapic.highestIsr) : status >> 8;
    this.#servicingStale = false;
    const wanted = (servicing << 8) | requesting;
    if (wanted !== status) vmcs.set32(Vmcs.GUEST_INTERRUPT_STATUS, wanted);
  }

  // Scheduling

  /** It is placed on host processor `pcpu` (KVM's `vmx_vcpu_pi_load`). */
  load(pcpu: number): void {
    const { descriptor, vcpu } = this;
    this.#wakesOn = -1;
    descriptor.vector = NOTIFICATION_VECTOR;
    descriptor.destination = this.#board.vmx.hostId(pcpu);
    descriptor.suppressed = false;
    // What came while notifications were suppressed has not set ON.
    if (!descriptor.empty) descriptor.outstanding = true;
    if (descriptor.outstanding && !vcpu.accelerated) vcpu.request(eventRequest);
  }

  /**
   * It leaves its host processor (KVM's `vmx_vcpu_pi_put`): to wait, or to make place for another. Then it
   * needs no notification, for it looks when it comes back.
   */
  put(blocking: boolean): void {
    if (blocking) this.wait(this.vcpu.pcpu);
    else this.descriptor.suppressed = true;
  }

  /** It waits: if it could be interrupted, notifications to host processor `pcpu` wake it. */
  wait(pcpu: number): void {
    const { descriptor, vcpu } = this;
    if (!vcpu.vm.vendor.current.interruptAllowed(vcpu)) return;
    const { vmx } = this.#board;
    this.#wakesOn = pcpu;
    descriptor.vector = WAKEUP_VECTOR;
    descriptor.destination = vmx.hostId(pcpu);
    descriptor.suppressed = false;
    // One that was posted before went to the other vector.
    if (descriptor.outstanding) vmx.interrupt(pcpu, WAKEUP_VECTOR);
  }

  /** Host processor `pcpu` took the wake-up vector (KVM's `pi_wakeup_handler`). */
  wake(pcpu: number): void {
    if (this.#wakesOn === pcpu && this.descriptor.outstanding) this.vcpu.request(eventRequest);
  }

  /** Host processor `pcpu` took a notification outside of a guest that processes them. */
  notified(pcpu: number): void {
    const { vcpu } = this;
    if (vcpu.pcpu === pcpu && !vcpu.accelerated) vcpu.request(eventRequest);
  }
}
