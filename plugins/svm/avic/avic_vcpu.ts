/**
 * AVIC for one vCPU: its VMCB fields, its table entries, and which of its x2APIC MSRs pass.
 *
 * @module
 */
import { eventRequest, type Vcpu } from "../../../core/mod.ts";
import { Clean, Control, IntControl } from "../../cpu/mod.ts";
import { DEFAULT_APIC_BASE, type Lapic, LapicMode, LapicRegister } from "../../lapic/mod.ts";
import type { SvmGuest } from "../mod.ts";
import {
  type LogicalIdTable,
  logicalIndex,
  PhysicalEntry,
  type PhysicalIdTable,
} from "./tables.ts";

/** AVIC_PHYSICAL_MAX_INDEX: VMCB 0F8h bits 11:0. */
const MAX_INDEX = 0xfff;
const TWO_32 = 0x1_0000_0000;

/** Clean bits of what activation changes. */
const CHANGED: number = Clean.AVIC | Clean.INTERRUPTS;

/** What a vCPU asks of the VM's AVIC. */
export interface AvicBoard {
  /** The tables. */
  readonly physical: PhysicalIdTable;
  readonly logical: LogicalIdTable;
  /** Whether the processors have x2AVIC. */
  readonly x2avic: boolean;
  /** Whether hardware may know which vCPUs run. */
  readonly ipiVirtualization: boolean;
  /** AVIC_PHYSICAL_MAX_INDEX in a mode. */
  maxIndex(x2avic: boolean): number;
  /** Whether activation flushes translations. */
  flushes(x2avic: boolean): boolean;
  /** x2APIC MSRs that pass. */
  readonly passedReads: readonly number[];
  readonly passedWrites: readonly number[];
  /** Host physical APIC ID of host processor `pcpu`. */
  hostId(pcpu: number): number;
  /** AVIC went on or off for a vCPU, or it was placed on a processor or left it. */
  moved(one: AvicVcpu): void;
}

/** One vCPU. */
export class AvicVcpu {
  /** The vCPU. */
  readonly vcpu: Vcpu;
  /** Its local APIC. */
  readonly lapic: Lapic;
  readonly #guest: SvmGuest;
  readonly #board: AvicBoard;
  /** Whether it has an entry in the physical table. */
  #listed = false;
  /**
   * Its entry as software sees it: what hardware sees may have IsRunning clear all the time.
   */
  #low = 0;
  #high = 0;
  /** Whether it left its processor to wait. */
  #blocking = false;
  /** Whether x2APIC MSRs pass. */
  #passing = false;
  /** Those of which reads or writes pass. */
  #passed: readonly number[] = [];
  /** Its index in the logical table, −1 if it has none. */
  #logical = -1;

  constructor(lapic: Lapic, guest: SvmGuest, board: AvicBoard) {
    this.vcpu = lapic.vcpu;
    this.lapic = lapic;
    this.#guest = guest;
    this.#board = board;
  }

  /** Whether it has an entry in the physical table. */
  get listed(): boolean {
    return this.#listed;
  }

