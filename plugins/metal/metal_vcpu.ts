/**
 * One vCPU on the bare processor: what the processor meets outside, as the core's exits.
 *
 * @module
 */
import {
  beginExit,
  type CpuidResult,
  endExit,
  eventRequest,
  ExitReason,
  handleExit,
  MpState,
  type MsrAccess,
  type Timer,
  type Vcpu,
} from "../../core/mod.ts";
import {
  EventFormat,
  numericErrorHook,
  type Outside,
  type Processor,
  ProcessorBranchCounts,
  Stop,
} from "../cpu/mod.ts";

// V8 folds a constant of the module itself into compiled code; an imported one it loads and checks at each use.
const { CPUID, IO, MMIO, RDMSR, WRMSR, RDPMC } = ExitReason;

/** Makes a timer that calls back. */
export type CreateTimer = (callback: () => void) => Timer;

/** What one vCPU has of its own. */
export class MetalVcpu implements Outside {
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
  /** The interrupt controller has a task priority. There is no other one before the run ends. */
  #prioritizes = false;

  /** By exit reason: 1 where the way to the core's buses is direct (`Points.plain`). */
  readonly #plain: Uint8Array;
  readonly #createTimer: CreateTimer;
  /** Ends waits in time; made when the first is met. */
  #timer: Timer | undefined;

  /** `load` makes `processor` the loaded one. */
  constructor(vcpu: Vcpu, processor: Processor, load: () => void, createTimer: CreateTimer) {
    this.vcpu = vcpu;
    this.#plain = vcpu.vm.points.plain;
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
    const retired = this.#begin(false);
    let left: number;
    try {
      left = handleExit(this.vcpu);
    } finally {
      this.#end();
    }
    if (this.#settled === false) this.processor.leaveInstruction();
    this.#goOn(retired, left);
  }

  /** The vCPU is at an exit. Yields the instructions retired in this run. */
  #begin(settled: boolean): number {
    const retired = this.processor.retiredOutside;
    this.vcpu.instructions = this.#start + retired;
    this.#settled = settled;
    this.#inside = true;
    return retired;
  }

  /** The exit has been handled, or somebody has thrown. */
  #end(): void {
    this.#inside = false;
    // Who handled it may have looked at another vCPU, or reset it.
    if (!this.processor.loaded) this.#load();
  }

  /** Has the processor go on with the instruction at hand; `left` may be retired from here on. */
  #goOn(retired: number, left: number): void {
    const { vcpu, processor } = this;
    // What was done may have withdrawn an interrupt; a new one comes with a request.
    if (processor.goOn(vcpu.vm.clock.current.now(), retired)) this.#driveInterruptLine();
    if (this.#prioritizes === true) this.#fetchTaskPriority();
    if (left < this.#budget - retired) processor.limit(left);
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
    this.#prioritizes = vcpu.vm.interruptController.current.taskPriority !== undefined;
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
    exit.reason = MMIO;
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
    exit.reason = MMIO;
    exit.gpa = address;
    exit.size = bytes;
    exit.write = true;
    exit.lo = exchange[0]! >>> 0;
    exit.hi = exchange[1]! >>> 0;
    this.#exit();
  }

  portRead(port: number, bytes: number): number {
    const { vcpu } = this;
    const { vm, exit } = vcpu;
    exit.setIo(port, bytes, false, 0);
    if (this.#plain[IO] !== 1) {
      this.#exit();
      return exit.lo;
    }
    const retired = this.#begin(true);
    let left: number;
    try {
      beginExit(vcpu);
      exit.lo = vm.pio.read(port, bytes, vcpu);
      left = endExit(vcpu);
    } finally {
      this.#end();
    }
    this.#goOn(retired, left);
    return exit.lo;
  }

  portWrite(port: number, bytes: number, value: number): void {
    const { vcpu } = this;
    const { vm, exit } = vcpu;
    exit.setIo(port, bytes, true, value);
    if (this.#plain[IO] !== 1) {
      this.#exit();
      return;
    }
    const retired = this.#begin(true);
    let left: number;
    try {
      beginExit(vcpu);
      vm.pio.write(port, bytes, value, vcpu);
      left = endExit(vcpu);
    } finally {
      this.#end();
    }
    this.#goOn(retired, left);
  }

  cpuid(leaf: number, subleaf: number): void {
    const { exit } = this.vcpu;
    exit.reason = CPUID;
    exit.leaf = leaf;
    exit.subleaf = subleaf;
    if (this.#plain[CPUID] === 1) {
      this.#plainCpuid(leaf, subleaf);
      return;
    }
    this.#exit();
    const { exchange } = this.processor;
    exchange[0] = exit.eax;
    exchange[1] = exit.ebx;
    exchange[2] = exit.ecx;
    exchange[3] = exit.edx;
  }

  #plainCpuid(leaf: number, subleaf: number): void {
    const { vcpu } = this;
    const retired = this.#begin(true);
    let result: CpuidResult;
    let left: number;
    try {
      beginExit(vcpu);
      result = vcpu.vm.cpuid(leaf, subleaf, vcpu);
      left = endExit(vcpu);
    } finally {
      this.#end();
    }
    const { exchange } = this.processor;
    exchange[0] = result.eax;
    exchange[1] = result.ebx;
    exchange[2] = result.ecx;
    exchange[3] = result.edx;
    this.#goOn(retired, left);
  }

  msrRead(index: number): boolean {
    if (this.#host) return false;
    const { exit } = this.vcpu;
    exit.reason = RDMSR;
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
    exit.reason = WRMSR;
    exit.msr = index;
    exit.write = true;
    exit.lo = exchange[0]! >>> 0;
    exit.hi = exchange[1]! >>> 0;
    this.#exit();
    return true;
  }

  counterRead(index: number): boolean {
    const { exit } = this.vcpu;
    exit.reason = RDPMC;
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
