/**
 * Storms of IPIs between eight vCPUs on three host processors: with AVIC on and off, with AVIC switched
 * by an inhibit, and with policies swapped in between, each IPI is received exactly once.
 */
import { assert, assertEquals } from "@std/assert";
import { type Plugin, type PluginContext, type Registration, roundRobin } from "../../core/mod.ts";
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
import { Machine, type MachineOptions } from "./machine.ts";
import { programStorm, stormPlan, stormReceived } from "./storm.ts";

const SEED = 0x7a9e_11c3n;
const VCPUS = 8;
/** Ticks between two inhibits: a few hundred instructions and some exits, which are charged 1000 each. */
const INHIBIT_PERIOD = 2900;
/** Ticks between two swaps of policies. */
const SWAP_PERIOD = 40_000;

/** Calls `action` again and again, with how often it was called before. */
function every(
  name: string,
  period: number,
  action: (count: number, ctx: PluginContext) => void,
): Plugin {
  return {
    name,
    version: "1.0.0",
    setup(ctx) {
      let count = 0;
      const timer = ctx.createTimer(name, ({ deadline }) => {
        action(count++, ctx);
        timer.arm(Math.max(deadline + period, ctx.vm.clock.current.now() + 1));
      });
      timer.arm(period);
    },
  };
}

/** Sets an inhibit for the whole VM, takes it away, and so on. */
function toggler(): Plugin {
  let held: Registration | undefined;
  return every("toggler", INHIBIT_PERIOD, (_count, ctx) => {
    held?.remove();
    held = held === undefined ? ctx.inhibit(AvicInhibit.BLOCKIRQ) : undefined;
  });
}

/** The same for one vCPU after the other. */
function vcpuToggler(): Plugin {
  const held: (Registration | undefined)[] = [];
  return every("vcpu-toggler", INHIBIT_PERIOD, (count, ctx) => {
    const index = (count * 5) % VCPUS;
    const registration = held[index];
    registration?.remove();
    held[index] = registration === undefined
      ? ctx.inhibit(AvicInhibit.NESTED, ctx.vm.vcpus[index]!)
      : undefined;
  });
}

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

interface StormCase extends MachineOptions {
  /** How many IPIs each vCPU sends. */
  readonly each: number;
}

function run({ each, ...options }: StormCase): Machine {
  const storm = { each, seed: SEED };
  using stack = new DisposableStack();
  const machine = stack.use(
    new Machine({
      ids: Array.from({ length: VCPUS }, (_, id) => id),
      processors: 3,
      ...options,
      plugins: [roundRobin({ quantum: 400, timeslice: 6000 }), ...(options.plugins ?? [])],
    }),
  );
  machine.recording = false;
  programStorm(machine, storm);
  const end = machine.run(2_000_000_000);
  assertEquals(end.reason, "exit-code", `seed ${SEED}`);
  assertEquals(stormReceived(machine), stormPlan(VCPUS, storm), `seed ${SEED}`);
  stack.move();
  return machine;
}

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
    using machine = run({ x2apic, each: 5000, plugins: [toggler()] });
    assert(machine.counts.get("AVIC_INCOMPLETE_IPI")! > 100);
    assert(machine.counts.get(x2apic ? "WRMSR 830" : "NESTED_PAGE_FAULT")! > 100);
  });

  Deno.test(`${mode}: the same while inhibits switch AVIC for one vCPU after the other`, () => {
    using machine = run({ x2apic, each: 2500, plugins: [vcpuToggler()] });
    assert(machine.counts.get("AVIC_INCOMPLETE_IPI")! > 100);
  });

  Deno.test(`${mode}: the same while policies are swapped, and AVIC is switched`, () => {
    using machine = run({
      x2apic,
      each: 2500,
      plugins: [policy("policy", false), toggler(), swapper()],
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
