/**
 * Runs unmodified firmware, boot loaders and kernels out of Debian's packages, each until it says what shows
 * that it has come up.
 *
 *     deno task software                     # all of them
 *     deno task software ovmf grub           # those whose names begin so
 *
 * The packages come by apt-get into the user's cache folder; nothing is installed. The status is 1 if
 * something did not come up within its minutes. `--vendor svm` or another runs it there instead of on metal.
 *
 * @module
 */

import { parseArgs } from "@std/cli";
import { type CliIo, denoIo, main } from "../cli/mod.ts";
import { Debian } from "./debian.ts";

/** A file of a package, as `package:path`. */
type PackageFile = `${string}:${string}`;

/** Something to run. */
interface Software {
  readonly name: string;
  /** Words for `trapline run`; files of packages in them, at the beginning or behind `=`, begin with `@`. */
  readonly words: readonly string[];
  /** What it says when it is there. */
  readonly shows: string;
}

const SEABIOS: PackageFile = "seabios:usr/share/seabios/bios-256k.bin";
/** Firmware brings tables of its own. */
const FIRMWARE: readonly string[] = ["--format", "firmware", "--part", "acpi=none"];
const SECONDS = 900;

const SOFTWARE: readonly Software[] = [
  { name: "seabios", words: [`@${SEABIOS}`, ...FIRMWARE], shows: "No bootable device" },
  {
    name: "seabios-128k",
    words: ["@seabios:usr/share/seabios/bios.bin", ...FIRMWARE],
    shows: "No bootable device",
  },
  { name: "ovmf", words: ["@ovmf:usr/share/ovmf/OVMF.fd", ...FIRMWARE], shows: "Shell>" },
  {
    name: "grub-rescue-cdrom",
    words: [
      ...[`@${SEABIOS}`, ...FIRMWARE],
      ...["--disk", "@grub-rescue-pc:usr/lib/grub-rescue/grub-rescue-cdrom.iso"],
    ],
    shows: "Press enter to boot the selected OS",
  },
  {
    name: "ipxe",
    words: [
      ...["@seabios:usr/share/seabios/bios.bin", ...FIRMWARE],
      ...["--kernel", "@ipxe:boot/ipxe.lkrn"],
      ...["--fw-cfg", "genroms/linuxboot.bin=@qemu-system-data:usr/share/qemu/linuxboot.bin"],
    ],
    shows: "Press Ctrl-B for the iPXE command line",
  },
  {
    name: "memtest86+-32",
    words: ["@memtest86+:boot/memtest86+ia32.bin", "--append", "console=ttyS0,115200"],
    shows: "Memtest86+ v",
  },
];

const NAMES = SOFTWARE.map(({ name }) => name).join(", ");

const USAGE = `deno task software [NAME…]: runs Debian's firmware and boot loaders until they are up

  NAME             what one or more begin with (all): ${NAMES}
  --vendor NAME    metal, svm or vmx (metal)`;

function refuse(why: string): never {
  console.error(`software: ${why}`);
  Deno.exit(2);
}

/** The path of a file of a package. */
async function fetch(debian: Debian, file: PackageFile): Promise<string> {
  const at = file.indexOf(":");
  const path = file.slice(at + 1);
  return `${await debian.files(file.slice(0, at), [path])}/${path}`;
}

/** The words with files of packages replaced by their paths. */
async function resolve(debian: Debian, words: readonly string[]): Promise<string[]> {
  const resolved: string[] = [];
  for (const word of words) {
    const [, before, file] = /^(@|.*=@)(.*)$/.exec(word) ?? [];
    resolved.push(
      before === undefined ? word : before.slice(0, -1) + await fetch(debian, file as PackageFile),
    );
  }
  return resolved;
}

/** Runs one until it shows what it should; returns whether it did. */
async function run({ name, words, shows }: Software, vendor: string): Promise<boolean> {
  const debian = new Debian("software");
  const all = await resolve(debian, words);
  const base = denoIo();
  const decoder = new TextDecoder();
  let stop: (() => void) | undefined;
  let text = "";
  let errors = "";
  let came = false;
  const io: CliIo = {
    ...base,
    onInterrupt(handler) {
      stop = () => handler("SIGTERM");
      return base.onInterrupt(handler);
    },
    stdout(bytes) {
      // A screen that is painted anew repeats itself: only its end is looked at.
      text = (text + decoder.decode(bytes, { stream: true })).slice(-8000);
      if (came || !text.includes(shows)) return;
      came = true;
      stop?.();
    },
    stderr: (line) => void (errors += line),
  };
  const start = performance.now();
  const limit = setTimeout(() => stop?.(), SECONDS * 1000);
  const options = ["--machine", "pc", "--vendor", vendor, "--no-stdin", "--no-profile", "--quiet"];
  await main(["run", ...all, ...options], io);
  clearTimeout(limit);
  const seconds = ((performance.now() - start) / 1000).toFixed(1);
  console.log(`${name.padEnd(20)} ${came ? `"${shows}"` : "failed"} after ${seconds} s`);
  if (!came) console.log(text.slice(-2000), errors);
  return came;
}

if (import.meta.main) {
  const { _: words, vendor, help } = parseArgs(Deno.args, {
    string: ["vendor"],
    boolean: ["help"],
    unknown: (word, option) => option === undefined || refuse(`no such option: ${word}`),
  });
  if (help) {
    console.log(USAGE);
    Deno.exit(0);
  }
  const chosen = SOFTWARE.filter(({ name }) =>
    words.length === 0 || words.some((word) => name.startsWith(`${word}`))
  );
  if (chosen.length === 0) refuse(`none of these begins like ${words}: ${NAMES}`);
  let failed = false;
  for (const each of chosen) failed = !await run(each, `${vendor ?? "metal"}`) || failed;
  Deno.exit(failed ? 1 : 0);
}
