/**
 * Linux's own KVM on the modelled processors: boots Debian's kernel on metal with its modules for KVM, has it
 * run a guest of ours with AVIC, or APICv and IPI virtualization, and without, and lays what KVM has counted
 * beside the exits of our hypervisor with the same guest.
 *
 *     deno task kvm                                         # on AMD's and on Intel's processor
 *     deno task kvm --processors amd --append "ipis=5000 x2apic cpus=4" --cpus 4
 *     deno task kvm --kernel arch/x86/boot/bzImage --modules .   # of a kernel that you have built
 *     deno task kvm --guest examples/guests/exits/exits.elf --append "cpuid=100 out=50" --cpus 1
 *
 * The guest is a multiboot image with its console at COM1, which ends by the port F4h. The kernel comes from
 * Debian's archive, as for `deno task linux`; the program that asks KVM to run the guest (`kvm/vmm.c`) is
 * compiled here, by gcc. Exits are those of KVM's tracepoint `kvm_exit`.
 *
 * What is equal is what the guest makes exit by itself. The host's own interrupts, first accesses to memory,
 * halts and polls depend on time, and on how much the kernel does besides.
 *
 * The status is 1 if a guest did not end well in KVM.
 *
 * @module
 */

import { parseArgs } from "@std/cli";
import { type CliIo, denoIo, main } from "../cli/mod.ts";
import { Debian } from "./debian.ts";
import { exitTable, ownExits, readRuns, type Run } from "./kvm/exits.ts";
import { type Kernel, prepare } from "./linux.ts";

const USAGE =
  `deno task kvm [OPTIONS]: runs a guest in Linux's KVM on the modelled processors, and counts exits

  --processors LIST  of amd, intel (both)
  --guest FILE       a multiboot image (examples/guests/ipistorm/ipistorm.elf)
  --append WORDS     its command line (ipis=1000 x2apic cpus=N)
  --cpus N           vCPUs, in KVM and below it (2)
  --kernel FILE      a kernel of your own in the place of Debian's, with --modules
  --modules FOLDER   where its modules are, KVM's among them, in folders of any depth`;

/** A processor, and what KVM's module for it is told. */
interface Kind {
  readonly name: string;
  readonly cpu: string;
  readonly module: string;
  readonly parameter: string;
  readonly vendor: "svm" | "vmx";
  /** What has to be said for our own hypervisor to do the same without. */
  readonly without: readonly string[];
}

const KINDS: readonly Kind[] = [
  {
    name: "amd",
    cpu: "max",
    module: "kvm_amd",
    parameter: "avic",
    vendor: "svm",
    without: ["--avic", "off"],
  },
  {
    name: "intel",
    cpu: "max-intel",
    module: "kvm_intel",
    parameter: "enable_apicv",
    vendor: "vmx",
    without: ["--apicv", "off", "--ipiv", "off"],
  },
];

const GUEST = "examples/guests/ipistorm/ipistorm.elf";
const WORDS = "ipis=1000 x2apic";
const MOST_CPUS = 64;
/** In the RAM disk. */
const IMAGE = "guest.elf";
const EVENT = "/sys/kernel/tracing/events/kvm/kvm_exit";

function refuse(why: string): never {
  console.error(`kvm: ${why}; deno task kvm --help lists the options`);
  Deno.exit(2);
}

/** What the shell does: runs the guest with and without, and says between marks what KVM has counted. */
function scriptFor({ module, parameter }: Kind, cpus: number, words: string): string {
  const quoted = `'${words.replaceAll("'", `'\\''`)}'`;
  return `mount -t tracefs none /sys/kernel/tracing
for module in $(cat /modules/others); do
  case $module in kvm_amd | kvm_intel) ;; *) insmod /modules/$module.ko ;; esac
done
for on in 1 0; do
  insmod /modules/${module}.ko ${parameter}=$on
  echo 'hist:keys=exit_reason' > ${EVENT}/trigger
  echo "@run $on"
  vmm /${IMAGE} ${cpus} ${quoted}
  echo "@status $?"
  cat ${EVENT}/hist
  echo "@end"
  echo '!hist:keys=exit_reason' > ${EVENT}/trigger
  rmmod ${module}
