/**
 * What is said when a run has ended.
 *
 * @module
 */

import { describeRunEnd, type RunEnd, type RunResult, type Vm } from "../core/mod.ts";
import { examine, formatPostMortem, type PostMortem, retrace } from "../plugins/postmortem/mod.ts";
import { type ExitProfile, exitProfile, formatProfile } from "../plugins/profile/mod.ts";
import { fileError } from "./errors.ts";
import type { OutputFile } from "./io.ts";
import { RECORD_VERSION, recordEnd, recordText, type RunRecord } from "./record.ts";
import type { Settings } from "./settings.ts";
import { formatStatistics } from "./statistics.ts";
import { Status, statusOf } from "./statuses.ts";
import type { Terminal } from "./terminal.ts";

/** Ends that need no explanation. */
const GOOD_ENDS: ReadonlySet<RunEnd["reason"]> = new Set([
  "exit-code",
  "reset",
  "powered-off",
]);

/**
 * Says how a run ended, and writes the record of it.
 *
 * @param again Makes the same machine again; `undefined` if what it was given from outside is gone.
 * @returns The exit status.
 */
export async function conclude(
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
  if (settings.stats) terminal.say(`\n${formatStatistics(vm, result, wallMs)}`);
  if (json !== undefined) {
    await writeRecord(settings, json, {
      schema: "trapline-run",
      version: RECORD_VERSION,
      command: {
        image: settings.image,
        vendor: settings.vendor,
        cpu: settings.cpu ?? null,
        ignoreMsrs: settings.ignoreMsrs,
        ...settings.acceleration,
        memory: settings.memory,
        cpus: settings.cpus,
        pcpus: settings.processors ?? settings.cpus,
        quantum: settings.scheduler.quantum ?? null,
        seed: settings.scheduler.seed ?? null,
        append: settings.append ?? null,
        modules: settings.modules,
        realTime: settings.realTime,
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
  if (settings.realTime) return without("a run in real time cannot be repeated");
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
    return `trapline: ${describeRunEnd(result)}`;
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
