/**
 * One processor, as vendors see it.
 *
 * @module
 */
import { Outcome } from "../microcode/outside.ts";
import { VmCr } from "../microcode/msr.ts";
import { Rflags } from "../microcode/registers.ts";
import { Event, Mode, MonitorWait, registerAddress, S as ImportedS } from "../state/cpu_state.ts";
import type { Field64 } from "../state/field.ts";
import type { StateView } from "../state/view.ts";
import { pkruOf, readXsave, writeXsave } from "../state/xsave.ts";
import { readSmmState, type SmmState, writeSmmState } from "../smm/saved.ts";
import { IntControl } from "../svm/vmcb.ts";
import { VmxExit } from "../vmx/exit_reasons.ts";
import { PointerOperation, STUB_INVALID, StubFailure } from "../vmx/host_stub.ts";
import type { Machine } from "./machine.ts";
import { NO_OUTSIDE, type Outside } from "./outside.ts";
import { readRecentEvents, type RecentEvent } from "./recent_events.ts";
import { resetProcessor } from "./reset.ts";
import { Stop } from "./run.ts";
import { invalidate, usePointer, vmfail } from "./vmx_host.ts";

// V8 folds constants of the module itself into compiled code, and loads and checks imported ones at each use.
const S = ImportedS;

// Words that are written around every entry or exit.
const TSC_AUX = S.tscAux.address >> 2;
const XCR0 = S.xcr0.address >> 2;
const CR8 = S.cr8.address >> 2;

/** R0–R31, RIP, RFLAGS. */
const REGISTER_SLOTS = 34;

// V8 folds a constant of the module itself into compiled code; an imported one it loads and checks at each use.
const { INTR } = Event;

/** Most instructions one call may be asked to run. */
const MOST = 0x4000_0000;

/**
 * A processor of the host. What it holds is only there to be read and written while it is loaded; every
 * method loads it first.
 */
export class Processor {
  /** Its number. */
  readonly index: number;
  readonly #machine: Machine;
  /** The last view that was given of the registers. */
  #storage: Uint32Array | undefined;

  /** Made by the plugin. */
  constructor(machine: Machine, index: number) {
    this.#machine = machine;
    this.index = index;
  }

  /** Makes it the loaded processor. */
  load(): void {
    this.#machine.load(this.index);
  }

  /** Whether it is the loaded one. */
  get loaded(): boolean {
    return this.#machine.loaded === this.index;
  }

  /** Its registers. */
  get state(): StateView {
    this.load();
    return this.#machine.state;
  }

  /** Words 0–7 handed to and from {@linkcode Outside}. */
  get exchange(): Int32Array {
    return this.#machine.exchange;
  }

  /** Where R0–R31, RIP and RFLAGS are now: 34 slots of two words. Loading a processor moves them. */
  get registerStorage(): Uint32Array {
    const address = this.loaded ? registerAddress(0) : this.#machine.savedAddress(this.index);
    const { buffer } = this.#machine.memory;
    if (this.#storage?.buffer !== buffer || this.#storage.byteOffset !== address) {
      this.#storage = new Uint32Array(buffer, address, 2 * REGISTER_SLOTS);
    }
    return this.#storage;
  }

  /**
   * Says who answers what the processor asks, and to which physical address space it is attached:
   * 0 is the host's, others are filled with `Processors.mapAlias`.
   */
  attach(outside: Outside, space: number): void {
    this.#machine.attach(this.index, outside, space);
  }

