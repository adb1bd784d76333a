/**
 * `trapline run`.
 *
 * @module
 */

import {
  createVm,
  type Image,
  type RoundRobinOptions,
  type RunEnd,
  type RunResult,
  type Vm,
} from "../core/mod.ts";
import { examine, formatPostMortem, type PostMortem, retrace } from "../plugins/postmortem/mod.ts";
import { elfSymbols, ImageError } from "../plugins/multiboot/mod.ts";
import { type ExitProfile, exitProfile, formatProfile } from "../plugins/profile/mod.ts";
import { SerialInput, type SerialOptions } from "../plugins/serial/mod.ts";
import { type GuestSymbol, parseSymbolList } from "../plugins/symbols/mod.ts";
import { type OptionSpec, parseArguments, type ParsedArguments } from "./arguments.ts";
import { CliError, fileError, toCliError, usageError } from "./errors.ts";
import type { CliIo, OutputFile } from "./io.ts";
import { machinePlugins, makeImage } from "./machine.ts";
import { parseCount, parseMemory, parseSize } from "./numbers.ts";
import { RECORD_VERSION, recordEnd, recordText, type RunRecord } from "./record.ts";
import { Status, statusOf } from "./statuses.ts";
import { Terminal } from "./terminal.ts";

/** The options of `trapline run`. */
export const RUN_OPTIONS: readonly OptionSpec[] = [
  {
    name: "vendor",
    value: "NAME",
    help: "svm, a hypervisor for AMD processors (default), or metal, none",
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
    name: "format",
    value: "NAME",
    help: "auto (default), multiboot, elf, or flat, which has nothing to be\nrecognized by",
  },
  { name: "load-address", value: "ADDRESS", help: "where a flat image goes; 0x7c00 if not given" },
  {
    name: "entry",
    value: "MODE",
    help: "how a flat image is entered: real (default), protected32, long64",
  },
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
  { name: "no-profile", help: "do not count exits" },
  { name: "no-stdin", help: "do not connect standard input to the guest's console" },
  { name: "quiet", help: "print no profile, and only one line when the guest died" },
  { name: "help", help: "print this" },
];

/** The command line in the form in which it is used. */
interface Settings {
  readonly image: string;
  readonly vendor: string;
  readonly memory: number;
  readonly cpus: number;
  readonly processors: number | undefined;
  readonly scheduler: RoundRobinOptions;
  readonly append: string | undefined;
  readonly symbols: readonly string[];
  readonly modules: readonly string[];
  readonly format: string;
  readonly loadAddress: number | undefined;
  readonly entry: string | undefined;
  readonly maxInstructions: number | undefined;
  readonly success: number | undefined;
  readonly json: string | undefined;
  readonly top: number;
  readonly lastExits: number;
  readonly lastInstructions: number | undefined;
  readonly profile: boolean;
  readonly stdin: boolean;
  readonly quiet: boolean;
}

const MOST = Number.MAX_SAFE_INTEGER;

/** Turns until vCPUs change places, where there are more of them than processors. */
const SLICE_QUANTA = 100;

function readSettings(args: ParsedArguments): Settings {
  const [image, ...more] = args.operands;
  if (image === undefined) throw usageError("run: no image given: trapline run IMAGE");
  if (more.length > 0) throw usageError(`run: one image at a time; "${more[0]}" is one too many`);
  const number = (name: string, least: number, most: number): number | undefined => {
    const text = args.value(name);
    return text === undefined ? undefined : parseCount(`--${name}`, text, least, most);
  };
  const address = args.value("load-address");
  const quantum = number("quantum", 1, 1e12);
  const seed = number("seed", 0, 0xffff_ffff);
  return {
    image,
    vendor: args.value("vendor") ?? "svm",
    memory: parseMemory("--memory", args.value("memory") ?? "128M"),
    cpus: number("cpus", 1, 4096) ?? 1,
    processors: number("pcpus", 1, 4096),
    scheduler: {
      ...(quantum === undefined ? {} : { quantum, timeslice: SLICE_QUANTA * quantum }),
      ...(seed === undefined ? {} : { seed }),
    },
    append: args.value("append"),
    modules: args.values("module"),
    symbols: args.values("symbols"),
    format: args.value("format") ?? "auto",
    loadAddress: address === undefined ? undefined : parseSize("--load-address", address),
    entry: args.value("entry"),
    maxInstructions: number("max-instructions", 1, MOST),
    success: number("success", 1, 0xffff_ffff),
    json: args.value("json"),
    top: number("top", 1, MOST) ?? 8,
    lastExits: number("last-exits", 1, 65536) ?? 16,
    lastInstructions: number("last-instructions", 0, 65536),
    profile: !args.has("no-profile"),
    stdin: !args.has("no-stdin"),
    quiet: args.has("quiet"),
  };
}

