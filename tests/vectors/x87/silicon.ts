/**
 * Runs the programs of the x87 vectors on the processor at hand, through a program that gcc compiles.
 *
 * @module
 */
import { normalized } from "./file.ts";
import { FORMS, inputOf } from "./forms.ts";
import { CODE_BASE, INPUT_BASE, OUTPUT_BASE, programOf, RECORDS_SIZE } from "./layout.ts";

async function command(program: string, args: readonly string[]): Promise<void> {
  const { success, stderr } = await new Deno.Command(program, { args: [...args] }).output();
  if (!success) throw new Error(`${program}: ${new TextDecoder().decode(stderr)}`);
}

/** Runs of all programs at most, until each has done the same twice. */
const MOST_RUNS = 20;

/**
 * What each form leaves in its records. An operating system that switches tasks in the middle of a
 * program may lose the pointers to instruction and operand, so a program is run until it has left the
 * same twice.
 *
 * @throws {Error} if one never does.
 */
export async function runOnSilicon(): Promise<Uint8Array<ArrayBuffer>[]> {
  const settled: (Uint8Array<ArrayBuffer> | undefined)[] = FORMS.map(() => undefined);
  const seen: Set<string>[] = FORMS.map(() => new Set());
  for (let round = 0; round < MOST_RUNS && settled.includes(undefined); round++) {
    for (const [index, output] of (await runOnce()).entries()) {
      const text = normalized(output).join();
      if (seen[index]!.has(text)) settled[index] ??= output;
      seen[index]!.add(text);
    }
  }
  const outputs = settled.filter((output) => output !== undefined);
  if (outputs.length < FORMS.length) throw new Error("a program never leaves the same twice");
  return outputs;
}

async function runOnce(): Promise<Uint8Array<ArrayBuffer>[]> {
  const folder = await Deno.makeTempDir();
  try {
    const inputs = FORMS.map((_, index) => inputOf(index));
    const parts: Uint8Array<ArrayBuffer>[] = [
      new Uint8Array(Uint32Array.of(CODE_BASE, INPUT_BASE, OUTPUT_BASE, RECORDS_SIZE).buffer),
    ];
    for (const [index, { code, count }] of FORMS.entries()) {
      const program = programOf(code, count);
      const input = inputs[index]!;
      parts.push(new Uint8Array(Uint32Array.of(program.length, input.length).buffer));
      parts.push(program, input);
    }
    await Deno.writeFile(`${folder}/in`, new Uint8Array(await new Blob(parts).arrayBuffer()));
    const source = new URL("run.c", import.meta.url).pathname;
    await command("gcc", ["-O2", "-Wall", "-o", `${folder}/run`, source]);
    await command(`${folder}/run`, [`${folder}/in`, `${folder}/out`]);
    const output = await Deno.readFile(`${folder}/out`);
    let at = 0;
    return inputs.map(({ length }) => output.slice(at, at += length));
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}
