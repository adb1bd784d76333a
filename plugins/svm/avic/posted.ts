/**
 * Interrupts of devices that are assigned to the guest: posted into the target's APIC page by an IOMMU
 * while AVIC is active for it, sent by software otherwise (KVM's `avic_pi_update_irte`).
 *
 * @module
 */
import { eventRequest, type HostMemory, PAGE_SIZE, type Vcpu, type Vm } from "../../../core/mod.ts";
import {
  GA_LOG_BYTES,
  guestEntry,
  type Iommu,
  IRTE_BYTES,
  remappedEntry,
} from "../../iommu/mod.ts";
import {
  type ApicBus,
  type AssignedInterrupt,
  type AssignedProgrammer,
  AssignedRoutes,
  type AssignedRow,
} from "../../lapic/mod.ts";
import type { AvicVcpu } from "./avic_vcpu.ts";

/** Entries of a device's table, and of the log: a page each. */
const TABLE_ENTRIES = PAGE_SIZE / IRTE_BYTES;
const LOG_ENTRIES = PAGE_SIZE / GA_LOG_BYTES;

/** Vector at which the host takes interrupts that it passes on. */
const HOST_VECTOR = 0x30;

/**
 * What the log tells: the VM in 31:12, of which this host has one, and the index of the vCPU, as KVM's
 * AVIC_GATAG.
 */
const VM_TAG = 1 << 12;
const INDEX_MASK = 0xfff;

/** Programs an IOMMU for one VM. */
export class PostedInterrupts implements AssignedProgrammer<AvicVcpu> {
  /** The interrupts. */
  readonly routes: AssignedRoutes<AvicVcpu>;
  readonly #vm: Vm;
  readonly #memory: HostMemory;
  readonly #iommu: Iommu;
  readonly #of: (vcpu: Vcpu) => AvicVcpu | undefined;
  /** Host APIC ID of the first processor, which takes what is not posted. */
  readonly #hostId: () => number;
  readonly #log: number;
  readonly #tables: Map<number, number> = new Map();

  /** `state` is what is assigned; it is kept up to date. */
  constructor(
    vm: Vm,
    memory: HostMemory,
    iommu: Iommu,
    bus: ApicBus,
    of: (vcpu: Vcpu) => AvicVcpu | undefined,
    hostId: () => number,
    state: AssignedInterrupt[],
  ) {
    this.#vm = vm;
    this.#memory = memory;
    this.#iommu = iommu;
    this.#of = of;
    this.#hostId = hostId;
    this.#log = memory.alloc(PAGE_SIZE);
    iommu.setLog(this.#log, LOG_ENTRIES);
    // What another log had is not read any more: those that wait are to look for themselves.
    if (state.length > 0) vm.requestAll(eventRequest);
    this.routes = new AssignedRoutes(vm, bus, this, state);
  }

  /** See `AssignedProgrammer`. */
  target(vcpu: Vcpu): AvicVcpu | undefined {
    return this.#of(vcpu);
  }

  /** See `AssignedProgrammer`: a device counts its interrupts by itself. */
  handle({ index }: AssignedInterrupt): number {
    return index;
  }

  /** See `AssignedProgrammer`. */
  clear({ deviceId, index }: AssignedInterrupt): void {
    this.#write(deviceId, index, [0, 0, 0, 0]);
  }

  /** See `AssignedProgrammer`. */
  program(row: AssignedRow<AvicVcpu>): void {
    const { interrupt: { deviceId, index, data }, target } = row;
    const posted = target !== undefined && target.listed && target.vcpu.accelerated;
    row.posted = posted;
    if (!posted) {
      const entry = remappedEntry({ destination: this.#hostId(), vector: HOST_VECTOR });
      this.#write(deviceId, index, entry);
      return;
    }
    this.#write(
      deviceId,
      index,
      guestEntry({
        page: target.lapic.pageHpa,
        vector: data & 0xff,
        tag: VM_TAG | target.vcpu.index,
        destination: target.running ? target.hostId : -1,
        logged: target.blocking,
      }),
    );
  }

  #write(deviceId: number, index: number, words: readonly number[]): void {
    const table = this.#table(deviceId);
    const at = table + IRTE_BYTES * index;
    for (let k = 0; k < 4; k++) this.#memory.writeU32(at + 4 * k, words[k]!);
  }

  /** A device's table, which is made when it is first asked for. */
  #table(deviceId: number): number {
    const old = this.#tables.get(deviceId);
    if (old !== undefined) return old;
    const table = this.#memory.alloc(PAGE_SIZE);
    this.#tables.set(deviceId, table);
    this.#iommu.setTable(deviceId, table, TABLE_ENTRIES);
    return table;
  }

  /** The IOMMU's own interrupt: those that the log names are to look at IRR. */
  readLog(): void {
    const iommu = this.#iommu;
    while (iommu.logHead !== iommu.logTail) {
      const tag = this.#memory.readU32(this.#log + GA_LOG_BYTES * iommu.logHead);
      iommu.logHead = (iommu.logHead + 1) % LOG_ENTRIES;
      this.#vm.vcpus[tag & INDEX_MASK]?.request(eventRequest);
    }
    if (!iommu.logOverflow) return;
    // Entries are lost: whoever waits may be meant.
    iommu.logOverflow = false;
    this.#vm.requestAll(eventRequest);
  }

  /** Gives the memory back. */
  free(): void {
    for (const [deviceId, table] of this.#tables) {
      if (this.#iommu.tableOf(deviceId) === table) this.#iommu.setTable(deviceId, undefined);
      this.#memory.free(table);
    }
    this.#memory.free(this.#log);
  }
}
