/**
 * Storms of IPIs between eight vCPUs on three host processors, and plugins that disturb them.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import {
  type InhibitReason,
  type Plugin,
  type PluginContext,
  type Registration,
  roundRobin,
} from "../../core/mod.ts";
import { Machine, type MachineOptions } from "./machine.ts";
import { programStorm, stormPlan, stormReceived } from "./storm.ts";

/** How many vCPUs a storm has. */
export const VCPUS = 8;
/** Ticks between two inhibits: a few hundred instructions and some exits, which are charged 1000 each. */
const INHIBIT_PERIOD = 2900;

/** Calls `action` every `period` ticks, with how often it was called before. */
export function every(
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
export function toggler(reason: InhibitReason): Plugin {
  let held: Registration | undefined;
  return every("toggler", INHIBIT_PERIOD, (_count, ctx) => {
    held?.remove();
    held = held === undefined ? ctx.inhibit(reason) : undefined;
  });
}

/** The same for one vCPU after the other. */
export function vcpuToggler(reason: InhibitReason): Plugin {
  const held: (Registration | undefined)[] = [];
  return every("vcpu-toggler", INHIBIT_PERIOD, (count, ctx) => {
    const index = (count * 5) % VCPUS;
    const registration = held[index];
    registration?.remove();
    held[index] = registration === undefined
      ? ctx.inhibit(reason, ctx.vm.vcpus[index]!)
      : undefined;
  });
}

/** A machine and its storm. */
export interface StormCase extends MachineOptions {
  /** How many IPIs each vCPU sends. */
  readonly each: number;
  /** Seed of what is sent to whom. */
  readonly seed: bigint;
}

/** Runs a storm to its end, where every IPI has been received once. */
export function runStorm({ each, seed, ...options }: StormCase): Machine {
  const storm = { each, seed };
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
  assertEquals(end.reason, "exit-code", `seed ${seed}`);
  assertEquals(stormReceived(machine), stormPlan(VCPUS, storm), `seed ${seed}`);
  stack.move();
  return machine;
}
