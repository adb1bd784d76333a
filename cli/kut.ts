/**
 * `trapline kut`: runs a kvm-unit-tests tree that was built elsewhere.
 *
 * @module
 */

import { createVm, type Plugin, roundRobin, type RunResult } from "../core/mod.ts";
import {
  cpu,
  type CpuChoice,
  type FeatureChoice,
  isIsaFeature,
  type Tier,
} from "../plugins/cpu/mod.ts";
import { fwCfg } from "../plugins/fwcfg/mod.ts";
import { firmwareVectors } from "../plugins/flat/mod.ts";
import { lapic } from "../plugins/lapic/mod.ts";
import { perfCounters } from "../plugins/perfctr/mod.ts";
import { type ImageModule, loadImage } from "../plugins/multiboot/mod.ts";
import { pic } from "../plugins/pic/mod.ts";
import { pit } from "../plugins/pit/mod.ts";
import { type OptionSpec, parseArguments, type ParsedArguments } from "./arguments.ts";
import { boardParts } from "./boards.ts";
import { CliError, fileError, outputError, toCliError, usageError } from "./errors.ts";
import type { CliIo, OutputFile } from "./io.ts";
import {
  callsHypervisor,
  isHypervisor,
  type KutMachine,
  type KutTest,
  machineOf,
  matches,
  parseUnittests,
} from "./kut_config.ts";
import {
  countSubtests,
  judge,
  KUT_RECORD_VERSION,
  type KutRecord,
  type KutResult,
  regressions,
  scoreBoard,
  updated,
} from "./kut_score.ts";
import {
  type Acceleration,
  acceleratorPlugins,
  chooseCpu,
  paravirtual,
  VENDORS,
} from "./machine.ts";
import { parseCount } from "./numbers.ts";
import { readAcceleration, readTier, TIER_OPTION } from "./settings.ts";
import { Status } from "./statuses.ts";

/** The options of `trapline kut`. */
export const KUT_OPTIONS: readonly OptionSpec[] = [
  {
    name: "filter",
    value: "NAMES",
    help:
      "only tests whose name or group is among these, with commas\nbetween; * stands for any text",
  },
  { name: "vendor", value: "NAME", help: "metal (default), svm or vmx" },
  {
    name: "cpu",
    value: "NAME[,+F,-F…]",
    help: "the processor of all tests, as for run; what each asks for if not given",
  },
  { name: "avic", value: "on|off", help: "under svm: as for run; on if not given" },
  { name: "apicv", value: "on|off", help: "under vmx: likewise" },
  { name: "ipiv", value: "on|off", help: "under vmx: likewise" },
  {
    name: "timeout",
    value: "SECONDS",
    help: "for each test; 300, or what the list says if that is\nmore, if not given",
  },
  TIER_OPTION,
  { name: "max-instructions", value: "N", help: "end a test after so many instructions, like 1e9" },
  { name: "json", value: "FILE", help: "write the results to a file" },
  {
    name: "update",
    value: "FILE",
    help:
      "put the results in the places of these tests in such a\nfile, which is made if there is none",
  },
  { name: "baseline", value: "FILE", help: "say what got worse since such a file was written" },
  { name: "verbose", help: "print what the tests print" },
  { name: "help", help: "print this" },
];

/** The command line in the form in which it is used. */
interface KutSettings {
  readonly directory: string;
  readonly patterns: readonly string[];
  readonly vendor: string;
  readonly cpu: CpuChoice | undefined;
  readonly acceleration: Acceleration;
  readonly tier: Tier;
  readonly timeout: number | undefined;
  readonly instructions: number | undefined;
  readonly verbose: boolean;
}

/** The list's own limits are for processors of silicon, some of them a few seconds. */
const DEFAULT_TIMEOUT = 300;
/** Tests that the suite does not run unless asked for. */
const ONLY_WHEN_ASKED = "nodefault";

