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
  eventRequest,
  type ExitAction,
  ExitReason,
  handleExit,
  MpState,
  type MsrAccess,
  type PendingException,
  type Saved,
  type SystemState,
  type Timer,
  UnimplementedError,
  type Vcpu,
  type Vendor,
  type Vm,
} from "../../core/mod.ts";
import {
  EventFormat,
  numericErrorHook,
  type Outside,
  type Processor,
  ProcessorBranchCounts,
  type Processors,
  readProcessorState,
  S,
  setExtendedRegisters,
  Stop,
  Vector,
  walkPages,
  withExtendedRegisters,
  writeProcessorState,
} from "../cpu/mod.ts";

/** The physical address space the processors are attached to: the guest's. */
export const GUEST_SPACE = 1;

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

/** Makes a timer that calls back. */
export type CreateTimer = (callback: () => void) => Timer;

/** What one vCPU has of its own. */
class MetalVcpu implements Outside {
  readonly vcpu: Vcpu;
  readonly processor: Processor;
  /** Counts its branches. */
  readonly branches: ProcessorBranchCounts = new ProcessorBranchCounts();
  readonly #load: () => void;
  /** `vcpu.instructions` when the run began. */
  #start = 0;
  /** Instructions the run may retire. */
  #budget = 0;
  /** Inside the processor, handling what it met. */
  #inside = false;
  /** The last run ended in a halt. */
  #halted = false;
  #settled = false;
  /** An access of the host's own, which must not come back here. */
  #host = false;

  readonly #createTimer: CreateTimer;
  /** Ends waits in time; made when the first is met. */
  #timer: Timer | undefined;

  /** `load` makes `processor` the loaded one. */
  constructor(vcpu: Vcpu, processor: Processor, load: () => void, createTimer: CreateTimer) {
    this.vcpu = vcpu;
    this.#createTimer = createTimer;
    this.processor = processor;
    this.branches.load(processor);
    this.#load = load;
  }

  get inside(): boolean {
    return this.#inside;
  }

  /** Handles what is in `vcpu.exit`; the processor then goes on as `complete` or `fault` said. */
  #exit(): void {
    const { vcpu, processor } = this;
    vcpu.instructions = this.#start + processor.retired;
    this.#settled = false;
    this.#inside = true;
    let left: number;
    try {
      left = handleExit(vcpu);
    } finally {
      this.#inside = false;
      // Who handled it may have looked at another vCPU, or reset it.
      this.#load();
    }
    if (!this.#settled) processor.leaveInstruction();
    // What was done may have withdrawn an interrupt; a new one comes with a request.
    if (processor.interruptLine) this.#driveInterruptLine();
    this.#fetchTaskPriority();
    processor.setTsc(vcpu.vm.clock.current.now());
    if (left < this.#budget - processor.retired) processor.limit(left);
  }

  /** Puts the INTR pin to what the interrupt controller says. */
  #driveInterruptLine(): void {
    const { vcpu } = this;
    this.processor.setInterruptLine(vcpu.vm.interruptController.current.hasInterrupt(vcpu));
  }

