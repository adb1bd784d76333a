/**
 * The bare processor as a vendor: a vCPU is a processor, and nothing stands between it and the guest.
 *
 * What would be an exit under a hypervisor is met from inside the processor: a port access, CPUID, an
 * MSR the processor does not keep, device memory. Each goes through the core's `handleExit` like any
 * exit, so tools see the same picture; the instruction goes on with the answer.
 *
 * @module
 */
import {
  ArgumentError,
  type BranchCounts,
  type ExitAction,
  ExitReason,
  type MemoryRange,
  MpState,
  type MsrAccess,
  type PendingException,
  type Saved,
  type SystemState,
  UnimplementedError,
  type Vcpu,
  type Vendor,
  type Vm,
} from "../../core/mod.ts";
import {
  EventFormat,
  type Processor,
  type Processors,
  readProcessorState,
  S,
  setExtendedRegisters,
  type SmmState,
  Vector,
  walkPages,
  withExtendedRegisters,
  writeProcessorState,
} from "../cpu/mod.ts";
import { type CreateTimer, MetalVcpu } from "./metal_vcpu.ts";

/** The physical address space the processors are attached to: the guest's. */
export const GUEST_SPACE = 1;
/** The one of processors in system management mode, where SMRAM is as well. */
const SMM_SPACE = 2;

/** Exceptions that push an error code. */
const WITH_ERROR: ReadonlySet<number> = new Set([
  Vector.DF,
  Vector.TS,
  Vector.NP,
  Vector.SS,
  Vector.GP,
  Vector.PF,
  Vector.AC,
]);

/** The vendor. */
export class MetalVendor implements Vendor {
  /** `"metal"`. */
  readonly name = "metal";
  readonly #vm: Vm;
  readonly #processors: Processors;
  readonly #apx: boolean;
  readonly #createTimer: CreateTimer;
  readonly #vcpus: (MetalVcpu | undefined)[] = [];
  #mapped = false;
  /** Memory that is there in SMM alone. */
  #smram: readonly MemoryRange[] = [];

  constructor(vm: Vm, processors: Processors, createTimer: CreateTimer) {
    this.#createTimer = createTimer;
    this.#vm = vm;
    this.#processors = processors;
    this.#apx = processors.isa.has("apx");
  }

