/**
 * The profile of a VM's exits, as plain data.
 *
 * @module
 */

import { exitReasonName, type Vm } from "../../core/mod.ts";
import { placeText, type Symbolizer, symbolsSlot } from "../symbols/mod.ts";
import { type ExitCounts, Key } from "./counts.ts";
import { describeTarget, type Target } from "./targets.ts";

/** Version of the data that {@linkcode ExitProfile} describes; raised when a field changes. */
export const PROFILE_VERSION = 1;

/** How often exits came from one place in the guest. */
export interface RipCount {
  /** RIP of the instruction that exited, hexadecimal with `0x` in front. */
  readonly rip: string;
  /** The same as a symbol and an offset, `main+1fh`; only where the `symbols` plugin knows it. */
  readonly place?: string;
  /** How many exits. */
  readonly count: number;
}

/** Exits of one reason that were aimed at one target. */
export interface TargetCount extends Target {
  /** How many exits. */
  readonly count: number;
  /** Part of all exits, 0 to 1. */
  readonly share: number;
  /** Where they came from most often, hottest first. */
  readonly rips: readonly RipCount[];
  /** How many exits came from elsewhere. */
  readonly otherRips: number;
}

/** Exits of one reason. */
export interface ReasonCount {
  /** Name of the reason, as in `ExitReason`. */
  readonly reason: string;
  /** How many exits. */
  readonly count: number;
  /** Part of all exits, 0 to 1. */
  readonly share: number;
  /** How many of each vCPU, by its index. */
  readonly vcpus: readonly number[];
  /** What they were aimed at, most frequent first. */
  readonly targets: readonly TargetCount[];
}

/**
 * What a VM did between two points in time. Everything but `wallMs` and `mips` is a function of what
 * the guest did: with the deterministic clock, two runs give the same.
 */
export interface ExitProfile {
  /** `"trapline-exit-profile"`. */
  readonly schema: "trapline-exit-profile";
  /** {@linkcode PROFILE_VERSION}. */
  readonly version: number;
  /** Name of the VM. */
  readonly vm: string;
  /** Name of its vendor. */
  readonly vendor: string;
  /** Number of vCPUs. */
  readonly vcpus: number;
  /** Instructions retired by all vCPUs. */
  readonly instructions: number;
  /** Exits of all vCPUs. */
  readonly exits: number;
  /** Exits per million instructions; `null` without any instruction. */
  readonly exitsPerMillion: number | null;
  /** VM time that passed, in ticks (nanoseconds of VM time). */
  readonly ticks: number;
  /** Real time that it took, in milliseconds; `null` if nobody measured it. */
  readonly wallMs: number | null;
  /** Millions of instructions per second of real time; `null` likewise. */
  readonly mips: number | null;
  /** Exits by reason, most frequent first. */
  readonly reasons: readonly ReasonCount[];
}

/** What was counted at one point in time. */
export interface Totals {
  /** Instructions of all vCPUs. */
  readonly instructions: number;
  /** VM time. */
  readonly ticks: number;
}

/** The counters of a VM as they stand. */
export function totalsOf(vm: Vm): Totals {
  return { instructions: vm.instructions, ticks: vm.clock.current.now() };
}

/** Exits of one target while they are being added up. */
interface TargetSum {
  readonly target: Target;
  count: number;
  other: number;
  readonly rips: Map<string, number>;
}

interface ReasonSum {
  readonly reason: number;
  count: number;
  readonly vcpus: number[];
  readonly targets: Map<string, TargetSum>;
}

/** Makes the profile. `rips` is how many places to name for each target. */
export function makeProfile(
  vm: Vm,
  counts: ExitCounts,
  since: Totals,
  rips: number,
  wallMs: number | undefined,
): ExitProfile {
  const now = totalsOf(vm);
  const instructions = now.instructions - since.instructions;
  const sums = [...addUp(vm, counts).values()];
  const exits = sums.reduce((sum, { count }) => sum + count, 0);
  const symbols = vm.slots.filled(symbolsSlot) ? vm.slots.ref(symbolsSlot).current : undefined;
  return {
    schema: "trapline-exit-profile",
    version: PROFILE_VERSION,
    vm: vm.name,
    vendor: vm.vendor.current.name,
    vcpus: vm.vcpus.length,
    instructions,
    exits,
    exitsPerMillion: instructions === 0 ? null : exits / instructions * 1e6,
    ticks: now.ticks - since.ticks,
    wallMs: wallMs ?? null,
    mips: wallMs === undefined || wallMs <= 0 ? null : instructions / wallMs / 1000,
    reasons: sums.sort((a, b) => b.count - a.count || a.reason - b.reason).map((sum) => ({
      reason: exitReasonName(sum.reason),
      count: sum.count,
      share: sum.count / exits,
      vcpus: sum.vcpus,
      targets: [...sum.targets.values()].sort(byCount).map((target) => ({
        ...target.target,
        count: target.count,
        share: target.count / exits,
        ...hottest(target, rips, symbols),
      })),
    })),
  };
}

/** Most first; what is equally frequent by name, so that the order is always the same. */
function byCount(a: TargetSum, b: TargetSum): number {
  return b.count - a.count || (a.target.text < b.target.text ? -1 : 1);
}

function hottest(
  sum: TargetSum,
  limit: number,
  symbols: Symbolizer | undefined,
): Pick<TargetCount, "rips" | "otherRips"> {
  const all = [...sum.rips].map(([rip, count]): RipCount => {
    const place = symbols === undefined ? undefined : placeText(symbols, BigInt(rip));
    return place === undefined ? { rip, count } : { rip, place, count };
  });
  // RIPs of equal length compare as numbers do.
  all.sort((a, b) => b.count - a.count || a.rip.length - b.rip.length || (a.rip < b.rip ? -1 : 1));
  const named = all.slice(0, limit);
  return { rips: named, otherRips: named.reduce((left, { count }) => left - count, sum.count) };
}

function addUp(vm: Vm, counts: ExitCounts): Map<number, ReasonSum> {
  const reasons = new Map<number, ReasonSum>();
  counts.forEach((what, lo, hi, ripLo, ripHi, count) => {
    const reason = what & Key.REASON;
    const index = (what >> Key.VCPU_SHIFT) & Key.VCPU;
    let sum = reasons.get(reason);
    if (sum === undefined) {
      const vcpus = new Array<number>(vm.vcpus.length).fill(0);
      reasons.set(reason, sum = { reason, count: 0, vcpus, targets: new Map() });
    }
    sum.count += count;
    sum.vcpus[index] = (sum.vcpus[index] ?? 0) + count;

    const flags = what & ~Key.REASON & ~(Key.VCPU << Key.VCPU_SHIFT) & ~Key.ANY_RIP;
    const key = `${flags} ${lo} ${hi}`;
    let target = sum.targets.get(key);
    if (target === undefined) {
      const vcpu = vm.vcpus[index] ?? vm.vcpus[0]!;
      const words = describeTarget(reason, flags, lo, hi, vcpu);
      sum.targets.set(key, target = { target: words, count: 0, other: 0, rips: new Map() });
    }
    target.count += count;
    if ((what & Key.ANY_RIP) !== 0) return;
    const rip = ripText(ripLo, ripHi);
    target.rips.set(rip, (target.rips.get(rip) ?? 0) + count);
  });
  return reasons;
}

function ripText(lo: number, hi: number): string {
  return hi === 0
    ? `0x${lo.toString(16)}`
    : `0x${hi.toString(16)}${lo.toString(16).padStart(8, "0")}`;
}
