/**
 * Records the x87 vectors on the processor it is run on (`deno task vectors:record`). Needs x86-64 Linux
 * and gcc.
 *
 * @module
 */
import { encode, FILE } from "./file.ts";
import { runOnSilicon } from "./silicon.ts";

/** The processor's name, family and model. */
async function processorName(): Promise<string> {
  const text = await Deno.readTextFile("/proc/cpuinfo");
  const field = (name: string): string => {
    const [, value] = new RegExp(`^${name}\\s*: (.*)$`, "m").exec(text) ?? [];
    return value ?? "?";
  };
  return `${field("model name")}, family ${field("cpu family")}, model ${field("model")}`;
}

if (import.meta.main) {
  const file = await encode(await processorName(), await runOnSilicon());
  await Deno.mkdir(new URL(".", FILE), { recursive: true });
  await Deno.writeFile(FILE, file);
  console.log(`x87: ${file.length} bytes`);
}