  #of(vcpu: Vcpu): MetalVcpu {
    return this.#vcpus[vcpu.index]!;
  }

  /** The processor of `vcpu`, loaded, with every vCPU's registers found where they are now. */
  #load(vcpu: Vcpu): Processor {
    const { processor } = this.#of(vcpu);
    if (processor.loaded) return processor;
    processor.load();
    this.#bindRegisters();
    return processor;
  }

  /** Loading a processor moves its registers, and those of the one that was loaded. */
  #bindRegisters(except?: MetalVcpu): void {
    for (const own of this.#vcpus) {
      if (own !== except) own?.vcpu.regs.bind(own.processor.registerStorage);
    }
  }

  /** Memslots come and go: physical memory is the guest's. */
  memslotChanged(gpa: number, size: number, hpa: number, readonly: boolean, added: boolean): void {
    if (!this.#mapped) return;
    for (const space of [GUEST_SPACE, SMM_SPACE]) {
      if (added) this.#processors.mapAlias(space, gpa, size, hpa, readonly);
      else this.#processors.unmapAlias(space, gpa, size);
    }
    this.#hide(this.#smram);
    this.#flushTlbs();
  }

  #flushTlbs(): void {
    for (const own of this.#vcpus) if (own !== undefined) this.#load(own.vcpu).flushTlbs();
  }

  #hide(ranges: readonly MemoryRange[]): void {
    for (const { gpa, size } of ranges) this.#processors.unmapAlias(GUEST_SPACE, gpa, size);
  }

  /** See `Vendor.setSmram`. */
  setSmram(ranges: readonly MemoryRange[]): void {
    const shown = this.#smram;
    this.#smram = ranges.map(({ gpa, size }) => ({ gpa, size }));
    if (!this.#mapped) return;
    for (const range of shown) {
      for (const slot of this.#vm.memory.slots) {
        const gpa = Math.max(range.gpa, slot.gpa);
        const size = Math.min(range.gpa + range.size, slot.gpa + slot.size) - gpa;
        if (size <= 0) continue;
        const hpa = slot.hpa + (gpa - slot.gpa);
        this.#processors.mapAlias(GUEST_SPACE, gpa, size, hpa, slot.readonly);
      }
    }
    this.#hide(this.#smram);
    this.#flushTlbs();
  }

  /** See `Vendor.createVcpu`. Throws `ArgumentError` if there are fewer processors than vCPUs. */
  createVcpu(vcpu: Vcpu): Uint32Array {
    const { count } = this.#processors;
    if (vcpu.index >= count) {
      throw new ArgumentError(
        `metal: a vCPU is a processor, and there ${count === 1 ? "is" : "are"} ${count}`,
      );
    }
    const processor = this.#processors.get(vcpu.index);
    if (!this.#mapped) {
      this.#mapped = true;
      for (const { gpa, size, hpa, readonly } of this.#vm.memory.slots) {
        this.#processors.mapAlias(GUEST_SPACE, gpa, size, hpa, readonly);
        this.#processors.mapAlias(SMM_SPACE, gpa, size, hpa, readonly);
      }
      this.#hide(this.#smram);
    }
    const own = new MetalVcpu(vcpu, processor, () => this.#load(vcpu), this.#createTimer);
    processor.attach(own, GUEST_SPACE);
    processor.setSmmSpace(SMM_SPACE);
    processor.reset();
    this.#vcpus[vcpu.index] = own;
    this.#bindRegisters(own);
    return processor.registerStorage;
  }

  /** See `Vendor.destroyVcpu`. */
  destroyVcpu(vcpu: Vcpu): void {
    this.#of(vcpu).processor.detach();
    this.#vcpus[vcpu.index] = undefined;
    if (this.#vcpus.some((own) => own !== undefined)) return;
    this.#mapped = false;
    for (const { gpa, size } of this.#vm.memory.slots) {
      this.#processors.unmapAlias(GUEST_SPACE, gpa, size);
      this.#processors.unmapAlias(SMM_SPACE, gpa, size);
    }
  }

  /** See `Vendor.resetVcpu`. */
  resetVcpu(vcpu: Vcpu, init: boolean): void {
    this.#load(vcpu).reset(init);
  }

  /** See `Vendor.enter`. */
  enter(vcpu: Vcpu, budget: number): void {
    this.#load(vcpu);
    this.#of(vcpu).run(budget);
  }

  /** See `Vendor.complete`. */
  complete(vcpu: Vcpu): void {
    this.#of(vcpu).complete();
  }

  /** See `Vendor.fault`. */
  fault(vcpu: Vcpu, vector: number, errorCode?: number): void {
    this.#of(vcpu).fault(vector, errorCode);
  }

  /** Nothing needs emulation: the processor carries out every instruction itself. */
  emulate(vcpu: Vcpu): ExitAction {
    throw new UnimplementedError(
      `vCPU ${vcpu.id}: metal has no exit whose instruction would have to be emulated`,
    );
  }

  /**
   * Interrupts come through the INTR pin, for in guest mode the processor decides whether one is
   * delivered or intercepted: so none is ever handed to a processor that runs. Of one that has halted
   * the core asks whether the pin would end the halt.
   */
  interruptAllowed(vcpu: Vcpu): boolean {
    return vcpu.mpState === MpState.HALTED && this.#load(vcpu).takesInterrupts;
  }

  /** As {@linkcode MetalVendor.interruptAllowed}, for the NMI pin. */
  nmiAllowed(vcpu: Vcpu): boolean {
    return vcpu.mpState === MpState.HALTED && this.#load(vcpu).takesNmis;
  }

  /** See `Vendor.nmiMasked`. */
  nmiMasked(vcpu: Vcpu): boolean {
    return this.#load(vcpu).state.get32(S.nmiBlocked) !== 0;
  }

  /** See `Vendor.injectException`. */
  injectException(vcpu: Vcpu, exception: PendingException): void {
    const processor = this.#load(vcpu);
    const { state } = processor;
    const { vector, errorCode, hasErrorCode, payloadLo, payloadHi, hasPayload } = exception;
    if (hasPayload && vector === Vector.PF) state.setHalves(S.cr2, payloadLo, payloadHi);
    if (vector === Vector.DB) {
      const dr6 = (state.low(S.dr6) & ~0xf) | (hasPayload ? payloadLo : 0);
      state.setHalves(S.dr6, dr6, 0);
      // DR7.GD is cleared so that the handler can use the debug registers.
      state.setHalves(S.dr7, state.low(S.dr7) & ~0x2000, 0);
    }
    const withError = hasErrorCode && WITH_ERROR.has(vector);
    const event = vector | EventFormat.EXCEPTION | EventFormat.VALID |
      (withError ? EventFormat.ERROR : 0);
    processor.inject(event, errorCode);
  }

  /** See `Vendor.injectInterrupt`. */
  injectInterrupt(vcpu: Vcpu, vector: number, soft: boolean): void {
    const type = soft ? EventFormat.SOFTWARE : EventFormat.EXTERNAL;
    this.#load(vcpu).inject(vector | type | EventFormat.VALID, 0);
  }

  /** See `Vendor.injectNmi`. */
  injectNmi(vcpu: Vcpu): void {
    this.#load(vcpu).inject(Vector.NMI | EventFormat.NMI | EventFormat.VALID, 0);
  }

  /** The INTR pin is asserted: the processor takes the interrupt by itself when it can. */
  requestInterruptWindow(vcpu: Vcpu): void {
    this.#load(vcpu).setInterruptLine(true);
  }

  /** The NMI pin: the processor latches one, however often it is raised, and takes it when it can. */
  requestNmiWindow(vcpu: Vcpu): void {
    vcpu.events.nmiPending = 0;
    this.#load(vcpu).raiseNmi();
    vcpu.vm.points.inject.call(vcpu, "nmi", Vector.NMI);
  }

  /**
   * In guest mode, with GIF clear, in VMX operation, or with VM_CR.R_INIT, it is the processor that
   * knows what becomes of INIT (APM vol. 2, 15.21.8; SDM vol. 3C, 24.8).
   */
  keepInit(vcpu: Vcpu): boolean {
    const processor = this.#load(vcpu);
    if (!processor.mindsInit) return false;
    processor.raiseInit();
    // One that has halted looks at it, unless it is held back there, too.
    if (vcpu.mpState === MpState.HALTED && processor.takesInit) vcpu.mpState = MpState.RUNNABLE;
    return true;
  }

  /** The SMI pin: the processor latches one, however often it is raised, and takes it when it can. */
  raiseSmi(vcpu: Vcpu): void {
    const processor = this.#load(vcpu);
    processor.raiseSmi();
    if (vcpu.mpState === MpState.HALTED && processor.takesSmi) vcpu.mpState = MpState.RUNNABLE;
  }

  /** A VMX guest that waits for a start-up IPI exits for it. */
  keepStartup(vcpu: Vcpu, vector: number): boolean {
    if (!this.#load(vcpu).startup(vector)) return false;
    if (vcpu.mpState === MpState.HALTED) vcpu.mpState = MpState.RUNNABLE;
    return true;
  }

  /** See `Vendor.branchCounts`. */
  branchCounts(vcpu: Vcpu): BranchCounts {
    this.#load(vcpu);
    return this.#of(vcpu).branches;
  }

  /** See `Vendor.cpl`. */
  cpl(vcpu: Vcpu): number {
    return this.#load(vcpu).state.get32(S.cpl);
  }

  /** See `Vendor.is64Bit`. */
  is64Bit(vcpu: Vcpu): boolean {
    return this.#load(vcpu).is64Bit;
  }

  /** See `Vendor.cr4`. */
  cr4(vcpu: Vcpu): number {
    return this.#load(vcpu).state.low(S.cr4);
  }

  /** See `Vendor.xss`. */
  xss(vcpu: Vcpu): number {
    return this.#load(vcpu).state.low(S.xss);
  }

  /** See `Vendor.xcr0`. */
  xcr0(vcpu: Vcpu): number {
    return this.#load(vcpu).state.low(S.xcr0);
  }

  /** See `Vendor.readMsr`. An MSR that the guest asked outside for is not the processor's. */
  readMsr(vcpu: Vcpu, access: MsrAccess): boolean {
    this.#load(vcpu);
    const own = this.#of(vcpu);
    const { reason, msr } = vcpu.exit;
    const asked = reason === ExitReason.RDMSR || reason === ExitReason.WRMSR;
    if (own.inside && asked && access.index === msr) return false;
    return own.hostMsr(access);
  }

  /** See `Vendor.writeMsr`. */
  writeMsr(vcpu: Vcpu, access: MsrAccess): boolean {
    return this.readMsr(vcpu, access);
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
    const state = readProcessorState(this.#load(vcpu));
    const priority = this.#vm.interruptController.current.taskPriority?.(vcpu);
    state.cr8 = priority ?? state.cr8;
    return state;
  }

  /** See `Vendor.setSystemState`. */
  setSystemState(vcpu: Vcpu, state: SystemState): void {
    writeProcessorState(this.#load(vcpu), state, vcpu.regs.rflags);
    this.#vm.interruptController.current.setTaskPriority?.(vcpu, state.cr8);
  }

  /** See `Vendor.getXsave`. */
  getXsave(vcpu: Vcpu): Uint8Array {
    const { xsave, registerStorage } = this.#load(vcpu);
    return this.#apx ? withExtendedRegisters(xsave, registerStorage) : xsave;
  }

  /** See `Vendor.setXsave`. */
  setXsave(vcpu: Vcpu, area: Uint8Array): void {
    const processor = this.#load(vcpu);
    processor.xsave = area;
    if (this.#apx) setExtendedRegisters(processor.registerStorage, area);
  }

  /** System management mode; everything else is in registers and system state. */
  saveVcpu(vcpu: Vcpu): Saved {
    const { smmState } = this.#load(vcpu);
    return { smm: { ...smmState } };
  }

  /** See `Vendor.loadVcpu`. */
  loadVcpu(vcpu: Vcpu, saved: Saved): void {
    const { smm } = saved as unknown as { readonly smm: SmmState };
    this.#load(vcpu).smmState = smm;
  }
}
