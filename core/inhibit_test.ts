import { assertEquals, assertThrows } from "@std/assert";
import {
  accelerationRequest,
  acceleratorSlot,
  beforeEnterHook,
  defineInhibit,
  type InhibitReason,
  type Plugin,
  type PluginContext,
  PluginError,
  type Registration,
  RequirementError,
  type Vcpu,
} from "./mod.ts";
import { scriptedVm } from "./testing/mod.ts";

const windowReason = defineInhibit("window", "an interrupt window is open");
const idReason = defineInhibit("id", "an APIC ID is too big");
const otherReason = defineInhibit("other", "of no concern to the accelerator");

/** An accelerator that minds the reasons given, and what it was told. */
function accelerator(minds: readonly InhibitReason[], name = "accelerator") {
  const log: string[] = [];
  const plugin: Plugin = {
    name,
    version: "1.0.0",
    provides: [acceleratorSlot],
    setup: (ctx) =>
      ctx.provide(acceleratorSlot, {
        name,
        inhibits: minds,
        refresh: (vcpu, active) => void log.push(`${vcpu.id} ${active ? "on" : "off"}`),
      }),
  };
  return { plugin, log };
}

function machine(cpus = 2) {
  const { plugin, log } = accelerator([windowReason, idReason]);
  const contexts: PluginContext[] = [];
  const user = (name: string): Plugin => ({
    name,
    version: "1.0.0",
    setup: (ctx) => void contexts.push(ctx),
  });
  const m = scriptedVm({
    cpus,
    plugins: [plugin, user("a"), user("b")],
    guest: function* () {
      for (;;) yield 1000;
    },
  });
  for (const vcpu of m.vm.vcpus) vcpu.mpState = 0;
  const [a, b] = contexts as [PluginContext, PluginContext];
  return { ...m, a, b, log, run: () => m.vm.runSync({ instructions: 30_000 }) };
}

Deno.test("vCPUs are accelerated from their first entry on, and told once", () => {
  using m = machine();
  assertEquals([m.log, m.vcpu.accelerated], [[], false]);
  m.run();
  m.run();
  assertEquals([m.log, m.vcpu.accelerated], [["0 on", "1 on"], true]);
});

Deno.test("a reason for the VM stops every vCPU before its next entry, and no sooner", () => {
  using m = machine();
  m.run();
  m.log.length = 0;
  const registration = m.a.inhibit(windowReason);
  assertEquals([m.log, m.vcpu.accelerated], [[], true]);
  assertEquals(m.vm.vcpus.map((vcpu) => vcpu.hasRequest(accelerationRequest)), [true, true]);
  m.a.on(beforeEnterHook, (vcpu) => assertEquals(vcpu.accelerated, false));
  m.run();
  // Whose turn it is comes first.
  assertEquals(m.log.splice(0).sort(), ["0 off", "1 off"]);
  assertEquals([m.vm.inhibits.reasons(), m.vm.inhibits.holders(windowReason)], [
    [windowReason],
    ["a"],
  ]);
  m.vm.unload("a");
  registration.remove();
  m.run();
  assertEquals(m.log.sort(), ["0 on", "1 on"]);
});

Deno.test("only the first reason and the last count", () => {
  using m = machine();
  m.run();
  const requested = () => {
    const waiting = m.vm.vcpus.map((vcpu) => vcpu.hasRequest(accelerationRequest));
    for (const vcpu of m.vm.vcpus) vcpu.clearRequest(accelerationRequest);
    return waiting.join();
  };
  const both: Registration[] = [];
  const steps: [() => unknown, string][] = [
    [() => both.push(m.a.inhibit(windowReason)), "true,true"],
    [() => both.push(m.a.inhibit(windowReason)), "false,false"],
    [() => both.push(m.b.inhibit(windowReason)), "false,false"],
    [() => both.push(m.b.inhibit(idReason)), "false,false"],
    [() => both.push(m.b.inhibit(otherReason)), "false,false"],
    [() => both[0]?.remove(), "false,false"],
    [() => both[0]?.remove(), "false,false"],
    [() => both[1]?.remove(), "false,false"],
    [() => both[3]?.remove(), "false,false"],
    [() => both[2]?.remove(), "true,true"],
  ];
  for (const [i, [step, wanted]] of steps.entries()) {
    step();
    assertEquals(requested(), wanted, `step ${i}`);
  }
  assertEquals(m.vm.inhibits.reasons(), [otherReason]);
});

Deno.test("a reason that is set and cleared between two entries is not noticed", () => {
  using m = machine();
  m.run();
  m.log.length = 0;
  m.a.inhibit(windowReason).remove();
  m.run();
  assertEquals(m.log, []);
});

Deno.test("a reason for one vCPU concerns that one, together with those of the VM", () => {
  using m = machine();
  const second = m.vm.vcpus[1] as Vcpu;
  m.run();
  m.log.length = 0;
  const own = m.a.inhibit(idReason, second);
  assertEquals([m.vcpu, second].map((vcpu) => vcpu.hasRequest(accelerationRequest)), [false, true]);
  m.run();
  assertEquals(m.log.splice(0), ["1 off"]);
  const all = m.a.inhibit(windowReason);
  m.run();
  assertEquals(m.log.splice(0), ["0 off"]);
  all.remove();
  m.run();
  assertEquals(m.log.splice(0), ["0 on"]);
  own.remove();
  m.run();
  assertEquals(m.log.splice(0), ["1 on"]);
  assertEquals(m.vm.inhibits.reasons(second), []);
});

Deno.test("the accelerator may have a vCPU brought up to date at once", () => {
  using m = machine(1);
  m.run();
  m.log.length = 0;
  m.a.inhibit(idReason);
  m.vm.inhibits.refresh(m.vcpu);
  assertEquals([m.log.splice(0), m.vcpu.accelerated], [["0 off"], false]);
  m.run();
  assertEquals(m.log, []);
});

Deno.test("accelerators can be swapped and unloaded; each is switched off by itself", () => {
  using m = machine();
  m.a.inhibit(otherReason);
  m.run();
  m.log.length = 0;
  const next = accelerator([otherReason], "other-accelerator");
  m.vm.swap("accelerator", next.plugin);
  assertEquals([m.log.splice(0), m.vcpu.accelerated], [["0 off", "1 off"], false]);
  m.run();
  assertEquals(next.log, []);
  m.vm.unload("a");
  m.run();
  assertEquals(next.log.splice(0), ["0 on", "1 on"]);
  m.vm.unload("other-accelerator");
  assertEquals([next.log, m.vcpu.accelerated], [["0 off", "1 off"], false]);
  m.run();
  assertEquals(m.log, []);
  assertThrows(() => m.vm.unload("a"), RequirementError);
});

Deno.test("an accelerator that throws is named", () => {
  const bad: Plugin = {
    name: "bad",
    version: "1.0.0",
    provides: [acceleratorSlot],
    setup: (ctx) =>
      ctx.provide(acceleratorSlot, {
        name: "bad",
        inhibits: [],
        refresh: () => {
          throw new Error("no page");
        },
      }),
  };
  const m = scriptedVm({ plugins: [bad] });
  const result = m.vm.runSync();
  const message = 'plugin "bad" failed in slot "accelerator" on vCPU 0: no page';
  assertEquals(result.reason === "error" && result.error.message, message);
  assertThrows(() => m.vm.close(), PluginError, message);
  assertEquals([m.vm.closed, m.vendor.has(m.vcpu)], [true, false]);
});
