/**
 * Interrupts of devices that are assigned to the guest: which vCPU each is for, and so whether hardware can
 * post it. How it is posted is for those who program the host's interrupt remapping.
 *
 * @module
 */
import { ArgumentError, defineSlot, type Slot, type Vcpu, type Vm } from "../../core/mod.ts";
import type { ApicBus } from "./bus.ts";
import { ApicMessage, MessageType } from "./message.ts";

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
  /** Takes an interrupt back: it is dropped from now on. */
  release(deviceId: number, index: number): void;
  /** Whether an interrupt is posted now: no software has a part in it. */
  posted(deviceId: number, index: number): boolean;
  /** What names the interrupt to the host's interrupt remapping, −1 if it is not assigned. */
  handle(deviceId: number, index: number): number;
}

/** Interrupts of assigned devices; provided by accelerators where the host remaps interrupts. */
export const assignedInterruptsSlot: Slot<AssignedInterrupts | undefined> = defineSlot(
  "assigned-interrupts",
);

/** Indexes that a device can have. */
export const ASSIGNED_INDEXES = 256;

/** An interrupt and where it goes. `T` is what an accelerator has for a vCPU. */
export interface AssignedRow<T> {
  /** The interrupt. */
  readonly interrupt: AssignedInterrupt;
  /** The only vCPU that it is for, if there is just one that can be. */
  target: T | undefined;
  /** Whether it is posted. */
  posted: boolean;
}

/** Who programs the host's interrupt remapping. */
export interface AssignedProgrammer<T> {
  /** What the accelerator has for a vCPU. */
  target(vcpu: Vcpu): T | undefined;
  /** Writes an interrupt's entry, and says in it whether it is posted. */
  program(row: AssignedRow<T>): void;
  /** An interrupt is taken back. */
  clear(interrupt: AssignedInterrupt): void;
  /** What names an interrupt that is assigned. */
  handle(interrupt: AssignedInterrupt): number;
}

/** Keeps the interrupts of assigned devices of one VM. */
export class AssignedRoutes<T> implements AssignedInterrupts {
  readonly #vm: Vm;
  readonly #bus: ApicBus;
  readonly #programmer: AssignedProgrammer<T>;
  readonly #state: AssignedInterrupt[];
  readonly #rows: Map<number, AssignedRow<T>> = new Map();
  readonly #message: ApicMessage = new ApicMessage();

  /** `state` is what is assigned; it is kept up to date. */
  constructor(
    vm: Vm,
    bus: ApicBus,
    programmer: AssignedProgrammer<T>,
    state: AssignedInterrupt[],
  ) {
    this.#vm = vm;
    this.#bus = bus;
    this.#programmer = programmer;
    this.#state = state;
    for (const interrupt of state) this.#add(interrupt);
  }

  /** See {@linkcode AssignedInterrupts}. */
  assign(interrupt: AssignedInterrupt): void {
    const { deviceId, index } = interrupt;
    if (!Number.isInteger(index) || index < 0 || index >= ASSIGNED_INDEXES) {
      throw new ArgumentError(`interrupt ${index} of a device is not one of 0 to 255`);
    }
    this.#forget(deviceId, index);
    this.#state.push(interrupt);
    this.#add(interrupt);
  }

  #add(interrupt: AssignedInterrupt): void {
    const row: AssignedRow<T> = { interrupt, target: undefined, posted: false };
    this.#rows.set(keyOf(interrupt.deviceId, interrupt.index), row);
    this.#route(row);
  }

  #forget(deviceId: number, index: number): AssignedInterrupt | undefined {
    const interrupt = this.#rows.get(keyOf(deviceId, index))?.interrupt;
    if (interrupt === undefined) return undefined;
    this.#rows.delete(keyOf(deviceId, index));
    this.#state.splice(this.#state.indexOf(interrupt), 1);
    return interrupt;
  }

  /** See {@linkcode AssignedInterrupts}. */
  release(deviceId: number, index: number): void {
    const interrupt = this.#forget(deviceId, index);
    if (interrupt !== undefined) this.#programmer.clear(interrupt);
  }

  /** See {@linkcode AssignedInterrupts}. */
  posted(deviceId: number, index: number): boolean {
    return this.#rows.get(keyOf(deviceId, index))?.posted ?? false;
  }

  /** See {@linkcode AssignedInterrupts}. */
  handle(deviceId: number, index: number): number {
    const row = this.#rows.get(keyOf(deviceId, index));
    return row === undefined ? -1 : this.#programmer.handle(row.interrupt);
  }

  /** Looks for the target of an interrupt, and writes its entry. */
  #route(row: AssignedRow<T>): void {
    const message = this.#message;
    message.setMsi(row.interrupt.address, row.interrupt.data);
    row.target = undefined;
    const fixed = message.type === MessageType.FIXED || message.type === MessageType.LOWEST;
    // What is posted is for one vCPU, and edge-triggered.
    if (fixed && !message.level) {
      const matching = this.#vm.vcpus.filter((vcpu) =>
        this.#bus.matches(this.#bus.of(vcpu), message)
      );
      if (matching.length === 1) row.target = this.#programmer.target(matching[0]!);
    }
    this.#programmer.program(row);
  }

  /** Something about a target has changed: its entries are written again. */
  moved(target: T): void {
    for (const row of this.#rows.values()) {
      if (row.target === target) this.#programmer.program(row);
    }
  }

  /** IDs of local APICs have changed, or there is another vCPU: interrupts may have other targets. */
  reroute(): void {
    for (const row of this.#rows.values()) this.#route(row);
  }

  /** The host takes an interrupt that is not posted: the guest's message is sent in software. */
  send(deviceId: number, index: number): void {
    const row = this.#rows.get(keyOf(deviceId, index));
    if (row !== undefined) this.#vm.sendMsi(row.interrupt.address, row.interrupt.data);
  }
}

const keyOf = (deviceId: number, index: number): number => deviceId * ASSIGNED_INDEXES + index;
