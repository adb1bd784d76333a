/**
 * Run a program written for Intel APX beside its twin without APX, and compare their instruction counts.
 *
 * The guest holds five functions twice: in C, compiled for any x86-64 processor, and by hand for APX, with
 * R16–R31, new destinations, conditional comparisons, loads that suppress faults, and pairs of pushes. It
 * prints what each function came to and how many ticks of the time-stamp counter it took, which here is
 * how many instructions it retired.
 *
 *     deno run --allow-read examples/04_apx.ts
 */

import { apx } from "@trapline/trapline/apx";
import { createVm } from "@trapline/trapline/core";
import { cpu } from "@trapline/trapline/cpu";
import { debugExit } from "@trapline/trapline/debugexit";
import { loadImage } from "@trapline/trapline/multiboot";
import { pic } from "@trapline/trapline/pic";
import { serial } from "@trapline/trapline/serial";
import { vmx } from "@trapline/trapline/vmx";

const image = await Deno.readFile(new URL("guests/apx/apx.elf", import.meta.url));

/** What one function of the guest came to, and its instructions. */
interface Count {
  readonly result: string;
  readonly instructions: number;
}

/** Runs the guest on a processor with APX; its functions by name. */
async function run(commandLine: string): Promise<Map<string, Count>> {
  let text = "";
  using vm = await createVm({
    memory: 16 * 2 ** 20,
    plugins: [
      cpu({ model: "diamond-rapids" }), // a processor with APX,
      vmx(), // the hypervisor,
      apx(), // which gives its guests R16–R31,
      pic(),
      serial({ output: (bytes) => void (text += new TextDecoder().decode(bytes)) }),
      debugExit(),
    ],
    images: [loadImage(image, { name: "apx.elf", commandLine })],
  });
  const end = await vm.run({ instructions: 1e9 });
  if (end.reason !== "exit-code" || end.code !== 1) throw new Error(`${end.reason}: ${text}`);
  const counts = new Map<string, Count>();
  for (const [, name, result, ticks] of text.matchAll(/^apx: (\w+) (\w+)\ncpu: \1 (\d+)/gm)) {
    counts.set(name!, { result: result!, instructions: Number(ticks) });
  }
  return counts;
}

const plain = await run("");
const extended = await run("apx");
console.log("function      result  without APX   with APX");
for (const [name, { result, instructions }] of plain) {
  const twin = extended.get(name);
  if (twin?.result !== result) throw new Error(`${name}: ${twin?.result}, not ${result}`);
  const change = 100 * (twin.instructions / instructions - 1);
  console.log(
    name.padEnd(8) + result.slice(-12).padStart(12) +
      String(instructions).padStart(13) + String(twin.instructions).padStart(11) +
      `${change > 0 ? "+" : ""}${change.toFixed(1)} %`.padStart(9),
  );
}
