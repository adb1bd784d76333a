/**
 * How a run of a VM ends.
 *
 * @module
 */

import type { TraplineError } from "./errors.ts";

/** Why a run ended. */
export type RunEnd =
  /** A device said so and gave a code, as the debug-exit port does. */
  | { readonly reason: "exit-code"; readonly code: number }
  /**
   * No vCPU can ever run again: each has halted, is not started, or has shut down, and nothing is
   * armed that could wake one. `interruptsEnabled` tells whether a halted one would take interrupts.
   */
  | { readonly reason: "halted"; readonly interruptsEnabled: boolean }
  /** A vCPU had a triple fault. */
  | { readonly reason: "shutdown"; readonly vcpuId: number }
  /** The guest asked for a reset; `vm.reset()` carries it out. */
  | { readonly reason: "reset" }
  /** The guest switched its machine off. */
  | { readonly reason: "powered-off" }
  /** The limit given to the run is reached. */
  | { readonly reason: "limit" }
  /** Somebody called `vm.stop()`, closed the VM, or aborted the run's signal. */
  | { readonly reason: "stopped"; readonly detail: string }
  /** `vm.runSync` cannot wait for what the guest waits for: the time, or one of these sources. */
  | { readonly reason: "waiting"; readonly sources: readonly string[] }
  /** Something threw. `vcpuId` is the vCPU it was done for. */
  | {
    readonly reason: "error";
    readonly error: TraplineError;
    readonly vcpuId: number | undefined;
  };

/** Why a run ended, and how much was done in it. */
export type RunResult = RunEnd & {
  /** Instructions retired in this run by all vCPUs. */
  readonly instructions: number;
  /** Exits taken in this run by all vCPUs. */
  readonly exits: number;
  /** Ticks of VM time that passed in this run. */
  readonly ticks: number;
};

/** Limits of a run. */
export interface RunLimits {
  /** Instructions to retire at most, by all vCPUs together: exact. No limit if not given. */
  readonly instructions?: number;
  /** Ticks of VM time to pass at most. No limit if not given. */
  readonly ticks?: number;
}

/** Options of `vm.run`. */
export interface RunOptions extends RunLimits {
  /** Ends the run, with reason `"stopped"`. */
  readonly signal?: AbortSignal;
}

/** A run's end in one line. */
export function describeRunEnd(end: RunEnd): string {
  switch (end.reason) {
    case "exit-code":
      return `the guest ended with code ${end.code}`;
    case "halted":
      return `the guest halted for good, interrupts ${end.interruptsEnabled ? "on" : "off"}`;
    case "shutdown":
      return `triple fault on vCPU ${end.vcpuId}`;
    case "reset":
      return "the guest asked for a reset";
    case "powered-off":
      return "the guest switched the machine off";
    case "limit":
      return "the limit was reached";
    case "stopped":
      return `stopped: ${end.detail}`;
    case "waiting":
      return `the guest waits for ${end.sources.join(", ")}`;
    case "error":
      return `error: ${end.error.message}`;
  }
}
