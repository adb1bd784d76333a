/**
 * What hooks and exits cost, in isolation: `deno bench bench/hooks_bench.ts`.
 *
 * The guest is a script, so the numbers are those of the core alone; entering a real guest and
 * executing instructions comes on top.
 */

import {
  defineHook,
  defineKeyedHook,
  ExitAction,
  exitHook,
  ExitReason,
  handleExit,
  type Hook,
  Hooks,
  type KeyedHook,
} from "../core/mod.ts";
import { type ScriptedVm, scriptedVm } from "../core/testing/mod.ts";

/** Calls in one iteration, so that the harness's own cost does not show. */
const CALLS = 1000;

const eachHook: Hook<(a: number, b: number) => void, "each"> = defineHook({
  name: "bench-each",
  kind: "each",
  arity: 2,
});
const firstHook: KeyedHook<(a: number, b: number) => number | undefined, "first"> = defineKeyedHook(
  { name: "bench-first", kind: "first", arity: 2, keys: 128 },
);

let sink = 0;

for (const handlers of [0, 1, 3, 10]) {
  const hooks = new Hooks();
  const point = hooks.point(eachHook);
  for (let i = 0; i < handlers; i++) {
    const owner = { name: `p${i}`, position: i };
    point.bind(hooks.entry(owner, (a: number, b: number) => void (sink += a + b + i))).attach();
  }
  Deno.bench(`each hook, ${handlers} handlers, ${CALLS} calls`, { group: "hook" }, () => {
    for (let i = 0; i < CALLS; i++) point.call(i, 1);
  });
}

for (const [name, key] of [["hit", 5], ["miss", 6]] as const) {
  const hooks = new Hooks();
  const point = hooks.keyedPoint(firstHook);
  point.bind(5, hooks.entry({ name: "p", position: 0 }, (a: number, b: number) => a + b)).attach();
  Deno.bench(`keyed hook, ${name}, ${CALLS} look-ups`, { group: "keyed" }, () => {
    for (let i = 0; i < CALLS; i++) sink += point.table[key]?.(i, 1) ?? 0;
  });
}

/** Exits handled by `handleExit` alone, without entering the guest in between. */
function exits(name: string, m: ScriptedVm, fill: () => void): void {
  const { vm, vcpu } = m;
  vm.pace.instructionEnd = vm.pace.exitEnd = vm.pace.horizon = Infinity;
  vcpu.requestsLo = 0;
  Deno.bench(`handleExit, ${name}, ${CALLS} exits`, { group: "exit" }, () => {
    for (let i = 0; i < CALLS; i++) {
      fill();
      if (handleExit(vcpu) === 0) throw new Error("the vCPU was told to leave");
    }
  });
}

{
  const m = scriptedVm({
    plugins: [{
      name: "port",
      version: "1.0.0",
      setup: (ctx) => {
        ctx.registerPio({
          name: "port",
          base: 0x80,
          length: 1,
          write: (_offset, _size, value) => void (sink += value),
        });
      },
    }],
  });
  exits("OUT to a device", m, () => m.vcpu.exit.setIo(0x80, 1, true, 1));
}
{
  const m = scriptedVm({
    plugins: [{
      name: "handler",
      version: "1.0.0",
      setup: (ctx) => {
        ctx.on(exitHook, ExitReason.WBINVD, () => ExitAction.COMPLETE);
      },
    }],
  });
  exits("a plugin's handler", m, () => void (m.vcpu.exit.reason = ExitReason.WBINVD));
}
{
  const m = scriptedVm();
  exits("the core's WBINVD", m, () => void (m.vcpu.exit.reason = ExitReason.WBINVD));
}

{
  const m = scriptedVm({
    guest: function* () {
      for (;;) yield (exit) => void (exit.reason = ExitReason.WBINVD);
    },
  });
  Deno.bench(`run loop, ${CALLS} entries and exits of a script`, { group: "run" }, () => {
    m.vm.runSync({ instructions: CALLS });
  });
}
