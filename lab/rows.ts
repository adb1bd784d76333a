/**
 * The exits of several runs side by side.
 *
 * @module
 */
import type { ReasonCount, TargetCount } from "../plugins/profile/mod.ts";

/** How often exits came from one place, in each run. */
export interface RipRow {
  /** RIP, hexadecimal with `0x` in front. */
  readonly rip: string;
  /** The same as a symbol and an offset, `main+1fh`; empty if the guest's image has no symbols. */
  readonly place: string;
  /** Exits in each run. */
  readonly counts: readonly number[];
}

/** Exits of one reason at one target, in each run. */
export interface ExitRow {
  /** Name of the reason. */
  readonly reason: string;
  /** The target in words; empty where the reason says it all. */
  readonly target: string;
  /** What is there: a device, an MSR's name; empty if it has none. */
  readonly name: string;
  /** Exits in each run. */
  readonly counts: readonly number[];
  /** Where they came from most often; not all places are named if there are many. */
  readonly rips: readonly RipRow[];
}

interface Sum {
  readonly reason: string;
  readonly target: TargetCount;
  readonly counts: number[];
  readonly rips: Map<string, { readonly place: string; readonly counts: number[] }>;
}

/** Rows for all exits of all runs: reasons and targets with most exits first. */
export function exitRows(runs: readonly (readonly ReasonCount[])[]): ExitRow[] {
  const sums = new Map<string, Sum>();
  const zeros = (): number[] => runs.map(() => 0);
  runs.forEach((reasons, run) => {
    for (const { reason, targets } of reasons) {
      for (const target of targets) {
        const key = `${reason}\n${target.text}\n${target.name ?? ""}`;
        let sum = sums.get(key);
        if (sum === undefined) {
          sums.set(key, sum = { reason, target, counts: zeros(), rips: new Map() });
        }
        sum.counts[run] = target.count;
        for (const { rip, place = "", count } of target.rips) {
          const found = sum.rips.get(rip) ?? { place, counts: zeros() };
          found.counts[run] = count;
          sum.rips.set(rip, found);
        }
      }
    }
  });
  const rows = [...sums.values()].map(({ reason, target, counts, rips }): ExitRow => ({
    reason,
    target: target.text,
    name: target.name ?? "",
    counts,
    rips: [...rips].map(([rip, found]) => ({ rip, ...found })).sort(byRip),
  }));
  const weights = new Map<string, number>();
  for (const { reason, counts } of rows) {
    weights.set(reason, (weights.get(reason) ?? 0) + Math.max(...counts));
  }
  return rows.sort((a, b) =>
    weights.get(b.reason)! - weights.get(a.reason)! || compare(a.reason, b.reason) ||
    Math.max(...b.counts) - Math.max(...a.counts) || compare(a.target, b.target)
  );
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** Most first; RIPs of equal length compare as numbers do. */
function byRip(a: RipRow, b: RipRow): number {
  return Math.max(...b.counts) - Math.max(...a.counts) || a.rip.length - b.rip.length ||
    compare(a.rip, b.rip);
}

/**
 * Whether a row is not the same in all runs.
 *
 * @param without For each run whether to leave it out.
 */
export function differs({ counts }: ExitRow, without: readonly boolean[] = []): boolean {
  return new Set(counts.filter((_, k) => without[k] !== true)).size > 1;
}