/** Carries out `trapline run`. Returns the exit status. */
export async function run(args: readonly string[], io: CliIo): Promise<number> {
  const settings = readSettings(parseArguments(args, RUN_OPTIONS));
  const input = await readInput(settings, io);
  const json = settings.json === undefined ? undefined : await openJson(settings.json, io);
  try {
    return await runImage(settings, input, json, io);
  } finally {
    json?.close();
  }
}

/** What the files of a command line hold. */
interface Input {
  readonly image: Image;
  readonly symbols: readonly GuestSymbol[];
}

async function readInput(settings: Settings, io: CliIo): Promise<Input> {
  const read = (what: string, path: string) =>
    io.readFile(path).catch((error) => {
      throw fileError(Status.INPUT, what, path, error);
    });
  const bytes = await read("image", settings.image);
  const modules = [];
  for (const path of settings.modules) {
    modules.push({ bytes: await read("module", path), text: path });
  }
  const { format, entry, loadAddress } = settings;
  const image = makeImage(bytes, { format, entry, address: loadAddress }, {
    name: settings.image,
    modules,
    ...(settings.append === undefined ? {} : { commandLine: settings.append }),
  });
  const symbols = format === "flat" ? [] : imageSymbols(settings.image, bytes, io);
  for (const path of settings.symbols) {
    const found = readSymbols(await read("--symbols", path), path);
    if (found.length === 0) throw usageError(`--symbols ${path}: it holds no symbols`);
    symbols.push(...found);
  }
  return { image, symbols };
}

/** The image's own symbols. A broken table is said, but is no reason not to run. */
function imageSymbols(path: string, bytes: Uint8Array, io: CliIo): GuestSymbol[] {
  try {
    return elfSymbols(bytes, path);
  } catch (error) {
    if (!(error instanceof ImageError)) throw error;
    io.stderr(`trapline: no symbols: ${error.message}\n`);
    return [];
  }
}

function readSymbols(bytes: Uint8Array, path: string): GuestSymbol[] {
  const symbols = elfSymbols(bytes, path);
  return symbols.length > 0 ? symbols : parseSymbolList(new TextDecoder().decode(bytes));
}

function openJson(path: string, io: CliIo): Promise<OutputFile> {
  return io.openForWriting(path).catch((error) => {
    throw fileError(Status.OUTPUT, "--json", path, error);
  });
}

async function runImage(
  settings: Settings,
  input: Input,
  json: OutputFile | undefined,
  io: CliIo,
): Promise<number> {
  const interrupt = new AbortController();
  let running: Vm | undefined;
  const stop = (detail: string) => {
    running?.stop({ reason: "stopped", detail });
    interrupt.abort();
  };
  const terminal = new Terminal(io, ({ message }) => stop(message));
  const raw = settings.stdin && io.stdin !== undefined && io.terminal.stdin;
  const release = io.onInterrupt((what) => {
    if (interrupt.signal.aborted) {
      if (raw) io.setRaw(false);
      io.exit(Status.INTERRUPTED);
    }
    stop(what);
  });
  try {
    const typed = settings.stdin && io.stdin !== undefined ? new SerialInput(io.stdin) : undefined;
    using vm = await makeVm(settings, input, settings.profile, {
      output: (bytes) => terminal.console(bytes),
      ...(typed === undefined ? {} : { input: typed }),
    });
    running = vm;
    if (raw) io.setRaw(true);
    const unwatch = settings.quiet ? () => {} : terminal.watch(vm);
    const start = io.now();
    let result: RunResult;
    try {
      result = await vm.run({
        signal: interrupt.signal,
        ...(settings.maxInstructions === undefined
          ? {}
          : { instructions: settings.maxInstructions }),
      });
    } finally {
      unwatch();
      if (raw) io.setRaw(false);
    }
    const wallMs = io.now() - start;
    const again = typed?.received ? undefined : () => makeVm(settings, input, false, {});
    return await conclude(settings, vm, result, wallMs, terminal, json, again);
  } finally {
    release();
  }
}

async function makeVm(
  settings: Settings,
  { image, symbols }: Input,
  profile: boolean,
  serial: SerialOptions,
): Promise<Vm> {
  const { vendor, memory, cpus, processors, scheduler, lastExits } = settings;
  const plugins = machinePlugins({ vendor, lastExits, scheduler, profile, symbols, serial });
  try {
    const host = processors === undefined ? {} : { processors };
    return await createVm({ memory, cpus, ...host, plugins, images: [image] });
  } catch (error) {
    const { status, message } = toCliError(error);
    // What is wrong with an image its loader says itself; the rest are sizes and numbers.
    if (status === Status.INPUT) throw error;
    throw new CliError(
      Status.USAGE,
      `--vendor ${vendor} --memory ${memoryText(memory)} --cpus ${cpus}` +
        `${processors === undefined ? "" : ` --pcpus ${processors}`}: ${message}`,
    );
  }
}

