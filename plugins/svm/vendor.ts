/**
 * The hypervisor: entry, exit, and what the core asks of a vendor in between.
 *
 * @module
 */
import {
  type BranchCounts,
  eventRequest,
  type ExitAction,
  ExitAction as Action,
  ExitReason as ImportedExitReason,
  Gpr as ImportedGpr,
  type HostMemory,
  initSystemState,
  type MsrAccess,
  type PendingException,
  type PointOf,
  resetSystemState,
  type Saved,
  type SystemState,
  type Vcpu,
  type Vendor,
  type Vm,
} from "../../core/mod.ts";
import {
  Attr,
  Control as ImportedControl,
  Cr0,
  DeviceMoves,
  Efer,
  endInstruction,
  Misc2,
  type Processors,
  resetRegisters,
  resetXsave,
  Rflags,
  Save,
  setExtendedRegisters,
  walkPages,
  withExtendedRegisters,
  writeAnswer,
} from "../cpu/mod.ts";
import { moveToControl } from "./control_moves.ts";
import { Emulator } from "./emulator.ts";
import { injectException, injectInterrupt, injectNmi, returnInterrupted } from "./events.ts";
import { MSR_IMMEDIATE, translateExit } from "./exits.ts";
import { GuestCpu } from "./guest_cpu.ts";
import type { SvmSettings } from "./virtual_svm.ts";
import { HostCpu, requireSvm } from "./host.ts";
import { accessMsr } from "./msrs.ts";
import { NestedPageTables } from "./nested_paging.ts";
import { IoPermissionMap } from "./permission_maps.ts";
import { CLEAN_ALL } from "./vmcb.ts";
import { interruptWindowHook, privatePageHook, type Svm } from "./svm_guest.ts";
import { readSystemState, writeSystemState } from "./system_state.ts";

// V8 folds constants of the module itself into compiled code, and loads and checks imported ones at each use.
const Control = ImportedControl;
const ExitReason = ImportedExitReason;
const Gpr = ImportedGpr;

/** TLB_CONTROL: flush the guest's ASID. */
const FLUSH_GUEST = 3;

/** The hooks that this hypervisor calls. */
interface SvmHooks {
  readonly interruptWindow: PointOf<typeof interruptWindowHook>;
  readonly privatePage: PointOf<typeof privatePageHook>;
}

/** What exists once for all vCPUs; made with the first. */
interface Shared {
  readonly iopm: IoPermissionMap;
  readonly tables: NestedPageTables;
}

/** The vendor. */
export class SvmVendor implements Vendor, Svm {
  /** `"svm"`. */
  readonly name = "svm";
  readonly #vm: Vm;
  readonly #processors: Processors;
  readonly #memory: HostMemory;
  readonly #hooks: SvmHooks;
  /** The processors have XSAVE, so that there is extended state to switch. */
  readonly #switches: boolean;
  readonly #apx: boolean;
  readonly #settings: SvmSettings;
  readonly #guests: (GuestCpu | undefined)[] = [];
  readonly #hosts: (HostCpu | undefined)[] = [];
  #shared: Shared | undefined;
  #emulator: Emulator | undefined;
  #moves: DeviceMoves | undefined;

