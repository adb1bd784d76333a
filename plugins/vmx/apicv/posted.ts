/**
 * Interrupts of devices that are assigned to the guest: posted into the target's descriptor by VT-d, sent by
 * software where they are not for one vCPU (KVM's `vmx_pi_update_irte`).
 *
 * An entry in posted format stays while its target moves, or APICv is inhibited for it: where it is, and who
 * is to be notified, is in the descriptor.
 *
 * @module
 */
import {
  ArgumentError,
  type HostMemory,
  PAGE_SIZE,
  type Vcpu,
  type Vm,
} from "../../../core/mod.ts";
import {
  type ApicBus,
  ASSIGNED_INDEXES,
  type AssignedInterrupt,
  type AssignedProgrammer,
  AssignedRoutes,
  type AssignedRow,
} from "../../lapic/mod.ts";
import { IRTE_BYTES, postedEntry, remappedEntry, type Vtd } from "../../vtd/mod.ts";
import type { ApicvVcpu } from "./apicv_vcpu.ts";

/** Entries of the table: a page. */
const ENTRIES = PAGE_SIZE / IRTE_BYTES;
/** Vector at which the host takes interrupts that it passes on. */
const HOST_VECTOR = 0x30;

/** Programs VT-d for one VM. */
export class PostedInterrupts implements AssignedProgrammer<ApicvVcpu> {
  /** The interrupts. */
  readonly routes: AssignedRoutes<ApicvVcpu>;
  readonly #memory: HostMemory;
  readonly #vtd: Vtd;
  readonly #of: (vcpu: Vcpu) => ApicvVcpu | undefined;
  /** Host APIC ID of the first processor, which takes what is not posted. */
  readonly #hostId: () => number;
  readonly #table: number;
  /** Who has each handle, by device and index; free ones are `undefined`. */
  readonly #handles: (number | undefined)[] = new Array(ENTRIES).fill(undefined);

  /** `state` is what is assigned; it is kept up to date. */
  constructor(
    vm: Vm,
    memory: HostMemory,
    vtd: Vtd,
    bus: ApicBus,
    of: (vcpu: Vcpu) => ApicvVcpu | undefined,
    hostId: () => number,
    state: AssignedInterrupt[],
  ) {
    this.#memory = memory;
    this.#vtd = vtd;
    this.#of = of;
    this.#hostId = hostId;
    this.#table = memory.alloc(PAGE_SIZE);
    memory.fill(this.#table, PAGE_SIZE, 0);
    vtd.setTable(this.#table, ENTRIES);
    this.routes = new AssignedRoutes(vm, bus, this, state);
  }

  /** See `AssignedProgrammer`. */
  target(vcpu: Vcpu): ApicvVcpu | undefined {
    return this.#of(vcpu);
  }

  /**
   * See `AssignedProgrammer`: the first free one when it is asked for the first time.
   *
   * @throws {ArgumentError} If there is none.
   */
  handle({ deviceId, index }: AssignedInterrupt): number {
    const key = deviceId * ASSIGNED_INDEXES + index;
    const old = this.#handles.indexOf(key);
    if (old >= 0) return old;
    const handle = this.#handles.indexOf(undefined);
    if (handle < 0) throw new ArgumentError(`all ${ENTRIES} interrupts of devices are assigned`);
    this.#handles[handle] = key;
    return handle;
  }

  /** See `AssignedProgrammer`. */
  clear(interrupt: AssignedInterrupt): void {
    const handle = this.handle(interrupt);
    this.#write(handle, [0, 0, 0, 0]);
    this.#handles[handle] = undefined;
  }

  /** See `AssignedProgrammer`. */
  program(row: AssignedRow<ApicvVcpu>): void {
    const { interrupt, target } = row;
    const { deviceId, data } = interrupt;
    row.posted = target !== undefined;
    const entry = target === undefined
      ? remappedEntry({ deviceId, destination: this.#hostId(), vector: HOST_VECTOR })
      : postedEntry({ deviceId, descriptor: target.descriptor.hpa, vector: data & 0xff });
    this.#write(this.handle(interrupt), entry);
  }

  #write(handle: number, words: readonly number[]): void {
    const at = this.#table + IRTE_BYTES * handle;
    for (let k = 0; k < 4; k++) this.#memory.writeU32(at + 4 * k, words[k]!);
  }

  /** The host takes an interrupt with a handle that is not posted. */
  remapped(handle: number): void {
    const key = this.#handles[handle];
    if (key === undefined) return;
    this.routes.send(Math.floor(key / ASSIGNED_INDEXES), key % ASSIGNED_INDEXES);
  }

  /** Gives the memory back. */
  free(): void {
    if (this.#vtd.table === this.#table) this.#vtd.setTable(undefined);
    this.#memory.free(this.#table);
  }
}
