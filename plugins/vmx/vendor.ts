/**
 * The hypervisor: entry, exit, and what the core asks of a vendor in between.
 *
 * @module
 */
import {
  type BranchCounts,
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
  type SlotRef,
  type SystemState,
  type Vcpu,
  type Vendor,
  type Vm,
} from "../../core/mod.ts";
import {
  DeviceMoves,
  endInstruction,
  ExitInformation as ImportedExitInformation,
  type ExtendedStateSwitch,
  type Processors,
  resetRegisters,
  resetXsave,
  Rflags,
  setExtendedRegisters,
  Vector,
  Vmcs,
  VmxExit as ImportedVmxExit,
  walkPages,
  withExtendedRegisters,
  writeAnswer,
} from "../cpu/mod.ts";
import type { ApicBus } from "../lapic/mod.ts";
import { type Controls, fitControls } from "./controls.ts";
import { moveControl } from "./control_moves.ts";
import { Emulator } from "./emulator.ts";
import { ExtendedPageTables } from "./ept.ts";
import { injectException, injectInterrupt, injectNmi, returnInterrupted } from "./events.ts";
import { translateExit } from "./exits.ts";
import { GuestCpu } from "./guest_cpu.ts";
import { HostCpu } from "./host.ts";
import type { HostApic, HostApicBoard } from "./host_apic.ts";
import type { ImmediateMsrPolicy } from "./policy/immediate_msr.ts";
import type { RegisterFieldsPolicy } from "./policy/register_fields.ts";
import { accessMsr } from "./msrs.ts";
import type { PolicyRefs } from "./policy/refs.ts";
import { readSystemState, writeSystemState } from "./system_state.ts";
import { hostInterruptHook, privatePageHook, type Vmx, type VmxCapabilities } from "./vmx_guest.ts";

// V8 folds constants of the module itself into compiled code, and loads and checks imported ones at each use.
const ExitInformation = ImportedExitInformation;
const ExitReason = ImportedExitReason;
const Gpr = ImportedGpr;
const VmxExit = ImportedVmxExit;

/** INVEPT of one EPT pointer. */
const SINGLE_CONTEXT = 1;
/** Interruption information: the vector, and whether there is one. */
const INFO_VECTOR = 0xff;
const INFO_VALID = 0x8000_0000;
/** Its type, and that of INT1. */
const INFO_TYPE = 0x700;
const PRIVILEGED_EXCEPTION = 0x500;
/** Access rights of CS: 64-bit code. */
const RIGHTS_L = 0x2000;

/** What exists once for all vCPUs; made with the first. */
interface Shared {
  readonly tables: ExtendedPageTables;
  readonly controls: Controls;
}

/** The hooks that this hypervisor calls. */
interface VmxHooks {
  readonly privatePage: PointOf<typeof privatePageHook>;
  readonly hostInterrupt: PointOf<typeof hostInterruptHook>;
}

/** Policies that other plugins may provide. */
export interface VmxPolicies extends PolicyRefs {
  /** Who switches XCR0 and R16–R31. */
  readonly extended: SlotRef<ExtendedStateSwitch>;
  /** What becomes of exits 84 and 85. */
  readonly immediateMsr: SlotRef<ImmediateMsrPolicy>;
  /** Where the numbers of register operands are read. */
  readonly registerFields: SlotRef<RegisterFieldsPolicy>;
}

/** The vendor. */
export class VmxVendor implements Vendor, Vmx, HostApicBoard {
  /** `"vmx"`. */
  readonly name = "vmx";
  readonly #vm: Vm;
  readonly #processors: Processors;
  readonly #memory: HostMemory;
  readonly #hooks: VmxHooks;
  readonly #policies: VmxPolicies;
  /** The processors have XSAVE, so that there is extended state to switch. */
  readonly #switches: boolean;
  readonly #apx: boolean;
  readonly #exceptions: number;
  readonly #guests: (GuestCpu | undefined)[] = [];
  readonly #hosts: (HostCpu | undefined)[] = [];
  #shared: Shared | undefined;
  #emulator: Emulator | undefined;
  #moves: DeviceMoves | undefined;
  #bus: ApicBus | undefined;

