/**
 * Boots Debian's kernel to a shell on the serial console.
 *
 *     deno task linux                        # one vCPU under svm
 *     deno task linux --vendor metal --memory 256M
 *
 * The kernel and a statically linked BusyBox come from Debian's archive by apt-get, into the user's cache
 * folder, and are made into an initial RAM disk. Further words go to `trapline run`. Nothing is installed
 * and root is not needed, but apt must know where Debian's amd64 packages are.
 *
 * Limits: what has been booted is Debian 12's kernel, with one and with four vCPUs; it takes about a minute.
 * Two of this task at a time must not download into one folder.
 *
 * @module
 */

import { denoIo, main } from "../cli/mod.ts";
import { cpio } from "./cpio.ts";

const META_PACKAGE = "linux-image-amd64";
const BUSYBOX = "busybox-static";
const COMMAND_LINE = "console=ttyS0";
const MACHINE: readonly string[] = ["--machine", "pc"];

/** What the kernel runs first. */
const INIT = `#!/bin/sh
/bin/busybox mkdir -p /proc /sys /dev
/bin/busybox mount -t proc none /proc
/bin/busybox mount -t sysfs none /sys
/bin/busybox mount -t devtmpfs none /dev
/bin/busybox --install -s /bin
echo
echo "$(uname -sr), $(nproc) processor(s). 'poweroff -f' ends it."
while true; do setsid cttyhack sh; done
`;

/** Ends the program with a message. */
function give(message: string): never {
  console.error(`linux: ${message}`);
  Deno.exit(1);
}

/** Runs a command in a folder; returns its standard output. */
async function run(name: string, args: readonly string[], cwd: string): Promise<Uint8Array> {
  let output: Deno.CommandOutput;
  try {
    output = await new Deno.Command(name, { args: [...args], cwd, stderr: "inherit" }).output();
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    give(`there is no ${name}: this needs Debian, or a system with its apt and dpkg`);
  }
  if (!output.success) give(`${name} ${args.join(" ")} failed; "apt-get update" may help`);
  return output.stdout;
}

const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);

/** The file of a package in the folder, downloaded if it is not there. */
async function packageFile(name: string, folder: string): Promise<string> {
  const find = (): string | undefined => {
    for (const entry of Deno.readDirSync(folder)) {
      if (entry.name.startsWith(`${name}_`) && entry.name.endsWith(".deb")) return entry.name;
    }
    return undefined;
  };
  let file = find();
  if (file === undefined) {
    console.error(`linux: downloading ${name}`);
    await run("apt-get", ["download", name], folder);
    file = find();
  }
  return file ?? give(`apt-get has downloaded no ${name}`);
}

/** The first file of a package whose path begins with `prefix`. */
async function fromPackage(name: string, prefix: string, folder: string): Promise<Uint8Array> {
  const tar = `${name}.tar`;
  await Deno.writeFile(
    `${folder}/${tar}`,
    await run("dpkg-deb", ["--fsys-tarfile", await packageFile(name, folder)], folder),
  );
  const list = text(await run("tar", ["-tf", tar], folder)).split("\n");
  const path = list.find((entry) => entry.startsWith(prefix)) ?? give(`no ${prefix} in ${name}`);
  const bytes = await run("tar", ["-xOf", tar, path], folder);
  await Deno.remove(`${folder}/${tar}`);
  return bytes;
}

/** Makes kernel and RAM disk, if they are not there; returns their paths. */
async function prepare(folder: string): Promise<{ kernel: string; initrd: string }> {
  await Deno.mkdir(folder, { recursive: true });
  const depends = text(await run("apt-cache", ["depends", META_PACKAGE], folder));
  const [, image] = /Depends: (linux-image-\S+)/.exec(depends) ??
    give(`apt does not know ${META_PACKAGE}: it needs Debian's packages for amd64`);
  const [kernel, initrd] = [`${folder}/${image}.vmlinuz`, `${folder}/initrd`];
  try {
    await Deno.stat(kernel);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    await Deno.writeFile(kernel, await fromPackage(image as string, "./boot/vmlinuz", folder));
  }
  const busybox = await fromPackage(BUSYBOX, "./bin/busybox", folder);
  await Deno.writeFile(
    initrd,
    cpio([
      ...["bin", "dev", "proc", "sys"].map((path) => ({ path, kind: "folder" } as const)),
      { path: "dev/console", kind: "device", major: 5, minor: 1 },
      { path: "bin/busybox", kind: "file", bytes: busybox },
      { path: "bin/sh", kind: "link", target: "busybox" },
      { path: "init", kind: "file", bytes: new TextEncoder().encode(INIT) },
    ]),
  );
  return { kernel, initrd };
}

if (import.meta.main) {
  const cache = Deno.env.get("XDG_CACHE_HOME") ?? `${Deno.env.get("HOME") ?? "."}/.cache`;
  const { kernel, initrd } = await prepare(`${cache}/trapline/linux`);
  const words = [kernel, ...MACHINE, "--initrd", initrd, "--append", COMMAND_LINE];
  Deno.exit(await main(["run", ...words, ...Deno.args], denoIo()));
}
