/**
 * APICv for a VM: the vCPUs, and when acceleration goes on and off.
 *
 * @module
 */
import {
  type HostMemory,
  type LeaveReason,
  MpState,
  type PluginContext,
  type PointOf,
  type Vcpu,
} from "../../../core/mod.ts";
import {
  ApicAccessPage,
  type ApicBus,
  type AssignedRoutes,
  type LapicChange,
  LapicMode,
  levelVectorsHook,
} from "../../lapic/mod.ts";
import type { Vmx } from "../mod.ts";
import { type ApicvBoard, ApicvVcpu, NOTIFICATION_VECTOR } from "./apicv_vcpu.ts";
import { PostedInterruptDescriptor } from "./descriptor.ts";
import type { ApicvExits } from "./exits.ts";
import { APICV_INHIBITS } from "./inhibits.ts";
import type { PolicyRefs } from "./policy/refs.ts";

/** What APICv of a VM is made of. */
export interface ApicvParts {
  readonly ctx: PluginContext;
  readonly memory: HostMemory;
  readonly vmx: Vmx;
  readonly bus: ApicBus;
  readonly policies: PolicyRefs;
  readonly exits: ApicvExits;
  /** Interrupts of assigned devices, if the host remaps them. */
  readonly routes: AssignedRoutes<ApicvVcpu> | undefined;
}

/** APICv of one VM. */
export class ApicvVm implements ApicvBoard {
  passedReads: readonly number[] = [];
  passedWrites: readonly number[] = [];
  readonly #parts: ApicvParts;
  readonly #vcpus: (ApicvVcpu | undefined)[] = [];
  readonly #accessPage: ApicAccessPage;
  readonly #levelVectors: PointOf<typeof levelVectorsHook>;
  #ipis: boolean;

  constructor(parts: ApicvParts, ipis: boolean) {
    this.#parts = parts;
    this.#ipis = ipis;
    this.#accessPage = new ApicAccessPage(parts.memory, (gpa) => parts.vmx.dropPrivatePage(gpa));
    this.#levelVectors = parts.ctx.vm.hooks.point(levelVectorsHook);
  }

  /** A vCPU's part. */
  of(vcpu: Vcpu): ApicvVcpu | undefined {
    return this.#vcpus[vcpu.index];
  }

  // What vCPUs ask

  get vmx(): Vmx {
    return this.#parts.vmx;
  }

  get ipis(): boolean {
    return this.#ipis;
  }