  /** Whether it is placed on a host processor, as far as AVIC knows. */
  get running(): boolean {
    return (this.#high & PhysicalEntry.IS_RUNNING_HIGH) !== 0;
  }

  /** Host physical APIC ID of the processor that it is placed on, or was last. */
  get hostId(): number {
    return this.#low & PhysicalEntry.HOST_ID;
  }

  /** Whether it left its processor to wait, and is to be woken by what comes for it. */
  get blocking(): boolean {
    return this.#blocking;
  }

  /**
   * Puts it into the physical table, not running.
   *
   * @throws {RangeError} If the table has no place for its id.
   */
  list(): void {
    const { vcpu, lapic } = this;
    if (vcpu.id > this.#board.physical.maxId) {
      throw new RangeError(`vCPU id ${vcpu.id} is above ${this.#board.physical.maxId}`);
    }
    this.#low = lapic.pageHpa % TWO_32;
    this.#high = PhysicalEntry.VALID_HIGH | Math.floor(lapic.pageHpa / TWO_32);
    this.#listed = true;
    this.writeEntry();
  }

  /** Writes the entry, as hardware is to see it. */
  writeEntry(): void {
    if (!this.#listed) return;
    const { physical, ipiVirtualization } = this.#board;
    const high = ipiVirtualization ? this.#high : this.#high & ~PhysicalEntry.IS_RUNNING_HIGH;
    physical.set(this.vcpu.id, this.#low, high);
  }

  /** Writes the VMCB's pointers (KVM's `avic_init_vmcb`). */
  initializeVmcb(): void {
    const { vmcb } = this.#guest;
    const { physical, logical } = this.#board;
    vmcb.setAddress(Control.AVIC_BACKING_PAGE, this.lapic.pageHpa);
    vmcb.setAddress(Control.AVIC_LOGICAL_TABLE, logical.hpa);
    vmcb.setAddress(Control.AVIC_PHYSICAL_TABLE, physical.hpa);
    // A guest that moves its registers does without AVIC.
    vmcb.setAddress(Control.AVIC_APIC_BAR, DEFAULT_APIC_BASE);
    vmcb.dirty(CHANGED);
  }

  /** Makes the VMCB what `vcpu.accelerated` asks for. */
  refresh(active: boolean): void {
    if (active) this.#activate();
    else this.#deactivate();
    this.#board.moved(this);
  }

  #activate(): void {
    const { vmcb } = this.#guest;
    const board = this.#board;
    // Hybrid mode: where the processor has no x2AVIC, an x2APIC guest's registers are emulated, and
    // hardware does no more than deliver what is in IRR.
    const x2avic = board.x2avic && this.lapic.mode === LapicMode.X2APIC;
    // While AVIC was off, the guest could change its logical ID unseen.
    this.updateLogical();
    this.#setMaxIndex(board.maxIndex(x2avic));
    const off = vmcb.get32(Control.INT_CONTROL) & ~(IntControl.AVIC | IntControl.X2AVIC);
    const bits = x2avic ? IntControl.AVIC | IntControl.X2AVIC : IntControl.AVIC;
    vmcb.set32(Control.INT_CONTROL, off | bits);
    vmcb.dirty(CHANGED);
    if (board.flushes(x2avic)) this.#guest.flush = true;
    this.passMsrs(x2avic);
    if (this.vcpu.pcpu >= 0) this.load(this.vcpu.pcpu);
  }

  #deactivate(): void {
    const { vmcb } = this.#guest;
    this.#setMaxIndex(0);
    const off = vmcb.get32(Control.INT_CONTROL) & ~(IntControl.AVIC | IntControl.X2AVIC);
    vmcb.set32(Control.INT_CONTROL, off);
    vmcb.dirty(CHANGED);
    this.passMsrs(false);
    this.put(false);
    // What hardware would have delivered is for software now.
    this.vcpu.request(eventRequest);
  }

  #setMaxIndex(index: number): void {
    const { vmcb } = this.#guest;
    const pointer = vmcb.get32(Control.AVIC_PHYSICAL_TABLE) & ~MAX_INDEX;
    vmcb.set32(Control.AVIC_PHYSICAL_TABLE, pointer | index);
  }

  /**
   * Lets x2APIC MSRs pass as the policies say, or none of them. Nothing is done when that is so
   * already, unless the policies have changed (`anew`).
   */
  passMsrs(pass: boolean, anew = false): void {
    if (pass === this.#passing && !anew) return;
    this.#passing = pass;
    const { msrpm, vmcb } = this.#guest;
    const { passedReads, passedWrites } = this.#board;
    for (const index of this.#passed) msrpm.set(index, true, true);
    this.#passed = pass ? [...new Set([...passedReads, ...passedWrites])] : [];
    for (const index of this.#passed) {
      msrpm.set(index, !passedReads.includes(index), !passedWrites.includes(index));
    }
    vmcb.dirty(Clean.PERMISSION_MAPS);
  }

  /** The policies on x2APIC MSRs have changed. */
  repassMsrs(): void {
    if (this.#passing) this.passMsrs(true, true);
  }

  // Scheduling

  /** It is placed on host processor `pcpu` (KVM's `avic_vcpu_load`). */
  load(pcpu: number): void {
    if (!this.#listed) return;
    this.#low = (this.#low & ~PhysicalEntry.HOST_ID) | this.#board.hostId(pcpu);
    this.#high |= PhysicalEntry.IS_RUNNING_HIGH;
    this.#blocking = false;
    this.writeEntry();
    this.#board.moved(this);
  }

  /**
   * It leaves its host processor (KVM's `avic_vcpu_put`), to block or to make place for another. The
   * processor's ID stays in the entry.
   */
  put(blocking: boolean): void {
    if (!this.running) return;
    this.#high &= ~PhysicalEntry.IS_RUNNING_HIGH;
    this.#blocking = blocking;
    this.writeEntry();
    this.#board.moved(this);
    // An interrupt that came between HLT and here rang a doorbell that nobody heard: look again, now
    // that the next one will be told to software (KVM's check before it blocks).
    if (blocking && this.lapic.deliverable >= 0) this.vcpu.request(eventRequest);
  }

  // Logical IDs

  /** Puts its logical ID into the logical table, and takes out the one it had before. */
  updateLogical(): void {
    const { logical } = this.#board;
    const { lapic } = this;
    const xapic = lapic.mode === LapicMode.XAPIC;
    const dfr = lapic.registers.get(LapicRegister.DFR);
    const index = xapic ? logicalIndex(lapic.ldr, dfr) : -1;
    if (this.#logical >= 0 && this.#logical !== index) logical.clear(this.#logical);
    this.#logical = index;
    if (index >= 0) logical.set(index, lapic.id);
  }
}
