/**
 * Performance counters: AMD's six core counters (APM vol. 2, 13.2.1), or Intel's architectural performance
 * monitoring of version 2 with its fixed counters (SDM vol. 3B, 20.2), RDPMC, and the interrupt on
 * overflow through the local APIC's entry for performance counters.
 *
 * @example
 * ```ts
 * import { perfCounters } from "@trapline/trapline/perfctr";
 *
 * console.assert(perfCounters({ vendor: "intel" }).name === "perfctr");
 * ```
 *
 * Limits: what can be counted is retired instructions (AMD's event C0h, Intel's C0h and fixed counter 0),
 * cycles (76h; 3Ch, reference cycles too, fixed counters 1 and 2), which are ticks of VM time, and, where
 * the vendor counts them, retired branches (C2h; C4h) and mispredicted ones (C3h; C5h), at all privilege
 * levels. Indirect branches behind an IBPB are all that is ever mispredicted. A branch that a hypervisor
 * intercepts counts for its guest as well. To enable a counter with any other selection stops the vCPU with an
 * `UnimplementedError` that names what was selected.
 *
 * @module
 */

import {
  cpuidHook,
  ExitAction,
  exitHook,
  ExitReason,
  type Plugin,
  type PluginContext,
  resetHook,
  type Vcpu,
  type VcpuState,
} from "../../core/mod.ts";
import { LapicRegister, lapicSlot, Lvt } from "../lapic/mod.ts";
import { AMD_COUNTERS, AmdRegisters, registerAmd } from "./amd.ts";
import type { CounterSaved } from "./counter.ts";
import { fillMonitoring, INTEL_COUNTERS, IntelRegisters, registerIntel } from "./intel.ts";
import { CounterUnit } from "./unit.ts";

/** Options of {@linkcode perfCounters}. */
export interface PerfCounterOptions {
  /** Whose counters they are like; `"amd"` if not given. */
  readonly vendor?: "amd" | "intel";
}

/** CPUID 8000_0001h ECX bit 23: the six core counters. */
const PERFCTR_CORE = 0x80_0000;
/** Leaf of architectural performance monitoring. */
const MONITORING = 0xa;

/** What one vCPU has. */
interface State<R> {
  readonly unit: CounterUnit;
  readonly registers: R;
}

/** The counters as a plugin. */
export function perfCounters(options: PerfCounterOptions = {}): Plugin {
  const { vendor = "amd" } = options;
  return {
    name: "perfctr",
    version: "2.0.0",
    description: "Performance counters for retired instructions and cycles, with RDPMC",
    optional: [lapicSlot],
    setup(ctx) {
      if (vendor === "amd") {
        setUp(ctx, AMD_COUNTERS, () => new AmdRegisters(), false, registerAmd);
        ctx.on(cpuidHook, 0x8000_0001, (result) => {
          result.ecx = (result.ecx | PERFCTR_CORE) >>> 0;
          return result;
        });
      } else {
        setUp(ctx, INTEL_COUNTERS, () => new IntelRegisters(), true, registerIntel);
        ctx.on(cpuidHook, 0, (result) => {
          result.eax = Math.max(result.eax, MONITORING);
          return result;
        });
        ctx.on(cpuidHook, MONITORING, fillMonitoring);
      }
    },
  };
}

function setUp<R extends AmdRegisters | IntelRegisters>(
  ctx: PluginContext,
  count: number,
  make: () => R,
  masks: boolean,
  register: (
    ctx: PluginContext,
    unit: VcpuState<CounterUnit>,
    registers: (vcpu: Vcpu) => R,
  ) => void,
): void {
  const lapics = ctx.useOptional(lapicSlot);
  /** Delivers what LVT_PERF says; Intel's processors then mask it (SDM vol. 3A, 11.5.1). */
  const interrupt = (vcpu: Vcpu): void => {
    const lapic = lapics.current?.of(vcpu);
    if (lapic === undefined || !lapic.lvt.fire(LapicRegister.LVT_PERF) || !masks) return;
    const entry = lapic.registers.get(LapicRegister.LVT_PERF);
    lapic.registers.set(LapicRegister.LVT_PERF, entry | Lvt.MASK);
  };
  const create = (vcpu: Vcpu): State<R> => {
    const timer = ctx.createTimer(`counters of vCPU ${vcpu.id}`, () => unit.settle());
    const unit = new CounterUnit(vcpu, count, timer, () => interrupt(vcpu));
    const registers = make();
    unit.govern(registers);
    return { unit, registers };
  };
  const state = ctx.vcpuState<State<R>>({
    name: "counters",
    version: 2,
    init: create,
    save: ({ unit, registers }) => ({
      counters: unit.save(),
      registers: Array.from(registers.words),
    }),
    load(saved, vcpu) {
      const made = create(vcpu);
      const { counters, registers } = saved as {
        readonly counters: readonly CounterSaved[];
        readonly registers: readonly number[];
      };
      made.registers.words.set(registers);
      made.unit.load(counters);
      made.unit.settle();
      return made;
    },
  });
  const unit: VcpuState<CounterUnit> = { of: (vcpu) => state.of(vcpu).unit };
  register(ctx, unit, (vcpu) => state.of(vcpu).registers);
  ctx.on(exitHook, ExitReason.RDPMC, (vcpu, exit) => {
    const { unit, registers } = state.of(vcpu);
    const counter = registers.counterOf(exit.ecx);
    if (counter < 0) return undefined;
    const value = unit.read(counter);
    exit.lo = value >>> 0;
    exit.hi = Math.floor(value / 2 ** 32);
    return ExitAction.COMPLETE;
  });
  ctx.on(resetHook, (vm) => {
    for (const vcpu of vm.vcpus) {
      const { unit, registers } = state.of(vcpu);
      registers.words.set(make().words);
      unit.apply();
      for (const counter of unit.counters) counter.value = 0;
    }
  });
}
