/**
 * What a machine has done, in numbers.
 *
 * @module
 */
import { Counter, counterAddress } from "../state/counters.ts";
import type { BlockStatistics } from "./blocks.ts";
import type { Machine } from "./machine.ts";
import type { CodeStatistics } from "./region_code.ts";
import type { RegionStatistics } from "./regions.ts";

/** Counts since the machine was made. A guest cannot see them, and they differ between hosts where they are times. */
export interface EngineStatistics {
  /** Times that the dispatcher looked for a block to run, because the last one did not lead on to it. */
  readonly dispatches: number;
  /** Of those, times that the jump cache did not know the block. */
  readonly searches: number;
  /** Translations of linear addresses that no TLB had. */
  readonly walks: number;
  /** Milliseconds that those took, estimated from one in 256 of them. */
  readonly walkMs: number;
  /** Times that a TLB was flushed, wholly or for one address. */
  readonly flushes: number;
  /** Milliseconds in exits to the program outside that are handled inside of a run; 0 unless they are timed. */
  readonly outsideMs: number;
  /** Milliseconds in runs, those in exits included; 0 unless they are timed. */
  readonly insideMs: number;
  /** Decoded blocks. */
  readonly blocks: Readonly<BlockStatistics>;
  /** Compiled regions. */
  readonly regions: Readonly<RegionStatistics>;
  /** The making of their code. */
  readonly code: Readonly<CodeStatistics>;
}

/** The present counts of a machine. */
export function engineStatistics(machine: Machine): EngineStatistics {
  const read = (counter: Counter): number => Number(machine.longs[counterAddress(counter) >> 3]);
  return {
    dispatches: read(Counter.DISPATCHES),
    searches: read(Counter.SEARCHES),
    walks: read(Counter.WALKS),
    walkMs: machine.walkClock.estimate(read(Counter.WALKS)),
    flushes: read(Counter.FLUSHES),
    outsideMs: machine.times.outside,
    insideMs: machine.times.inside,
    blocks: machine.blocks.statistics,
    regions: machine.regions.statistics,
    code: machine.regions.codeStatistics,
  };
}
