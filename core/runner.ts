/**
 * Runs of a VM: which vCPU, until when, and what to do while none can run.
 *
 * @module
 */

import { PluginError, SlotError, TraplineError, VmStateError } from "./errors.ts";
import type { RunEnd, RunLimits, RunOptions, RunResult } from "./result.ts";
import { runVcpu } from "./run.ts";
import { schedulerSlot } from "./scheduler.ts";
import { MpState, type Vcpu } from "./vcpu.ts";
import { vendorSlot } from "./vendor.ts";
import type { Vm } from "./vm.ts";

/** When the vCPU that runs must leave the run loop. Read on every exit. */
export class Pace {
  /** The run is to end, or something waits to be done between entries. */
  leave = false;
  /** VM time of the next timer, end of turn, or limit. */
  horizon = 0;
  /** Value of `vm.instructions` at which the slice or the run ends. */
  instructionEnd = 0;
  /** Value of `vm.exits` at which the slice ends. */
  exitEnd = 0;
}

/** What a slice of a run came to, where it is not the milliseconds to wait. */
const ENDED = -1;
const SLICE_OVER = 0;

/** After about this long the event loop gets its turn. */
const SLICE_MS = 20;
/**
 * With every slice timers and messages get their turn. Files and pipes get it for certain only where the
 * event loop may wait, which takes a timer of 0 ms and with it some milliseconds: so often, then.
 */
const WAIT_MS = 100;
/**
 * Runs are cut after every so many instructions or exits, counted from the VM's start. How fast the host
 * is does not enter into where: what a vendor makes of a cut, say which code it has decoded, is then the
 * same in every run.
 */
const CUT_INSTRUCTIONS = 1_000_000;
const CUT_EXITS = 5_000;
/** Timers may fire, and turns end, this often within a slice. */
const SLICE_ROUNDS = 100_000;

/** Carries out the runs of one VM, one at a time. */
export class Runner {
  readonly #vm: Vm;
  #end: RunEnd | undefined;
  #running = false;
  #busy = false;
  #limitInstructions = Infinity;
  #limitTicks = Infinity;
  #deferred: (() => void)[] = [];
  #waiter: (() => void) | undefined;
  /** When the event loop last could wait, by `performance.now()`. */
  #waited = 0;

  /** For `vm`. */
  constructor(vm: Vm) {
    this.#vm = vm;
  }

  /** Whether a run is under way. */
  get running(): boolean {
    return this.#running;
  }

  /** Whether plugin code may be on the stack, so that plugins must not come or go. */
  get busy(): boolean {
    return this.#busy;
  }