  /** `exceptions` exit, a bit each. */
  constructor(
    vm: Vm,
    processors: Processors,
    memory: HostMemory,
    policies: VmxPolicies,
    exceptions: number,
  ) {
    this.#vm = vm;
    this.#exceptions = exceptions;
    this.#hooks = {
      privatePage: vm.hooks.point(privatePageHook),
      hostInterrupt: vm.hooks.keyedPoint(hostInterruptHook),
    };
    this.#processors = processors;
    this.#memory = memory;
    this.#policies = policies;
    this.#switches = processors.isa.has("xsave");
    this.#apx = processors.isa.has("apx");
  }

  // For plugins that build upon it

  /** See `Vmx.of`. */
  of(vcpu: Vcpu): GuestCpu {
    return this.#guests[vcpu.index]!;
  }

  /** The guest CPU with everything of it in memory, none left on a processor. */
  #released(vcpu: Vcpu): GuestCpu {
    const guest = this.of(vcpu);
    guest.adopter?.release();
    return guest;
  }

  #host(index: number): HostCpu {
    return this.#hosts[index] ??= new HostCpu(this.#processors.get(index), this.#memory, this);
  }

  /** See `Vmx.capabilities`. */
  get capabilities(): VmxCapabilities {
    return this.#shared!.controls.capabilities;
  }

  /** See `Vmx.hostId`. */
  hostId(pcpu: number): number {
    return this.#host(pcpu).apic.id;
  }

  /** See `Vmx.interrupt`. */
  interrupt(pcpu: number, vector: number): void {
    const host = this.#hosts[pcpu];
    if (host === undefined) this.take(pcpu, vector);
    else host.apic.arrive(vector);
  }

  /** See `Vmx.interruptId`. */
  interruptId(id: number, vector: number): void {
    this.find(id)?.arrive(vector);
  }

  /** See `Vmx.interruptWaits`. */
  interruptWaits(pcpu: number, vector: number): boolean {
    return this.#hosts[pcpu]?.apic.waits(vector) === true;
  }

  /** See `Vmx.inGuest`. */
  inGuest({ pcpu }: Vcpu): boolean {
    return this.#hosts[pcpu]?.apic.guestMode === true;
  }

  /** See `HostApicBoard.find`. */
  find(id: number): HostApic | undefined {
    return this.#hosts.find((host) => host?.apic.id === id)?.apic;
  }

  /** See `HostApicBoard.take`. */
  take(pcpu: number, vector: number): void {
    this.#hooks.hostInterrupt.table[vector]?.(pcpu);
  }

  /** A vCPU leaves its host processor. */
  put({ pcpu }: Vcpu): void {
    this.#hosts[pcpu]?.apic.drain();
  }

  /** The local APICs are others, or there are none any more. */
  setLapics(bus: ApicBus | undefined): void {
    if (bus === this.#bus) return;
    this.#bus = bus;
    for (const guest of this.#guests) if (guest !== undefined) this.#setLapic(guest);
  }

  /** A local APIC was made, or its mode has changed. */
  lapicChanged(vcpu: Vcpu): void {
    const guest = this.#guests[vcpu.index];
    if (guest !== undefined) this.#setLapic(guest);
  }

  #setLapic(guest: GuestCpu): void {
    guest.taskPriority.setLapic(this.#bus?.of(guest.vcpu));
    guest.passX2apic();
  }

  /** See `Vmx.dropPrivatePage`. */
  dropPrivatePage(gpa: number): void {
    this.#shared?.tables.unmapPage(gpa);
    this.#flushAll();
  }

  #flushAll(): void {
    for (const guest of this.#guests) if (guest !== undefined) guest.flush = true;
  }

  /** See `Vendor.createVcpu`. */
  createVcpu(vcpu: Vcpu): Uint32Array {
    const home = (): HostCpu => this.#host(0);
    this.#shared ??= {
      tables: new ExtendedPageTables(this.#memory),
      controls: fitControls(home(), this.#exceptions),
    };
    const { tables, controls } = this.#shared;
    const { isa } = this.#processors;
    const guest = new GuestCpu(vcpu, this.#memory, tables, controls, this.#policies, home, isa);
    this.#guests[vcpu.index] = guest;
    writeSystemState(this.#vm, guest, resetSystemState());
    resetRegisters(guest.registers, this.#processors.signature);
    return guest.registers;
  }

  /** See `Vendor.destroyVcpu`. */
  destroyVcpu(vcpu: Vcpu): void {
    this.#released(vcpu).free();
    this.#guests[vcpu.index] = undefined;
    if (this.#guests.some((guest) => guest !== undefined)) return;
    for (const host of this.#hosts.splice(0)) host?.free();
    this.#emulator?.free();
    this.#emulator = undefined;
    this.#shared?.tables.free();
    this.#shared = undefined;
  }

  /** See `Vendor.resetVcpu`. */
  resetVcpu(vcpu: Vcpu, init: boolean): void {
    const guest = this.#released(vcpu);
    const state = init ? initSystemState(readSystemState(guest)) : resetSystemState();
    if (!init) guest.xsave = resetXsave();
    writeSystemState(this.#vm, guest, state);
    resetRegisters(guest.registers, this.#processors.signature);
    guest.vmcs.set32(Vmcs.ENTRY_INTERRUPTION_INFO, 0);
    guest.injecting = false;
    guest.interruptWindow = guest.nmiWindow = false;
    guest.recalculate();
  }

  /** A memslot came or went: translations are built anew. */
  memslotChanged(gpa: number, size: number, hpa: number, readonly: boolean, added: boolean): void {
    this.#emulator?.memslotChanged(gpa, size, hpa, readonly, added);
    this.#shared?.tables.clear();
    this.#flushAll();
  }

  /** Maps the page of an EPT violation, if it is the guest's memory. */
  mapFault(vcpu: Vcpu): boolean {
    const { gpa, write } = vcpu.exit;
    const { tables } = this.#shared!;
    const slot = this.#vm.memory.lookup(gpa);
    if (slot === undefined) {
      const hpa = this.#hooks.privatePage.call(vcpu, gpa);
      if (hpa === undefined) return false;
      tables.mapPage(gpa, hpa, true);
      return true;
    }
    if (slot.readonly && write) return false;
    tables.map(slot, gpa);
    return true;
  }

  /** A #DB has exited: the guest gets it, and is single-stepped as it was. */
  reflectDebug(vcpu: Vcpu): ExitAction {
    const { exit, events } = vcpu;
    // INT1 exits instead of being executed, while its #DB is one behind it.
    if ((exit.info2Lo & INFO_TYPE) === PRIVILEGED_EXCEPTION) this.#advance(vcpu);
    if (this.#policies.pendingDebug.current.reflected) this.of(vcpu).pendSingleStep();
    events.queueDebug(exit.info1Lo);
    return Action.RESUME;
  }

  /** An instruction that does not exist for a guest without VMX. */
  undefined(vcpu: Vcpu): ExitAction {
    vcpu.events.queueException(Vector.UD);
    return Action.RESUME;
  }

  /** See `Vendor.enter`. */
  enter(vcpu: Vcpu, budget: number): void {
    const guest = this.of(vcpu);
    const { vmcs } = guest;
    const index = Math.max(0, vcpu.pcpu);
    const host = this.#host(index);
    const { processor } = host;
    guest.adopter?.processor === processor || guest.adopter?.release();
    host.adopt(guest);
    host.makeCurrent(vmcs);
    if (guest.lastProcessor !== index || guest.flush) {
      processor.invept(SINGLE_CONTEXT, this.#shared!.tables.pointer);
      if (guest.lastProcessor !== index) host.writeHostState(vmcs);
      guest.lastProcessor = index;
      guest.flush = false;
    }
    processor.setTscAux(guest.tscAux);
    processor.setTsc(this.#vm.clock.current.now());
    guest.taskPriority.enter(vcpu.accelerated);
    guest.recalculate();
    const switches = this.#switches;
    const { extended } = this.#policies;
    if (switches) extended.current.enter(host.extended, guest);
    host.apic.enter();
    let error = -1;
    try {
      error = processor.enterVmx(guest.registers, !vmcs.launched, budget);
    } finally {
      vcpu.instructions += error === 0 ? processor.retiredOutside : processor.retired;
      if (error !== 0) host.apic.exit(-1);
    }
    if (switches) extended.current.exit(host.extended, guest);
    if (error !== 0) {
      this.#refused(vcpu, error);
      return;
    }
    vmcs.launched = true;
    this.#leave(guest, host);
  }

  /** VMLAUNCH or VMRESUME failed (VMfail): nothing of the guest has changed. */
  #refused({ exit }: Vcpu, error: number): void {
    exit.reason = ExitReason.FAIL_ENTRY;
    exit.vendorCodeLo = exit.vendorCodeHi = 0;
    exit.info1Lo = error;
    exit.info1Hi = exit.info2Lo = exit.info2Hi = 0;
    exit.instructionLength = exit.byteCount = 0;
  }

  #leave(guest: GuestCpu, host: HostCpu): void {
    const { vcpu, vmcs } = guest;
    const { exit } = vcpu;
    const information = host.processor.exitInformation;
    guest.interruptibility = information[ExitInformation.INTERRUPTIBILITY]!;
    // Hardware has cleared the valid bit of what was injected.
    guest.injecting = false;
    const { immediateMsr, registerFields } = this.#policies;
    const extended = this.#apx && registerFields.current.extended;
    translateExit(exit, information, vmcs, vcpu.regs, extended);
    if (isImmediateMsr(exit.vendorCodeLo) && !immediateMsr.current.handled) {
      exit.reason = ExitReason.OTHER;
    }
    returnInterrupted(guest, information);
    let vector = -1;
    switch (exit.reason) {
      case ExitReason.EXTERNAL_INTERRUPT:
        if ((exit.info2Lo & INFO_VALID) === 0) {
          // The host's own timer: the budget is used up. To everybody else the guest goes on.
          exit.reason = ExitReason.BUDGET;
          return;
        }
        vector = exit.info2Lo & INFO_VECTOR;
        break;
      case ExitReason.INTERRUPT_WINDOW:
        guest.interruptWindow = false;
        break;
      case ExitReason.NMI_WINDOW:
        guest.nmiWindow = false;
        break;
    }
    host.apic.exit(vector);
  }

  /** See `Vendor.complete`. */
  complete(vcpu: Vcpu): void {
    const { exit, regs } = vcpu;
    if (
      exit.reason === ExitReason.RDMSR && (exit.vendorCodeLo & 0xffff) === VmxExit.RDMSR_IMMEDIATE
    ) {
      regs.setPair(exit.gpr, exit.lo, exit.hi);
    } else writeAnswer(exit, regs);
    this.#skip(vcpu);
  }

  /** Moves RIP past the instruction that exited. */
  #skip(vcpu: Vcpu): void {
    if (this.#advance(vcpu)) endInstruction(vcpu);
  }

  /** The same without what follows an instruction; whether there was one. */
  #advance(vcpu: Vcpu): boolean {
    const guest = this.of(vcpu);
    const { regs, exit } = vcpu;
    const length = exit.instructionLength;
    if (length === 0) return false;
    const lo = (regs.lo(Gpr.RIP) >>> 0) + length;
    const carry = lo > 0xffff_ffff && this.is64Bit(vcpu) ? 1 : 0;
    regs.setPair(Gpr.RIP, lo | 0, regs.hi(Gpr.RIP) + carry);
    guest.interruptShadow = false;
    vcpu.instructions++;
    return true;
  }

  /** See `Vendor.fault`. */
  fault(vcpu: Vcpu, vector: number, errorCode?: number): void {
    vcpu.events.queueException(vector, errorCode);
  }

  /** See `Vendor.emulate`. Accesses to CR8 are among what it carries out. */
  emulate(vcpu: Vcpu, gpa?: number): ExitAction {
    if (gpa !== undefined && this.#move(this.of(vcpu), gpa)) return Action.RESUME;
    const guest = this.of(vcpu);
    const controller = this.#vm.interruptController.current;
    const priority = controller.taskPriority?.(vcpu);
    guest.cr8 = priority ?? guest.cr8;
    try {
      if (vcpu.exit.reason === ExitReason.CR_ACCESS && moveControl(guest)) {
        this.#skip(vcpu);
        return Action.RESUME;
      }
      this.#emulator ??= new Emulator(this.#vm, this.#processors);
      this.#released(vcpu);
      return this.#emulator.step(guest);
    } finally {
      if (guest.cr8 !== priority) controller.setTaskPriority?.(vcpu, guest.cr8);
    }
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
    return enabled && !guest.interruptShadow && !guest.injecting;
  }

  /** See `Vendor.nmiAllowed`. */
  nmiAllowed(vcpu: Vcpu): boolean {
    const guest = this.of(vcpu);
    return !guest.nmiMasked && !guest.interruptShadow && !guest.injecting;
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
    injectNmi(this.of(vcpu));
  }

  /** See `Vendor.requestInterruptWindow`. */
  requestInterruptWindow(vcpu: Vcpu): void {
    this.of(vcpu).interruptWindow = true;
  }

  /** See `Vendor.requestNmiWindow`. */
  requestNmiWindow(vcpu: Vcpu): void {
    this.of(vcpu).nmiWindow = true;
  }

  /** See `Vendor.branchCounts`. */
  branchCounts(vcpu: Vcpu): BranchCounts {
    return this.of(vcpu).branches;
  }

  /** See `Vendor.cpl`. SS.DPL, in every mode (SDM vol. 3, 25.4.1). */
  cpl(vcpu: Vcpu): number {
    return (this.of(vcpu).vmcs.get32(Vmcs.GUEST_SS_ACCESS_RIGHTS) >> 5) & 3;
  }

  /** See `Vendor.is64Bit`. */
  is64Bit(vcpu: Vcpu): boolean {
    const { vmcs, longMode } = this.of(vcpu);
    return longMode && (vmcs.get32(Vmcs.GUEST_CS_ACCESS_RIGHTS) & RIGHTS_L) !== 0;
  }

  /** See `Vendor.cr4`. */
  cr4(vcpu: Vcpu): number {
    return this.of(vcpu).vmcs.get32(Vmcs.CR4_SHADOW);
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
    writeSystemState(this.#vm, this.#released(vcpu), state);
    this.#vm.interruptController.current.setTaskPriority?.(vcpu, state.cr8);
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

/** Whether an exit is one of RDMSR and WRMSRNS with an immediate. */
function isImmediateMsr(code: number): boolean {
  const reason = code & 0xffff;
  return reason === VmxExit.RDMSR_IMMEDIATE || reason === VmxExit.WRMSRNS_IMMEDIATE;
}
