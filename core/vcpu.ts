/**
 * One virtual processor of a VM.
 *
 * @module
 */

import { EventQueue } from "./event.ts";
import type { TraplineError } from "./errors.ts";
import { VmExit } from "./exit.ts";
import { canDeliver } from "./inject.ts";
import { Registers } from "./registers.ts";
import { eventRequest, initRequest, type VcpuRequest } from "./request.ts";
import type { Vm } from "./vm.ts";

/** What a vCPU is doing, with KVM's names and numbers (`KVM_MP_STATE_*`). */
export const MpState = {
  /** Executes instructions. */
  RUNNABLE: 0,
  /** An application processor that has not been started. */
  UNINITIALIZED: 1,
  /** Received INIT, waits for a start-up IPI. */
  INIT_RECEIVED: 2,
  /** Executed HLT, waits for an event. */
  HALTED: 3,
  /** Received a start-up IPI, about to execute. */
  SIPI_RECEIVED: 4,
  /** Shut down by a triple fault, or stopped by an error. */
  STOPPED: 5,
  /** Without power, in a machine that sleeps: what wakes the machine resets it. */
  SUSPENDED: 10,
} as const;

/** One of {@linkcode MpState}. */
export type MpState = (typeof MpState)[keyof typeof MpState];

/** One virtual processor. Made by `createVm` and `vm.addVcpu`. */
export class Vcpu {
  // Fields that are set once are only declared here, not defined as `undefined` first: V8 then knows what they hold.
  /** The VM it belongs to. */
  declare readonly vm: Vm;
  /** Its place in `vm.vcpus`, from 0 on without gaps; the index into per-vCPU state. */
  declare readonly index: number;
  /** Its id, which becomes its APIC ID. Ids may have gaps. */
  declare readonly id: number;
  /** General registers, RIP and RFLAGS. */
  readonly regs: Registers = new Registers();
  /** The exit it is at, or was at last. */
  readonly exit: VmExit = new VmExit();
  /** Exceptions, NMIs and interrupts on their way in. */
  declare readonly events: EventQueue;
  /** Instructions retired since it was made. The vendor adds to it. */
  instructions = 0;
  /** How much of {@linkcode Vcpu.instructions} has been charged to the clock. The run loop's own. */
  charged = 0;
  /** What it is doing. */
  declare mpState: MpState;
  /** The host processor it is placed on, -1 while it is on none. It stays while the VM does not run. */
  pcpu: number = -1;
  /** Whether interrupt acceleration is on for it now; see `Inhibits`. */
  accelerated = false;
  /** The error that stopped it, until the VM runs again. */
  error: TraplineError | undefined = undefined;
  /** Requests with ids 0 to 31, a bit each. */
  requestsLo = 0;
  /** Requests with ids 32 to 63, a bit each. */
  requestsHi = 0;

  /** The core's own; use `createVm` or `vm.addVcpu`. */
  constructor(vm: Vm, index: number, id: number) {
    this.vm = vm;
    this.index = index;
    this.id = id;
    this.events = new EventQueue(this);
    this.mpState = index === 0 ? MpState.RUNNABLE : MpState.UNINITIALIZED;
  }

  /** Makes a request: it is handled before this vCPU's next entry. */
  request(request: VcpuRequest): void {
    if (request.id < 32) this.requestsLo |= 1 << request.id;
    else this.requestsHi |= 1 << request.id;
    this.vm.wake();
  }

  /** Whether a request is waiting. */
  hasRequest(request: VcpuRequest): boolean {
    const word = request.id < 32 ? this.requestsLo : this.requestsHi;
    return (word & (1 << request.id)) !== 0;
  }

  /** Takes a request back. */
  clearRequest(request: VcpuRequest): void {
    if (request.id < 32) this.requestsLo &= ~(1 << request.id);
    else this.requestsHi &= ~(1 << request.id);
  }

  /**
   * Whether it has something to do: it can execute instructions, or an INIT or start-up IPI waits for
   * it. One that halted wakes up here when an event can be delivered.
   */
  get runnable(): boolean {
    if (this.mpState === MpState.HALTED && this.hasRequest(eventRequest) && canDeliver(this)) {
      this.mpState = MpState.RUNNABLE;
    }
    return this.mpState === MpState.RUNNABLE || this.hasRequest(initRequest);
  }

  /** For the scheduler: places it on host processor `pcpu`. */
  load(pcpu: number): void {
    this.pcpu = pcpu;
    this.vm.points.vcpuLoad.call(this, pcpu);
  }

  /** For the scheduler: takes it off its host processor. */
  put(): void {
    this.vm.points.vcpuPut.call(this);
    this.pcpu = -1;
  }

  /** Stops it until an event can be delivered, as HLT does. */
  halt(): void {
    this.mpState = MpState.HALTED;
    // What could not be delivered before the HLT may be deliverable after it.
    this.request(eventRequest);
  }

  /**
   * Makes the instruction at the current exit end in an exception. Answer `ExitAction.RESUME`
   * afterwards.
   *
   * @param vector 0 to 31.
   * @param errorCode Given for the exceptions that have one.
   */
  fault(vector: number, errorCode?: number): void {
    this.vm.vendor.current.fault(this, vector, errorCode);
  }

  /** Puts it to what it is after RESET; all but the first vCPU wait to be started. */
  reset(): void {
    this.events.clear();
    this.requestsLo = 0;
    this.requestsHi = 0;
    this.error = undefined;
    this.mpState = this.index === 0 ? MpState.RUNNABLE : MpState.UNINITIALIZED;
    this.vm.vendor.current.resetVcpu(this, false);
  }
}
