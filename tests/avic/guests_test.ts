/**
 * Guests with several processors under AVIC: what they print is what they print on the bare processor.
 */
import { assert, assertEquals } from "@std/assert";
import {
  createVm,
  exitReasonName,
  observeExitHook,
  type Plugin,
  type Registration,
  roundRobin,
  type RunResult,
} from "../../core/mod.ts";
import { cpu, type CpuOptions } from "../../plugins/cpu/mod.ts";
import { debugExit } from "../../plugins/debugexit/mod.ts";
import { lapic } from "../../plugins/lapic/mod.ts";
import { metal } from "../../plugins/metal/mod.ts";
import { loadImage } from "../../plugins/multiboot/mod.ts";
import { pic } from "../../plugins/pic/mod.ts";
import { serial } from "../../plugins/serial/mod.ts";
import {
  avic,
  AvicInhibit,
  formerMsrs,
  ipiVirtualizationAlways,
  ipiVirtualizationSlot,
  x2apicReadSlot,
  x2apicWriteSlot,
} from "../../plugins/svm/avic/mod.ts";
import { svm } from "../../plugins/svm/mod.ts";

interface Options {
  readonly cpu?: CpuOptions;
  readonly cpus?: number;
  readonly processors?: number;
  readonly plugins?: readonly Plugin[];
  /** Seed of the scheduler. */
  readonly seed?: number;
}

interface Ended {
  readonly result: RunResult;
  readonly text: string;
  /** Exits by name. */
  readonly exits: ReadonlyMap<string, number>;
}

async function run(guest: string, line: string, options: Options): Promise<Ended> {
  const { cpus = 8, processors = cpus, plugins = [], seed = 1 } = options;
  const file = new URL(`../../examples/guests/${guest}/${guest}.elf`, import.meta.url);
  const image = loadImage(await Deno.readFile(file), { name: `${guest}.elf`, commandLine: line });
  let text = "";
  const decoder = new TextDecoder();
  const output = (bytes: Uint8Array) => void (text += decoder.decode(bytes, { stream: true }));
  const exits = new Map<string, number>();
  const counter: Plugin = {
    name: "counter",
    version: "1.0.0",
    setup: (ctx) =>
      void ctx.on(observeExitHook, (_vcpu, { reason }) => {
        const name = exitReasonName(reason);
        exits.set(name, (exits.get(name) ?? 0) + 1);
      }),
  };
  using vm = await createVm({
    memory: 16 * 2 ** 20,
    cpus,
    processors,
    plugins: [
      cpu(options.cpu),
      pic({ wiring: "apic" }),
      lapic(),
      debugExit(),
      serial({ output }),
      roundRobin({ quantum: 300, timeslice: 4000, seed }),
      counter,
      ...plugins,
    ],
    images: [image],
  });
  const result = await vm.run({ instructions: 5e9 });
  assertEquals([result.reason, result.reason === "exit-code" && result.code], [
    "exit-code",
    1,
  ], `${text}, seed ${seed}`);
  return { result, text, exits };
}

/** Sets and clears an inhibit every few hundred instructions and exits. */
function toggler(): Plugin {
  return {
    name: "toggler",
    version: "1.0.0",
    setup(ctx) {
      let held: Registration | undefined;
      const timer = ctx.createTimer("toggler", () => {
        held?.remove();
        held = held === undefined ? ctx.inhibit(AvicInhibit.BLOCKIRQ) : undefined;
        timer.arm(ctx.vm.clock.current.now() + 2600);
      });
      timer.arm(2600);
    },
  };
}

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