  set ipis(on: boolean) {
    if (on === this.#ipis) return;
    this.#ipis = on;
    this.msrPoliciesChanged();
    for (const one of this.#vcpus) if (one?.vcpu.accelerated) one.refresh(true);
  }

  get servicingFromIsr(): boolean {
    return this.#parts.policies.servicing.current.fromIsr;
  }

  levelVectors(vcpu: Vcpu, vectors: Uint32Array): void {
    this.#levelVectors.call(vcpu, vectors);
  }

  // vCPUs

  /**
   * A vCPU was made, or was there before the plugin (`existing`), which then does not take its state
   * over: the core asks for a refresh.
   */
  create(vcpu: Vcpu, existing: boolean): void {
    const { bus, vmx, memory } = this.#parts;
    const descriptor = new PostedInterruptDescriptor(memory, NOTIFICATION_VECTOR);
    const one = new ApicvVcpu(bus.of(vcpu), vmx.of(vcpu), descriptor, this);
    this.#vcpus[vcpu.index] = one;
    one.initializeVmcs(this.#accessPage.hpa);
    this.#readMsrPolicies(one);
    this.#parts.routes?.reroute();
    if (existing) {
      if (vcpu.pcpu >= 0) one.load(vcpu.pcpu);
      else if (vcpu.mpState === MpState.HALTED) one.wait(0);
      return;
    }
    vcpu.accelerated = !this.#minded(undefined) && !this.#minded(vcpu);
    if (vcpu.accelerated) one.refresh(true);
  }

  /** Whether a reason holds for the VM alone or for a vCPU alone. */
  #minded(vcpu: Vcpu | undefined): boolean {
    const { vm } = this.#parts.ctx;
    return vm.inhibits.reasons(vcpu).some((reason) => APICV_INHIBITS.includes(reason));
  }

  /** See `InterruptAccelerator.refresh`. */
  refresh(vcpu: Vcpu, active: boolean): void {
    const one = this.of(vcpu);
    if (active) one?.activated();
    one?.refresh(active);
  }

  /**
   * Whether a vCPU is accelerated has been worked out, with or without a change. If it is not, its
   * accesses to its registers are to be emulated from now on.
   */
  refreshed(vcpu: Vcpu): void {
    if (!vcpu.accelerated) this.#accessPage.drop();
  }

  /** A vCPU is placed on a host processor. */
  load(vcpu: Vcpu, pcpu: number): void {
    this.of(vcpu)?.load(pcpu);
  }

  /** A vCPU leaves its host processor. */
  put(vcpu: Vcpu): void {
    this.of(vcpu)?.put(vcpu.mpState === MpState.HALTED);
  }

  /** Delivers a fixed interrupt. */
  deliver(vcpu: Vcpu, vector: number): boolean {
    if (!vcpu.accelerated) return false;
    const one = this.of(vcpu);
    one?.post(vector);
    return one !== undefined;
  }

  /** Mode or IDs of a local APIC changed, or all of it. */
  lapicChanged(vcpu: Vcpu, change: LapicChange): void {
    const one = this.of(vcpu);
    if (one === undefined) return;
    if (change === "reset") one.reset();
    if ((change === "reset" || change === "mode") && vcpu.accelerated) one.refresh(true);
    this.levelVectorsChanged();
    this.#parts.routes?.reroute();
  }

  /** Others send level-triggered interrupts now, or to others. */
  levelVectorsChanged(): void {
    for (const one of this.#vcpus) one?.eois.invalidate();
  }

  /** Software has ended an interrupt, or hardware has and software announces it. */
  ended(vcpu: Vcpu): void {
    if (!this.#parts.exits.ending) this.of(vcpu)?.ended();
  }

  /** Host processor `pcpu` took the wake-up vector. */
  wake(pcpu: number): void {
    for (const one of this.#vcpus) one?.wake(pcpu);
  }

  /** Host processor `pcpu` took a notification outside of a guest that processes them. */
  notified(pcpu: number): void {
    for (const one of this.#vcpus) one?.notified(pcpu);
  }

  /** The page to map where the guest has the registers of xAPIC mode. */
  privatePage(gpa: number): number | undefined {
    return this.#accessPage.answer(gpa, () => {
      if (!this.vmx.capabilities.apicAccesses || this.#minded(undefined)) return false;
      return !this.#vcpus.some((one) =>
        one?.lapic.mode === LapicMode.XAPIC && this.#minded(one.vcpu)
      );
    });
  }

  // Policies

  #readMsrPolicies({ lapic: { features } }: ApicvVcpu): void {
    const { x2apicReads, x2apicWrites } = this.#parts.policies;
    this.passedReads = x2apicReads.current.msrs(features, this.#ipis);
    this.passedWrites = x2apicWrites.current.msrs(features, this.#ipis);
  }

  /** The policies on x2APIC MSRs have changed. */
  msrPoliciesChanged(): void {
    for (const one of this.#vcpus) {
      if (one === undefined) continue;
      this.#readMsrPolicies(one);
      if (one.vcpu.accelerated) one.passMsrs(true);
    }
  }

  /** Gives the memory back, and leaves nothing of APICv with vCPUs that go on. */
  free(reason: LeaveReason): void {
    if (reason !== "close") this.#accessPage.drop();
    for (const one of this.#vcpus) {
      if (one === undefined) continue;
      one.collect();
      if (reason !== "close") one.refresh(false);
      one.descriptor.free();
    }
    this.#accessPage.free();
  }
}
