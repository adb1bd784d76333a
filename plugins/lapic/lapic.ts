/**
 * One local APIC.
 *
 * @module
 */

import { eventRequest, initRequest, type Vcpu } from "../../core/mod.ts";
import {
  ApicBase,
  baseWriteAllowed,
  DEFAULT_APIC_BASE,
  extendedLogicalId,
  LapicMode,
  modeOf,
} from "./base.ts";
import type { LapicBoard, LapicSaved } from "./board.ts";
import { EFFECTS } from "./effects.ts";
import { type ApicMessage, MessageType } from "./message.ts";
import type { LapicChange } from "./hooks.ts";
import { LocalVectorTable } from "./local_vectors.ts";
import { RegisterPage } from "./page.ts";
import { Priorities } from "./priorities.ts";
import {
  ApicError,
  type LapicFeatures,
  LapicRegister,
  Lvt,
  type RegisterRow,
  Svr,
} from "./registers.ts";
import type { ApicTimer } from "./timer.ts";

const R = LapicRegister;

/** Vectors below are exceptions' and may not be sent or received. */
const FIRST_VECTOR = 16;

/** The local APIC of one vCPU. */
export class Lapic extends Priorities {
  /** The vCPU. */
  readonly vcpu: Vcpu;
  /** Host physical address of its register page. */
  readonly pageHpa: number;
  /** The timer. */
  readonly timer: ApicTimer;
  /** The local vector table. */
  readonly lvt: LocalVectorTable;
  readonly #board: LapicBoard;
  #baseLow = 0;
  #baseHigh = 0;
  #errors = 0;
  #external = false;
  #init = false;
  #startup = -1;

  /** Made by the plugin, with a page at host physical address `pageHpa`. */
  constructor(
    vcpu: Vcpu,
    board: LapicBoard,
    pageHpa: number,
    words: Uint32Array,
    timer: ApicTimer,
  ) {
    super(new RegisterPage(words));
    this.vcpu = vcpu;
    this.pageHpa = pageHpa;
    this.timer = timer;
    this.#board = board;
    this.lvt = new LocalVectorTable(this, board.map.lvts);
  }

  // Identity and mode

