/**
 * The counters of one vCPU, and the interrupt when one overflows.
 *
 * @module
 */
import { type BranchCounts, type Timer, UnimplementedError, type Vcpu } from "../../core/mod.ts";
import { Counter, type CounterSaved, type Source } from "./counter.ts";

/** What a vendor's registers make of the counters. */
export interface CounterRegisters {
  /** Says of each counter what it counts. */
  sources(): readonly (Source | undefined)[];
  /** Whether an overflow of counter `n` interrupts. */
  interrupts(n: number): boolean;
  /** Counter `n` has overflowed. */
  overflowed(n: number): void;
}

/** Throws `UnimplementedError` if the vendor counts no branches. */
function branchCounts(vcpu: Vcpu): BranchCounts {
  const vendor = vcpu.vm.vendor.current;
  const counts = vendor.branchCounts?.(vcpu);
  if (counts !== undefined) return counts;
  throw new UnimplementedError(`no performance counter counts branches under ${vendor.name}`);
}

const ofBranches = (source: Source | undefined): boolean =>
  source === "branches" || source === "mispredicted";

/** The counters of one vCPU. */
export class CounterUnit {
  /** The counters. */
  readonly counters: readonly Counter[];
  readonly #vcpu: Vcpu;
  readonly #timer: Timer;
  readonly #interrupt: () => void;
  #registers: CounterRegisters | undefined;

  /** `interrupt` delivers what the local vector table's entry for performance counters says. */
  constructor(vcpu: Vcpu, count: number, timer: Timer, interrupt: () => void) {
    const { clock } = vcpu.vm;
    const now = (source: Source): number => {
      switch (source) {
        case "instructions":
          return vcpu.instructions;
        case "cycles":
          return clock.current.now();
        case "branches":
          return branchCounts(vcpu).retired;
        case "mispredicted":
          return branchCounts(vcpu).mispredicted;
      }
    };
    this.counters = Array.from({ length: count }, () => new Counter(now));
    this.#vcpu = vcpu;
    this.#timer = timer;
    this.#interrupt = interrupt;
  }

  /** Says whose registers govern the counters. */
  govern(registers: CounterRegisters): void {
    this.#registers = registers;
  }

  /**
   * Looks for overflows, and has the timer look again when the next one that interrupts can be there at
   * the earliest: no instruction takes less than a tick.
   */
  settle(): void {
    const registers = this.#registers;
    if (registers === undefined) return;
    let interrupt = false;
    let left = Infinity;
    for (const [n, counter] of this.counters.entries()) {
      const interrupts = registers.interrupts(n);
      if (counter.settle()) {
        registers.overflowed(n);
        interrupt ||= interrupts;
      }
      if (interrupts) left = Math.min(left, counter.left);
    }
    if (interrupt) this.#interrupt();
    const { clock } = this.#vcpu.vm;
    if (left === Infinity) this.#timer.cancel();
    else this.#timer.arm(clock.current.now() + Math.max(1, left));
  }

  /** Has the counters count what the registers say now. */
  apply(): void {
    this.settle();
    const sources = this.#registers!.sources();
    const counting = sources.some(ofBranches);
    if (counting || this.counters.some(({ source }) => ofBranches(source))) {
      branchCounts(this.#vcpu).counting = counting;
    }
    for (const [n, source] of sources.entries()) this.counters[n]!.source = source;
    this.settle();
  }

  /** Value of counter `n`. */
  read(n: number): number {
    this.settle();
    return this.counters[n]!.value;
  }

  /** Sets counter `n`. */
  write(n: number, value: number): void {
    this.settle();
    this.counters[n]!.value = value;
    this.settle();
  }

  /** All counters, saved. */
  save(): CounterSaved[] {
    this.settle();
    return this.counters.map((counter) => counter.save());
  }

  /** Takes what {@linkcode CounterUnit.save} returned. */
  load(saved: readonly CounterSaved[]): void {
    for (const [n, counter] of this.counters.entries()) counter.load(saved[n]!);
  }
}
