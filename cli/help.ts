/**
 * What the help says.
 *
 * @module
 */

import { describeOptions } from "./arguments.ts";
import { COMPARE_OPTIONS } from "./compare.ts";
import { KUT_OPTIONS } from "./kut.ts";
import { LAB_OPTIONS } from "./lab.ts";
import { RUN_OPTIONS } from "./settings.ts";
import { Status, STATUS_MEANINGS } from "./statuses.ts";

/** For `trapline --help`. */
export const MAIN_HELP: string = `Trapline runs virtual machines and shows their exits.

  trapline run IMAGE [OPTIONS]  run an image, then print the profile of its exits
  trapline lab [PATCH…]         run guests with and without patches, print the difference
  trapline compare IMAGE        run an image under several vendors, print the exits side by side
  trapline kut DIR              run a kvm-unit-tests tree, print a score board
  trapline patches              list the patches
  trapline plugins              list the plugins
  trapline machines             list the machines and their parts
  trapline --version            print the version
  trapline run --help           print the options and exit statuses of run
  trapline lab --help           print the options of lab
  trapline compare --help       print the options of compare
  trapline kut --help           print the options of kut
`;

/** For `trapline lab --help`. */
export function labHelp(): string {
  return `trapline lab [PATCH…] [OPTIONS]

Runs each patch's guests as the hypervisor was before the patch, as it is after it, and in versions
that were discussed, and prints one table of exits for each guest: before, after, difference. Without
a patch, all are run; "trapline patches" lists them. The same command prints the same on every machine.

Options:
${describeOptions(LAB_OPTIONS)}

Exit status:
  ${Status.OK}  done
  ${Status.DIFFERENT}  a patch changed what its guest sees, though it must not
Others are those of run.
`;
}

/** For `trapline compare --help`. */
export function compareHelp(): string {
  return `trapline compare IMAGE [OPTIONS]

Runs an image under each vendor, says whether the guest saw any difference, and prints the exits side
by side. All show the guest the same CPUID, whatever processor they run on.

Options:
${describeOptions(COMPARE_OPTIONS)}

Exit status:
  ${Status.OK}  the guest saw no difference
  ${Status.DIFFERENT}  it did
Others are those of run.
`;
}

/** For `trapline kut --help`. */
export function kutHelp(): string {
  return `trapline kut DIR [OPTIONS]

Runs the tests of a kvm-unit-tests tree, built for x86_64 or i386 (./configure --arch=…; make), by
its list x86/unittests.cfg: on the machine pc, with as many vCPUs, as much memory and such a
processor as each test asks for. Prints each test as it ends, then a score board: subtests by test,
and the sums.

Options:
${describeOptions(KUT_OPTIONS)}

Exit status:
  ${Status.OK}  no test failed; with --baseline, nothing is worse than it was
  ${Status.DIFFERENT}  some test failed; with --baseline, something is worse
Others are those of run.
`;
}

/** For `trapline run --help`. */
export function runHelp(): string {
  const statuses = STATUS_MEANINGS.map(([status, meaning]) =>
    `  ${String(status).padEnd(5)}  ${meaning}`
  );
  return `trapline run IMAGE [OPTIONS]

Runs a multiboot 1 image, an ELF executable, a Linux kernel, a boot sector or a flat binary. The
guest's console (COM1) is on standard output and input, the profile of its exits comes on standard
error at the end. Ctrl-C and SIGTERM end the run with the profile so far; twice, at once.

Options:
${describeOptions(RUN_OPTIONS)}

Exit status:
  1–255  odd: the code with which the guest ended, (v << 1) | 1 for a write of v to port F4h,
         of which a process has the lower eight bits
${statuses.join("\n")}
`;
}