  /**
   * In guest mode without nested paging, physical addresses are those of address space `space`: for a
   * processor that carries out instructions in place of a guest's.
   */
  setGuestSpace(space: number): void {
    this.state.set32(S.guestMap, this.#machine.physical.chunkMap(space));
  }

  /**
   * In system management mode, physical addresses are those of address space `space`: what is memory there
   * and nowhere else is SMRAM that is hidden.
   */
  setSmmSpace(space: number): void {
    const { state } = this;
    const map = this.#machine.physical.chunkMap(space);
    if (state.get32(S.smm) !== 0) state.set32(S.physicalMap, map);
    state.set32(S.smmMap, map);
    this.flushTlbs();
  }

  /** What of system management mode is in no register; see {@linkcode SmmState}. */
  get smmState(): SmmState {
    return readSmmState(this.state, this.#machine.bytes);
  }

  set smmState(value: SmmState) {
    writeSmmState(this.state, this.#machine.bytes, value);
    this.flushTlbs();
  }

  /** Gives it back to nobody. */
  detach(): void {
    this.#machine.attach(this.index, NO_OUTSIDE, 0);
  }

  /** RESET or INIT. */
  reset(init = false): void {
    resetProcessor(this.state, init, this.#machine.model.signature);
    this.#machine.leaveGuestMode();
    this.refresh();
  }

  /** Works out what follows from registers that were written from outside; drops translations. */
  refresh(): void {
    this.load();
    this.#machine.flushTlbs();
    this.#machine.refresh();
  }

  /** Drops all cached translations: nested tables or memory have changed. */
  flushTlbs(): void {
    this.load();
    this.#machine.flushTlbs();
  }

  /**
   * Runs until `budget` instructions are retired or something else stops it; see {@linkcode Stop}.
   * Throws what {@linkcode Outside} throws, with the processor at the start of the instruction.
   */
  run(budget: number): Stop {
    this.load();
    try {
      const stop = this.#machine.run(Math.min(budget, MOST)) as Stop;
      if (stop === Stop.INIT) this.reset(true);
      return stop;
    } catch (error) {
      this.#machine.abandon();
      throw error;
    }
  }

  /**
   * Executes VMRUN of the VMCB at host physical address `vmcb`, with VMLOAD before and VMSAVE behind it, and
   * with R0–R15, RIP and RFLAGS taken from and put back into `registers` (a view on host memory, 34 slots of
   * 8 bytes), those that VMRUN switches by way of the VMCB: what a hypervisor's entry stub does. Returns
   * behind the #VMEXIT; when `budget` is used up, a physical interrupt is what makes the guest exit.
   */
  enterGuest(vmcb: number, registers: ArrayBufferView, budget: number): void {
    this.load();
    const area = registers.byteOffset | 0;
    // Both are exact: bits 31:0 of a whole number, and those above of one below 2^63.
    const high = (vmcb / 0x1_0000_0000) | 0;
    this.#machine.enterGuest(vmcb | 0, high, area, Math.min(budget, MOST));
  }

  // VMX, by a host that is the program outside.

  /** VMXON of the region at host physical address `region`. Throws if it fails. */
  vmxon(region: number): void {
    this.load();
    usePointer(this.#machine.exports, "VMXON", PointerOperation.VMXON, region);
  }

  /** VMCLEAR of the VMCS at host physical address `vmcs`. Throws if it fails. */
  vmclear(vmcs: number): void {
    this.load();
    usePointer(this.#machine.exports, "VMCLEAR", PointerOperation.VMCLEAR, vmcs);
  }

  /** VMPTRLD of the VMCS at host physical address `vmcs`. Throws if it fails. */
  vmptrld(vmcs: number): void {
    this.load();
    usePointer(this.#machine.exports, "VMPTRLD", PointerOperation.VMPTRLD, vmcs);
  }

  /**
   * VMREAD of the current VMCS: bits 31:0 of the field; bits 63:32 are in `exchange[1]`. Throws if there
   * is no current VMCS or no such field.
   */
  vmread(encoding: number): number {
    this.load();
    const result = this.#machine.entries.vmread(encoding);
    if (result !== 0) throw vmfail("VMREAD", result);
    return this.#machine.exchange[0]! >>> 0;
  }

  /** VMWRITE of the current VMCS: the field becomes `low`, and `high` in bits 63:32. Throws as VMREAD. */
  vmwrite(encoding: number, low: number, high: number): void {
    this.load();
    const result = this.#machine.entries.vmwrite(encoding, low | 0, high | 0);
    if (result !== 0) throw vmfail("VMWRITE", result);
  }

  /** INVEPT of `type` (1 or 2) for the EPT pointer `pointer`. Throws if it fails. */
  invept(type: number, pointer: number): void {
    this.load();
    invalidate(this.#machine.exports, "INVEPT", 0, type, pointer);
  }

  /** INVVPID of `type` (1, 2 or 3) for `vpid`. Throws if it fails. */
  invvpid(type: number, vpid: number): void {
    this.load();
    invalidate(this.#machine.exports, "INVVPID", 1, type, vpid);
  }

  /**
   * VMLAUNCH or VMRESUME of the current VMCS by an entry stub, with R0–R15, RIP and RFLAGS taken from and put
   * back into `registers` (a view on host memory, 34 slots of 8 bytes): those that the VMCS has by VMWRITE
   * and VMREAD. Behind the exit the stub also reads what {@linkcode Processor.exitInformation} has.
   * Yields 0 behind the VM exit, or the VM-instruction error number of VMfailValid; throws for
   * VMfailInvalid. When `budget` is used up, an external interrupt is what makes the guest exit.
   */
  enterVmx(registers: ArrayBufferView, launch: boolean, budget: number): number {
    this.load();
    const area = registers.byteOffset | 0;
    const result = this.#machine.enterVmx(area, Number(launch), Math.min(budget, MOST));
    if (result === STUB_INVALID) throw vmfail("VM entry", StubFailure.INVALID);
    return -result;
  }

  /**
   * Exit information that the stub of {@linkcode Processor.enterVmx} has read behind the last exit: words
   * by `ExitInformation`. Current until another processor runs.
   */
  get exitInformation(): Uint32Array {
    return this.#machine.exitInformation;
  }

  /** Instructions retired in the current or last run. */
  get retired(): number {
    return this.#machine.retired;
  }

  /**
   * Within {@linkcode Outside}: instructions retired in this run before the one that asks. Behind an entry
   * that was not refused, and threw nothing: those retired in it, as {@linkcode Processor.retired} tells with
   * more work.
   */
  get retiredOutside(): number {
    return this.#machine.retiredOutside;
  }

  /** Within {@linkcode Outside}: at most `count` more instructions may be retired in this run. */
  limit(count: number): void {
    this.#machine.limit(count);
  }

  /**
   * Within {@linkcode Outside}, with the processor loaded: sets the time-stamp counter to `ticks` for the
   * instruction at hand, before which `retired` were retired in this run.
   *
   * @returns Level of the INTR pin.
   */
  goOn(ticks: number, retired: number): boolean {
    return (this.#machine.goOn(ticks, retired) & INTR) !== 0;
  }

  /** Sets the time-stamp counter to `ticks` now. */
  setTsc(ticks: number): void {
    this.#machine.setTsc(ticks);
  }

  /** Sets TSC_AUX, 32 bits: what RDTSCP returns in ECX. */
  setTscAux(value: number): void {
    this.load();
    const { words } = this.#machine;
    words[TSC_AUX] = value;
    words[TSC_AUX + 1] = 0;
  }

  /** XCR0, bits 31:0. */
  get xcr0(): number {
    this.load();
    return this.#machine.words[XCR0]! >>> 0;
  }

  set xcr0(value: number) {
    this.load();
    const { words } = this.#machine;
    words[XCR0] = value;
    words[XCR0 + 1] = 0;
  }

  /** Physical APIC ID, 32 bits: where doorbells for it are rung. Its index unless it is set. */
  get apicId(): number {
    return this.state.get32(S.apicId);
  }

  set apicId(id: number) {
    this.state.set32(S.apicId, id);
  }

  /** Whether branches are counted. */
  get countsBranches(): boolean {
    return this.state.get32(S.countsBranches) !== 0;
  }

  set countsBranches(counts: boolean) {
    if (counts === this.countsBranches) return;
    this.state.set32(S.countsBranches, Number(counts));
    this.#machine.refresh();
  }

  /** Branches that were retired while they were counted. */
  get branches(): number {
    return this.#count(S.branches);
  }

  /** Those of them that went elsewhere than predicted. */
  get mispredictedBranches(): number {
    return this.#count(S.mispredicted);
  }

  #count(field: Field64): number {
    const { state } = this;
    return state.high(field) * 2 ** 32 + state.low(field);
  }

  /** Forgets what is predicted of indirect branches, as IBPB demands. */
  forgetPredictions(): void {
    this.state.set32(S.unpredicted, 1);
  }

  /** Sets CR8, 0 to 15. */
  set taskPriority(priority: number) {
    this.load();
    const { words } = this.#machine;
    words[CR8] = priority;
    words[CR8 + 1] = 0;
  }

  /** Level of the INTR pin. */
  get interruptLine(): boolean {
    return (this.state.get32(S.events) & Event.INTR) !== 0;
  }

  /**
   * Whether it would react to INTR before the next instruction, by delivering the interrupt or by
   * #VMEXIT. With V_INTR_MASKING it is the host's IF that counts (APM vol. 2, 15.21.1).
   */
  get takesInterrupts(): boolean {
    const { state } = this;
    if (this.#waitsUnmasked) return true;
    if (!this.#open) return false;
    const masking = state.get32(S.guestMode) !== 0 &&
      (state.get32(S.intControl) & IntControl.V_INTR_MASKING) !== 0;
    return masking ? state.get32(S.hostIf) !== 0 : (state.low(S.rflags) & Rflags.IF) !== 0;
  }

  /** An MWAIT waits that more than unmasked interrupts ends. */
  get #waitsUnmasked(): boolean {
    const { state } = this;
    const halted = (state.get32(S.events) & Event.HALTED) !== 0;
    const wait = state.get32(S.monitorWait);
    return halted && (wait & (MonitorWait.MASKED | MonitorWait.TIMER)) !== 0;
  }

  /** Ticks of the time-stamp counter after which the MWAIT that waits ends, −1 if it does not by itself. */
  get waitTicks(): number {
    const { state } = this;
    const halted = (state.get32(S.events) & Event.HALTED) !== 0;
    const timed = halted && (state.get32(S.monitorWait) & MonitorWait.TIMER) !== 0;
    return timed ? state.get32(S.monitorTicks) : -1;
  }

  /** Ends the wait of an MWAIT; whether there was one. */
  endWait(): boolean {
    return this.#machine.monitors.endWait(this.index);
  }

  /** Whether it would react to an NMI before the next instruction. */
  get takesNmis(): boolean {
    return this.#open && this.state.get32(S.nmiBlocked) === 0;
  }

  /** GIF is set, and there is neither an interrupt shadow nor an event to be injected. */
  get #open(): boolean {
    const { state } = this;
    const closed = Event.SHADOW | Event.SHADOW_NEW | Event.INJECT | Event.WAIT_SIPI;
    return state.get32(S.gif) !== 0 && (state.get32(S.events) & closed) === 0;
  }

  /** Drives the INTR pin. */
  setInterruptLine(level: boolean): void {
    this.#setEvent(Event.INTR, level);
  }

  /** Latches an NMI. */
  raiseNmi(): void {
    this.#setEvent(Event.NMI, true);
  }

  /** IGNNE#: the x87 exception that is pending, if any, stops no instruction any more. */
  ignoreNumericErrors(): void {
    this.state.set32(S.ignoreNumericErrors, 1);
  }

  /** Latches a system management interrupt. */
  raiseSmi(): void {
    this.#setEvent(Event.SMI, true);
  }

  /** Whether one is latched that it would react to before the next instruction. */
  get takesSmi(): boolean {
    const { state } = this;
    const latched = (state.get32(S.events) & Event.SMI) !== 0;
    return latched && this.#open && state.get32(S.smm) === 0;
  }

  /**
   * Latches INIT: at the next instruction boundary with GIF set it exits from a guest that intercepts
   * it, becomes a #SX with VM_CR.R_INIT, or is taken, and the run ends with `Stop.INIT` (APM vol. 2,
   * 15.21.8).
   */
  raiseInit(): void {
    this.#setEvent(Event.INIT, true);
  }

  /**
   * A start-up IPI with `vector`, 8 bits: a VMX guest that waits for one exits (SDM vol. 3, 26.2).
   *
   * @returns Whether there is such a guest. The signal is lost on anything else but a processor that has
   *   had an INIT, which is its owner's to start.
   */
  startup(vector: number): boolean {
    if (!this.#waitsForStartup) return false;
    this.state.set32(S.trapCode, VmxExit.SIPI);
    this.state.setHalves(S.trapInfo1, vector & 0xff, 0);
    this.#setEvent(Event.VMEXIT_TRAP, true);
    return true;
  }

  /** A VMX guest is in the wait-for-SIPI activity state. */
  get #waitsForStartup(): boolean {
    return (this.state.get32(S.events) & Event.WAIT_SIPI) !== 0;
  }

  /** Whether INIT may do something else than what it does to a processor with neither SVM, VMX nor SMM. */
  get mindsInit(): boolean {
    const { state } = this;
    const vmx = state.get32(S.vmxOn) !== 0;
    const redirected = (state.low(S.vmCr) & VmCr.R_INIT) !== 0;
    return vmx || redirected || state.get32(S.smm) !== 0 || state.get32(S.guestMode) !== 0 ||
      state.get32(S.gif) === 0;
  }

  /** Whether it would react to INIT before the next instruction. */
  get takesInit(): boolean {
    const { state } = this;
    const root = state.get32(S.vmxOn) !== 0 && state.get32(S.nonRoot) === 0;
    const held = root || state.get32(S.smm) !== 0 || this.#waitsForStartup;
    return state.get32(S.gif) !== 0 && !held;
  }

  /** Ends a halt. */
  wake(): void {
    this.#setEvent(Event.HALTED, false);
    this.#machine.monitors.disarm(this.index);
  }

  /** Clears a shutdown, as RESET does. */
  clearShutdown(): void {
    this.#setEvent(Event.SHUTDOWN, false);
  }

  #setEvent(bit: number, value: boolean): void {
    const { state } = this;
    const events = state.get32(S.events);
    state.set32(S.events, value ? events | bit : events & ~bit);
  }

  /**
   * Delivers an event before the next instruction, past all intercepts. `event` has the format of
   * EVENTINJ 31:0 (APM vol. 2, 15.20).
   */
  inject(event: number, errorCode: number): void {
    const { state } = this;
    state.set32(S.injection, event);
    state.set32(S.injectionError, errorCode);
    state.setHalves(S.injectionRip, state.low(S.rip), state.high(S.rip));
    this.#setEvent(Event.INJECT, true);
  }

  /** Whether an injected event has not been delivered yet. */
  get injecting(): boolean {
    return (this.state.get32(S.events) & Event.INJECT) !== 0;
  }

  /** Whether the next instruction is in the shadow of STI or MOV SS. */
  get interruptShadow(): boolean {
    return (this.state.get32(S.events) & (Event.SHADOW | Event.SHADOW_NEW)) !== 0;
  }

  set interruptShadow(value: boolean) {
    this.#setEvent(Event.SHADOW_NEW | Event.SHADOW_SS, false);
    this.#setEvent(Event.SHADOW, value);
  }

  /** Whether it executes 64-bit code. */
  get is64Bit(): boolean {
    return (this.state.get32(S.mode) & Mode.LONG) !== 0;
  }

  /** Within {@linkcode Outside}: the instruction has been dealt with, and RIP is where to go on. */
  leaveInstruction(): void {
    this.#machine.state.set32(S.outcome, Outcome.LEFT);
  }

  /** Within {@linkcode Outside}: the instruction ends in an exception (EVENTINJ format). */
  failInstruction(event: number, errorCode: number): void {
    const { state } = this.#machine;
    state.set32(S.exception, event);
    state.set32(S.exceptionError, errorCode);
    state.set32(S.outcome, Outcome.FAULT);
  }

  /** The last events it delivered or began to, at most sixteen, oldest first. */
  recentEvents(): RecentEvent[] {
    return readRecentEvents(this.state);
  }

  /** Says whether the host is the program outside, so that #VMEXIT returns from the run. */
  setHostOutside(outside: boolean): void {
    this.state.set32(S.hostOutside, Number(outside));
  }

  /** x87, SSE and AVX state and PKRU, as an XSAVE area in standard format. */
  get xsave(): Uint8Array {
    this.load();
    return readXsave(this.#machine.bytes);
  }

  set xsave(area: Uint8Array) {
    this.load();
    // The TLB holds what may be accessed, not the keys.
    const flush = pkruOf(area) !== this.state.low(S.pkru) >>> 0;
    writeXsave(this.#machine.bytes, area);
    if (flush) this.flushTlbs();
  }

  /** RDMSR by the host: the value, or `undefined` for #GP. */
  readMsr(index: number): bigint | undefined {
    this.load();
    const { exports, longs } = this.#machine;
    return exports.readMsr!(index | 0) === 0 ? undefined : longs[S.exchange >> 3];
  }

  /** WRMSR by the host: false for #GP. */
  writeMsr(index: number, value: bigint): boolean {
    this.load();
    const { exports, longs } = this.#machine;
    longs[S.exchange >> 3] = BigInt.asUintN(64, value);
    return exports.writeMsr!(index | 0) !== 0;
  }

  /** Makes RFLAGS in the state complete, for reading from outside of a run. */
  exposeFlags(): void {
    this.load();
    this.#machine.exports.beforeOutside!();
  }

  /** Takes RFLAGS in the state over, after {@linkcode Processor.exposeFlags} or a write. */
  absorbFlags(): void {
    this.load();
    this.#machine.exports.afterOutside!();
  }
}
