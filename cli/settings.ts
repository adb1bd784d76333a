/**
 * The options of `trapline run`, and what they come to.
 *
 * @module
 */

import type { RoundRobinOptions } from "../core/mod.ts";
import type { Tier } from "../plugins/cpu/mod.ts";
import type { OptionSpec, ParsedArguments } from "./arguments.ts";
import { usageError } from "./errors.ts";
import type { Acceleration } from "./machine.ts";
import { parseCount, parseMemory, parseSize } from "./numbers.ts";

/** How guest code is run. */
export const TIER_OPTION: OptionSpec = {
  name: "tier",
  value: "N",
  help: "1 interprets all code, 2 compiles all of it; auto (default) what is\nworth it",
};

/** The options of `trapline run`. */
export const RUN_OPTIONS: readonly OptionSpec[] = [
  {
    name: "vendor",
    value: "NAME",
    help: "svm (default) or vmx, hypervisors for AMD and Intel, or metal, none",
  },
  {
    name: "cpu",
    value: "NAME[,+F,-F…]",
    help:
      "the processor, like zen4, epyc-zen4, sapphire-rapids or max, and\nfeatures to switch on or off; phys-bits=N among them, 36 to 52,\nchanges the size of physical addresses",
  },
  {
    name: "avic",
    value: "on|off",
    help:
      "under svm: whether interrupts are delivered by the processor, as far\nas it can; on if not given",
  },
  {
    name: "apicv",
    value: "on|off",
    help: "under vmx: the same; on if not given",
  },
  {
    name: "ipiv",
    value: "on|off",
    help: "under vmx with apicv: whether IPIs are sent by the processor; on if\nnot given",
  },
  {
    name: "machine",
    value: "NAME",
    help: 'the devices: basic (default) or pc; "trapline machines" lists their parts',
  },
  {
    name: "part",
    value: "NAME=FILE",
    repeat: true,
    help:
      "put the plugin that a module exports by default in the place of a part\nof the machine, or nothing, with NAME=none; may be given again",
  },
  {
    name: "plugin",
    value: "FILE",
    repeat: true,
    help: "add the plugin that a module exports by default; may be given again",
  },
  { name: "memory", value: "SIZE", help: "RAM, like 64M or 1G; 128M if not given" },
  { name: "cpus", value: "N", help: "number of vCPUs; 1 if not given" },
  { name: "pcpus", value: "M", help: "number of processors for them; as many if not given" },
  {
    name: "quantum",
    value: "TICKS",
    help:
      "how long a processor's turn is; 10000 if not given, and a hundred\ntimes as long until vCPUs change places",
  },
  { name: "seed", value: "N", help: "vary the lengths of turns in a pattern of this number" },
  { name: "append", value: "TEXT", help: "arguments for the guest" },
  { name: "module", value: "FILE", repeat: true, help: "a multiboot module; may be given again" },
  {
    name: "disk",
    value: "FILE",
    repeat: true,
    help:
      "a disk on the PCI bus (virtio), with --machine pc; what the guest\nwrites is not kept; may be given again",
  },
  { name: "keep-disks", help: "write what is on the disks at the end to their files" },
  { name: "initrd", value: "FILE", help: "the initial RAM disk of a Linux kernel" },
  {
    name: "kernel",
    value: "FILE",
    help:
      "with --format firmware: a bzImage that the firmware is to start, with\n--append and --initrd; it needs the option ROM linuxboot.bin",
  },
  {
    name: "fw-cfg",
    value: "NAME=FILE",
    repeat: true,
    help: "a file for the firmware, like genroms/linuxboot.bin=ROM; may be given\nagain",
  },
  {
    name: "format",
    value: "NAME",
    help:
      "auto (default), bzimage, multiboot, multiboot2, pvh, elf, flat, which\nhas nothing to be recognized by, or firmware, a ROM at the reset vector",
  },
  { name: "load-address", value: "ADDRESS", help: "where a flat image goes; 0x7c00 if not given" },
  {
    name: "entry",
    value: "MODE",
    help: "how a flat image is entered: real (default), protected32, long64",
  },
  {
    name: "real-time",
    help:
      "have the guest's time pass with real time, and wait while it does\nnothing: for guests that people talk to; such runs cannot be repeated",
  },
  { name: "no-real-time", help: "do not, whatever was said before" },
  { name: "max-instructions", value: "N", help: "end after so many instructions, like 1e9" },
  { name: "success", value: "CODE", help: "the guest's code that gives exit status 0" },
  { name: "json", value: "FILE", help: "write the profile and the end of the run to a file" },
  { name: "top", value: "N", help: "targets to show under each exit reason; 8 if not given" },
  {
    name: "symbols",
    value: "FILE",
    repeat: true,
    help:
      "names for addresses, besides the image's own: an ELF file, or a list\nlike System.map; may be given again",
  },
  {
    name: "last-instructions",
    value: "N",
    help:
      "instructions to show when the guest died, found by running it again\nup to there; 16 if not given and the run was short, 0 for none",
  },
  { name: "last-exits", value: "N", help: "exits to show when the guest died; 16 if not given" },
  TIER_OPTION,
  {
    name: "code-cache",
    value: "FILE",
    help: "keep compiled code in FILE, so that the next run of the guest starts\nfaster",
  },
  { name: "no-code-cache", help: "do not, whatever was said before" },
  { name: "stats", help: "print what ran how, and what was compiled; exits are timed" },
  { name: "ignore-msrs", help: "let MSRs that do not exist read as 0 and say so once, no #GP" },
  { name: "no-profile", help: "do not count exits" },
  { name: "no-stdin", help: "do not connect standard input to the guest's console" },
  { name: "quiet", help: "print no profile, and only one line when the guest died" },
  { name: "help", help: "print this" },
];