  /** Does something now or, from inside a run, before the next entry. */
  betweenEntries(action: () => void): void {
    if (!this.#busy) return action();
    this.#deferred.push(action);
    this.#vm.pace.leave = true;
  }

  /** Ends the run that is under way. The first end given counts, but the first error beats the others. */
  stop(end: RunEnd): void {
    if (!this.#running) return;
    const error = end.reason === "error" && this.#end?.reason !== "error";
    if (this.#end === undefined || error) this.#end = end;
    this.#vm.pace.leave = true;
    this.wake();
  }

  /** Ends the wait of a run in which no vCPU could run. */
  wake(): void {
    if (this.#waiter === undefined) return;
    this.#waiter();
    this.#waiter = undefined;
  }

  /** Runs without giving way to the event loop. */
  runSync(limits: RunLimits): RunResult {
    const finish = this.#begin(limits);
    let pause = SLICE_OVER;
    while (pause === SLICE_OVER) pause = this.#slice();
    if (pause !== ENDED) {
      const sources = this.#vm.wakeSources;
      this.stop({
        reason: "waiting",
        sources: pause === Infinity ? sources : ["time", ...sources],
      });
    }
    return finish();
  }

  /** Runs in slices. */
  async run(options: RunOptions): Promise<RunResult> {
    const { signal } = options;
    const finish = this.#begin(options);
    const abort = () => this.stop({ reason: "stopped", detail: "the signal was aborted" });
    signal?.addEventListener("abort", abort);
    if (signal?.aborted) abort();
    try {
      for (let start = performance.now();;) {
        const pause = this.#slice();
        if (pause === ENDED) break;
        if (pause === SLICE_OVER && performance.now() - start < SLICE_MS) continue;
        await this.#pause(pause);
        start = performance.now();
      }
    } finally {
      signal?.removeEventListener("abort", abort);
    }
    return finish();
  }

  #begin(limits: RunLimits): () => RunResult {
    const vm = this.#vm;
    if (vm.closed) throw new VmStateError("the VM is closed");
    if (this.#running) throw new VmStateError("the VM is running already");
    if (!vm.slots.filled(vendorSlot)) throw new SlotError(vendorSlot.name, "no plugin provides it");
    const { instructions, exits } = vm;
    const start = vm.clock.current.now();
    this.#running = true;
    this.#end = undefined;
    this.#limitInstructions = instructions + (limits.instructions ?? Infinity);
    this.#limitTicks = start + (limits.ticks ?? Infinity);
    for (const vcpu of vm.vcpus) vcpu.error = undefined;
    return () => {
      this.#running = false;
      const end = this.#end ?? { reason: "stopped", detail: "the VM was closed" };
      const result: RunResult = {
        ...end,
        instructions: vm.instructions - instructions,
        exits: vm.exits - exits,
        ticks: vm.clock.current.now() - start,
      };
      vm.points.runEnded.call(result, vm);
      return result;
    };
  }

  /** Runs for a while. Returns {@linkcode ENDED}, {@linkcode SLICE_OVER}, or milliseconds to wait. */
  #slice(): number {
    const vm = this.#vm;
    const { pace, timers, clock } = vm;
    const cut = (Math.floor(vm.instructions / CUT_INSTRUCTIONS) + 1) * CUT_INSTRUCTIONS;
    pace.instructionEnd = Math.min(this.#limitInstructions, cut);
    pace.exitEnd = (Math.floor(vm.exits / CUT_EXITS) + 1) * CUT_EXITS;
    this.#busy = true;
    for (let rounds = 0; rounds < SLICE_ROUNDS; rounds++) {
      try {
        this.#doDeferred();
        const now = clock.current.now();
        if (this.#end === undefined) this.#checkLimits(now);
        if (this.#end !== undefined) return this.#leave(ENDED);
        if (vm.instructions >= pace.instructionEnd || vm.exits >= pace.exitEnd) break;
        if (timers.fireNext(now)) continue;
        const vcpu = this.#pick();
        if (vcpu === undefined) {
          const pause = this.#idle();
          if (pause > SLICE_OVER) return this.#leave(pause);
          continue;
        }
        pace.horizon = Math.min(vm.scheduler.current.until, timers.next, this.#limitTicks);
        runVcpu(vcpu);
      } catch (error) {
        this.fail(error, undefined);
      }
    }
    return this.#leave(SLICE_OVER);
  }

  #leave(pause: number): number {
    this.#busy = false;
    return pause;
  }

  #checkLimits(now: number): void {
    if (this.#vm.instructions >= this.#limitInstructions || now >= this.#limitTicks) {
      this.#end = { reason: "limit" };
    }
  }

  /** Ends the run with an error. */
  fail(error: unknown, vcpu: Vcpu | undefined): void {
    const typed = error instanceof TraplineError
      ? error
      : new PluginError("core", "the run loop", vcpu?.id, error);
    if (vcpu !== undefined) vcpu.error = typed;
    this.stop({ reason: "error", error: typed, vcpuId: vcpu?.id });
  }

  #doDeferred(): void {
    const vm = this.#vm;
    vm.pace.leave = false;
    if (this.#deferred.length === 0) return;
    const deferred = this.#deferred;
    this.#deferred = [];
    this.#busy = false;
    for (const action of deferred) {
      try {
        action();
      } catch (error) {
        this.fail(error, undefined);
      }
    }
    this.#busy = true;
  }

  #pick(): Vcpu | undefined {
    const { scheduler, slots } = this.#vm;
    try {
      return scheduler.current.pick(this.#vm);
    } catch (error) {
      const plugin = slots.providerOf(schedulerSlot) ?? "core";
      throw PluginError.wrap(plugin, 'slot "scheduler"', undefined, error);
    }
  }

  /**
   * No vCPU can run: skips to the next timer, ends the run, or returns how long to wait for a timer or,
   * with `Infinity`, for the outside.
   */
  #idle(): number {
    const { timers, clock, vendor, vcpus } = this.#vm;
    let interruptible = false;
    for (const vcpu of vcpus) {
      // A device may wake a machine that sleeps.
      interruptible ||= vcpu.mpState === MpState.SUSPENDED ||
        (vcpu.mpState === MpState.HALTED && vendor.current.interruptAllowed(vcpu));
    }
    if (interruptible) {
      const deadline = Math.min(timers.next, this.#limitTicks);
      if (deadline !== Infinity) return clock.current.idle(deadline);
      if (this.#vm.wakeSources.length > 0) return Infinity;
    }
    this.#end = { reason: "halted", interruptsEnabled: interruptible };
    return SLICE_OVER;
  }

  /** Gives way to the event loop: until it comes round or, at most `ms`, until somebody wakes the VM. */
  #pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      if (ms === Infinity) {
        this.#waiter = resolve;
        return;
      }
      const now = performance.now();
      if (ms === SLICE_OVER && now - this.#waited < WAIT_MS) {
        setImmediate(resolve);
        return;
      }
      this.#waited = now;
      const timer = setTimeout(() => {
        this.#waiter = undefined;
        resolve();
      }, ms);
      if (ms === SLICE_OVER) return;
      this.#waiter = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}
