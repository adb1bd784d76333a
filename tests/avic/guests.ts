/**
 * Runs guests with several processors, and counts their exits.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
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
import { lapic, LapicInhibit } from "../../plugins/lapic/mod.ts";
import { loadImage } from "../../plugins/multiboot/mod.ts";
import { pic } from "../../plugins/pic/mod.ts";
import { serial } from "../../plugins/serial/mod.ts";

/** What a guest runs on. */
export interface Options {
  readonly cpu?: CpuOptions;
  readonly cpus?: number;
  readonly processors?: number;
  readonly plugins?: readonly Plugin[];
  /** Seed of the scheduler. */
  readonly seed?: number;
}

/** How a run ended. */
export interface Ended {
  readonly result: RunResult;
  readonly text: string;
  /** Exits by name. */
  readonly exits: ReadonlyMap<string, number>;
}

/** Runs a guest to its good end. The vendor and what accelerates it are among the plugins. */
export async function run(guest: string, line: string, options: Options): Promise<Ended> {
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
export function toggler(): Plugin {
  return {
    name: "toggler",
    version: "1.0.0",
    setup(ctx) {
      let held: Registration | undefined;
      const timer = ctx.createTimer("toggler", () => {
        held?.remove();
        held = held === undefined ? ctx.inhibit(LapicInhibit.BLOCKIRQ) : undefined;
        timer.arm(ctx.vm.clock.current.now() + 2600);
      });
      timer.arm(2600);
    },
  };
}
