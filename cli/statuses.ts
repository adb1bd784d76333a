/**
 * Exit statuses. A guest's own codes are odd, `(v << 1) | 1`; all of these are even.
 *
 * @module
 */

import type { RunEnd } from "../core/mod.ts";

/** Exit statuses that are not a guest's code. */
export const Status = {
  /** The guest ended as it was expected to, asked for a reset or switched the machine off. */
  OK: 0,
  /**
   * The lab found that a patch changed what the guest sees, though it must not; compare, that the guest
   * saw a difference; kut, that a test failed, or got worse.
   */
  DIFFERENT: 2,
  /** The command line is wrong, or asks for what cannot be. */
  USAGE: 64,
  /** A file cannot be read, or is not an image that can be loaded. */
  INPUT: 66,
  /** The framework failed, or met something that it does not implement. */
  ERROR: 70,
  /** Something cannot be written. */
  OUTPUT: 74,
  /** The limit on instructions was reached; `timeout` has the same. */
  LIMIT: 124,
  /** Ctrl-C or SIGTERM. */
  INTERRUPTED: 130,
  /** The guest halted and nothing can wake it. */
  HALTED: 132,
  /** The guest had a triple fault. */
  TRIPLE_FAULT: 134,
} as const;

/** What each status means, for the help. */
export const STATUS_MEANINGS: readonly (readonly [status: number, meaning: string])[] = [
  [
    Status.OK,
    "the guest ended with the code given by --success, asked for a reset or\n         switched off",
  ],
  [
    Status.DIFFERENT,
    "lab and compare: the guest saw a difference that it must not see;\n         kut: a test failed or got worse",
  ],
  [Status.USAGE, "the command line is wrong, or asks for what cannot be"],
  [Status.INPUT, "a file cannot be read, or is not an image that can be loaded"],
  [Status.ERROR, "the framework failed, or met something that it does not implement"],
  [Status.OUTPUT, "standard output or a file cannot be written"],
  [Status.LIMIT, "the limit on instructions was reached"],
  [Status.INTERRUPTED, "Ctrl-C or SIGTERM"],
  [Status.HALTED, "the guest halted and nothing can wake it"],
  [Status.TRIPLE_FAULT, "the guest had a triple fault"],
];

/**
 * The status for the end of a run.
 *
 * @param success The guest's code that counts as success.
 */
export function statusOf(end: RunEnd, success: number | undefined): number {
  switch (end.reason) {
    case "exit-code":
      // A process has eight bits.
      return end.code === success ? Status.OK : end.code & 0xff;
    case "halted":
    case "waiting":
      return Status.HALTED;
    case "shutdown":
      return Status.TRIPLE_FAULT;
    case "reset":
    case "powered-off":
      return Status.OK;
    case "limit":
      return Status.LIMIT;
    case "stopped":
      return Status.INTERRUPTED;
    case "error":
      return Status.ERROR;
  }
}
