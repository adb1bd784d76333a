/**
 * Chooses the forms of instructions whose handlers are part of the interpreter's module, by running our
 * guests and counting: writes `plugins/cpu/engine/hot_forms.ts`. A matter of speed alone.
 *
 *     deno task hot-forms
 *
 * @module
 */
import { createVm, type Plugin } from "../core/mod.ts";
import { cpu, type Processors, processorsSlot } from "../plugins/cpu/mod.ts";
import { debugExit } from "../plugins/debugexit/mod.ts";
import { metal } from "../plugins/metal/mod.ts";
import { loadImage } from "../plugins/multiboot/mod.ts";
import { pic } from "../plugins/pic/mod.ts";
import { serial } from "../plugins/serial/mod.ts";

/** Guests and their command lines. */
const RUNS: readonly (readonly [string, string])[] = [
  ["loops", "sieve=1"],
  ["loops", "sha256=1"],
  ["loops", "sort=1"],
  ["exits", "out=10 in=10 cpuid=10 rdmsr=10 wrmsr=10 cr0=10 cr3=10"],
  ["tour", ""],
];

/** Transfers that are worth fusing with what stands before them wherever they follow each other often. */
const TRANSFERS: ReadonlySet<string> = new Set(["CALL", "RET", "JMP"]);
/** What "often" is, in decoded blocks of all runs. */
const OFTEN = 10;
/** Instructions that leave the processor: nothing is gained by fusing them. */
const SLOW: ReadonlySet<string> = new Set(["IN", "OUT", "CPUID"]);

const OUTPUT = new URL("../plugins/cpu/engine/hot_forms.ts", import.meta.url);

/** Processors of the VM they are loaded into, for the tool to look at. */
function watcher(found: (processors: Processors) => void): Plugin {
  return {
    name: "watcher",
    version: "1.0.0",
    requires: [processorsSlot],
    setup: (ctx) => found(ctx.use(processorsSlot).current),
  };
}

const nameOf = (key: string): string => key.slice(0, key.indexOf(" "));

async function main(): Promise<void> {
  const forms = new Set<string>();
  const pairs = new Map<string, number>();
  for (const [guest, commandLine] of RUNS) {
    const file = new URL(`../examples/guests/${guest}/${guest}.elf`, import.meta.url);
    let processors: Processors | undefined;
    using vm = await createVm({
      memory: 64 << 20,
      plugins: [
        cpu(),
        metal(),
        pic(),
        serial(),
        debugExit(),
        watcher((seen) => processors = seen),
      ],
      images: [loadImage(await Deno.readFile(file), { name: guest, commandLine })],
    });
    const result = await vm.run({ instructions: 1e9 });
    if (result.reason !== "exit-code") throw new Error(`${guest} ended with ${result.reason}`);
    for (const key of processors!.forms) forms.add(key);
    for (const { first, second, blocks } of processors!.pairs) {
      const key = `${first}|${second}`;
      pairs.set(key, (pairs.get(key) ?? 0) + blocks);
    }
  }
  const hotForms = [...forms].filter((key) => !key.startsWith(".un") && !key.startsWith(".too"))
    .sort();
  const hotPairs = [...pairs].filter(([key, blocks]) => {
    const [first, second] = key.split("|") as [string, string];
    const name = nameOf(second);
    const conditional = /^J[A-Z]{1,3}$/.test(name) && !name.startsWith("JMP");
    return !SLOW.has(nameOf(first)) && (conditional || (TRANSFERS.has(name) && blocks >= OFTEN));
  }).map(([key]) => key.split("|")).sort();
  const lines = [
    "/**",
    " * Forms whose handlers are part of the interpreter's module, as `formKey` writes them. Written by",
    " * `tools/hot_forms.ts`.",
    " *",
    " * @module",
    " */",
    "",
    "/** Keys of hot forms. */",
    "export const HOT_FORMS: readonly string[] = [",
    ...hotForms.map((key) => `  ${JSON.stringify(key)},`),
    "];",
    "",
    "/** Two hot forms in a row that are carried out as one: the flags of the first need not be stored. */",
    "export const HOT_PAIRS: readonly (readonly [string, string])[] = [",
    ...hotPairs.map((pair) => `  [${pair.map((key) => JSON.stringify(key)).join(", ")}],`),
    "];",
    "",
  ];
  await Deno.writeTextFile(OUTPUT, lines.join("\n"));
  console.log(`${hotForms.length} forms, ${hotPairs.length} pairs`);
}

if (import.meta.main) await main();
