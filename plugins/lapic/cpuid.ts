/**
 * What CPUID says about local APICs (APM vol. 3, appendix E; SDM vol. 2A, CPUID).
 *
 * @module
 */

import { cpuidHook, type CpuidResult, type PluginContext } from "../../core/mod.ts";
import { LapicMode } from "./base.ts";
import type { ApicBus } from "./bus.ts";
import type { LapicFeatures } from "./registers.ts";

/** Leaf 1, EDX bit 9: the local APIC is there, and on. */
const APIC = 0x200;
/** Leaf 1, ECX bit 21. */
const X2APIC = 0x20_0000;
/** Leaf 1, ECX bit 24. */
const TSC_DEADLINE = 0x100_0000;
/** Leaf 6, EAX bit 2: the timer does not stop when the processor sleeps. */
const ARAT = 0x4;
/** Leaf 8000_0001h, ECX bit 3: the extended APIC register space. */
const EXT_APIC_SPACE = 0x8;
/** The leaf of extended topology, which also has the x2APIC ID. */
const TOPOLOGY = 0xb;

/** Registers what changes in the answers. */
export function registerCpuid(ctx: PluginContext, features: LapicFeatures, bus: ApicBus): void {
  const { vm } = ctx;
  ctx.on(cpuidHook, 0, (result) => {
    if (features.x2apic) result.eax = Math.max(result.eax, TOPOLOGY);
    return result;
  });
  ctx.on(cpuidHook, 1, (result, vcpu) => {
    const on = bus.of(vcpu).mode !== LapicMode.DISABLED;
    result.edx = (on ? result.edx | APIC : result.edx & ~APIC) >>> 0;
    if (features.x2apic) result.ecx = (result.ecx | X2APIC) >>> 0;
    if (features.tscDeadline) result.ecx = (result.ecx | TSC_DEADLINE) >>> 0;
    return result;
  });
  if (features.vendor === "amd") {
    // AMD's processors repeat it.
    ctx.on(cpuidHook, 0x8000_0001, (result, vcpu) => {
      const on = bus.of(vcpu).mode !== LapicMode.DISABLED;
      result.edx = (on ? result.edx | APIC : result.edx & ~APIC) >>> 0;
      return result;
    });
  }
  ctx.on(cpuidHook, 6, (result) => {
    result.eax = (result.eax | ARAT) >>> 0;
    return result;
  });
  if (features.x2apic) {
    ctx.on(cpuidHook, TOPOLOGY, (result, vcpu) => {
      const most = vm.vcpus.reduce((id, other) => Math.max(id, other.id), 0);
      fillTopology(result, vcpu.id, most, vm.vcpus.length);
      return result;
    });
  }
  if (features.extended) {
    ctx.on(cpuidHook, 0x8000_0001, (result) => {
      result.ecx = (result.ecx | EXT_APIC_SPACE) >>> 0;
      return result;
    });
  }
}

/** One thread in each core, and one package: level 1 is the thread, level 2 the core. */
function fillTopology(result: CpuidResult, id: number, most: number, count: number): void {
  const { subleaf } = result;
  result.eax = subleaf === 1 ? 32 - Math.clz32(most) : 0;
  result.ebx = subleaf === 0 ? 1 : subleaf === 1 ? count : 0;
  result.ecx = (subleaf & 0xff) | (subleaf < 2 ? (subleaf + 1) << 8 : 0);
  result.edx = id;
}
