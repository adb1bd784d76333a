/**
 * Storms of IPIs between eight vCPUs on three host processors under VMX: with APICv and IPI virtualization,
 * without the one or both, and with APICv switched by inhibits, each IPI is received exactly once.
 */
import { assert, assertEquals } from "@std/assert";
import type { Plugin } from "../../core/mod.ts";
import { LapicInhibit } from "../../plugins/lapic/mod.ts";
import { apicv } from "../../plugins/vmx/apicv/mod.ts";
import { ipiv } from "../../plugins/vmx/ipiv/mod.ts";
import type { Machine } from "../avic/machine.ts";
import { every, runStorm, type StormCase, toggler, VCPUS, vcpuToggler } from "../avic/storm_run.ts";

const SEED = 0x5eed_49c1n;

/** Loads and unloads IPI virtualization. */
function reloader(): Plugin {
  return every("reloader", 40_000, (count, { vm }) => {
    if (count % 2 === 0) vm.unload("ipiv");
    else vm.load(ipiv());
  });
}

/** Puts another of the kind in APICv's place. */
function swapper(): Plugin {
  return every("swapper", 30_000, (_count, { vm }) => vm.swap("apicv", apicv()));
}

const run = (options: Omit<StormCase, "seed">): Machine =>
  runStorm({ vmx: {}, ...options, seed: SEED });

for (const x2apic of [false, true]) {
  const mode = x2apic ? "x2APIC" : "xAPIC";

  Deno.test(`${mode}: 40,000 IPIs with IPI virtualization, none of which exits`, () => {
    using machine = run({ x2apic, each: 5000 });
    // SVR and the timer's three registers are all that anybody writes otherwise.
    assertEquals(machine.counts.get("APIC_WRITE"), x2apic ? undefined : 4 * VCPUS);
    assertEquals(machine.counts.get("WRMSR 830"), undefined);
    // Those who wait are woken by the host's interrupt, which makes others exit.
    assert(machine.counts.get("EXTERNAL_INTERRUPT")! > 100);
  });

  Deno.test(`${mode}: with APICv alone each IPI exits`, () => {
    using machine = run({ x2apic, each: 1250, vmx: { ipiv: false } });
    // In x2APIC mode the bitmap has the write exit; in xAPIC mode it is a trap.
    const exits = machine.counts.get(x2apic ? "WRMSR 830" : "APIC_WRITE");
    assertEquals(exits, 1250 * VCPUS + (x2apic ? 0 : 4 * VCPUS));
    assertEquals(machine.counts.get("EXTERNAL_INTERRUPT"), undefined);
  });

  Deno.test(`${mode}: without APICv`, () => {
    using machine = run({ x2apic, each: 1250, vmx: { apicv: false } });
    assertEquals(machine.counts.get("APIC_WRITE"), undefined);
  });

  Deno.test(`${mode}: while an inhibit switches APICv for all`, () => {
    using machine = run({ x2apic, each: 2500, plugins: [toggler(LapicInhibit.BLOCKIRQ)] });
    assert(machine.counts.get("EXTERNAL_INTERRUPT")! > 20);
    assert(machine.counts.get(x2apic ? "WRMSR 830" : "NESTED_PAGE_FAULT")! > 100);
  });

  Deno.test(`${mode}: while inhibits switch APICv for one vCPU after the other`, () => {
    using machine = run({ x2apic, each: 2500, plugins: [vcpuToggler(LapicInhibit.BLOCKIRQ)] });
    assert(machine.counts.get("EXTERNAL_INTERRUPT")! > 20);
  });

  Deno.test(`${mode}: while IPI virtualization comes and goes`, () => {
    using machine = run({ x2apic, each: 2500, plugins: [reloader()] });
    assert(machine.counts.get("EXTERNAL_INTERRUPT")! > 20);
    assert(machine.counts.get(x2apic ? "WRMSR 830" : "APIC_WRITE")! > 100);
  });

  Deno.test(`${mode}: while APICv is swapped and switched`, () => {
    using machine = run({
      x2apic,
      each: 1250,
      plugins: [swapper(), vcpuToggler(LapicInhibit.BLOCKIRQ)],
    });
    assert(machine.counts.get("EXTERNAL_INTERRUPT")! > 10);
  });
}
