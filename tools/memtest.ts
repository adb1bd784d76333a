/**
 * Runs Debian's memtest86+ until it has finished a pass over all of memory.
 *
 *     deno task memtest                      # 32 MiB on metal
 *     deno task memtest --vendor svm --memory 64M
 *
 * Its program comes from Debian's archive by apt-get, into the user's cache folder. What it paints on its
 * serial console is read as a screen: when that tells of a finished pass the run ends, with status 0 if
 * there were no errors and 1 if there were. Further words go to `trapline run`.
 *
 * A pass over 32 MiB takes two minutes, of which half go to the last test: it waits 160 seconds of the
 * machine's time for bits to fade, in a loop that reads the clock.
 *
 * Limits: what has been run is Debian 12's memtest86+ 6.10.
 *
 * @module
 */

import { type CliIo, denoIo, main } from "../cli/mod.ts";
import { Debian } from "./debian.ts";
import { describe, readStatus } from "./memtest_screen.ts";
import { Screen } from "./screen.ts";

const PACKAGE = "memtest86+";
const PROGRAM = "boot/memtest86+x64.bin";
const WORDS: readonly string[] = [
  ...["--machine", "pc", "--append", "console=ttyS0,115200"],
  ...["--no-stdin", "--no-profile", "--quiet"],
];
const USAGE = `deno task memtest [OPTIONS]: runs Debian's memtest86+ for a pass over all of memory

All options are those of "trapline run", like --memory 64M (32M if not given) and --vendor svm (metal);
"deno task trapline run --help" lists them.`;
/** Where the words do not say otherwise. */
const DEFAULTS: readonly (readonly [string, string])[] = [
  ["--vendor", "metal"],
  ["--memory", "32M"],
];

/** Runs the program; returns the exit status. */
async function run(words: readonly string[], debian: Debian): Promise<number> {
  const screen = new Screen();
  let stop: ((what: "SIGTERM") => void) | undefined;
  let last = "";
  let errors: number | undefined;
  const base = denoIo();
  const io: CliIo = {
    ...base,
    onInterrupt(handler) {
      stop = handler;
      return base.onInterrupt(handler);
    },
    stdout(bytes) {
      screen.write(bytes);
      const status = readStatus(screen.lines);
      if (status === undefined || errors !== undefined) return;
      const line = describe(status);
      if (line !== last) debian.say(last = line);
      if (status.passes === 0 && status.errors === 0) return;
      errors = status.errors;
      stop?.("SIGTERM");
    },
  };
  const status = await main(["run", ...words], io);
  if (errors === undefined) return status === 0 ? 1 : status;
  console.log(screen.lines.join("\n").trimEnd());
  debian.say(errors === 0 ? "a pass without errors" : `${errors} errors`);
  return errors === 0 ? 0 : 1;
}

if (import.meta.main) {
  if (Deno.args.includes("--help")) {
    console.log(USAGE);
    Deno.exit(0);
  }
  const debian = new Debian("memtest");
  const program = `${await debian.files(PACKAGE, ["boot"])}/${PROGRAM}`;
  const given = (name: string): boolean =>
    Deno.args.some((word) => word === name || word.startsWith(`${name}=`));
  const defaults = DEFAULTS.filter(([name]) => !given(name)).flat();
  Deno.exit(await run([program, ...WORDS, ...defaults, ...Deno.args], debian));
}