/** Carries out `trapline kut`. Returns the exit status. */
export async function kut(words: readonly string[], io: CliIo): Promise<number> {
  const args = parseArguments(words, KUT_OPTIONS);
  const settings = readSettings(args);
  const { tests, names, arch } = await readTree(settings, io);
  const baselinePath = args.value("baseline");
  const baseline = baselinePath === undefined ? undefined : await readBaseline(baselinePath, io);
  const recordOf = (tests: readonly KutResult[]): KutRecord => ({
    schema: "trapline-kut",
    version: KUT_RECORD_VERSION,
    vendor: settings.vendor,
    cpu: args.value("cpu") ?? null,
    acceleration: Object.entries(settings.acceleration).filter(([, on]) => on).map(([name]) =>
      name
    ),
    arch,
    tests,
  });
  const updatePath = args.value("update");
  const old = updatePath === undefined ? [] : await readOld(updatePath, recordOf([]), io);
  const jsonPath = args.value("json");
  const json = await openOutput("--json", jsonPath, io);
  const update = await openOutput("--update", updatePath, io);
  const stop = new AbortController();
  const release = io.onInterrupt(() => {
    if (stop.signal.aborted) io.exit(Status.INTERRUPTED);
    stop.abort();
  });
  const results: KutResult[] = [];
  try {
    for (const test of tests) {
      if (stop.signal.aborted) break;
      const result = await runTest(test, settings, stop.signal, io);
      if (stop.signal.aborted) break;
      results.push(result);
      io.stderr(progress(result, results.length, tests.length));
    }
    const worse = baseline === undefined ? [] : regressions(baseline, results);
    print(io, scoreBoard(results));
    for (const line of worse) print(io, `worse: ${line}\n`);
    if (baseline !== undefined && worse.length === 0) print(io, "nothing is worse\n");
    await json?.write(jsonText(recordOf(results)));
    await update?.write(jsonText(recordOf(updated(old, results, names))));
    if (stop.signal.aborted) return Status.INTERRUPTED;
    const bad = baseline === undefined
      ? results.some((result) => result.outcome === "fail")
      : worse.length > 0;
    return bad ? Status.DIFFERENT : Status.OK;
  } finally {
    json?.close();
    update?.close();
    release();
  }
}

function print(io: CliIo, text: string): void {
  try {
    io.stdout(new TextEncoder().encode(text));
  } catch (error) {
    throw outputError(error);
  }
}

function progress(result: KutResult, done: number, all: number): string {
  const { name, outcome, passed, failed, skipped, wallMs, reason } = result;
  const counts = `${passed} passed, ${failed} failed, ${skipped} skipped`;
  const why = reason === "" ? "" : `: ${reason}`;
  const time = (wallMs / 1000).toFixed(1);
  return `${done}/${all} ${outcome.toUpperCase()} ${name} (${counts}, ${time} s)${why}\n`;
}

function readSettings(args: ParsedArguments): KutSettings {
  const [directory, extra] = args.operands;
  if (directory === undefined) throw usageError("kut: no folder given: trapline kut DIR");
  if (extra !== undefined) throw usageError(`kut: "${extra}" is one word too many`);
  const vendor = args.value("vendor") ?? "metal";
  if (!Object.hasOwn(VENDORS, vendor)) {
    const names = Object.keys(VENDORS).join(", ");
    throw usageError(`--vendor ${vendor}: there is no such vendor; there are ${names}`);
  }
  const acceleration = readAcceleration(args, vendor);
  const number = (name: string): number | undefined => {
    const text = args.value(name);
    return text === undefined
      ? undefined
      : parseCount(`--${name}`, text, 1, Number.MAX_SAFE_INTEGER);
  };
  const processor = args.value("cpu");
  return {
    directory,
    cpu: processor === undefined ? undefined : chooseCpu(vendor, VENDORS[vendor]!, processor),
    patterns: (args.value("filter") ?? "").split(",").map((name) => name.trim())
      .filter((name) => name !== ""),
    vendor,
    acceleration,
    tier: readTier(args),
    timeout: number("timeout"),
    instructions: number("max-instructions"),
    verbose: args.has("verbose"),
  };
}

/** The tests to run, the names of all, and the architecture that the tree was built for. */
async function readTree(
  { directory, patterns }: KutSettings,
  io: CliIo,
): Promise<{ tests: KutTest[]; names: string[]; arch: string }> {
  const text = async (path: string): Promise<string> =>
    new TextDecoder().decode(
      await io.readFile(`${directory}/${path}`).catch((error) => {
        throw fileError(Status.INPUT, "kut", `${directory}/${path}`, error);
      }),
    );
  const list = parseUnittests(await text("x86/unittests.cfg"));
  // What configure writes.
  const [, arch = "x86_64"] = /^ARCH=(\S+)$/m.exec(await text("config.mak")) ?? [];
  const tests = list.filter((test) => {
    if (test.arch !== undefined && test.arch !== arch) return false;
    return patterns.length > 0 ? matches(test, patterns) : !test.groups.includes(ONLY_WHEN_ASKED);
  });
  if (tests.length === 0) {
    throw usageError(`kut: no test of ${directory} for ${arch} is among ${patterns.join(", ")}`);
  }
  return { tests, names: list.map(({ name }) => name), arch };
}

function jsonText(record: KutRecord): string {
  return `${JSON.stringify(record, null, 2)}\n`;
}

async function openOutput(
  option: string,
  path: string | undefined,
  io: CliIo,
): Promise<OutputFile | undefined> {
  return path === undefined ? undefined : await io.openForWriting(path).catch((error) => {
    throw fileError(Status.OUTPUT, option, path, error);
  });
}