done
poweroff -f
`;
}

/** Compiles the program that runs guests. */
async function compile(debian: Debian): Promise<Uint8Array> {
  const source = new URL("kvm/vmm.c", import.meta.url).pathname;
  const to = await Deno.makeTempFile();
  try {
    const args = ["-std=gnu11", "-O2", "-static", "-pthread", "-s", "-o", to, source];
    const { success, stderr } = await new Deno.Command("gcc", { args }).output();
    if (!success) debian.give(`gcc: ${new TextDecoder().decode(stderr).trim()}`);
    return await Deno.readFile(to);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    debian.give("there is no gcc, by which the program is made that asks KVM to run a guest");
  } finally {
    await Deno.remove(to);
  }
}

/** Runs `words` without a terminal; what the guest has said. */
async function listen(words: readonly string[], debian: Debian): Promise<string> {
  const decoder = new TextDecoder();
  let said = "";
  let errors = "";
  const io: CliIo = {
    ...denoIo(),
    stdout: (bytes) => void (said += decoder.decode(bytes, { stream: true })),
    stderr: (line) => void (errors += line),
  };
  const status = await main(["run", ...words, "--no-stdin"], io);
  if (status !== 0) debian.give(`${said.slice(-2000)}\n${errors.trim()}`);
  return said;
}

/** What KVM has counted on a processor, with and without. */
async function inKvm(
  kind: Kind,
  debian: Debian,
  files: { readonly vmm: Uint8Array; readonly guest: Uint8Array },
  cpus: number,
  words: string,
  own: Kernel | undefined,
): Promise<readonly Run[]> {
  const { kernel, initrd } = await prepare(
    {
      others: [kind.module],
      files: [
        { path: "bin/vmm", kind: "file", bytes: files.vmm },
        { path: IMAGE, kind: "file", bytes: files.guest },
      ],
      script: scriptFor(kind, cpus, words),
    },
    "amd64",
    debian,
    own,
  );
  debian.say(`on ${kind.cpu}, which takes a minute`);
  const said = await listen([
    ...[kernel, "--initrd", initrd, "--append", "console=ttyS0 quiet"],
    ...["--machine", "pc", "--vendor", "metal", "--cpu", kind.cpu, "--cpus", `${cpus}`],
    ...["--memory", "512M", "--code-cache", `${debian.folder}/kvm-${kind.name}.code`],
    ...["--no-profile", "--quiet"],
  ], debian);
  const runs = readRuns(said, kind.vendor);
  if (runs.length !== 2) debian.give(`KVM did not run the guest:\n${said.slice(-2000)}`);
  return runs;
}

/** The exits of our own hypervisor with the same guest. */
async function inOurs(
  { vendor, cpu, without }: Kind,
  on: boolean,
  guest: string,
  cpus: number,
  words: string,
  debian: Debian,
): Promise<ReadonlyMap<string, number>> {
  const file = await Deno.makeTempFile();
  try {
    await listen([
      ...[guest, "--append", words, "--vendor", vendor, "--cpu", cpu, "--cpus", `${cpus}`],
      ...[...on ? [] : without, "--json", file, "--quiet", "--success", "1"],
    ], debian);
    return ownExits(JSON.parse(await Deno.readTextFile(file)));
  } finally {
    await Deno.remove(file);
  }
}

if (import.meta.main) {
  const options = parseArgs(Deno.args, {
    string: ["processors", "guest", "append", "cpus", "kernel", "modules"],
    boolean: ["help"],
    unknown: (word) => refuse(`no such option: ${word}`),
  });
  if (options.help) {
    console.log(USAGE);
    Deno.exit(0);
  }
  const given = options as { readonly [option: string]: string | undefined };
  const { processors = "amd,intel", guest = GUEST, cpus = "2" } = given;
  const append = given["append"] ?? `${WORDS} cpus=${cpus}`;
  const { kernel, modules } = given;
  if ((kernel === undefined) !== (modules === undefined)) {
    refuse("--kernel and --modules go together");
  }
  const own = kernel === undefined || modules === undefined
    ? undefined
    : { name: kernel, file: kernel, modules };
  const count = Number(cpus);
  if (!Number.isInteger(count) || count < 1 || count > MOST_CPUS) {
    refuse(`--cpus ${cpus}: not a number from 1 to ${MOST_CPUS}`);
  }
  const names = processors.split(",");
  const kinds = KINDS.filter(({ name }) => names.includes(name));
  if (kinds.length !== names.length) {
    refuse(`--processors ${processors}: there are ${KINDS.map(({ name }) => name).join(", ")}`);
  }
  const debian = new Debian("kvm");
  for (const path of [kernel, modules]) {
    if (path !== undefined) await Deno.stat(path).catch(() => refuse(`there is no ${path}`));
  }
  const bytes = await Deno.readFile(guest).catch(() => refuse(`${guest} cannot be read`));
  const vmm = await compile(debian);
  let failed = false;
  for (const kind of kinds) {
    const runs = await inKvm(kind, debian, { vmm, guest: bytes }, count, append, own);
    for (const run of runs) {
      const ours = await inOurs(kind, run.on, guest, count, append, debian);
      console.log(`\n${kind.module}, ${kind.parameter}=${Number(run.on)}`);
      for (const line of run.console) console.log(`  ${line}`);
      for (const line of exitTable(run, ours, kind.vendor)) console.log(`  ${line}`);
      if (run.status === 1) continue;
      failed = true;
      console.log(`  the guest ended in KVM with status ${run.status}`);
    }
  }
  Deno.exit(failed ? 1 : 0);
}
