/**
 * Storms of IPIs between eight vCPUs on three host processors: with AVIC on and off, with AVIC switched
 * by an inhibit, and with policies swapped in between, each IPI is received exactly once.
 */
import { assert, assertEquals } from "@std/assert";
import type { Plugin } from "../../core/mod.ts";
import {
  acceleratedMsrs,
  activationFlushSlot,
  AvicInhibit,
  flushXavicOnly,
  formerMsrs,
  ipiVirtualizationSlot,
  maxIndexSlot,
  modeMaxIndex,
  readableMsrs,
  x2apicReadSlot,
  x2apicWriteSlot,
} from "../../plugins/svm/avic/mod.ts";
import type { Machine } from "./machine.ts";
import { every, runStorm, type StormCase, toggler, VCPUS, vcpuToggler } from "./storm_run.ts";

const SEED = 0x7a9e_11c3n;
/** Ticks between two swaps of policies. */
const SWAP_PERIOD = 40_000;

const policy = (name: string, former: boolean): Plugin => ({
  name,
  version: "1.0.0",
  provides: [x2apicReadSlot, x2apicWriteSlot, activationFlushSlot, maxIndexSlot],
  setup(ctx) {
    ctx.provide(x2apicReadSlot, former ? formerMsrs : readableMsrs);
    ctx.provide(x2apicWriteSlot, former ? formerMsrs : acceleratedMsrs);
    ctx.provide(activationFlushSlot, flushXavicOnly);
    ctx.provide(maxIndexSlot, modeMaxIndex);
  },
});

const noIpis: Plugin = {
  name: "no-ipi-virtualization",
  version: "1.0.0",
  provides: [ipiVirtualizationSlot],
  setup: (ctx) => ctx.provide(ipiVirtualizationSlot, { name: "never", enabled: () => false }),
};

/** Swaps policies, and loads and unloads one. */
function swapper(): Plugin {
  return every("swapper", SWAP_PERIOD, (count, { vm }) => {
    vm.swap("policy", policy("policy", count % 2 === 0));
    if (count % 3 === 0) vm.load(noIpis);
    if (count % 3 === 1) vm.unload("no-ipi-virtualization");
  });
}

const run = (options: Omit<StormCase, "seed">): Machine => runStorm({ ...options, seed: SEED });

for (const x2apic of [false, true]) {
  const mode = x2apic ? "x2APIC" : "xAPIC";

  Deno.test(`${mode}: 100,000 IPIs with AVIC are received as often as sent`, () => {
    using machine = run({ x2apic, each: 12_500 });
    assert(machine.counts.get("AVIC_INCOMPLETE_IPI")! > 1000);
    // Every IPI without an exit of its own but those whose target did not run.
    assertEquals(machine.counts.get("WRMSR 830"), undefined);
  });

  Deno.test(`${mode}: the same without AVIC`, () => {
    using machine = run({ x2apic, each: 1250, avic: false });
    assertEquals(machine.counts.get("AVIC_INCOMPLETE_IPI"), undefined);
  });

  Deno.test(`${mode}: the same while an inhibit switches AVIC for all`, () => {
    using machine = run({ x2apic, each: 5000, plugins: [toggler(AvicInhibit.BLOCKIRQ)] });
    assert(machine.counts.get("AVIC_INCOMPLETE_IPI")! > 100);
    assert(machine.counts.get(x2apic ? "WRMSR 830" : "NESTED_PAGE_FAULT")! > 100);
  });

  Deno.test(`${mode}: the same while inhibits switch AVIC for one vCPU after the other`, () => {
    using machine = run({ x2apic, each: 2500, plugins: [vcpuToggler(AvicInhibit.NESTED)] });
    assert(machine.counts.get("AVIC_INCOMPLETE_IPI")! > 100);
  });

  Deno.test(`${mode}: the same while policies are swapped, and AVIC is switched`, () => {
    using machine = run({
      x2apic,
      each: 2500,
      plugins: [policy("policy", false), toggler(AvicInhibit.BLOCKIRQ), swapper()],
    });
    assert(machine.counts.get("AVIC_INCOMPLETE_IPI")! > 100);
  });
}

Deno.test("x2APIC guest without x2AVIC: registers are emulated, delivery is hardware's", () => {
  const cpu = { model: "zen3" } as const;
  using machine = run({ cpu, x2apic: true, each: 2500 });
  assertEquals(machine.counts.get("AVIC_INCOMPLETE_IPI"), undefined);
  assert(machine.counts.get("WRMSR 830")! > 2500 * VCPUS - 1);
});
