/**
 * Patches that a guest must not see, put in and taken out while it runs.
 */
import { assert, assertEquals } from "@std/assert";
import { observeExitHook, type Plugin } from "../core/mod.ts";
import { PATCHES, patchVariants } from "../patches/mod.ts";
import { runOnce, scenarioGuest, scenarioMachine } from "./mod.ts";

/** Takes one plugin after the other into the place of the one called `name`, every so many exits. */
function swapper(name: string, next: readonly (() => Plugin)[], every: number): {
  readonly plugin: Plugin;
  readonly swaps: () => number;
} {
  let [exits, swaps] = [0, 0];
  const plugin: Plugin = {
    name: "swapper",
    version: "1.0.0",
    setup(ctx) {
      ctx.on(observeExitHook, () => {
        if (++exits % every !== 0) return;
        ctx.vm.swap(name, next[swaps++ % next.length]!());
      });
    },
  };
  return { plugin, swaps: () => swaps };
}

for (const patch of PATCHES) {
  for (const scenario of patch.scenarios.filter(({ sameForGuest }) => sameForGuest)) {
    Deno.test(`${patch.id}, ${scenario.name}: variants swapped while the guest runs are not seen`, async () => {
      const [machine, guest] = [scenarioMachine(scenario), scenarioGuest(scenario)];
      const [before, ...others] = patchVariants(patch).map(({ plugin }) => plugin);
      assert(before !== undefined);
      const { name } = before();
      const undisturbed = await runOnce(machine, guest, [before()]);
      for (const every of [7, 50]) {
        const { plugin, swaps } = swapper(name, [...others, before], every);
        const run = await runOnce(machine, guest, [before(), plugin]);
        assertEquals(run.end, undisturbed.end, `every ${every} exits`);
        assertEquals(run.console, undisturbed.console);
        assert(swaps() >= 2, `${swaps()} swaps`);
      }
    });
  }
}
