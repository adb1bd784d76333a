/**
 * Timers in VM time.
 *
 * @module
 */

import { ArgumentError, PluginError, VmStateError } from "./errors.ts";
import type { Binding } from "./registration.ts";

/**
 * A timer that fires once when VM time reaches its deadline. Made by `ctx.createTimer`.
 *
 * It fires between two entries of the guest. With the deterministic clock that is at the exact
 * instruction at which the deadline falls, unless an exit's charge carries time beyond it. A periodic
 * device arms it again from its callback, counting from {@linkcode Timer.deadline}, so as not to drift.
 */
export class Timer {
  /** What it is, for messages. */
  readonly name: string;
  /** The plugin that made it. */
  readonly owner: string;
  /** When it fires, or fired last, in ticks of VM time; `Infinity` before it is armed first. */
  deadline: number = Infinity;
  readonly #queue: TimerQueue;
  readonly #callback: (timer: Timer) => void;
  /** Decides between equal deadlines: who was armed first fires first. The queue's own. */
  order = 0;
  /** Place in the heap, -1 while not armed. The queue's own. */
  place: number = -1;
  /** Whether its plugin is there. The queue's own. */
  attached = false;

  /** The core's own; use `ctx.createTimer`. */
  constructor(queue: TimerQueue, name: string, owner: string, callback: (timer: Timer) => void) {
    this.#queue = queue;
    this.name = name;
    this.owner = owner;
    this.#callback = callback;
  }

  /** Whether it will fire. */
  get armed(): boolean {
    return this.place >= 0;
  }

  /**
   * Makes it fire at `deadline`, in ticks of VM time, instead of when it would have before. A deadline
   * that is past fires before the next entry.
   *
   * @throws {ArgumentError} If the deadline is not a number, or infinite.
   * @throws {VmStateError} If the plugin that made it has left.
   */
  arm(deadline: number): void {
    if (!this.attached) {
      throw new VmStateError(`timer "${this.name}": plugin "${this.owner}" has left the VM`);
    }
    if (!Number.isFinite(deadline)) {
      throw new ArgumentError(`timer "${this.name}": deadline ${deadline} is not a time`);
    }
    this.#queue.arm(this, deadline);
  }

  /** Keeps it from firing. */
  cancel(): void {
    this.#queue.cancel(this);
  }

  /** The queue's own. */
  fire(): void {
    try {
      this.#callback(this);
    } catch (error) {
      throw PluginError.wrap(this.owner, `timer "${this.name}"`, undefined, error);
    }
  }
}

/** The timers of a VM, as `vm.timers`. A binary heap by deadline, then by the order of arming. */
export class TimerQueue {
  readonly #heap: Timer[] = [];
  readonly #earlier: (deadline: number) => void;
  #order = 0;

  /** `earlier` hears when the next deadline came closer. */
  constructor(earlier: (deadline: number) => void = () => {}) {
    this.#earlier = earlier;
  }

  /** The next deadline in ticks of VM time, `Infinity` if no timer is armed. */
  get next(): number {
    return this.#heap[0]?.deadline ?? Infinity;
  }

  /** The armed timers in the order in which they will fire. */
  get armed(): Timer[] {
    return [...this.#heap].sort((a, b) => isBefore(a, b) ? -1 : 1);
  }

  /** Fires the timer with the earliest deadline, if that is not after `now`; returns whether it did. */
  fireNext(now: number): boolean {
    const timer = this.#heap[0];
    if (timer === undefined || timer.deadline > now) return false;
    this.cancel(timer);
    timer.fire();
    return true;
  }

  /** See {@linkcode Timer.arm}. */
  arm(timer: Timer, deadline: number): void {
    this.cancel(timer);
    timer.deadline = deadline;
    timer.order = this.#order++;
    this.#insert(timer);
  }

  /** See {@linkcode Timer.cancel}. */
  cancel(timer: Timer): void {
    const { place } = timer;
    if (place < 0) return;
    timer.place = -1;
    const last = this.#heap.pop() as Timer;
    if (last === timer) return;
    this.#put(last, place);
    this.#up(last);
    this.#down(last);
  }

  /** A timer that is not yet usable. Taken out while armed and put back, it fires as it would have. */
  bind(timer: Timer): Binding {
    let armed = false;
    return {
      attach: () => {
        timer.attached = true;
        if (armed) this.#insert(timer);
      },
      detach: () => {
        armed = timer.armed;
        this.cancel(timer);
        timer.attached = false;
      },
    };
  }

  #insert(timer: Timer): void {
    timer.place = this.#heap.length;
    this.#heap.push(timer);
    this.#up(timer);
    if (timer.place === 0) this.#earlier(timer.deadline);
  }

  #put(timer: Timer, place: number): void {
    this.#heap[place] = timer;
    timer.place = place;
  }

  #up(timer: Timer): void {
    while (timer.place > 0) {
      const { place } = timer;
      const above = (place - 1) >> 1;
      const parent = this.#heap[above] as Timer;
      if (!isBefore(timer, parent)) return;
      this.#put(parent, place);
      this.#put(timer, above);
    }
  }

  #down(timer: Timer): void {
    for (;;) {
      const { place } = timer;
      let below = 2 * place + 1;
      let child = this.#heap[below];
      const right = this.#heap[below + 1];
      if (child !== undefined && right !== undefined && isBefore(right, child)) {
        child = right;
        below++;
      }
      if (child === undefined || !isBefore(child, timer)) return;
      this.#put(child, place);
      this.#put(timer, below);
    }
  }
}

function isBefore(a: Timer, b: Timer): boolean {
  return a.deadline < b.deadline || (a.deadline === b.deadline && a.order < b.order);
}