/** The command line in the form in which it is used. */
export interface Settings {
  readonly image: string;
  readonly vendor: string;
  /** The processor; the vendor's usual one if `undefined`. */
  readonly cpu: string | undefined;
  /** Whether accesses to MSRs that do not exist do nothing. */
  readonly ignoreMsrs: boolean;
  readonly acceleration: Acceleration;
  readonly machine: string;
  /** Parts of the machine to replace: name, and path of a module or "none". */
  readonly parts: readonly (readonly [part: string, module: string])[];
  /** Paths of modules with further plugins. */
  readonly plugins: readonly string[];
  readonly memory: number;
  readonly cpus: number;
  readonly processors: number | undefined;
  readonly scheduler: RoundRobinOptions;
  readonly append: string | undefined;
  readonly symbols: readonly string[];
  readonly modules: readonly string[];
  /** Paths of disks. */
  readonly disks: readonly string[];
  /** Whether their files get what is on them at the end. */
  readonly keepDisks: boolean;
  /** Path of the initial RAM disk. */
  readonly initrd: string | undefined;
  /** Path of the kernel that firmware is to start. */
  readonly kernel: string | undefined;
  /** Files for firmware: name and path. */
  readonly firmwareFiles: readonly (readonly [name: string, path: string])[];
  readonly format: string;
  readonly loadAddress: number | undefined;
  readonly entry: string | undefined;
  /** Whether the guest's time is real time. */
  readonly realTime: boolean;
  readonly maxInstructions: number | undefined;
  readonly success: number | undefined;
  readonly json: string | undefined;
  readonly top: number;
  readonly lastExits: number;
  readonly lastInstructions: number | undefined;
  readonly tier: Tier;
  /** Path of the file that keeps compiled code. */
  readonly codeCache: string | undefined;
  /** Whether to print what the engine has counted. */
  readonly stats: boolean;
  readonly profile: boolean;
  readonly stdin: boolean;
  readonly quiet: boolean;
}

const MOST = Number.MAX_SAFE_INTEGER;

/** Turns until vCPUs change places, where there are more of them than processors. */
const SLICE_QUANTA = 100;

/**
 * Reads the options.
 *
 * @throws {CliError} If one of them is wrong.
 */
