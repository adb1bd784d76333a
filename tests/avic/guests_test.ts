/**
 * Guests with several processors under AVIC: what they print is what they print on the bare processor.
 */
import { assert, assertEquals } from "@std/assert";
import type { Plugin } from "../../core/mod.ts";
import { metal } from "../../plugins/metal/mod.ts";
import {
  avic,
  formerMsrs,
  ipiVirtualizationAlways,
  ipiVirtualizationSlot,
  x2apicReadSlot,
  x2apicWriteSlot,
} from "../../plugins/svm/avic/mod.ts";
import { svm } from "../../plugins/svm/mod.ts";
import { run, toggler } from "./guests.ts";

const former: Plugin = {
  name: "former",
  version: "1.0.0",
  provides: [x2apicReadSlot, x2apicWriteSlot, ipiVirtualizationSlot],
  setup(ctx) {
    ctx.provide(x2apicReadSlot, formerMsrs);
    ctx.provide(x2apicWriteSlot, formerMsrs);
    ctx.provide(ipiVirtualizationSlot, ipiVirtualizationAlways);
  },
};

/** Loads the policies of before, and unloads them, again and again. */
function swapper(): Plugin {
  return {
    name: "swapper",
    version: "1.0.0",
    setup(ctx) {
      let loaded = false;
      const timer = ctx.createTimer("swapper", () => {
        if (loaded) ctx.vm.unload("former");
        else ctx.vm.load(former);
        loaded = !loaded;
        timer.arm(ctx.vm.clock.current.now() + 70_000);
      });
      timer.arm(70_000);
    },
  };
}

const UNDER_AVIC = (): Plugin[] => [svm(), avic()];

for (const mode of ["xAPIC", "x2APIC"]) {
  const suffix = mode === "x2APIC" ? " x2apic" : "";
  for (const [guest, line] of [["smp", "rounds=200"], ["apic", "rounds=3"]] as const) {
    Deno.test(`"${guest}" in ${mode} mode prints the same under AVIC as on metal`, async () => {
      const bare = await run(guest, line + suffix, { cpus: 4, plugins: [metal()] });
      for (const model of ["zen2", "zen3", "zen4", "zen5"] as const) {
        const plugins = [...UNDER_AVIC(), toggler()];
        const options = { cpu: { model }, cpus: 4, processors: 2 };
        assertEquals(
          (await run(guest, line + suffix, { ...options, plugins: UNDER_AVIC() })).text,
          bare.text,
        );
        assertEquals((await run(guest, line + suffix, { ...options, plugins })).text, bare.text);
      }
    });
  }

  const ipis = mode === "x2APIC" ? 100_000 : 25_000;
  Deno.test(`a storm of ${ipis} IPIs in ${mode} mode: 8 vCPUs on 3 processors receive it as on metal`, async () => {
    const line = `ipis=${ipis} seed=5${suffix}`;
    const bare = await run("ipistorm", line, { plugins: [metal()] });
    assert(bare.text.includes(`${ipis} sent, ${ipis} received, 0 lost, 0 doubled, 0 stray`));
    const ways: [string, Plugin[]][] = [
      ["on", UNDER_AVIC()],
      ["off", [svm()]],
      ["toggled", [...UNDER_AVIC(), toggler()]],
      ["swapped", [...UNDER_AVIC(), toggler(), swapper()]],
    ];
    for (const [way, plugins] of ways) {
      const ended = await run("ipistorm", line, { processors: 3, plugins });
      assertEquals(ended.text, bare.text, way);
      const incomplete = ended.exits.get("AVIC_INCOMPLETE_IPI") ?? 0;
      assertEquals(incomplete > 100, way !== "off", `${way}: ${incomplete}`);
    }
  });

  Deno.test(`storms with naps in ${mode} mode, under many schedules`, async () => {
    const line = `ipis=3000 naps seed=9${suffix}`;
    const bare = await run("ipistorm", line, { plugins: [metal()] });
    for (const seed of [1, 2, 3]) {
      for (const more of [[], [toggler()]]) {
        const plugins = [...UNDER_AVIC(), ...more];
        const options = { processors: 3, seed, plugins };
        const ended = await run("ipistorm", line, options);
        assertEquals(ended.text, bare.text, `seed ${seed}`);
      }
    }
  });
}

Deno.test("two runs under AVIC are the same to the last exit", async () => {
  const once = async () => {
    const plugins = [...UNDER_AVIC(), toggler()];
    const { result, exits } = await run("ipistorm", "ipis=2000 naps", { processors: 3, plugins });
    return { ticks: result.ticks, instructions: result.instructions, exits: [...exits] };
  };
  assertEquals(await once(), await once());
});