function memoryText(bytes: number): string {
  return bytes % 2 ** 20 === 0 ? `${bytes / 2 ** 20}M` : `${bytes / 2 ** 10}K`;
}

/** Ends that need no explanation. */
const GOOD_ENDS: ReadonlySet<RunEnd["reason"]> = new Set(["exit-code", "reset"]);

async function conclude(
  settings: Settings,
  vm: Vm,
  result: RunResult,
  wallMs: number,
  terminal: Terminal,
  json: OutputFile | undefined,
  again: (() => Promise<Vm>) | undefined,
): Promise<number> {
  const status = terminal.closed ? Status.OUTPUT : statusOf(result, settings.success);
  const died = GOOD_ENDS.has(result.reason)
    ? undefined
    : await withInstructions(examine(vm, result), settings, result, again);
  const counted = settings.profile ? exitProfile(vm, { wallMs }) : undefined;
  if (!settings.quiet || died !== undefined) {
    terminal.say(`${endText(settings, result, died)}\n`);
  }
  if (!settings.quiet) {
    terminal.say(counted === undefined ? totals(result, wallMs) : `\n${table(settings, counted)}`);
  }
  if (json !== undefined) {
    await writeRecord(settings, json, {
      schema: "trapline-run",
      version: RECORD_VERSION,
      command: {
        image: settings.image,
        vendor: settings.vendor,
        memory: settings.memory,
        cpus: settings.cpus,
        pcpus: settings.processors ?? settings.cpus,
        quantum: settings.scheduler.quantum ?? null,
        seed: settings.scheduler.seed ?? null,
        append: settings.append ?? null,
        modules: settings.modules,
        maxInstructions: settings.maxInstructions ?? null,
      },
      end: recordEnd(result),
      status,
      instructions: result.instructions,
      exits: result.exits,
      ticks: result.ticks,
      wallMs,
      profile: counted ?? null,
      postMortem: died ?? null,
    });
  }
  return status;
}

/** Runs of at most so many instructions are run again without being asked. */
const SHORT = 100_000_000;
const LAST_INSTRUCTIONS = 16;

/** Adds the last instructions to a report, by running the machine again if that can be done. */
async function withInstructions(
  report: PostMortem,
  settings: Settings,
  result: RunResult,
  again: (() => Promise<Vm>) | undefined,
): Promise<PostMortem> {
  const { lastInstructions: asked, quiet } = settings;
  const count = asked ?? LAST_INSTRUCTIONS;
  const without = (why: string): PostMortem => ({
    ...report,
    missing: [...report.missing, `last instructions: ${why}`],
  });
  if (count === 0) return report;
  if (asked === undefined) {
    // Who stopped the guest wants no second run, and who asked for silence no details.
    if (result.reason === "stopped" || quiet) return report;
    if (result.instructions > SHORT) {
      return without(`--last-instructions ${count} finds them, and takes as long as this run`);
    }
  }
  if (again === undefined) return without("what was typed cannot be typed again");
  try {
    return { ...report, lastInstructions: await retrace(again, result, count) };
  } catch (error) {
    return without(error instanceof Error ? error.message : String(error));
  }
}

async function writeRecord(settings: Settings, json: OutputFile, record: RunRecord): Promise<void> {
  try {
    await json.write(recordText(record));
  } catch (error) {
    throw fileError(Status.OUTPUT, "--json", settings.json ?? "", error);
  }
}

/** What is said about the end, without the last line feed. */
function endText(
  settings: Settings,
  result: RunResult,
  died: PostMortem | undefined,
): string {
  if (died === undefined) {
    return result.reason === "exit-code"
      ? `trapline: the guest ended with code ${result.code}`
      : "trapline: the guest asked for a reset";
  }
  if (settings.quiet) return `trapline: ${died.verdict}`;
  // Who stopped the guest knows why it ended, and may want to know where it was.
  if (result.reason === "stopped") {
    return [`trapline: ${died.verdict}`, ...died.notes.map((note) => `  ${note}`)].join("\n");
  }
  return `trapline: ${formatPostMortem(died).trimEnd()}`;
}

function table(settings: Settings, profile: ExitProfile): string {
  return formatProfile(profile, { targets: settings.top });
}

function totals(result: RunResult, wallMs: number): string {
  const mips = result.instructions / wallMs / 1000;
  return `${result.instructions} instructions, ${result.exits} exits, ` +
    `${(wallMs / 1000).toFixed(3)} s, ${mips.toFixed(1)} MIPS\n`;
}
