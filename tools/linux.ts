/**
 * Boots Debian's kernel to a shell on the serial console.
 *
 *     deno task linux                        # one vCPU under svm
 *     deno task linux --vendor metal --memory 1G
 *     deno task linux --disk disk.img        # it is /dev/vda
 *     deno task linux --modules raid6_pq,sha512_ssse3
 *
 * The kernel and a statically linked BusyBox come from Debian's archive by apt-get, into the user's cache
 * folder, and are made into an initial RAM disk, with the kernel's modules for virtio disks and consoles
 * and for ext4, and others that `--modules` names. Further words go to `trapline run`.
 *
 * What is compiled of the kernel is kept beside it (`--no-code-cache`: it is not), so that the next boot
 * starts with it.
 *
 * Limits: what has been booted is Debian 12's kernel, with one and with four vCPUs. What is written to a
 * disk is not kept.
 *
 * @module
 */

import { denoIo, main } from "../cli/mod.ts";
import { cpio, type CpioEntry } from "./cpio.ts";
import { Debian } from "./debian.ts";
import { loadOrder, moduleName } from "./kernel_modules.ts";

const META_PACKAGE = "linux-image-amd64";
const BUSYBOX = "busybox-static";
const COMMAND_LINE = "console=ttyS0";
const MACHINE: readonly string[] = ["--machine", "pc"];
/** The option that is not for `trapline run`. */
const MODULES = "--modules";
/** Modules that are always loaded; ext4 asks for CRC-32C by name when it mounts. */
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
  ...["fs/ext4", "fs/jbd2", "fs/mbcache.ko", "fs/fat", "fs/nls", "fs/isofs", "fs/squashfs"],
];

/** What the kernel runs first. */
const INIT = `#!/bin/sh
/bin/busybox mkdir -p /proc /sys /dev
/bin/busybox mount -t proc none /proc
/bin/busybox mount -t sysfs none /sys
/bin/busybox mount -t devtmpfs none /dev
/bin/busybox --install -s /bin
for module in $(cat /modules/order); do insmod /modules/$module.ko; done
echo
echo "$(uname -sr), $(nproc) processor(s). 'poweroff -f' ends it."
while true; do setsid cttyhack sh; done
`;

/** Paths of all files in a folder, by the names of the modules they would be. */
function modulesIn(folder: string): ReadonlyMap<string, string> {
  const found = new Map<string, string>();
  const walk = (path: string): void => {
    for (const { name, isDirectory } of Deno.readDirSync(path)) {
      if (isDirectory) walk(`${path}/${name}`);
      else if (name.endsWith(".ko")) found.set(moduleName(name), `${path}/${name}`);
    }
  };
  walk(folder);
  return found;
}

/** The only file in a folder whose name begins so. */
function fileIn(folder: string, prefix: string): string {
  const names = Array.from(Deno.readDirSync(folder), ({ name }) => name);
  const name = names.find((name) => name.startsWith(prefix));
  if (name === undefined) throw new Error(`no ${prefix} in ${folder}`);
  return `${folder}/${name}`;
}

/** Makes kernel and RAM disk, if they are not there; returns their paths. */
async function prepare(extra: readonly string[]): Promise<{ kernel: string; initrd: string }> {
  const debian: Debian = new Debian("linux");
  const image = await debian.dependency(META_PACKAGE, /^linux-image-\d/);
  const files = await debian.files(image, [
    "boot/vmlinuz*",
    ...FOLDERS.map((folder) => `lib/modules/*/kernel/${folder}`),
  ]);
  const busybox = await Deno.readFile(`${await debian.files(BUSYBOX, ["bin"])}/bin/busybox`);
  const paths = modulesIn(`${files}/lib/modules`);
  let modules: ReadonlyMap<string, Uint8Array>;
  try {
    modules = loadOrder([...ALWAYS, ...extra], (name) => {
      const path = paths.get(name);
      return path === undefined ? undefined : Deno.readFileSync(path);
    });
  } catch (error) {
    debian.give(error instanceof Error ? error.message : `${error}`);
  }
  const order = new TextEncoder().encode([...modules.keys(), ""].join("\n"));
  const initrd = await debian.keep(
    "initrd",
    cpio([
      ...["bin", "dev", "proc", "sys", "modules"]
        .map((path): CpioEntry => ({ path, kind: "folder" })),
      { path: "dev/console", kind: "device", major: 5, minor: 1 },
      { path: "bin/busybox", kind: "file", bytes: busybox },
      { path: "bin/sh", kind: "link", target: "busybox" },
      { path: "init", kind: "file", bytes: new TextEncoder().encode(INIT) },
      { path: "modules/order", kind: "file", bytes: order },
      ...Array.from(
        modules,
        ([name, bytes]): CpioEntry => ({ path: `modules/${name}.ko`, kind: "file", bytes }),
      ),
    ]),
  );
  debian.say(`starting ${image}`);
  return { kernel: fileIn(`${files}/boot`, "vmlinuz"), initrd };
}

/** Takes the modules that are named out of the words; the rest is for `trapline run`. */
function moduleWords(words: readonly string[]): { modules: string[]; rest: string[] } {
  const modules: string[] = [];
  const rest: string[] = [];
  for (let k = 0; k < words.length; k++) {
    const word = words[k]!;
    if (word === MODULES) modules.push(...(words[++k] ?? "").split(","));
    else if (word.startsWith(`${MODULES}=`)) modules.push(...word.split("=")[1]!.split(","));
    else rest.push(word);
  }
  return { modules: modules.filter((name) => name !== ""), rest };
}

if (import.meta.main) {
  const { modules, rest } = moduleWords(Deno.args);
  const { kernel, initrd } = await prepare(modules);
  const words = [kernel, ...MACHINE, "--initrd", initrd, "--append", COMMAND_LINE];
  if (!rest.some((word) => word.startsWith("--code-cache"))) {
    words.push("--code-cache", `${kernel}.code`);
  }
  Deno.exit(await main(["run", ...words, ...rest], denoIo()));
}