export function readSettings(args: ParsedArguments): Settings {
  const [image, ...more] = args.operands;
  if (image === undefined) throw usageError("run: no image given: trapline run IMAGE");
  if (more.length > 0) throw usageError(`run: one image at a time; "${more[0]}" is one too many`);
  const number = (name: string, least: number, most: number): number | undefined => {
    const text = args.value(name);
    return text === undefined ? undefined : parseCount(`--${name}`, text, least, most);
  };
  const address = args.value("load-address");
  const vendor = args.value("vendor") ?? "svm";
  const quantum = number("quantum", 1, 1e12);
  const seed = number("seed", 0, 0xffff_ffff);
  return {
    image,
    vendor,
    cpu: args.value("cpu"),
    ignoreMsrs: args.has("ignore-msrs"),
    acceleration: readAcceleration(args, vendor),
    machine: args.value("machine") ?? "basic",
    parts: args.values("part").map((text) => readPair("part", text, "NAME=FILE or NAME=none")),
    plugins: args.values("plugin"),
    memory: parseMemory("--memory", args.value("memory") ?? "128M"),
    cpus: number("cpus", 1, 4096) ?? 1,
    processors: number("pcpus", 1, 4096),
    scheduler: {
      ...(quantum === undefined ? {} : { quantum, timeslice: SLICE_QUANTA * quantum }),
      ...(seed === undefined ? {} : { seed }),
    },
    append: args.value("append"),
    modules: args.values("module"),
    disks: args.values("disk"),
    keepDisks: args.has("keep-disks"),
    initrd: args.value("initrd"),
    kernel: args.value("kernel"),
    firmwareFiles: args.values("fw-cfg").map((text) => readPair("fw-cfg", text, "NAME=FILE")),
    symbols: args.values("symbols"),
    format: args.value("format") ?? "auto",
    loadAddress: address === undefined ? undefined : parseSize("--load-address", address),
    entry: args.value("entry"),
    realTime: args.has("real-time") && !args.has("no-real-time"),
    maxInstructions: number("max-instructions", 1, MOST),
    success: number("success", 1, 0xffff_ffff),
    json: args.value("json"),
    top: number("top", 1, MOST) ?? 8,
    lastExits: number("last-exits", 1, 65536) ?? 16,
    lastInstructions: number("last-instructions", 0, 65536),
    tier: readTier(args),
    codeCache: args.has("no-code-cache") ? undefined : args.value("code-cache"),
    stats: args.has("stats"),
    profile: !args.has("no-profile"),
    stdin: !args.has("no-stdin"),
    quiet: args.has("quiet"),
  };
}

function readPair(option: string, text: string, form: string): [name: string, value: string] {
  const at = text.indexOf("=");
  if (at < 1 || at === text.length - 1) {
    throw usageError(`--${option} ${text}: it is ${form}`);
  }
  return [text.slice(0, at), text.slice(at + 1)];
}

/** It is the hypervisor's business: without one there is nothing to switch. */
export function readAcceleration(args: ParsedArguments, vendor: string): Acceleration {
  const read = (name: string, owner: string, possible = true): boolean => {
    const text = args.value(name);
    if (text === undefined) return vendor === owner && possible;
    if (text !== "on" && text !== "off") throw usageError(`--${name} ${text}: it is on or off`);
    if (vendor !== owner) throw usageError(`--${name} is for --vendor ${owner}, not ${vendor}`);
    return text === "on";
  };
  const avic = read("avic", "svm");
  const apicv = read("apicv", "vmx");
  const ipiv = read("ipiv", "vmx", apicv);
  if (ipiv && !apicv) throw usageError("--ipiv on needs --apicv on");
  return { avic, apicv, ipiv };
}

/** What {@linkcode TIER_OPTION} says. */
export function readTier(args: ParsedArguments): Tier {
  const text = args.value("tier") ?? "auto";
  if (text === "auto") return text;
  if (text !== "1" && text !== "2") throw usageError(`--tier ${text}: it is 1, 2 or auto`);
  return text === "1" ? 1 : 2;
}