/** The tests of a record to be updated, which must be one of runs like this; none if there is no file. */
async function readOld(path: string, now: KutRecord, io: CliIo): Promise<readonly KutResult[]> {
  let bytes: Uint8Array;
  try {
    bytes = await io.readFile(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw fileError(Status.INPUT, "--update", path, error);
  }
  // Made for a run that did not come to its end.
  if (bytes.length === 0) return [];
  const { tests, ...before } = parseRecord("--update", path, bytes);
  const { tests: _, ...wanted } = now;
  if (JSON.stringify(before) === JSON.stringify(wanted)) return tests;
  throw new CliError(
    Status.INPUT,
    `--update "${path}": it is of other runs: ${JSON.stringify(before)}`,
  );
}

async function readBaseline(path: string, io: CliIo): Promise<KutRecord> {
  const bytes = await io.readFile(path).catch((error) => {
    throw fileError(Status.INPUT, "--baseline", path, error);
  });
  return parseRecord("--baseline", path, bytes);
}

function parseRecord(option: string, path: string, bytes: Uint8Array): KutRecord {
  try {
    const record = JSON.parse(new TextDecoder().decode(bytes)) as KutRecord;
    if (record.schema === "trapline-kut" && record.version === KUT_RECORD_VERSION) return record;
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
  }
  throw new CliError(
    Status.INPUT,
    `${option} "${path}": it is not what --json writes, version ${KUT_RECORD_VERSION}`,
  );
}

/**
 * The suite's environment for the test of the APIC where there is no hypervisor: it then makes no
 * hypercalls, which would be undefined there. The others take it to say that they cannot make lines of
 * the IOAPIC change.
 */
const WITHOUT_HYPERVISOR: ImageModule = {
  bytes: new TextEncoder().encode("TEST_DEVICE=0\n"),
  text: "environment",
};

async function runTest(
  test: KutTest,
  settings: KutSettings,
  stop: AbortSignal,
  io: CliIo,
): Promise<KutResult> {
  const machine = machineOf(test);
  const start = io.now();
  let output = "";
  const decoder = new TextDecoder();
  const listen = (bytes: Uint8Array): void => {
    output += decoder.decode(bytes, { stream: true });
    if (settings.verbose) print(io, new TextDecoder().decode(bytes));
  };
  const finish = (outcome: KutResult["outcome"], reason: string, instructions = 0): KutResult => {
    const { passed, failures, skips } = countSubtests(output);
    return {
      name: test.name,
      groups: test.groups,
      outcome,
      passed,
      failed: failures.length,
      skipped: skips.length,
      failures,
      skips,
      reason,
      instructions,
      wallMs: Math.round(io.now() - start),
    };
  };
  const unmet = unmetOf(machine);
  if (unmet.length > 0) return finish("skip", `asks for what there is not: ${unmet.join(", ")}`);
  if (settings.vendor !== "metal" && isHypervisor(test)) {
    return finish("skip", "it is a hypervisor, and runs under --vendor metal");
  }
  if (settings.vendor === "metal" && callsHypervisor(test)) {
    return finish("skip", "it calls a hypervisor, and runs under --vendor svm and vmx");
  }
  const { processor } = machine;
  if (processor !== undefined && processor !== processorVendor(machine, settings)) {
    return finish("skip", `it asks for a processor of ${MAKERS[processor]}'s`);
  }
  const path = `${settings.directory}/x86/${test.file}`;
  let bytes: Uint8Array;
  try {
    bytes = await io.readFile(path);
  } catch (error) {
    // The list has tests that are not built for every architecture.
    if (error instanceof Deno.errors.NotFound) return finish("skip", `${test.file} is not built`);
    throw fileError(Status.INPUT, "kut", path, error);
  }
  const seconds = settings.timeout ?? Math.max(test.timeout ?? 0, DEFAULT_TIMEOUT);
  try {
    const image = loadImage(bytes, {
      name: `x86/${test.file}`,
      commandLine: test.args,
      modules: settings.vendor === "metal" && test.file === "apic.flat" ? [WITHOUT_HYPERVISOR] : [],
    });
    using vm = await createVm({
      memory: machine.memory,
      cpus: test.smp,
      plugins: testPlugins(machine, settings, listen),
      images: [firmwareVectors(), image],
    });
    const { result, timedOut } = await runFor(seconds, stop, (signal) =>
      vm.run({
        signal,
        ...(settings.instructions === undefined ? {} : { instructions: settings.instructions }),
      }));
    const { outcome, reason } = judge(result, output, timedOut ? seconds : undefined);
    return finish(outcome, reason, result.instructions);
  } catch (error) {
    return finish("fail", toCliError(error).message);
  }
}

/** Runs something for so many seconds at most. */
async function runFor(
  seconds: number,
  stop: AbortSignal,
  run: (signal: AbortSignal) => Promise<RunResult>,
): Promise<{ result: RunResult; timedOut: boolean }> {
  const late = new AbortController();
  const timer = setTimeout(() => late.abort(), seconds * 1000);
  try {
    const result = await run(AbortSignal.any([late.signal, stop]));
    return { result, timedOut: late.signal.aborted && result.reason === "stopped" };
  } finally {
    clearTimeout(timer);
  }
}

/** Features besides those of the instruction set that can be switched off, by QEMU's names. */
const FEATURES: { readonly [name: string]: keyof FeatureChoice | undefined } = {
  avic: "avic",
  npt: "npt",
  vgif: "vgif",
  vnmi: "vnmi",
  "vmx-mbec": "mbec",
};
/** Features that are not cpu()'s: the local APIC's, and one that no model has. */
const OTHERS: ReadonlySet<string> = new Set(["x2apic", "tsc-deadline", "skinit"]);

/** A feature of cpu() by QEMU's name for it. */
function featureOf(name: string): keyof FeatureChoice | undefined {
  const linux = name.replaceAll("-", "_");
  return FEATURES[name] ?? (isIsaFeature(linux) ? linux : undefined);
}

/** What a test asks for that there is not. */
function unmetOf({ unmet, features }: KutMachine): string[] {
  const kept = [...features].filter(([name, on]) =>
    !on && !OTHERS.has(name) && featureOf(name) === undefined
  );
  return [...unmet, ...kept.map(([name]) => `-cpu …,-${name}`)];
}

/** The item of the firmware configuration that tests take for the end of RAM: with QEMU, a kernel's magic. */
const KERNEL_DATA = 0x11;
const KERNEL_MAGIC = new Uint8Array([0x02, 0xb0, 0xad, 0x1b, 0, 0, 0, 0]);

/** Lines that are masked at the 8259s: all but the tick and the cascade. */
const MASK = 0xfffa;

const MAKERS = { amd: "AMD", intel: "Intel" } as const;

/** Whose processor a test gets: what is chosen for all, what the hypervisor needs, what it asks for. */
function processorVendor(
  { processor }: KutMachine,
  { vendor, cpu: chosen }: KutSettings,
): "amd" | "intel" {
  return chosen?.vendor ?? VENDORS[vendor]?.only ?? processor ?? "amd";
}

function testPlugins(
  machine: KutMachine,
  settings: KutSettings,
  output: (bytes: Uint8Array) => void,
): Plugin[] {
  const { vendor, cpu: chosen, acceleration, tier } = settings;
  const choice = VENDORS[vendor];
  if (choice === undefined) throw usageError(`--vendor ${vendor}: there is no such vendor`);
  const intel = processorVendor(machine, settings) === "intel";
  const model = chosen?.model ?? (intel ? "max-intel" : "max");
  // The processors that the list names are QEMU's, and have neither APERF and MPERF nor, with them, RDPRU,
  // and no supervisor shadow stacks in EPT.
  const features: { [name: string]: boolean } = chosen === undefined
    ? { aperfmperf: false, ...(intel ? { ept_sss: false } : {}) }
    : { ...chosen.features };
  for (const [name, on] of machine.features) {
    const ours = featureOf(name);
    if (ours !== undefined && !on) features[ours] = false;
  }
  const physicalBits = machine.physicalBits ?? chosen?.physicalBits;
  const apic = lapic({
    vendor: intel ? "intel" : "amd",
    x2apic: machine.features.get("x2apic") !== false,
    tscDeadline: machine.features.get("tsc-deadline") === true,
  });
  const parts = boardParts("pc", { output }, [
    { part: "lapic", plugin: apic },
    // As firmware leaves them, which some tests wait for: ticking, and the tick not masked.
    { part: "pit", plugin: machine.without.includes("pit") ? undefined : pit({ ticking: true }) },
    { part: "pic", plugin: pic({ wiring: "apic", mask: MASK }) },
    { part: "perfctr", plugin: perfCounters({ vendor: intel ? "intel" : "amd" }) },
    { part: "fwcfg", plugin: fwCfg({ items: new Map([[KERNEL_DATA, KERNEL_MAGIC]]) }) },
  ]);
  return [
    cpu({ model, features, tier, ...(physicalBits === undefined ? {} : { physicalBits }) }),
    choice.make(),
    roundRobin({}),
    ...parts,
    ...paravirtual(vendor, parts),
    ...acceleratorPlugins(acceleration),
  ];
}