  constructor(vm: Vm, processors: Processors, memory: HostMemory, settings: SvmSettings) {
    this.#settings = settings;
    this.#vm = vm;
    this.#hooks = {
      interruptWindow: vm.hooks.point(interruptWindowHook),
      privatePage: vm.hooks.point(privatePageHook),
    };
    this.#processors = processors;
    this.#switches = processors.isa.has("xsave");
    this.#apx = processors.isa.has("apx");
    this.#memory = memory;
  }

  /** See `Svm.of`. */
  of(vcpu: Vcpu): GuestCpu {
    return this.#guests[vcpu.index]!;
  }

  /** A policy on instruction intercepts is another one: all vCPUs start anew with it. */
  instructionPolicyChanged(): void {
    for (const guest of this.#guests) guest?.svm.restart();
  }

  /** The guest CPU with everything of it in memory, none left on a processor. */
  #released(vcpu: Vcpu): GuestCpu {
    const guest = this.of(vcpu);
    for (const host of this.#hosts) if (host?.owner === guest) host.release();
    return guest;
  }

  /** See `Vendor.createVcpu`. */
  createVcpu(vcpu: Vcpu): Uint32Array {
    if (this.#shared === undefined) requireSvm(this.#processors.get(0));
    this.#shared ??= {
      iopm: new IoPermissionMap(this.#memory),
      tables: new NestedPageTables(this.#memory),
    };
    const { iopm, tables } = this.#shared;
    const guest = new GuestCpu(
      vcpu,
      this.#memory,
      iopm,
      tables,
      this.#settings,
      this.#processors,
    );
    this.#guests[vcpu.index] = guest;
    writeSystemState(guest, resetSystemState());
    resetRegisters(guest.registers, this.#processors.signature);
    return guest.registers;
  }

  /** See `Vendor.destroyVcpu`. */
  destroyVcpu(vcpu: Vcpu): void {
    this.#released(vcpu).free();
    this.#guests[vcpu.index] = undefined;
    if (this.#guests.some((guest) => guest !== undefined)) return;
    for (const host of this.#hosts.splice(0)) {
      if (host === undefined) continue;
      host.processor.detach();
      host.processor.setHostOutside(false);
      this.#memory.free(host.hsave);
    }
    this.#emulator?.free();
    this.#emulator = undefined;
    this.#shared?.iopm.free();
    this.#shared?.tables.free();
    this.#shared = undefined;
  }

  /** See `Vendor.resetVcpu`. */
  resetVcpu(vcpu: Vcpu, init: boolean): void {
    const guest = this.#released(vcpu);
    const state = init ? initSystemState(readSystemState(guest)) : resetSystemState();
    if (!init) guest.xsave = resetXsave();
    guest.svm.reset(init);
    writeSystemState(guest, state);
    resetRegisters(guest.registers, this.#processors.signature);
    guest.vmcb.set32(Control.EVENTINJ, 0);
    this.setInterruptWindow(guest, false);
  }

  /** A memslot came or went: nested translations are built anew. */
  memslotChanged(gpa: number, size: number, hpa: number, readonly: boolean, added: boolean): void {
    this.#emulator?.memslotChanged(gpa, size, hpa, readonly, added);
    this.#shared?.tables.clear();
    this.#flushAll();
  }

  /** Maps the page of a nested page fault, if it is the guest's memory. */
  mapFault(vcpu: Vcpu): boolean {
    const { gpa, errorCode } = vcpu.exit;
    const { tables } = this.#shared!;
    const slot = this.#vm.memory.lookup(gpa);
    if (slot === undefined) {
      const hpa = this.#hooks.privatePage.call(vcpu, gpa);
      if (hpa === undefined) return false;
      tables.mapPage(gpa, hpa, true);
      return true;
    }
    if (slot.readonly && (errorCode & 2) !== 0) return false;
    tables.map(slot, gpa);
    return true;
  }

  /** See `Svm.dropPrivatePage`. */
  dropPrivatePage(gpa: number): void {
    this.#shared?.tables.unmapPage(gpa);
    this.#flushAll();
  }

  #flushAll(): void {
    for (const guest of this.#guests) if (guest !== undefined) guest.flush = true;
  }

  /** Asks for an exit as soon as the guest can take an interrupt, or no longer. */
  setInterruptWindow(guest: GuestCpu, wanted: boolean): void {
    if (guest.interruptWindow !== wanted) {
      guest.interruptWindow = wanted;
      this.#hooks.interruptWindow.call(guest.vcpu, wanted);
    }
    guest.recalculate();
  }

  /** The IRET that an NMI handler ends with: carried out here, so that the moment is known exactly. */
  finishNmi(vcpu: Vcpu): ExitAction {
    const guest = this.of(vcpu);
    guest.iretWindow = false;
    const action = this.emulate(vcpu);
    guest.nmiMasked = false;
    guest.recalculate();
    // One that came in the meantime is due now.
    if (vcpu.events.nmiPending > 0) vcpu.request(eventRequest);
    return action;
  }

  #host(index: number): HostCpu {
    return this.#hosts[index] ??= new HostCpu(this.#processors.get(index), this.#memory);
  }

  /** See `Vendor.enter`. */
  enter(vcpu: Vcpu, budget: number): void {
    const guest = this.of(vcpu);
    const { vmcb } = guest;
    const index = Math.max(0, vcpu.pcpu);
    const host = this.#host(index);
    const { processor } = host;
    // What is left of it on the processor it ran on before has to come along.
    if (host.owner !== guest) this.#released(vcpu);
    host.adopt(guest);
    if (guest.lastProcessor !== index || guest.flush) {
      vmcb.bytes[Control.TLB_CONTROL] = FLUSH_GUEST;
      // Another processor may have cached this VMCB when it ran there last (APM vol. 2, 15.15.2).
      if (guest.lastProcessor !== index) vmcb.dirty(CLEAN_ALL);
      guest.lastProcessor = index;
      guest.flush = false;
    }
    processor.setTscAux(guest.tscAux);
    processor.setTsc(this.#vm.clock.current.now());
    this.#loadTaskPriority(guest);
    const step = guest.stepForNmi;
    guest.stepForNmi = false;

    const { extended } = this.#settings;
    const switches = this.#switches;
    if (switches) extended.current.enter(host.extended, guest);
    let returned = false;
    try {
      processor.enterGuest(vmcb.hpa, guest.registers, step ? 1 : budget);
      returned = true;
    } finally {
      vcpu.instructions += returned === true ? processor.retiredOutside : processor.retired;
      vmcb.bytes[Control.TLB_CONTROL] = 0;
      vmcb.markClean();
    }
    if (switches) extended.current.exit(host.extended, guest);
    this.#leave(guest, step);
  }

  /**
   * Before entry: V_TPR from the interrupt controller, which software may have written, also while
   * interrupts are accelerated; KVM's `sync_lapic_to_cr8` (and d02e48830e3f). Writes of CR8 exit only
   * while one of them could let an interrupt in that hardware does not know of; KVM's
   * `update_cr8_intercept`. For accelerated vCPUs `AcceleratedTaskPriority` may say otherwise.
   */
  #loadTaskPriority(guest: GuestCpu): void {
    const { vcpu } = guest;
    const controller = this.#vm.interruptController.current;
    const priority = controller.taskPriority?.(vcpu);
    if (priority === undefined) return;
    const { accelerated } = vcpu;
    const { syncs, keepsIntercept } = guest.taskPriority;
    if (guest.cr8 !== priority && (syncs || !accelerated)) guest.cr8 = priority;
    if (accelerated && keepsIntercept) return;
    const waits = !accelerated && controller.waitsForTaskPriority?.(vcpu) === true;
    if (guest.taskPriorityWindow === waits) return;
    guest.taskPriorityWindow = waits;
    guest.recalculate();
  }

  /** Behind what may have written CR8, which was `before`: the interrupt controller's from V_TPR. */
  #storeTaskPriority({ vcpu, cr8 }: GuestCpu, before: number | undefined): void {
    if (before !== cr8) this.#vm.interruptController.current.setTaskPriority?.(vcpu, cr8);
  }

  #leave(guest: GuestCpu, step: boolean): void {
    const { vcpu, vmcb } = guest;
    const { exit } = vcpu;
    // What is not brought together at entry is not at exit either.
    if (guest.taskPriority.syncs || !vcpu.accelerated) {
      this.#storeTaskPriority(guest, this.#vm.interruptController.current.taskPriority?.(vcpu));
    }
    translateExit(exit, vmcb, vcpu.regs);
    // A task gate's event is delivered with the task switch, by whoever carries that out.
    if (exit.reason !== ExitReason.TASK_SWITCH) returnInterrupted(guest);
    // An event that could not even be begun, because entry was refused, is not lost either.
    vmcb.set32(Control.EVENTINJ, 0);
    switch (exit.reason) {
      case ExitReason.EXTERNAL_INTERRUPT:
        // The host's own timer: the budget is used up.
        exit.reason = step ? ExitReason.NMI_WINDOW : ExitReason.BUDGET;
        break;
      case ExitReason.INTERRUPT_WINDOW:
        this.setInterruptWindow(guest, false);
        break;
    }
  }

  /** See `Vendor.complete`. */
  complete(vcpu: Vcpu): void {
    const { exit, regs } = vcpu;
    if (exit.reason === ExitReason.RDMSR && (exit.info1Lo & MSR_IMMEDIATE) !== 0) {
      regs.setPair(exit.gpr, exit.lo, exit.hi);
    } else writeAnswer(exit, regs);
    this.#skip(vcpu);
  }

  /** Moves RIP past the instruction that exited. */
  #skip(vcpu: Vcpu): void {
    const guest = this.of(vcpu);
    const { vmcb } = guest;
    const lo = vmcb.get32(Control.NRIP);
    const hi = vmcb.get32(Control.NRIP + 4);
    if ((lo | hi) === 0) return;
    vcpu.regs.setPair(Gpr.RIP, lo, hi);
    guest.interruptShadow = false;
    vcpu.instructions++;
    endInstruction(vcpu);
  }

  /** See `Vendor.fault`. */
  fault(vcpu: Vcpu, vector: number, errorCode?: number): void {
    vcpu.events.queueException(vector, errorCode);
  }

  /** See `Vendor.emulate`. */
  emulate(vcpu: Vcpu, gpa?: number): ExitAction {
    if (gpa !== undefined && this.#move(this.of(vcpu), gpa)) return Action.RESUME;
    if (vcpu.exit.reason === ExitReason.CR_ACCESS && this.#moveToControl(vcpu)) {
      return Action.RESUME;
    }
    this.#emulator ??= new Emulator(this.#vm, this.#processors, this.#memory);
    const guest = this.#released(vcpu);
    const { cr8 } = guest;
    try {
      return this.#emulator.step(guest);
    } finally {
      this.#storeTaskPriority(guest, cr8);
    }
  }

  /** Carries out a plain move to a control register; false if it is none. */
  #moveToControl(vcpu: Vcpu): boolean {
    const guest = this.of(vcpu);
    const { cr8 } = guest;
    if (!moveToControl(guest)) return false;
    this.#storeTaskPriority(guest, cr8);
    this.#skip(vcpu);
    return true;
  }

  /** Carries out a plain move to or from the device register at `gpa`; false if it is none. */
  #move(guest: GuestCpu, gpa: number): boolean {
    this.#moves ??= new DeviceMoves(this.#vm, this.#memory, this.#processors.isa);
    if (!this.#moves.carryOut(guest.moving, gpa)) return false;
    guest.interruptShadow = false;
    return true;
  }

  /** See `Vendor.interruptAllowed`. */
  interruptAllowed(vcpu: Vcpu): boolean {
    const guest = this.of(vcpu);
    const enabled = (vcpu.regs.lo(Gpr.RFLAGS) & Rflags.IF) !== 0;
    return enabled && guest.svm.gif && !guest.interruptShadow && !guest.injecting;
  }

  /** See `Vendor.nmiAllowed`. */
  nmiAllowed(vcpu: Vcpu): boolean {
    const guest = this.of(vcpu);
    return !guest.nmiMasked && guest.svm.gif && !guest.interruptShadow && !guest.injecting;
  }

  /** See `Vendor.nmiMasked`. */
  nmiMasked(vcpu: Vcpu): boolean {
    return this.of(vcpu).nmiMasked;
  }

  /** See `Vendor.injectException`. */
  injectException(vcpu: Vcpu, exception: PendingException): void {
    injectException(this.of(vcpu), exception);
  }

  /** See `Vendor.injectInterrupt`. */
  injectInterrupt(vcpu: Vcpu, vector: number, soft: boolean): void {
    injectInterrupt(this.of(vcpu), vector, soft);
  }

  /** See `Vendor.injectNmi`. */
  injectNmi(vcpu: Vcpu): void {
    const guest = this.of(vcpu);
    injectNmi(guest);
    guest.recalculate();
  }

  /** See `Vendor.requestInterruptWindow`. */
  requestInterruptWindow(vcpu: Vcpu): void {
    const guest = this.of(vcpu);
    // Without a GIF of the guest's own, nothing holds V_IRQ back; STGI exits and looks again.
    if (!guest.svm.gif && !guest.svm.virtualGif) return;
    this.setInterruptWindow(guest, true);
  }

  /**
   * Masked NMIs wait for the IRET that is intercepted, those that GIF holds back for the STGI; a shadow
   * is over after one instruction.
   */
  requestNmiWindow(vcpu: Vcpu): void {
    const guest = this.of(vcpu);
    if (guest.nmiMasked) guest.iretWindow = true;
    else if (!guest.svm.gif) guest.svm.intercepts |= Misc2.STGI;
    else guest.stepForNmi = true;
    guest.recalculate();
  }

  /** See `Vendor.branchCounts`. */
  branchCounts(vcpu: Vcpu): BranchCounts {
    return this.of(vcpu).branches;
  }

  /** See `Vendor.cpl`. */
  cpl(vcpu: Vcpu): number {
    return this.of(vcpu).vmcb.bytes[Save.CPL]! & 3;
  }

  /** See `Vendor.is64Bit`. */
  is64Bit(vcpu: Vcpu): boolean {
    const { vmcb } = this.of(vcpu);
    const attributes = (vmcb.get32(Save.CS) >>> 16) & 0xfff;
    return (vmcb.get32(Save.EFER) & Efer.LMA) !== 0 && (attributes & Attr.L) !== 0;
  }

  /** See `Vendor.cr4`. */
  cr4(vcpu: Vcpu): number {
    return this.of(vcpu).vmcb.get32(Save.CR4);
  }

  /** See `Vendor.xcr0`. */
  xcr0(vcpu: Vcpu): number {
    return this.of(vcpu).xcr0Low;
  }

  /** See `Vendor.xss`. */
  xss(vcpu: Vcpu): number {
    return this.of(vcpu).cet.xss;
  }

  /** See `Vendor.readMsr`. */
  readMsr(vcpu: Vcpu, access: MsrAccess): boolean {
    return accessMsr(this.#vm, this.of(vcpu), access);
  }

  /** See `Vendor.writeMsr`. */
  writeMsr(vcpu: Vcpu, access: MsrAccess): boolean {
    return accessMsr(this.#vm, this.of(vcpu), access);
  }

  /** See `Vendor.translate`. */
  translate(vcpu: Vcpu, gva: bigint): number | undefined {
    const { memory } = this.#vm;
    const read = (gpa: number): bigint | undefined =>
      memory.lookup(gpa) === undefined ? undefined : memory.readU64(gpa);
    return walkPages(this.getSystemState(vcpu), gva, read).address;
  }

  /** See `Vendor.getSystemState`. */
  getSystemState(vcpu: Vcpu): SystemState {
    const state = readSystemState(this.#released(vcpu));
    state.cr8 = this.#vm.interruptController.current.taskPriority?.(vcpu) ?? state.cr8;
    return state;
  }

  /** See `Vendor.setSystemState`. */
  setSystemState(vcpu: Vcpu, state: SystemState): void {
    const guest = this.#released(vcpu);
    writeSystemState(guest, state);
    this.#vm.interruptController.current.setTaskPriority?.(vcpu, state.cr8);
    const real = (state.cr0 & BigInt(Cr0.PE)) === 0n;
    if (real) guest.vmcb.bytes[Save.CPL] = 0;
  }

  /** See `Vendor.getXsave`. */
  getXsave(vcpu: Vcpu): Uint8Array {
    const { xsave, registers } = this.#released(vcpu);
    return this.#apx ? withExtendedRegisters(xsave, registers) : xsave.slice();
  }

  /** See `Vendor.setXsave`. */
  setXsave(vcpu: Vcpu, area: Uint8Array): void {
    const guest = this.#released(vcpu);
    guest.xsave = area.slice(0, guest.xsave.length);
    if (this.#apx) setExtendedRegisters(guest.registers, area);
  }

  /** Everything is in registers and system state. */
  saveVcpu(): Saved {
    return null;
  }

  /** See `Vendor.loadVcpu`. */
  loadVcpu(): void {}
}
