/**
 * Interrupts of devices that are assigned to the guest: posted into the target's APIC page by an IOMMU
 * while AVIC is active for it, sent by software otherwise (KVM's `avic_pi_update_irte`).
 *
 * @module
 */
import {
  ArgumentError,
  defineSlot,
  eventRequest,
  type HostMemory,
  PAGE_SIZE,
  type Slot,
  type Vcpu,
  type Vm,
} from "../../../core/mod.ts";
import {
  GA_LOG_BYTES,
  guestEntry,
  type Iommu,
  IRTE_BYTES,
  remappedEntry,
} from "../../iommu/mod.ts";
import { type ApicBus, ApicMessage, MessageType } from "../../lapic/mod.ts";
import type { AvicVcpu } from "./avic_vcpu.ts";

/** An interrupt of a device, and the message that the guest gave the device for it. */
export interface AssignedInterrupt {
  /** Bus, device and function: 16 bits. */
  readonly deviceId: number;
  /** Which of the device's interrupts, 0 to 255. */
  readonly index: number;
  /** Address of the guest's message. */
  readonly address: number;
  /** Data of the guest's message, 32 bits. */
  readonly data: number;
}

/** Interrupts of assigned devices. */
export interface AssignedInterrupts {
  /**
   * Assigns an interrupt to the guest, or gives it another message.
   *
   * @throws {ArgumentError} If the index is out of range.
   */
  assign(interrupt: AssignedInterrupt): void;
  /** Takes an interrupt back: the IOMMU drops it from now on. */
  release(deviceId: number, index: number): void;
  /** Whether an interrupt is posted now: no software has a part in it. */
  posted(deviceId: number, index: number): boolean;
}

/** Interrupts of assigned devices; provided by `avic` where there is an IOMMU. */
export const assignedInterruptsSlot: Slot<AssignedInterrupts | undefined> = defineSlot(
  "assigned-interrupts",
);

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

interface Row {
  interrupt: AssignedInterrupt;
  /** The only vCPU that it is for, if there is just one. */
  target: AvicVcpu | undefined;
  posted: boolean;
}

/** Programs an IOMMU for one VM. */
export class PostedInterrupts implements AssignedInterrupts {
  readonly #vm: Vm;
  readonly #memory: HostMemory;
  readonly #iommu: Iommu;
  readonly #bus: ApicBus;
  readonly #of: (vcpu: Vcpu) => AvicVcpu | undefined;
  /** Host APIC ID of the first processor, which takes what is not posted. */
  readonly #hostId: () => number;
  readonly #log: number;
  readonly #tables: Map<number, number> = new Map();
  readonly #rows: Map<number, Row> = new Map();
  readonly #state: AssignedInterrupt[];
  readonly #message: ApicMessage = new ApicMessage();

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
    this.#bus = bus;
    this.#of = of;
    this.#hostId = hostId;
    this.#log = memory.alloc(PAGE_SIZE);
    this.#state = state;
    iommu.setLog(this.#log, LOG_ENTRIES);
    // What another log had is not read any more: those that wait are to look for themselves.
    if (state.length > 0) vm.requestAll(eventRequest);
    for (const interrupt of state) this.#add(interrupt);
  }

  /** See {@linkcode AssignedInterrupts}. */
  assign(interrupt: AssignedInterrupt): void {
    const { deviceId, index } = interrupt;
    if (!Number.isInteger(index) || index < 0 || index >= TABLE_ENTRIES) {
      throw new ArgumentError(`interrupt ${index} of a device is not one of 0 to 255`);
    }
    this.#forget(deviceId, index);
    this.#state.push(interrupt);
    this.#add(interrupt);
  }

  #forget(deviceId: number, index: number): boolean {
    const { interrupt } = this.#rows.get(keyOf(deviceId, index)) ?? {};
    if (interrupt === undefined) return false;
    this.#rows.delete(keyOf(deviceId, index));
    this.#state.splice(this.#state.indexOf(interrupt), 1);
    return true;
  }

  #add(interrupt: AssignedInterrupt): void {
    const { deviceId, index } = interrupt;
    if (!this.#tables.has(deviceId)) {
      const table = this.#memory.alloc(PAGE_SIZE);
      this.#tables.set(deviceId, table);
      this.#iommu.setTable(deviceId, table, TABLE_ENTRIES);
    }
    const row: Row = { interrupt, target: undefined, posted: false };
    this.#rows.set(keyOf(deviceId, index), row);
    this.#route(row);
  }

  /** See {@linkcode AssignedInterrupts}. */
  release(deviceId: number, index: number): void {
    if (this.#forget(deviceId, index)) this.#write(deviceId, index, [0, 0, 0, 0]);
  }

  /** See {@linkcode AssignedInterrupts}. */
  posted(deviceId: number, index: number): boolean {
    return this.#rows.get(keyOf(deviceId, index))?.posted ?? false;
  }

  /** Looks for the target of an interrupt, and writes its entry. */
  #route(row: Row): void {
    const message = this.#message;
    message.setMsi(row.interrupt.address, row.interrupt.data);
    row.target = undefined;
    const fixed = message.type === MessageType.FIXED || message.type === MessageType.LOWEST;
    // The log and a posted interrupt are for one vCPU, and AVIC's interrupts are edge-triggered.
    if (fixed && !message.level) {
      const matching = this.#vm.vcpus.filter((vcpu) =>
        this.#bus.matches(this.#bus.of(vcpu), message)
      );
      if (matching.length === 1) row.target = this.#of(matching[0]!);
    }
    this.#program(row);
  }

  #program(row: Row): void {
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
    const table = this.#tables.get(deviceId);
    if (table === undefined) return;
    const at = table + IRTE_BYTES * index;
    for (let k = 0; k < 4; k++) this.#memory.writeU32(at + 4 * k, words[k]!);
  }

  /** AVIC went on or off for a vCPU, or it was placed on a processor or left it. */
  moved(one: AvicVcpu): void {
    for (const row of this.#rows.values()) if (row.target === one) this.#program(row);
  }

  /** IDs of local APICs have changed, or there is another vCPU: interrupts may have other targets. */
  reroute(): void {
    for (const row of this.#rows.values()) this.#route(row);
  }

  /** The host takes an interrupt that is not posted: the guest's message is sent in software. */
  remapped(deviceId: number, index: number): void {
    const row = this.#rows.get(keyOf(deviceId, index));
    if (row !== undefined) this.#vm.sendMsi(row.interrupt.address, row.interrupt.data);
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

const keyOf = (deviceId: number, index: number): number => deviceId * TABLE_ENTRIES + index;
