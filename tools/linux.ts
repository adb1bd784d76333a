/**
 * Boots Debian's kernel to a shell on the serial console.
 *
 *     deno task linux                        # one vCPU under svm
 *     deno task linux --vendor metal --memory 1G
 *     deno task linux --disk disk.img        # it is /dev/vda
 *     deno task linux --modules raid6_pq,sha512_ssse3
 *     deno task linux --arch i686            # Debian's 32-bit kernel, if apt knows packages for i386
 *
 * The kernel and a statically linked BusyBox come from Debian's archive by apt-get, into the user's cache
 * folder, and are made into an initial RAM disk, with the kernel's modules for virtio disks and consoles
 * and for ext4, and others that `--modules` names. Further words go to `trapline run`.
 *
 * At a terminal the guest's time is real time; otherwise, and with `--no-real-time`, runs are repeatable.
 *
 * What is compiled of the kernel is kept beside it (`--no-code-cache`: it is not), so that the next boot
 * starts with it.
 *
 * Limits: what has been booted is Debian 12's kernels for amd64 and i686, with one and with four vCPUs, and
 * Debian 13's for amd64, whose modules need `xz`. What is written to a disk is kept with `--keep-disks` alone.
 *
 * @module
 */

import { denoIo, main } from "../cli/mod.ts";
import { cpio, type CpioEntry } from "./cpio.ts";
import { Debian } from "./debian.ts";
import { loadOrder, moduleName } from "./kernel_modules.ts";

/** The packages of an architecture. */
interface Packages {
  /** Which of Debian's kernels. */
  readonly meta: string;
  readonly busybox: string;
}

const PACKAGES: { readonly [arch: string]: Packages } = {
  amd64: { meta: "linux-image-amd64", busybox: "busybox-static" },
  i686: { meta: "linux-image-686:i386", busybox: "busybox-static:i386" },
};
const USAGE = `deno task linux [OPTIONS]: boots Debian's kernel to a shell on the serial console

  --arch NAME      amd64 or i686 (amd64)
  --modules LIST   more of the kernel's modules, with those that they need
  --no-code-cache  do not keep what is compiled of the kernel for the next boot
  --no-real-time   at a terminal, too, have the guest's time be what it does, so that runs are repeatable

All other options are those of "trapline run", like --vendor metal, --cpus 4, --memory 1G and --disk
FILE; "deno task trapline run --help" lists them.`;
const COMMAND_LINE = "console=ttyS0";
const MACHINE: readonly string[] = ["--machine", "pc"];
/** The options that are not for `trapline run`. */
const MODULES = "--modules";
const ARCH = "--arch";
/** Modules that are always loaded, where they are not part of the kernel; ext4 asks for CRC-32C by name when it mounts. */
const ALWAYS: readonly string[] = [
  "virtio_pci",
  "virtio_blk",
  "virtio_console",
  "crc32c_intel",
  "ext4",
];
/** Where those are that can be loaded, in the folder `kernel` of the package's modules. */
const FOLDERS: readonly string[] = [
  ...["arch/x86/crypto", "crypto", "lib", "drivers/virtio", "drivers/block", "drivers/char"],
  ...["fs/ext4", "fs/jbd2", "fs/mbcache.ko*", "fs/fat", "fs/nls", "fs/isofs", "fs/squashfs"],
  ...["arch/x86/kvm", "virt/lib", "drivers/crypto/ccp"],
];

/** What the kernel runs first. */
const INIT = `#!/bin/sh
/bin/busybox mkdir -p /proc /sys /dev
/bin/busybox mount -t proc none /proc
/bin/busybox mount -t sysfs none /sys
/bin/busybox mount -t devtmpfs none /dev
/bin/busybox --install -s /bin
for module in $(cat /modules/order); do insmod /modules/$module.ko; done
[ ! -f /script ] || . /script
echo
echo "$(uname -sr), $(nproc) processor(s). 'poweroff -f' ends it."
while true; do setsid cttyhack sh; done
`;

/** What the RAM disk holds besides the shell. */
export interface Additions {
  /** More modules, which are loaded before the shell starts. */
  readonly modules?: readonly string[];
  /** Modules that are in `/modules` only, named in `/modules/others` in an order to load them in. */
  readonly others?: readonly string[];
  /** Files. */
  readonly files?: readonly CpioEntry[];
  /** What the shell carries out before it asks for commands. */
  readonly script?: string;
}

/** A kernel. */
export interface Kernel {
  /** What to call it. */
  readonly name: string;
  /** Its file. */
  readonly file: string;
  /** A folder with its modules, in folders of any depth. */
  readonly modules: string;
}

/** Paths of all files in a folder, by the names of the modules they would be. */
function modulesIn(folder: string): ReadonlyMap<string, string> {
  const found = new Map<string, string>();
  const walk = (path: string): void => {
    for (const { name, isDirectory } of Deno.readDirSync(path)) {
      if (isDirectory) walk(`${path}/${name}`);
      else if (/\.ko(\.xz)?$/.test(name)) found.set(moduleName(name), `${path}/${name}`);
    }
  };
  walk(folder);
  return found;
}

/** What the file with a kernel's compiled code has behind the kernel's name. */
const CODE = ".code";

