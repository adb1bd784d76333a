/**
 * AVIC for a VM: the tables, the vCPUs, and when acceleration goes on and off.
 *
 * @module
 */
import {
  CpuidResult,
  cpuidSlot,
  eventRequest,
  type HostMemory,
  type InhibitReason,
  type LeaveReason,
  MpState,
  type PluginContext,
  type Registration,
  type Vcpu,
  type Vm,
} from "../../../core/mod.ts";
import { type Processors, SvmFeature, SvmFeature2 } from "../../cpu/mod.ts";
import {
  ApicAccessPage,
  type ApicBus,
  type Lapic,
  type LapicChange,
  LapicMode,
} from "../../lapic/mod.ts";
import type { Svm } from "../mod.ts";
import { type AvicBoard, AvicVcpu } from "./avic_vcpu.ts";
import { AVIC_INHIBITS, AvicInhibit } from "./inhibits.ts";
import type { PolicyRefs } from "./policy/refs.ts";
import type { PostedInterrupts } from "./posted.ts";
import {
  type AvicCapabilities,
  X2AVIC_EXTENDED_MAX_ID,
  X2AVIC_MAX_ID,
  XAVIC_MAX_ID,
} from "./policy/limits.ts";
import { LogicalIdTable, PhysicalIdTable } from "./tables.ts";

/** What AVIC of a VM is made of. */
export interface AvicParts {
  readonly ctx: PluginContext;
  readonly memory: HostMemory;
  readonly processors: Processors;
  readonly svm: Svm;
  readonly bus: ApicBus;
  readonly policies: PolicyRefs;
  readonly capabilities: AvicCapabilities;
  /** How many vCPU ids the VM can have. */
  readonly vcpuIds: number;
  /** Who posts interrupts of devices, if there is an IOMMU. */
  posted(): PostedInterrupts | undefined;
}

/** AVIC of one VM. */
export class Avic implements AvicBoard {
  readonly physical: PhysicalIdTable;
  readonly logical: LogicalIdTable;
  passedReads: readonly number[] = [];
  passedWrites: readonly number[] = [];
  readonly #parts: AvicParts;
  readonly #vm: Vm;
  readonly #vcpus: (AvicVcpu | undefined)[] = [];
  /** The inhibits of vCPUs that wait for an interrupt window. */
  readonly #windows: Map<Vcpu, Registration> = new Map();
  /** Those of vCPUs whose guest has its GIF clear. */
  readonly #closed: Map<Vcpu, Registration> = new Map();
  readonly #hostIds: number[] = [];
  readonly #accessPage: ApicAccessPage;
  #accessPageInhibited = false;
  #tooBig = false;

  constructor(parts: AvicParts) {
    const { memory, capabilities } = parts;
    this.#parts = parts;
    this.#vm = parts.ctx.vm;
    const { x2avic, x2avicExtended } = capabilities;
    const maxId = !x2avic ? XAVIC_MAX_ID : x2avicExtended ? X2AVIC_EXTENDED_MAX_ID : X2AVIC_MAX_ID;
    this.physical = new PhysicalIdTable(memory, maxId);
    this.logical = new LogicalIdTable(memory);
    this.#accessPage = new ApicAccessPage(memory, (gpa) => parts.svm.dropPrivatePage(gpa));
  }

  /** A vCPU's part. */
  of(vcpu: Vcpu): AvicVcpu | undefined {
    return this.#vcpus[vcpu.index];
  }

  // What vCPUs ask

  get x2avic(): boolean {
    return this.#parts.capabilities.x2avic;
  }

  get ipiVirtualization(): boolean {
    const { policies, capabilities } = this.#parts;
    return policies.ipiVirtualization.current.enabled(capabilities);
  }

  maxIndex(x2avic: boolean): number {
    const { policies, vcpuIds } = this.#parts;
    const limit = x2avic ? this.#x2avicLimit : XAVIC_MAX_ID;
    return policies.maxIndex.current.maxIndex(limit, vcpuIds);
  }

  flushes(x2avic: boolean): boolean {
    return this.#parts.policies.activationFlush.current.flushes(x2avic);
  }

  hostId(pcpu: number): number {
    return this.#hostIds[pcpu] ??= this.#parts.processors.get(pcpu).apicId;
  }

  moved(one: AvicVcpu): void {
    this.#parts.posted()?.routes.moved(one);
  }