  /** One of {@linkcode LapicMode}. */
  get mode(): LapicMode {
    return modeOf(this.#baseLow) as LapicMode;
  }

  /** What it has. */
  get features(): LapicFeatures {
    return this.#board.features;
  }

  /** APIC ID: 8 bits in xAPIC mode, 32 in x2APIC mode. */
  get id(): number {
    const value = this.registers.get(R.ID);
    return this.mode === LapicMode.X2APIC ? value : value >>> 24;
  }

  /** The logical destination register, all of it. */
  get ldr(): number {
    return this.registers.get(R.LDR);
  }

  /** Bits 31:0 of the APIC base MSR. */
  get baseLow(): number {
    return this.#baseLow >>> 0;
  }

  /** Bits 63:32 of the APIC base MSR. */
  get baseHigh(): number {
    return this.#baseHigh >>> 0;
  }

  /** Guest physical address of the register page in xAPIC mode. */
  get base(): number {
    return (this.#baseHigh >>> 0) * 0x1_0000_0000 + ((this.#baseLow & ~0xfff) >>> 0);
  }

  /** Whether software has it enabled, by bit 8 of the SVR, and hardware by the base MSR. */
  get softwareEnabled(): boolean {
    return this.mode !== LapicMode.DISABLED && (this.registers.get(R.SVR) & Svr.ENABLE) !== 0;
  }

  /** An INIT message waits to be carried out. */
  get initPending(): boolean {
    return this.#init;
  }

  /** Vector of a start-up message that waits to be carried out, −1 if none does. */
  get startupVector(): number {
    return this.#startup;
  }

  // Reset

  /**
   * Puts the registers to what they are after RESET or, with `init`, after INIT, which keeps mode and
   * ID (APM vol. 2, table 16-2).
   */
  reset(init: boolean): void {
    const { vcpu, registers } = this;
    if (!init) {
      const bsp = vcpu.index === 0 ? ApicBase.BSP : 0;
      // The APM says that RESET clears the base MSR's AE; what boards, KVM and the SDM (11.4.7.1)
      // agree on is an APIC that is enabled.
      this.#baseLow = DEFAULT_APIC_BASE | ApicBase.ENABLE | bsp;
      this.#baseHigh = 0;
      this.#init = false;
      this.#startup = -1;
    }
    const id = registers.get(R.ID);
    registers.words.fill(0);
    for (const { offset, count = 1, reset } of this.#board.map.rows) {
      for (let k = 0; k < count; k++) registers.set(offset + 0x10 * k, reset);
    }
    this.#errors = 0;
    this.#external = false;
    this.timer.reset();
    if (init) registers.set(R.ID, id);
    this.#setIdentity(!init);
    // No firmware runs before an image that is loaded directly: the boot processor's LINT0 is as
    // firmware leaves it for the 8259s, ExtINT and not masked (the virtual wire mode of the
    // MultiProcessor Specification, 3.6.2.1), though the SVR says disabled, as KVM does it.
    if (vcpu.index === 0 && !init) registers.set(R.LVT_LINT0, MessageType.EXTINT << 8);
    this.#board.changed(this, "reset");
  }

  /** ID and logical ID of the mode: those of x2APIC mode follow from the vCPU's id. */
  #setIdentity(fresh: boolean): void {
    const { registers, vcpu } = this;
    if (this.mode === LapicMode.X2APIC) {
      registers.set(R.ID, vcpu.id);
      registers.set(R.LDR, extendedLogicalId(vcpu.id));
    } else if (fresh) {
      registers.set(R.ID, vcpu.id << 24);
    }
  }

  /**
   * Writes the APIC base MSR.
   *
   * @param host Whether the host does, who may go from any mode to any other.
   * @returns Whether the value is good; if not, the guest gets #GP(0).
   */
  writeBase(low: number, high: number, host: boolean): boolean {
    const { features } = this.#board;
    const bits = this.#board.physicalBits(this.vcpu);
    if (!host && !baseWriteAllowed(this.#baseLow, low, high, bits, features)) return false;
    if (modeOf(low) === 1) return false;
    const from = this.mode;
    const oldBase = this.base;
    // AMD's BSP bit is read-only (APM vol. 2, 16.3.1).
    const kept = features.vendor === "amd" && !host ? ApicBase.BSP : 0;
    this.#baseLow = (low & ~kept) | (this.#baseLow & kept);
    this.#baseHigh = high;
    const { mode } = this;
    if (mode !== from) this.#changeMode(from, mode);
    if (this.base !== oldBase) this.#board.changed(this, "base");
    return true;
  }

  #changeMode(from: LapicMode, mode: LapicMode): void {
    const { registers } = this;
    if (mode === LapicMode.DISABLED) {
      // What is off forgets: it is as after RESET when it is enabled again (SDM vol. 3A, 11.4.3).
      this.reset(true);
    }
    if (mode === LapicMode.X2APIC) {
      registers.set(R.ICR_HIGH, 0);
      registers.set(this.#icrHigh, 0);
      this.#setIdentity(false);
    } else if (from === LapicMode.X2APIC || from === LapicMode.DISABLED) {
      this.#setIdentity(true);
      registers.set(R.LDR, 0);
    }
    this.#board.changed(this, "mode");
    this.vcpu.request(eventRequest);
  }

  // Registers

  /** Reads a register as MMIO does. `offset` is a multiple of 10h. */
  read(offset: number): number {
    const row = this.#board.map.at(offset);
    if (row === undefined || row.xapic === "none") {
      this.#error(ApicError.REGISTER);
      return 0;
    }
    return row.xapic === "w" ? 0 : this.#value(offset);
  }

  /** Writes a register as MMIO does. `offset` is a multiple of 10h. */
  write(offset: number, value: number): void {
    const row = this.#board.map.at(offset);
    if (row === undefined || row.xapic === "none") return this.#error(ApicError.REGISTER);
    if (row.xapic !== "r") this.#store(row, offset, value >>> 0);
  }

  /** Value of a register, however it is accessed. */
  #value(offset: number): number {
    if (offset === R.TIMER_CURRENT) return this.timer.count;
    if (offset === R.PPR) return this.updatePpr();
    if (offset === R.APR) return this.arbitrationPriority;
    return this.registers.get(offset);
  }

  /**
   * Reads the register that MSR 800h + offset / 10h is, in x2APIC mode.
   *
   * @returns Bits 31:0; −1 for #GP(0).
   */
  readX2(offset: number): number {
    const row = this.#board.map.at(offset);
    if (row === undefined || row.x2apic === "none" || row.x2apic === "w") return -1;
    return this.#value(offset);
  }

  /** Bits 63:32 of a register that is read in x2APIC mode: only the ICR has some. */
  readX2High(offset: number): number {
    return offset === R.ICR ? this.registers.get(this.#icrHigh) : 0;
  }

  /**
   * Writes the register that MSR 800h + offset / 10h is, in x2APIC mode.
   *
   * @returns Whether the value is good; if not, the guest gets #GP(0).
   */
  writeX2(offset: number, low: number, high: number): boolean {
    const row = this.#board.map.at(offset);
    if (row === undefined || row.x2apic === "none" || row.x2apic === "r") return false;
    if ((low & row.reserved) !== 0) return false;
    if (offset === R.ICR) this.registers.set(this.#icrHigh, high);
    else if (high !== 0) return false;
    this.#store(row, offset, low >>> 0);
    return true;
  }

  /**
   * A processor that accelerates interrupts has put a value into the page and left the rest to
   * software: does what a write of that value does; KVM's `kvm_apic_write_nodecode`.
   */
  replayWrite(offset: number): void {
    const row = this.#board.map.at(offset);
    const access = this.mode === LapicMode.X2APIC ? row?.x2apic : row?.xapic;
    if (row === undefined || access === undefined || access === "none" || access === "r") return;
    this.#store(row, offset, this.registers.get(offset));
  }

  #store(row: RegisterRow, offset: number, value: number): void {
    this.registers.set(offset, value & row.writable);
    EFFECTS[row.offset >> 4]?.(this, value, offset);
  }

  get #icrHigh(): number {
    return this.#board.splitIcr ? R.ICR_HIGH : R.ICR + 4;
  }

  /** For the bus: `LapicBoard.splitIcr` was the opposite until now. */
  moveIcrHigh(): void {
    if (this.mode !== LapicMode.X2APIC) return;
    const from = this.#board.splitIcr ? R.ICR + 4 : R.ICR_HIGH;
    this.registers.set(this.#icrHigh, this.registers.get(from));
    this.registers.set(from, 0);
  }

  // Priorities

  /** Writes the task priority register. */
  setTaskPriority(value: number): void {
    this.registers.set(R.TPR, value & 0xff);
    this.updatePpr();
    if (this.deliverable >= 0) this.vcpu.request(eventRequest);
  }

  /** The vector that would be delivered now, −1 if none would. */
  get deliverable(): number {
    if (this.mode === LapicMode.DISABLED) return -1;
    this.collect();
    const irr = this.highestIrr;
    return irr >= 0 && irr >> 4 > this.updatePpr() >> 4 ? irr : -1;
  }

  /** Has what an accelerator keeps elsewhere put into IRR. */
  collect(): void {
    this.#board.collect(this.vcpu);
  }

  /** Whether a requested interrupt waits for nothing but a lower task priority. */
  get waitsForTaskPriority(): boolean {
    if (this.mode === LapicMode.DISABLED) return false;
    const irr = this.highestIrr;
    return irr >= 0 && irr >> 4 <= this.taskPriority >> 4;
  }

  // Interrupts on their way in

  /** Takes a message; whether it accepts it. */
  receive(message: ApicMessage): boolean {
    const { vcpu } = this;
    const { vector } = message;
    switch (message.type) {
      case MessageType.FIXED:
      case MessageType.LOWEST:
        // Level-triggered and not asserted: the old de-assert message.
        if (message.level && !message.assert) return true;
        return this.accept(vector, message.level);
      case MessageType.INIT:
        return (message.level && !message.assert) || this.signal(message.type);
      case MessageType.STARTUP:
        this.#startup = vector;
        vcpu.request(initRequest);
        return true;
      default:
        return this.signal(message.type);
    }
  }

  /**
   * Takes what has no vector of its own: an NMI, INIT, ExtINT.
   *
   * @returns Whether there is such a type.
   */
  signal(type: number): boolean {
    const { vcpu } = this;
    switch (type) {
      case MessageType.NMI:
        vcpu.events.queueNmi();
        return true;
      case MessageType.INIT:
        this.#init = true;
        this.#startup = -1;
        vcpu.request(initRequest);
        return true;
      case MessageType.EXTINT:
        this.#external = true;
        vcpu.request(eventRequest);
        return true;
      case MessageType.SMI:
        vcpu.vm.vendor.current.raiseSmi?.(vcpu);
        vcpu.request(eventRequest);
        return true;
      default:
        return false;
    }
  }

  /**
   * Accepts a fixed interrupt, if software has it enabled.
   *
   * @param vector 0 to 255; one below 16 is an error, and not delivered.
   * @param level Whether it is level-triggered, so that its end is announced.
   */
  accept(vector: number, level: boolean): boolean {
    if (!this.softwareEnabled) return false;
    if (vector < FIRST_VECTOR) {
      this.#error(ApicError.RECEIVE_VECTOR);
      return true;
    }
    const { registers, vcpu } = this;
    if (level) registers.setVector(R.TMR, vector);
    else registers.clearVector(R.TMR, vector);
    if (this.#board.deliver(vcpu, vector)) return true;
    this.setIrr(vector);
    vcpu.request(eventRequest);
    return true;
  }

  /** The INIT that waits is being carried out. */
  takeInit(): void {
    this.#init = false;
  }

  /** The start-up message that waits is being carried out or ignored. */
  takeStartup(): void {
    this.#startup = -1;
  }

  // The processor's side

  /** Whether an ExtINT interrupt waits: from LINT0, or as a message. */
  get externalInterrupt(): boolean {
    if (this.mode === LapicMode.DISABLED) return this.#board.externalInterrupt();
    if (this.#external) return true;
    const entry = this.registers.get(R.LVT_LINT0);
    return (entry & (Lvt.MASK | Lvt.MODE)) === MessageType.EXTINT << 8 &&
      this.#board.externalInterrupt();
  }

  /**
   * The interrupt acknowledge cycle: an ExtINT's vector comes from the external controller and leaves
   * no trace here; otherwise the highest requested vector goes into service. When the priority has
   * risen meanwhile, it is the spurious vector, which does not (APM vol. 2, 16.6.3).
   */
  acknowledge(): number {
    if (this.externalInterrupt) {
      this.#external = false;
      return this.#board.externalAcknowledge();
    }
    const { registers } = this;
    const vector = this.deliverable;
    if (vector < 0) return registers.get(R.SVR) & Svr.VECTOR;
    registers.clearVector(R.IRR, vector);
    registers.setVector(R.ISR, vector);
    this.updatePpr();
    return vector;
  }

  // End of interrupt

  /** Ends the highest interrupt in service, as a write of the EOI register does. */
  endOfInterrupt(): void {
    const vector = this.highestIsr;
    if (vector >= 0) this.#end(vector);
  }

  /** Ends a given interrupt, if it is in service: SEOI. */
  endSpecific(vector: number): void {
    if (this.registers.hasVector(R.ISR, vector)) this.#end(vector);
  }

  #end(vector: number): void {
    this.registers.clearVector(R.ISR, vector);
    this.updatePpr();
    this.#announceEnd(vector);
    if (this.deliverable >= 0) this.vcpu.request(eventRequest);
  }

  /**
   * A processor that accelerates interrupts has ended a level-triggered one by itself: sends the EOI
   * message; KVM's `kvm_apic_set_eoi_accelerated`.
   */
  acceleratedEnd(vector: number): void {
    this.#announceEnd(vector);
    this.vcpu.request(eventRequest);
  }

  #announceEnd(vector: number): void {
    const { registers } = this;
    const level = registers.hasVector(R.TMR, vector);
    if (level) this.lvt.ended(vector);
    const suppressed = (registers.get(R.SVR) & Svr.SUPPRESS_EOI) !== 0;
    this.#board.ended(this.vcpu, vector, level && !suppressed);
  }

  // Interrupts on their way out

  /** Sends what an ICR says. `high` is bits 63:32. */
  sendIpi(low: number, high: number): void {
    const { message } = this.#board;
    message.setIcr(low, high, this.mode === LapicMode.X2APIC);
    const { type, vector } = message;
    const fixed = type === MessageType.FIXED || type === MessageType.LOWEST;
    if (fixed && vector < FIRST_VECTOR) return this.#error(ApicError.SEND_VECTOR);
    const accepted = this.#board.send(message, this);
    // Of Intel's processors only those before the Pentium 4 had this error.
    if (accepted === 0 && this.features.vendor === "amd") this.#error(ApicError.SEND_ACCEPT);
  }

  /** The interrupt command register was written. */
  sendIcr(low: number): void {
    const wide = this.mode === LapicMode.X2APIC;
    this.sendIpi(low, this.registers.get(wide ? this.#icrHigh : R.ICR_HIGH));
  }

  /** The self-IPI register was written. */
  sendSelf(vector: number): void {
    if (vector < FIRST_VECTOR) this.#error(ApicError.SEND_VECTOR);
    else this.accept(vector, false);
  }

  // Errors

  #error(bit: number): void {
    const fresh = (this.#errors & bit) === 0;
    this.#errors |= bit;
    if (!fresh) return;
    const entry = this.registers.get(R.LVT_ERROR);
    // An entry that is itself in error must not bring up the next error without end.
    const fixed = (entry & Lvt.MODE) === 0;
    if (fixed && (entry & Lvt.VECTOR) < FIRST_VECTOR) {
      if ((entry & Lvt.MASK) === 0) this.#errors |= ApicError.RECEIVE_VECTOR;
      return;
    }
    this.lvt.fire(R.LVT_ERROR);
  }

  /** The ESR was written: it shows what has gathered since it was last written. */
  latchErrors(): void {
    this.registers.set(R.ESR, this.#errors);
    this.#errors = 0;
  }

  // Effects of writes; for the table of them.

  /** For the table of effects. */
  announce(change: LapicChange): void {
    this.#board.changed(this, change);
  }

  /** For the table of effects. */
  announceTaskPriority(): void {
    this.#board.taskPriorityChanged(this.vcpu, this.taskPriority);
  }

  // The TSC-deadline MSR

  /** Writes IA32_TSC_DEADLINE, MSR 6E0h. */
  writeTscDeadline(low: number, high: number): void {
    this.timer.setTscDeadline(low, high, this.#board.ticksUntilTsc(this.vcpu, low, high));
  }

  // State

  /** Everything that is needed to make it again. */
  save(): LapicSaved {
    this.collect();
    const { words } = this.registers;
    const page = new Uint8Array(words.buffer, words.byteOffset, words.byteLength).slice();
    // In both places: whoever loads it may keep it in the other one.
    if (this.mode === LapicMode.X2APIC) {
      const high = this.registers.get(this.#icrHigh);
      const view = new DataView(page.buffer);
      for (const offset of [R.ICR + 4, R.ICR_HIGH]) view.setUint32(offset, high, true);
    }
    return {
      page,
      base: [this.#baseLow >>> 0, this.#baseHigh >>> 0],
      errors: this.#errors,
      pins: this.lvt.pins,
      external: this.#external,
      init: this.#init,
      startup: this.#startup,
      timer: this.timer.save(),
    };
  }

  /** Takes what {@linkcode Lapic.save} returned. */
  load(saved: LapicSaved): void {
    const { words } = this.registers;
    new Uint8Array(words.buffer, words.byteOffset, words.byteLength).set(saved.page);
    [this.#baseLow, this.#baseHigh] = saved.base;
    if (this.mode === LapicMode.X2APIC) {
      this.registers.set(this.#board.splitIcr ? R.ICR + 4 : R.ICR_HIGH, 0);
    }
    this.#errors = saved.errors;
    this.lvt.pins = saved.pins;
    this.#external = saved.external;
    this.#init = saved.init;
    this.#startup = saved.startup;
    this.timer.load(saved.timer);
    if (this.#init || this.#startup >= 0) this.vcpu.request(initRequest);
    this.vcpu.request(eventRequest);
  }
}
