/**
 * Who runs: placing vCPUs on host processors.
 *
 * @module
 */

import { ArgumentError } from "./errors.ts";
import type { Plugin } from "./plugin.ts";
import { defineSlot, type Slot } from "./slot.ts";
import type { Vcpu } from "./vcpu.ts";
import type { Vm } from "./vm.ts";

/** Decides which vCPU enters the guest next. */
export interface Scheduler {
  /** Short name for reports. */
  readonly name: string;
  /** VM time until which the vCPU picked last may run without asking again. */
  readonly until: number;
  /**
   * Picks the vCPU to enter next, `undefined` if none can run. Places vCPUs with `vcpu.load` and
   * `vcpu.put`; what it picks is placed.
   */
  pick(vm: Vm): Vcpu | undefined;
  /** Hears that a vCPU has nothing useful to do for now, as PAUSE says. */
  yield(vcpu: Vcpu): void;
}

/** Options of {@linkcode roundRobin}. */
export interface RoundRobinOptions {
  /**
   * Ticks of VM time after which the next host processor has its turn; 10000 if not given. Host
   * processors really take turns: there is one thread of execution, and the order is exact.
   */
  readonly quantum?: number;
  /**
   * Ticks of VM time after which a vCPU makes place for one that waits, where there are more vCPUs
   * than host processors; 1000000 if not given.
   */
  readonly timeslice?: number;
  /**
   * Varies the lengths of turns and time slices, each from a half to one and a half of what is given
   * above, in a pattern that this number chooses: the same number, the same run. An integer from 0 to
   * 2^32 - 1; without it all are alike.
   */
  readonly seed?: number;
}

/** Numbers that look random and are the same for the same seed: xorshift (Marsaglia, 2003). */
class Sequence {
  #state: number;

  constructor(seed: number) {
    // The state must not be 0; odd multiples keep near seeds apart.
    this.#state = (Math.imul(seed, 0x9e37_79b9) ^ 0x2545_f491) | 0 || 1;
  }

  /** From a half to one and a half of `length`, at least 1. */
  vary(length: number): number {
    let x = this.#state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#state = x;
    return Math.max(1, Math.floor(length / 2) + (x >>> 0) % (length + 1));
  }
}

/**
 * Round robin in VM time, at two levels: host processors take turns, and where there are more vCPUs
 * than host processors the vCPUs take turns on them. A vCPU that halts leaves its processor, and is
 * placed again at the end of a turn. What is decided depends on VM time and on nothing else.
 */
export class RoundRobin implements Scheduler {
  /** `"round-robin"`. */
  readonly name = "round-robin";
  /** VM time until which the vCPU picked last may run. */
  until = 0;
  #turnEnd = 0;
  readonly #quantum: number;
  readonly #timeslice: number;
  readonly #sequence: Sequence | undefined;
  /** What is placed on each host processor, and until when. */
  readonly #placed: (Vcpu | undefined)[] = [];
  readonly #ends: number[] = [];
  /** The host processor whose turn it is, -1 before the first. */
  #turn = -1;
  /** Where the search for a vCPU that waits begins. */
  #next = 0;

  /**
   * Nothing is placed at first.
   *
   * @throws {ArgumentError} If a length is not a positive integer, or the seed is out of range.
   */
  constructor(options: RoundRobinOptions = {}) {
    const { quantum = 10_000, timeslice = 1_000_000, seed } = options;
    for (const [name, value] of Object.entries({ quantum, timeslice })) {
      if (!Number.isSafeInteger(value) || value < 1) {
        throw new ArgumentError(`${name} ${value} is not a positive integer`);
      }
    }
    if (seed !== undefined && (!Number.isInteger(seed) || seed < 0 || seed >= 2 ** 32)) {
      throw new ArgumentError(`seed ${seed} is not an integer from 0 to 2^32 - 1`);
    }
    this.#quantum = quantum;
    this.#timeslice = timeslice;
    this.#sequence = seed === undefined ? undefined : new Sequence(seed);
  }

  #length(length: number): number {
    return this.#sequence?.vary(length) ?? length;
  }

  /** Picks the next vCPU. */
  pick(vm: Vm): Vcpu | undefined {
    const now = vm.clock.current.now();
    // Nothing is decided in the middle of a turn: why the run loop was left, which may be that the
    // host's event loop was due, must not be noticed.
    const current = this.#placed[this.#turn];
    if (current?.runnable && now < this.#turnEnd) return this.#chosen(vm, current);
    this.#place(vm, now);
    const still = this.#placed[this.#turn];
    if (still !== undefined && now < this.#turnEnd) return this.#chosen(vm, still);
    const processors = vm.processors;
    for (let i = 1; i <= processors; i++) {
      const turn = (this.#turn + i) % processors;
      const vcpu = this.#placed[turn];
      if (vcpu === undefined) continue;
      this.#turn = turn;
      this.#turnEnd = now + this.#length(this.#quantum);
      return this.#chosen(vm, vcpu);
    }
    return undefined;
  }

  /** Ends the turn of the host processor that the vCPU is on. */
  yield(vcpu: Vcpu): void {
    if (this.#placed[this.#turn] === vcpu) this.#turnEnd = 0;
  }

  #chosen(vm: Vm, vcpu: Vcpu): Vcpu {
    // With one vCPU nobody waits for its turn to end.
    this.until = vm.vcpus.length === 1 ? Infinity : this.#turnEnd;
    return vcpu;
  }

  #place(vm: Vm, now: number): void {
    for (let pcpu = 0; pcpu < vm.processors; pcpu++) {
      const vcpu = this.#placed[pcpu];
      if (vcpu !== undefined) {
        if (vcpu.runnable) {
          if (now < (this.#ends[pcpu] as number)) continue;
          if (this.#waiting(vm) === undefined) continue;
        }
        this.#placed[pcpu] = undefined;
        if (pcpu === this.#turn) this.#turnEnd = 0;
        vcpu.put();
      }
      const waiting = this.#waiting(vm);
      if (waiting === undefined) continue;
      this.#next = (waiting.index + 1) % vm.vcpus.length;
      this.#placed[pcpu] = waiting;
      this.#ends[pcpu] = now + this.#length(this.#timeslice);
      waiting.load(pcpu);
    }
  }

  /** The next vCPU that could run and is on no host processor. */
  #waiting(vm: Vm): Vcpu | undefined {
    const count = vm.vcpus.length;
    for (let i = 0; i < count; i++) {
      const vcpu = vm.vcpus[(this.#next + i) % count] as Vcpu;
      if (vcpu.pcpu < 0 && vcpu.runnable) return vcpu;
    }
    return undefined;
  }
}

/** The scheduler; {@linkcode RoundRobin} unless a plugin provides another. */
export const schedulerSlot: Slot<Scheduler> = defineSlot("scheduler", () => new RoundRobin());

/**
 * A plugin that provides {@linkcode RoundRobin} with other quanta.
 *
 * @throws {ArgumentError} If a length is not a positive integer, or the seed is out of range.
 */
export function roundRobin(options: RoundRobinOptions = {}): Plugin {
  new RoundRobin(options);
  return {
    name: "scheduler",
    version: "1.0.0",
    provides: [schedulerSlot],
    setup: (ctx) => ctx.provide(schedulerSlot, new RoundRobin(options)),
  };
}
