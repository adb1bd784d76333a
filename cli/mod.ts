/**
 * The command line: `trapline run IMAGE` runs an image in a virtual machine and prints the profile of
 * its exits; `trapline lab` runs guests with and without hypervisor patches and prints the difference.
 *
 * ```sh
 * deno run --allow-read jsr:@trapline/trapline/cli run kernel.elf
 * ```
 *
 * It needs permission to read the image, and to write the files that `--json` and `--html`
 * name; nothing else.
 *
 * {@linkcode main} is the whole program; what it needs of the world it is given as a {@linkcode CliIo},
 * so that it can be run inside another program.
 *
 * @module
 */

import { outputError, toCliError, usageError } from "./errors.ts";
import { compare } from "./compare.ts";
import { compareHelp, kutHelp, labHelp, MAIN_HELP, runHelp } from "./help.ts";
import { type CliIo, denoIo } from "./io.ts";
import { kut } from "./kut.ts";
import { lab, listPatches } from "./lab.ts";
import { describeBoards } from "./boards.ts";
import { PLUGINS } from "./machine.ts";
import { run } from "./run.ts";
import { Status } from "./statuses.ts";
import { VERSION } from "./version.ts";

export { type Board, boardParts, BOARDS, type PartChoice } from "./boards.ts";
export { type CliIo, denoIo, type OutputFile, type SavedCodeCache } from "./io.ts";
export type { KutOutcome, KutRecord, KutResult } from "./kut_score.ts";
export { RECORD_VERSION, type RunRecord } from "./record.ts";
export { Status } from "./statuses.ts";
export { VERSION } from "./version.ts";

/**
 * Carries out a command line.
 *
 * @param args The words behind the program's name.
 * @returns The exit status. Errors are printed, in one line, and are a status like any other.
 */
export async function main(args: readonly string[], io: CliIo): Promise<number> {
  try {
    return await command(args, io);
  } catch (error) {
    const { status, message } = toCliError(error);
    const about = args.slice(0, 1).find((name) => WITH_HELP.includes(name)) ?? "run";
    const hint = status === Status.USAGE ? ` (trapline ${about} --help)` : "";
    io.stderr(`trapline: ${message}${hint}\n`);
    return status;
  }
}

/** Commands with a help of their own. */
const WITH_HELP: readonly string[] = ["lab", "compare", "kut"];
const COMMANDS = "run, lab, compare, kut, patches, plugins and machines";

async function command(args: readonly string[], io: CliIo): Promise<number> {
  const print = (text: string): number => {
    try {
      io.stdout(new TextEncoder().encode(text));
    } catch (error) {
      throw outputError(error);
    }
    return Status.OK;
  };
  const [name, ...rest] = args;
  switch (name) {
    case "run":
      // What follows "--" is not an option.
      return rest.slice(0, endOfOptions(rest)).includes("--help")
        ? print(runHelp())
        : await run(rest, io);
    case "lab":
      return rest.slice(0, endOfOptions(rest)).includes("--help")
        ? print(labHelp())
        : await lab(rest, io);
    case "compare":
      return rest.slice(0, endOfOptions(rest)).includes("--help")
        ? print(compareHelp())
        : await compare(rest, io);
    case "kut":
      return rest.slice(0, endOfOptions(rest)).includes("--help")
        ? print(kutHelp())
        : await kut(rest, io);
    case "patches":
      if (rest.length > 0) throw usageError(`patches: "${rest[0]}" is one word too many`);
      return print(listPatches());
    case "plugins":
      if (rest.length > 0) throw usageError(`plugins: "${rest[0]}" is one word too many`);
      return print(listPlugins());
    case "machines":
      if (rest.length > 0) throw usageError(`machines: "${rest[0]}" is one word too many`);
      return print(describeBoards());
    case "--version":
      return print(`trapline ${VERSION}\n`);
    case "--help":
    case "help":
      return print(MAIN_HELP);
    case undefined:
      throw usageError(`no command given; there are ${COMMANDS}`);
    default:
      throw usageError(`there is no command "${name}"; there are ${COMMANDS}`);
  }
}

function endOfOptions(words: readonly string[]): number {
  const at = words.indexOf("--");
  return at < 0 ? words.length : at;
}

function listPlugins(): string {
  const rows = PLUGINS.map(([module, make]) => {
    const { name, description = "" } = make();
    return [name, `@trapline/trapline/${module}`, description];
  });
  const width = (column: number) => Math.max(...rows.map((row) => row[column]!.length));
  const [first, second] = [width(0), width(1)];
  return rows.map(([name = "", module = "", description = ""]) =>
    `${name.padEnd(first)}  ${module.padEnd(second)}  ${description}\n`
  ).join("");
}

if (import.meta.main) {
  Deno.exit(await main(Deno.args, denoIo()));
}
