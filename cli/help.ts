/**
 * What the help says.
 *
 * @module
 */

import { describeOptions } from "./arguments.ts";
import { RUN_OPTIONS } from "./run.ts";
import { STATUS_MEANINGS } from "./statuses.ts";

/** For `trapline --help`. */
export const MAIN_HELP: string = `Trapline runs virtual machines and shows their exits.

  trapline run IMAGE [OPTIONS]  run an image, then print the profile of its exits
  trapline plugins              list the plugins
  trapline --version            print the version
  trapline run --help           print the options and exit statuses of run
`;

/** For `trapline run --help`. */
export function runHelp(): string {
  const statuses = STATUS_MEANINGS.map(([status, meaning]) =>
    `  ${String(status).padEnd(5)}  ${meaning}`
  );
  return `trapline run IMAGE [OPTIONS]

Runs a multiboot 1 image, an ELF executable, a boot sector or a flat binary. The guest's console
(COM1) is on standard output and input, the profile of its exits comes on standard error at the end.
Ctrl-C and SIGTERM end the run with the profile so far; twice, at once.

Options:
${describeOptions(RUN_OPTIONS)}

Exit status:
  1–255  odd: the code with which the guest ended, (v << 1) | 1 for a write of v to port F4h,
         of which a process has the lower eight bits
${statuses.join("\n")}
`;
}