  get #x2avicLimit(): number {
    const { policies, capabilities } = this.#parts;
    return Math.min(policies.x2avicLimit.current.maxId(capabilities), this.physical.maxId);
  }

  /** The highest id that a vCPU can have with AVIC. */
  get limit(): number {
    return this.x2avic ? this.#x2avicLimit : XAVIC_MAX_ID;
  }

  // vCPUs

  /**
   * A vCPU was made, or was there before the plugin (`existing`), which then does not take its state
   * over: the core asks for a refresh.
   */
  create(vcpu: Vcpu, existing: boolean): void {
    const { bus, svm, policies } = this.#parts;
    const one = new AvicVcpu(bus.of(vcpu), svm.of(vcpu), this);
    this.#readMsrPolicies(one.lapic);
    this.#setPriorityPolicies(vcpu);
    const inhibited = this.inhibited || this.#minded(vcpu);
    let accelerated = false;
    policies.vcpuId.current.create({
      id: vcpu.id,
      limit: this.limit,
      permitted: !inhibited,
      get accelerated() {
        return accelerated;
      },
      set accelerated(value) {
        accelerated = value;
      },
      initialize: () => one.list(),
      inhibit: () => this.#inhibitTooBig(),
    });
    this.#vcpus[vcpu.index] = one;
    if (one.listed && policies.vmcbInit.current.initializes(inhibited)) one.initializeVmcb();
    if (!existing) {
      vcpu.accelerated = accelerated;
      if (accelerated) one.refresh(true);
    }
    this.#parts.posted()?.routes.reroute();
  }

  #inhibitTooBig(): void {
    if (this.#tooBig) return;
    this.#tooBig = true;
    this.#parts.ctx.inhibit(AvicInhibit.PHYSICAL_ID_TOO_BIG);
  }

  /** Whether a reason holds that inhibits AVIC for the whole VM. */
  get inhibited(): boolean {
    return this.#minded(undefined);
  }

  /** Whether a reason holds for the VM alone or for a vCPU alone. */
  #minded(vcpu: Vcpu | undefined): boolean {
    return this.#vm.inhibits.reasons(vcpu).some((reason) => AVIC_INHIBITS.includes(reason));
  }

  /** See `InterruptAccelerator.refresh`. */
  refresh(vcpu: Vcpu, active: boolean): void {
    this.of(vcpu)?.refresh(active);
  }

  /**
   * Whether a vCPU is accelerated has been worked out, with or without a change. If it is not, its
   * accesses to its registers are to be emulated from now on: also when it was not before, and the page
   * was mapped for others in between.
   */
  refreshed(vcpu: Vcpu): void {
    if (!vcpu.accelerated) this.#accessPage.drop();
  }

  /** A vCPU is placed on a host processor. */
  load(vcpu: Vcpu, pcpu: number): void {
    if (vcpu.accelerated) this.of(vcpu)?.load(pcpu);
  }

  /** A vCPU leaves its host processor. */
  put(vcpu: Vcpu): void {
    this.of(vcpu)?.put(vcpu.mpState === MpState.HALTED);
  }

  /**
   * Delivers a fixed interrupt: hardware finds it in IRR. While this runs no guest is executing, as
   * host processors take turns, and VMRUN looks at IRR; so nobody needs a doorbell, and one that waits
   * is told to look.
   */
  deliver(vcpu: Vcpu, vector: number): boolean {
    if (!vcpu.accelerated) return false;
    this.#parts.bus.of(vcpu).setIrr(vector);
    vcpu.request(eventRequest);
    return true;
  }

  /** Mode or IDs of a local APIC changed. */
  lapicChanged(vcpu: Vcpu, change: LapicChange): void {
    const one = this.of(vcpu);
    if (one === undefined) return;
    this.#parts.posted()?.routes.reroute();
    switch (change) {
      case "mode":
      case "reset":
        this.#modeChanged(one, one.lapic);
        break;
      case "ldr":
      case "dfr":
        if (vcpu.accelerated) one.updateLogical();
        break;
    }
  }

  #modeChanged(one: AvicVcpu, lapic: Lapic): void {
    // Without x2AVIC hardware does not know that the registers are not in memory any more, and would
    // let the guest at the page.
    if (!this.x2avic && lapic.mode === LapicMode.X2APIC && !this.#accessPageInhibited) {
      this.#accessPageInhibited = true;
      this.#accessPage.drop();
    }
    if (one.vcpu.accelerated) one.refresh(true);
  }

  // The APIC's page in the guest's memory

  /**
   * The page to map where the guest has the registers of xAPIC mode: hardware redirects accesses. The
   * nested tables are those of all vCPUs, so it is not there while one has to be emulated.
   */
  privatePage(gpa: number): number | undefined {
    return this.#accessPage.answer(gpa, () => {
      if (this.#accessPageInhibited || this.inhibited) return false;
      return !this.#vcpus.some((one) =>
        one?.lapic.mode === LapicMode.XAPIC && this.#minded(one.vcpu)
      );
    });
  }

  // Interrupt windows

  /** A vCPU waits for an interrupt window, or does not any more. */
  interruptWindow(vcpu: Vcpu, wanted: boolean): void {
    this.#hold(this.#windows, vcpu, wanted ? AvicInhibit.IRQWIN : undefined);
  }

  /** The guest's own GIF, which software keeps, was set or cleared. */
  emulatedGif(vcpu: Vcpu, set: boolean): void {
    this.#hold(this.#closed, vcpu, set ? undefined : AvicInhibit.NESTED, vcpu);
  }

  /** Sets a reason on behalf of a vCPU, or clears the one that was set. */
  #hold(
    held: Map<Vcpu, Registration>,
    owner: Vcpu,
    reason: InhibitReason | undefined,
    vcpu?: Vcpu,
  ): void {
    const registration = held.get(owner);
    if (reason === undefined) {
      registration?.remove();
      held.delete(owner);
    } else if (registration === undefined) {
      held.set(owner, this.#parts.ctx.inhibit(reason, vcpu));
    }
  }

  // Policies

  /** The policies on x2APIC MSRs, as they are now. */
  #readMsrPolicies(lapic: Lapic): void {
    const { x2apicReads, x2apicWrites } = this.#parts.policies;
    this.passedReads = x2apicReads.current.msrs(lapic.features);
    this.passedWrites = x2apicWrites.current.msrs(lapic.features);
  }

  /** The policies on x2APIC MSRs have changed. */
  msrPoliciesChanged(): void {
    for (const one of this.#vcpus) {
      if (one === undefined) continue;
      this.#readMsrPolicies(one.lapic);
      one.repassMsrs();
    }
  }

  /** The policies on the task priority have changed. */
  priorityPolicyChanged(): void {
    for (const one of this.#vcpus) if (one !== undefined) this.#setPriorityPolicies(one.vcpu);
  }

  #setPriorityPolicies(vcpu: Vcpu): void {
    const { svm, policies } = this.#parts;
    const { taskPriority } = svm.of(vcpu);
    taskPriority.syncs = policies.taskPrioritySync.current.whileActive;
    taskPriority.keepsIntercept = !policies.cr8Intercept.current.follows;
  }

  /** The policy on IPI virtualization has changed. */
  ipiPolicyChanged(): void {
    for (const one of this.#vcpus) one?.writeEntry();
  }

  /** A policy on what activation does has changed: it is done again where AVIC is active. */
  activationPolicyChanged(): void {
    for (const one of this.#vcpus) if (one?.vcpu.accelerated) one.refresh(true);
  }

  /** Gives the memory back, and leaves nothing of AVIC with vCPUs that go on. */
  free(reason: LeaveReason): void {
    if (reason === "unload") {
      for (const vcpu of this.#vm.vcpus) {
        const { taskPriority } = this.#parts.svm.of(vcpu);
        taskPriority.syncs = true;
        taskPriority.keepsIntercept = false;
      }
    }
    if (reason !== "close") this.#accessPage.drop();
    this.physical.free();
    this.logical.free();
    this.#accessPage.free();
  }
}

/** Family in CPUID 1 EAX: base and, if that is 15, extended family (APM vol. 3, appendix E.3.2). */
function familyOf(signature: number): number {
  const base = (signature >>> 8) & 0xf;
  return base === 0xf ? base + ((signature >>> 20) & 0xff) : base;
}

/** What the processors have, whatever guests are shown. */
export function readCapabilities(vm: Vm, vcpu: Vcpu): AvicCapabilities {
  const { current } = vm.slots.ref(cpuidSlot);
  const read = (leaf: number): CpuidResult => {
    const result = new CpuidResult();
    result.leaf = leaf;
    current.read(result, vcpu);
    return result;
  };
  const { ecx, edx } = read(0x8000_000a);
  const has = (bit: number): boolean => (edx & bit) !== 0;
  const avic = has(SvmFeature.AVIC);
  const x2avic = avic && has(SvmFeature.X2AVIC);
  return {
    avic,
    x2avic,
    x2avicExtended: x2avic && (ecx & SvmFeature2.X2AVIC_EXT) !== 0,
    extendedLvt: has(SvmFeature.EXTLVT_AVIC_ACCESS),
    family: familyOf(read(1).eax),
  };
}
