/**
 * Counts of the branches of one vCPU, whichever processors it runs on.
 *
 * @module
 */
import type { BranchCounts } from "../../core/mod.ts";
import type { Processor } from "./engine/processor.ts";

/** Counts branches on the processor it is loaded on. */
export class ProcessorBranchCounts implements BranchCounts {
  #processor: Processor | undefined;
  #counting = false;
  /** What has been counted, less what the processor had counted before. */
  #retired = 0;
  #mispredicted = 0;

  /** The vCPU runs on `processor` from now on. */
  load(processor: Processor): void {
    this.#processor = processor;
    processor.countsBranches = this.#counting;
    this.#retired -= processor.branches;
    this.#mispredicted -= processor.mispredictedBranches;
  }

  /** The vCPU leaves the processor. */
  put(): void {
    const processor = this.#processor;
    if (processor === undefined) return;
    this.#processor = undefined;
    this.#retired += processor.branches;
    this.#mispredicted += processor.mispredictedBranches;
  }

  /** See {@linkcode BranchCounts}. */
  get counting(): boolean {
    return this.#counting;
  }

  set counting(counting: boolean) {
    if (counting === this.#counting) return;
    this.#counting = counting;
    if (this.#processor !== undefined) this.#processor.countsBranches = counting;
  }

  /** See {@linkcode BranchCounts}. */
  get retired(): number {
    return this.#retired + (this.#processor?.branches ?? 0);
  }

  /** See {@linkcode BranchCounts}. */
  get mispredicted(): number {
    return this.#mispredicted + (this.#processor?.mispredictedBranches ?? 0);
  }

  /** See {@linkcode BranchCounts}. */
  forgetPredictions(): void {
    this.#processor?.forgetPredictions();
  }
}