/** The only file in a folder whose name begins so, but for compiled code. */
function fileIn(folder: string, prefix: string): string {
  const names = Array.from(Deno.readDirSync(folder), ({ name }) => name);
  const name = names.find((name) => name.startsWith(prefix) && !name.endsWith(CODE));
  if (name === undefined) throw new Error(`no ${prefix} in ${folder}`);
  return `${folder}/${name}`;
}

/** A module's file as the kernel takes it. */
function readModule(debian: Debian, path: string): Uint8Array {
  return path.endsWith(".xz") ? debian.unpackXz(path) : Deno.readFileSync(path);
}

/** Debian's kernel for an architecture. */
async function debianKernel(debian: Debian, meta: string): Promise<Kernel> {
  const name = await debian.dependency(meta, /^linux-image-\d/);
  const files = await debian.files(name, [
    "boot/vmlinuz*",
    // Since Debian 13 /usr/lib and /usr/bin are where these are.
    ...FOLDERS.map((folder) => `*lib/modules/*/kernel/${folder}`),
  ]);
  return { name, file: fileIn(`${files}/boot`, "vmlinuz"), modules: within(files, "lib/modules") };
}

/**
 * Makes kernel and RAM disk for `arch`, if they are not there; returns their paths. The kernel is Debian's,
 * or `own`.
 */
export async function prepare(
  { modules: extra = [], others = [], files: added = [], script }: Additions,
  arch: string,
  debian: Debian = new Debian("linux"),
  own?: Kernel,
): Promise<{ kernel: string; initrd: string }> {
  const packages = Object.hasOwn(PACKAGES, arch) ? PACKAGES[arch] : undefined;
  if (packages === undefined) {
    debian.give(`${ARCH} ${arch}: there are ${Object.keys(PACKAGES).join(", ")}`);
  }
  const kernel = own ?? await debianKernel(debian, packages.meta);
  const programs = await debian.files(packages.busybox, ["*bin/busybox"]);
  const busybox = await Deno.readFile(within(programs, "bin/busybox"));
  const paths = modulesIn(kernel.modules);
  const open = (name: string): Uint8Array | undefined => {
    const path = paths.get(name);
    return path === undefined ? undefined : readModule(debian, path);
  };
  let modules: ReadonlyMap<string, Uint8Array>;
  let unloaded: ReadonlyMap<string, Uint8Array>;
  try {
    modules = loadOrder([...ALWAYS.filter((name) => paths.has(name)), ...extra], open);
    unloaded = loadOrder(others, open);
  } catch (error) {
    debian.give(error instanceof Error ? error.message : `${error}`);
  }
  const encoder = new TextEncoder();
  const list = (names: ReadonlyMap<string, unknown>): Uint8Array =>
    encoder.encode([...names.keys(), ""].join("\n"));
  const initrd = await debian.keep(
    "initrd",
    cpio([
      ...["bin", "dev", "mnt", "proc", "sys", "modules"]
        .map((path): CpioEntry => ({ path, kind: "folder" })),
      { path: "dev/console", kind: "device", major: 5, minor: 1 },
      { path: "bin/busybox", kind: "file", bytes: busybox },
      { path: "bin/sh", kind: "link", target: "busybox" },
      { path: "init", kind: "file", bytes: encoder.encode(INIT) },
      { path: "modules/order", kind: "file", bytes: list(modules) },
      { path: "modules/others", kind: "file", bytes: list(unloaded) },
      ...script === undefined
        ? []
        : [{ path: "script", kind: "file" as const, bytes: encoder.encode(script) }],
      ...added,
      ...Array.from(
        new Map([...unloaded, ...modules]),
        ([name, bytes]): CpioEntry => ({ path: `modules/${name}.ko`, kind: "file", bytes }),
      ),
    ]),
  );
  debian.say(`starting ${kernel.name}`);
  return { kernel: kernel.file, initrd };
}

/** Where `path` is in a package's files: at its root or, as in newer packages, in `usr`. */
function within(files: string, path: string): string {
  try {
    return Deno.realPathSync(`${files}/${path}`);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    return `${files}/usr/${path}`;
  }
}

/** Takes the values of option `name` out of the words; the rest is for others. */
function take(name: string, words: readonly string[]): { values: string[]; rest: string[] } {
  const values: string[] = [];
  const rest: string[] = [];
  for (let k = 0; k < words.length; k++) {
    const word = words[k]!;
    if (word === name) values.push(words[++k] ?? "");
    else if (word.startsWith(`${name}=`)) values.push(word.slice(name.length + 1));
    else rest.push(word);
  }
  return { values, rest };
}

if (import.meta.main) {
  if (Deno.args.includes("--help")) {
    console.log(USAGE);
    Deno.exit(0);
  }
  const modules = take(MODULES, Deno.args);
  const { values: [arch = "amd64"], rest } = take(ARCH, modules.rest);
  const names = modules.values.flatMap((value) => value.split(",")).filter((name) => name !== "");
  const { kernel, initrd } = await prepare({ modules: names }, arch);
  const words = [kernel, ...MACHINE, "--initrd", initrd, "--append", COMMAND_LINE];
  if (!rest.some((word) => word.startsWith("--code-cache"))) {
    words.push("--code-cache", `${kernel}${CODE}`);
  }
  const io = denoIo();
  if (io.terminal.stdin) words.push("--real-time");
  Deno.exit(await main(["run", ...words, ...rest], io));
}
