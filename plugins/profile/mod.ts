/**
 * The exit profile: how often a guest exits, why, at what, and from where.
 *
 * Exits are counted by reason, under each reason by target (port and direction, MSR, page of guest
 * physical memory, CPUID leaf, hypercall, vector, register), and under each target by the RIP of the
 * instruction that exited, by symbol where the `symbols` plugin knows one.
 *
 * @example The profile of a run
 * ```ts ignore
 * import { createVm } from "@trapline/trapline/core";
 * import { exitProfile, formatProfile, profile } from "@trapline/trapline/profile";
 *
 * using vm = await createVm({ memory: 64 * 2 ** 20, plugins: [...machine, profile()], images });
 * await vm.run();
 * console.log(formatProfile(exitProfile(vm)));
 * ```
 *
 * Limits: RIPs are offsets into the code segment, not linear addresses. Beyond `capacity` different
 * combinations of reason, target and RIP, further RIPs of a target are counted together; no exit is
 * ever lost. Counters begin when the plugin is loaded and do not go along in a swap.
 *
 * @module
 */

import {
  ArgumentError,
  defineSlot,
  Gpr,
  observeExitHook,
  type Plugin,
  type Slot,
  SlotError,
  type Vm,
} from "../../core/mod.ts";
import { symbolsSlot } from "../symbols/mod.ts";
import { ExitCounts, Key } from "./counts.ts";
import { type ExitProfile, makeProfile, type Totals, totalsOf } from "./profile.ts";
import { findTarget, TargetWords } from "./targets.ts";

export { formatProfile, type FormatProfileOptions } from "./format.ts";
export {
  type ExitProfile,
  PROFILE_VERSION,
  type ReasonCount,
  type RipCount,
  type TargetCount,
} from "./profile.ts";
export type { Target, TargetKind } from "./targets.ts";
export { msrName } from "./msr_names.ts";

/** Options of {@linkcode profile}. */
export interface ProfileOptions {
  /**
   * Most combinations of reason, target, RIP and vCPU to tell apart, 1 to 2^20; 65536 if not given.
   * Each takes about 60 bytes.
   */
  readonly capacity?: number;
}

/** What to put into a profile. */
export interface TakeOptions {
  /** Most RIPs to name for each target; 8 if not given. */
  readonly rips?: number;
  /** Real time that passed, in milliseconds, for MIPS. */
  readonly wallMs?: number;
}

/** Counts a VM's exits. */
export interface Profiler {
  /** What was counted since the plugin was loaded, or since {@linkcode Profiler.clear}. */
  take(options?: TakeOptions): ExitProfile;
  /** Begins anew. */
  clear(): void;
}

/** The profiler of a VM. */
export const profileSlot: Slot<Profiler> = defineSlot("profile");

/**
 * Counts exits. What was counted is in {@linkcode profileSlot}; see {@linkcode exitProfile}.
 *
 * @throws {ArgumentError} If the capacity is not an integer from 1 to 2^20.
 */
export function profile(options: ProfileOptions = {}): Plugin {
  const { capacity = 65536 } = options;
  if (!Number.isInteger(capacity) || capacity < 1 || capacity > 2 ** 20) {
    throw new ArgumentError(`profile: capacity ${capacity} is not an integer from 1 to ${2 ** 20}`);
  }
  return {
    name: "profile",
    version: "1.0.0",
    description: "Counts exits by reason, target and RIP",
    optional: [symbolsSlot],
    provides: [profileSlot],
    setup(ctx) {
      const counts = new ExitCounts(capacity);
      const target = new TargetWords();
      let since: Totals = totalsOf(ctx.vm);
      ctx.on(observeExitHook, (vcpu, exit) => {
        findTarget(target, exit, vcpu);
        const what = exit.reason | (vcpu.index << Key.VCPU_SHIFT) | target.flags;
        const { regs } = vcpu;
        counts.add(what, target.lo, target.hi, regs.lo(Gpr.RIP), regs.hi(Gpr.RIP));
      });
      ctx.provide(profileSlot, {
        take({ rips = 8, wallMs } = {}) {
          return makeProfile(ctx.vm, counts, since, rips, wallMs);
        },
        clear() {
          counts.clear();
          since = totalsOf(ctx.vm);
        },
      });
    },
  };
}

/**
 * The profile of a VM that has the plugin.
 *
 * @throws {SlotError} If it has not.
 */
export function exitProfile(vm: Vm, options?: TakeOptions): ExitProfile {
  if (!vm.slots.filled(profileSlot)) {
    throw new SlotError(profileSlot.name, "no plugin provides it; load profile()");
  }
  return vm.slots.ref(profileSlot).current.take(options);
}
