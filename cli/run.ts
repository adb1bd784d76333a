/**
 * `trapline run`.
 *
 * @module
 */

import {
  ArgumentError,
  createVm,
  type Plugin,
  realTimeClock,
  type RunResult,
  type Vm,
} from "../core/mod.ts";
import type { CodeCache } from "../plugins/cpu/mod.ts";
import { SerialInput, type SerialOptions } from "../plugins/serial/mod.ts";
import { firmware } from "../plugins/firmware/mod.ts";
import { fwCfg as firmwareConfiguration } from "../plugins/fwcfg/mod.ts";
import { pci } from "../plugins/pci/mod.ts";
import { memoryDisk, virtioBlk } from "../plugins/virtio/mod.ts";
import { parseArguments } from "./arguments.ts";
import type { PartChoice } from "./boards.ts";
import { conclude } from "./conclusion.ts";
import { CliError, fileError, toCliError } from "./errors.ts";
import { type Input, readInput } from "./input.ts";
import type { CliIo, OutputFile, SavedCodeCache } from "./io.ts";
import { machinePlugins } from "./machine.ts";
import { readSettings, RUN_OPTIONS, type Settings } from "./settings.ts";
import { loadPlugin } from "./plugin_file.ts";
import { Status } from "./statuses.ts";
import { Terminal } from "./terminal.ts";

/** Carries out `trapline run`. Returns the exit status. */
export async function run(args: readonly string[], io: CliIo): Promise<number> {
  const settings = readSettings(parseArguments(args, RUN_OPTIONS));
  const input = await readInput(settings, io);
  const added = await readPlugins(settings, io);
  const json = settings.json === undefined
    ? undefined
    : await openOutput("--json", settings.json, io);
  const kept: OutputFile[] = [];
  try {
    for (const path of settings.keepDisks ? settings.disks : []) {
      kept.push(await openOutput("--disk", path, io));
    }
    const disks = input.disks.map((bytes) => bytes.slice());
    const status = await runImage(settings, input, disks, added, json, io);
    for (const [k, file] of kept.entries()) {
      await file.write(disks[k]!).catch((error) => {
        throw fileError(Status.OUTPUT, "--disk", settings.disks[k] ?? "", error);
      });
    }
    return status;
  } finally {
    for (const file of [json, ...kept]) file?.close();
  }
}

/** Device number of the first disk on the PCI bus. */
const FIRST_DISK = 4;

/** A disk, of which the guest writes `bytes`. */
function diskPlugin(bytes: Uint8Array, index: number): Plugin {
  const name = index === 0 ? "virtioblk" : `virtioblk${index + 1}`;
  return virtioBlk(memoryDisk(bytes), { name, slot: FIRST_DISK + index });
}

/** A plugin made of a file, whose faults are the file's. */
function fromFile(path: string, make: () => Plugin): Plugin {
  try {
    return make();
  } catch (error) {
    if (!(error instanceof ArgumentError)) throw error;
    throw new CliError(Status.INPUT, `"${path}": ${error.message}`);
  }
}

/** Plugins from files. */
interface Added {
  readonly parts: readonly PartChoice[];
  readonly more: readonly Plugin[];
}

async function readPlugins({ parts, plugins }: Settings, io: CliIo): Promise<Added> {
  const choices: PartChoice[] = [];
  for (const [part, path] of parts) {
    const plugin = path === "none" ? undefined : await loadPlugin("--part", path, io);
    choices.push({ part, plugin });
  }
  const more: Plugin[] = [];
  for (const path of plugins) more.push(await loadPlugin("--plugin", path, io));
  return { parts: choices, more };
}

function openOutput(option: string, path: string, io: CliIo): Promise<OutputFile> {
  return io.openForWriting(path).catch((error) => {
    throw fileError(Status.OUTPUT, option, path, error);
  });
}

async function runImage(
  settings: Settings,
  input: Input,
  disks: readonly Uint8Array[],
  added: Added,
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
  const cache = openCodeCache(settings, io, terminal);
  try {
    const typed = settings.stdin && io.stdin !== undefined ? new SerialInput(io.stdin) : undefined;
    using vm = await makeVm(settings, { ...input, disks }, added, cache, settings.profile, {
      output: (bytes) => terminal.console(bytes),
      ...(typed === undefined ? {} : { input: typed }),
    }, (text) => terminal.say(`trapline: ${text}\n`));
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
    const again = typed?.received || settings.realTime ? undefined : () => {
      // Disks of its own, as they were.
      const again = { ...input, disks: input.disks.map((bytes) => bytes.slice()) };
      return makeVm(settings, again, added, cache, false, {});
    };
    const status = await conclude(settings, vm, result, wallMs, terminal, json, again);
    if (cache !== undefined) saveCodeCache(settings, cache, terminal);
    return status;
  } finally {
    release();
  }
}

/** The cache that was asked for. A run does without one that it may not use, and says so. */
function openCodeCache(
  { codeCache, quiet }: Settings,
  io: CliIo,
  terminal: Terminal,
): SavedCodeCache | undefined {
  if (codeCache === undefined) return undefined;
  const cache = io.openCodeCache(codeCache);
  const problem = cache === undefined ? "no permission to read and write it" : cache.problem;
  if (problem === undefined) return cache;
  if (!quiet) terminal.say(`trapline: --code-cache ${codeCache}: ${problem}; without\n`);
  return undefined;
}

function saveCodeCache(
  { codeCache, quiet }: Settings,
  cache: SavedCodeCache,
  terminal: Terminal,
): void {
  try {
    cache.save();
  } catch (error) {
    // The guest has run; what is lost is time, next time.
    const message = error instanceof Error ? error.message : String(error);
    if (!quiet) terminal.say(`trapline: --code-cache ${codeCache}: not saved: ${message}\n`);
  }
}

async function makeVm(
  settings: Settings,
  { image, symbols, firmware: rom, disks, fwCfg }: Input,
  added: Added,
  codeCache: CodeCache | undefined,
  profile: boolean,
  serial: SerialOptions,
  say: (text: string) => void = () => {},
): Promise<Vm> {
  const { vendor, cpu, ignoreMsrs, acceleration, memory, cpus, processors } = settings;
  const { scheduler, lastExits, tier } = settings;
  const plugins = machinePlugins({
    parts: [
      // Firmware shadows itself.
      ...rom === undefined || settings.machine !== "pc"
        ? []
        : [{ part: "pci", plugin: pci({ shadowed: false }) }],
      ...added.parts,
    ],
    more: [
      ...settings.realTime ? [realTimeClock()] : [],
      ...added.more,
      ...rom === undefined ? [] : [fromFile(image.name, () => firmware(rom))],
      ...disks.map((bytes, i) => fromFile(settings.disks[i] ?? "", () => diskPlugin(bytes, i))),
    ],
    machine: settings.machine,
    fwCfg: fromFile(settings.kernel ?? image.name, () => firmwareConfiguration(fwCfg)),
    vendor,
    cpu,
    ignoredMsr: ignoreMsrs ? say : undefined,
    acceleration,
    lastExits,
    scheduler,
    tier,
    codeCache,
    timed: settings.stats,
    profile,
    symbols,
    serial,
  });
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
