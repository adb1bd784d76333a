/**
 * What `trapline run --json` writes.
 *
 * @module
 */

import type { PostMortem } from "../plugins/postmortem/mod.ts";
import type { ExitProfile } from "../plugins/profile/mod.ts";
import { describeRunEnd, type RunEnd } from "../core/mod.ts";

/** Version of the data that {@linkcode RunRecord} describes; raised when a field changes. */
export const RECORD_VERSION = 1;

/** One run. */
export interface RunRecord {
  /** `"trapline-run"`. */
  readonly schema: "trapline-run";
  /** {@linkcode RECORD_VERSION}. */
  readonly version: number;
  /** What was run. */
  readonly command: {
    /** Path of the image. */
    readonly image: string;
    /** Vendor. */
    readonly vendor: string;
    /** The processor; `null` if it was the vendor's usual one. */
    readonly cpu: string | null;
    /** Whether accesses to MSRs that do not exist did nothing. */
    readonly ignoreMsrs: boolean;
    /** Whether interrupts were to be delivered by AMD's processor. */
    readonly avic: boolean;
    /** Whether they were to be delivered by Intel's. */
    readonly apicv: boolean;
    /** Whether IPIs were to be sent by Intel's. */
    readonly ipiv: boolean;
    /** Bytes of RAM. */
    readonly memory: number;
    /** Number of vCPUs. */
    readonly cpus: number;
    /** Number of processors for them. */
    readonly pcpus: number;
    /** Length of a processor's turn in ticks; `null` if none was given. */
    readonly quantum: number | null;
    /** Seed of the scheduler; `null` if none was given. */
    readonly seed: number | null;
    /** Arguments for the guest; `null` if none were given. */
    readonly append: string | null;
    /** Paths of the modules. */
    readonly modules: readonly string[];
    /** Whether the guest's time was real time. */
    readonly realTime: boolean;
    /** Limit on instructions; `null` if none was given. */
    readonly maxInstructions: number | null;
  };
  /** How the run ended. */
  readonly end: {
    /** As in `RunEnd`. */
    readonly reason: RunEnd["reason"];
    /** The guest's code, for reason `exit-code`. */
    readonly code?: number;
    /** In words. */
    readonly text: string;
  };
  /** Exit status. */
  readonly status: number;
  /** Instructions retired. */
  readonly instructions: number;
  /** Exits taken. */
  readonly exits: number;
  /** Ticks of VM time. */
  readonly ticks: number;
  /** Milliseconds of real time. */
  readonly wallMs: number;
  /** The exits; `null` if they were not counted. */
  readonly profile: ExitProfile | null;
  /** Why the guest died; `null` if it ended by itself. 64-bit values are strings, `0x` in front. */
  readonly postMortem: PostMortem | null;
}

/** The end of a run as the record has it. */
export function recordEnd(end: RunEnd): RunRecord["end"] {
  const text = describeRunEnd(end);
  return end.reason === "exit-code"
    ? { reason: end.reason, code: end.code, text }
    : { reason: end.reason, text };
}

/** The record as JSON, a line feed at its end. */
export function recordText(record: RunRecord): string {
  return JSON.stringify(
    record,
    (_key, value: unknown) => typeof value === "bigint" ? `0x${value.toString(16)}` : value,
    2,
  ) + "\n";
}
