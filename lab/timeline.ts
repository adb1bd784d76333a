/**
 * When the exits came: counts by vCPU and reason over VM time, in a fixed number of steps.
 *
 * @module
 */
import { exitReasonName, MAX_EXIT_REASONS, observeExitHook, type Plugin } from "../core/mod.ts";

/** Steps that a timeline is divided into; when they are used up, two become one. */
const STEPS = 256;
/** Ticks of the first step width: a power of two, so that widths are round. */
const FIRST_WIDTH = 1024;

/** Exits of one reason on one vCPU. */
export interface TimelineLane {
  /** Id of the vCPU. */
  readonly vcpu: number;
  /** Name of the reason. */
  readonly reason: string;
  /** Exits in each step. */
  readonly counts: readonly number[];
}

/** When the exits of a run came. */
export interface Timeline {
  /** Ticks of VM time in a step. */
  readonly width: number;
  /** Number of steps. */
  readonly steps: number;
  /** Lanes in the order of vCPUs and reasons; those without exits are left out. */
  readonly lanes: readonly TimelineLane[];
}

/** Records a timeline. */
export class TimelineRecorder {
  readonly #lanes: Map<number, Uint32Array> = new Map();
  readonly #ids: Map<number, number> = new Map();
  #width = FIRST_WIDTH;
  #used = 0;

  /** The plugin that records. */
  plugin(): Plugin {
    return {
      name: "lab-timeline",
      version: "1.0.0",
      setup: (ctx) => {
        ctx.on(observeExitHook, (vcpu, { reason }) => {
          this.#add(vcpu.index, vcpu.id, reason, ctx.vm.clock.current.now());
        });
      },
    };
  }

  #add(index: number, id: number, reason: number, now: number): void {
    while (now >= this.#width * STEPS) this.#halve();
    const step = Math.floor(now / this.#width);
    if (step >= this.#used) this.#used = step + 1;
    const key = index * MAX_EXIT_REASONS + reason;
    let lane = this.#lanes.get(key);
    if (lane === undefined) {
      this.#lanes.set(key, lane = new Uint32Array(STEPS));
      this.#ids.set(index, id);
    }
    lane[step]!++;
  }

  #halve(): void {
    this.#width *= 2;
    this.#used = Math.ceil(this.#used / 2);
    for (const lane of this.#lanes.values()) {
      for (let k = 0; k < STEPS / 2; k++) lane[k] = lane[2 * k]! + lane[2 * k + 1]!;
      lane.fill(0, STEPS / 2);
    }
  }

  /** What was recorded. */
  take(): Timeline {
    const keys = [...this.#lanes.keys()].sort((a, b) => a - b);
    return {
      width: this.#width,
      steps: this.#used,
      lanes: keys.map((key) => ({
        vcpu: this.#ids.get(Math.floor(key / MAX_EXIT_REASONS))!,
        reason: exitReasonName(key % MAX_EXIT_REASONS),
        counts: [...this.#lanes.get(key)!.subarray(0, this.#used)],
      })),
    };
  }
}