  /** Puts CR8 to what the interrupt controller has, if it has one. */
  #fetchTaskPriority(): void {
    const { vcpu, processor } = this;
    const priority = vcpu.vm.interruptController.current.taskPriority?.(vcpu);
    if (priority !== undefined) processor.taskPriority = priority;
  }

  /** CR8 was written, and the interrupt controller's task priority with it. */
  setTaskPriority(priority: number): void {
    const { vcpu } = this;
    const controller = vcpu.vm.interruptController.current;
    if (controller.setTaskPriority === undefined) return;
    controller.setTaskPriority(vcpu, priority);
    this.#driveInterruptLine();
  }

  complete(): void {
    this.#settled = true;
  }

  fault(vector: number, errorCode: number | undefined): void {
    const { vcpu, processor } = this;
    if (!this.#inside) {
      vcpu.events.queueException(vector, errorCode);
      return;
    }
    const event = vector | EventFormat.EXCEPTION | EventFormat.VALID |
      (errorCode === undefined ? 0 : EventFormat.ERROR);
    processor.failInstruction(event, errorCode ?? 0);
    this.#settled = true;
  }

  run(budget: number): void {
    const { vcpu, processor } = this;
    const { exit } = vcpu;
    this.#start = vcpu.instructions;
    this.#budget = budget;
    processor.absorbFlags();
    // A halt that was not reported goes on: time passes in it, as with a VMX guest's preemption timer.
    // An SMI finds it halted, and RSM may have it halt again.
    if (this.#halted && !processor.takesSmi) processor.wake();
    this.#driveInterruptLine();
    this.#fetchTaskPriority();
    processor.setTsc(vcpu.vm.clock.current.now());
    let stop: Stop;
    try {
      stop = processor.run(budget);
    } finally {
      vcpu.instructions = this.#start + processor.retired;
      processor.exposeFlags();
    }
    this.#halted = stop === Stop.HALT;
    if (this.#halted) this.#armWait();
    exit.instructionLength = 0;
    exit.byteCount = 0;
    exit.vendorCodeLo = stop;
    exit.reason = stop === Stop.INIT
      ? ExitReason.INIT
      : stop === Stop.HALT
      ? ExitReason.HLT
      : stop === Stop.SHUTDOWN
      ? ExitReason.SHUTDOWN
      : ExitReason.BUDGET;
    if (stop === Stop.SHUTDOWN) processor.clearShutdown();
  }

  /** The wait of an MWAITX may have an end in time. */
  #armWait(): void {
    const { waitTicks } = this.processor;
    if (waitTicks < 0) return;
    const { vm } = this.vcpu;
    this.#timer ??= this.#createTimer(() => {
      const { processor } = this;
      if (processor.waitTicks >= 0 && processor.endWait()) this.woken();
    });
    // What this run has retired has not been charged to the clock yet.
    const { instructions, charged } = this.vcpu;
    this.#timer.arm(vm.clock.current.now() + instructions - charged + waitTicks);
  }

  /** See `Outside.numericError`. */
  numericError(): boolean {
    const { vcpu } = this;
    const point = vcpu.vm.hooks.point(numericErrorHook);
    try {
      return point.call(vcpu) === true;
    } finally {
      // Who heard it may have looked at another vCPU.
      this.#load();
    }
  }

  /** The wait of an MWAIT is over. */
  woken(): void {
    const { vcpu } = this;
    if (vcpu.mpState === MpState.HALTED) vcpu.mpState = MpState.RUNNABLE;
    vcpu.request(eventRequest);
  }

  // What the processor asks.

  deviceRead(address: number, bytes: number): void {
    const { exit } = this.vcpu;
    exit.reason = ExitReason.MMIO;
    exit.gpa = address;
    exit.size = bytes;
    exit.write = false;
    this.#exit();
    const { exchange } = this.processor;
    exchange[0] = exit.lo;
    exchange[1] = exit.hi;
  }

  deviceWrite(address: number, bytes: number): void {
    const { exit } = this.vcpu;
    const { exchange } = this.processor;
    exit.reason = ExitReason.MMIO;
    exit.gpa = address;
    exit.size = bytes;
    exit.write = true;
    exit.lo = exchange[0]! >>> 0;
    exit.hi = exchange[1]! >>> 0;
    this.#exit();
  }

  #port(port: number, bytes: number, write: boolean): void {
    const { exit } = this.vcpu;
    exit.reason = ExitReason.IO;
    exit.port = port;
    exit.size = bytes;
    exit.write = write;
    exit.string = false;
    exit.rep = false;
    this.#exit();
  }

  portRead(port: number, bytes: number): number {
    this.#port(port, bytes, false);
    return this.vcpu.exit.lo;
  }

  portWrite(port: number, bytes: number, value: number): void {
    this.vcpu.exit.lo = value;
    this.#port(port, bytes, true);
  }

  cpuid(leaf: number, subleaf: number): void {
    const { exit } = this.vcpu;
    exit.reason = ExitReason.CPUID;
    exit.leaf = leaf;
    exit.subleaf = subleaf;
    this.#exit();
    const { exchange } = this.processor;
    exchange[0] = exit.eax;
    exchange[1] = exit.ebx;
    exchange[2] = exit.ecx;
    exchange[3] = exit.edx;
  }

  msrRead(index: number): boolean {
    if (this.#host) return false;
    const { exit } = this.vcpu;
    exit.reason = ExitReason.RDMSR;
    exit.msr = index;
    exit.write = false;
    this.#exit();
    const { exchange } = this.processor;
    exchange[0] = exit.lo;
    exchange[1] = exit.hi;
    return true;
  }

  msrWrite(index: number): boolean {
    if (this.#host) return false;
    const { exit } = this.vcpu;
    const { exchange } = this.processor;
    exit.reason = ExitReason.WRMSR;
    exit.msr = index;
    exit.write = true;
    exit.lo = exchange[0]! >>> 0;
    exit.hi = exchange[1]! >>> 0;
    this.#exit();
    return true;
  }

  counterRead(index: number): boolean {
    const { exit } = this.vcpu;
    exit.reason = ExitReason.RDPMC;
    exit.ecx = index;
    this.#exit();
    const { exchange } = this.processor;
    exchange[0] = exit.lo;
    exchange[1] = exit.hi;
    return true;
  }

  acknowledge(): number {
    const { vcpu, processor } = this;
    const controller = vcpu.vm.interruptController.current;
    if (!controller.hasInterrupt(vcpu)) return -1;
    const vector = controller.acknowledge(vcpu);
    const more = controller.hasInterrupt(vcpu);
    vcpu.vm.points.inject.call(vcpu, "interrupt", vector);
    this.#load();
    processor.setInterruptLine(more);
    return vector;
  }

  /** RDMSR or WRMSR of what the processor keeps itself. */
  hostMsr(access: MsrAccess): boolean {
    this.#host = true;
    try {
      if (access.write) {
        const value = (BigInt(access.hi >>> 0) << 32n) | BigInt(access.lo >>> 0);
        return this.processor.writeMsr(access.index, value);
      }
      const value = this.processor.readMsr(access.index);
      if (value === undefined) return false;
      access.lo = Number(value & 0xffff_ffffn);
      access.hi = Number(value >> 32n);
      return true;
    } finally {
      this.#host = false;
    }
  }
}

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
    if (added) this.#processors.mapAlias(GUEST_SPACE, gpa, size, hpa, readonly);
    else this.#processors.unmapAlias(GUEST_SPACE, gpa, size);
    for (const own of this.#vcpus) if (own !== undefined) this.#load(own.vcpu).flushTlbs();
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
      }
    }
    const own = new MetalVcpu(vcpu, processor, () => this.#load(vcpu), this.#createTimer);
    processor.attach(own, GUEST_SPACE);
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

  /** Everything is in registers and system state. */
  saveVcpu(): Saved {
    return null;
  }

  /** See `Vendor.loadVcpu`. */
  loadVcpu(): void {}
}
