/**
 * Running patches against each other, and what comes of it as plain data.
 *
 * @module
 */
import {
  guestImage,
  type Patch,
  type PatchScenario,
  type PatchVariant,
  patchVariants,
} from "../patches/mod.ts";
import { type FinalState, type StateDifference, stateDifference } from "./final_state.ts";
import { type ExitRow, exitRows } from "./rows.ts";
import { type LabEnd, type LabGuest, type LabMachine, type LabRun, runOnce } from "./run.ts";
import type { Timeline } from "./timeline.ts";

/** Version of the data that {@linkcode LabReport} describes; raised when a field changes. */
export const LAB_REPORT_VERSION = 1;

/** What to change in the patches' own scenarios. */
export interface LabOptions {
  /** A guest to run in place of the scenarios' own. */
  readonly guest?: LabGuest;
  /** Number of vCPUs in place of the scenarios'. */
  readonly cpus?: number;
  /** Number of host processors in place of the scenarios'. */
  readonly processors?: number;
}

/** A run of one variant, as the report has it. */
export interface VariantReport {
  /** Name of the variant. */
  readonly variant: string;
  /** What it does. */
  readonly summary: string;
  /** How the run ended. */
  readonly end: LabEnd;
  /** What the guest printed. */
  readonly console: string;
  /** Instructions retired by all vCPUs. */
  readonly instructions: number;
  /** Exits of all vCPUs. */
  readonly exits: number;
  /** Modelled cycles of the exits. */
  readonly cycles: number;
  /** When the exits came. */
  readonly timeline: Timeline;
  /** What the guest left behind. */
  readonly state: FinalState;
}

/** How a variant's run compares with `before`, for the guest. */
export interface GuestDifference {
  /** Whether the guest printed the same and ended alike. */
  readonly sameOutput: boolean;
  /** Lines that are not the same, `before` first; at most eight. */
  readonly lines: readonly (readonly [before: string, after: string])[];
  /** How many lines are not the same. */
  readonly differingLines: number;
  /** Memory and registers at the end. */
  readonly state: StateDifference;
}

/** One scenario, run with every variant. */
export interface ScenarioReport {
  /** Name of the scenario. */
  readonly name: string;
  /** What is looked at. */
  readonly summary: string;
  /** Name of the guest, and its arguments. */
  readonly guest: { readonly name: string; readonly commandLine: string };
  /** Number of vCPUs. */
  readonly vcpus: number;
  /** Number of host processors. */
  readonly processors: number;
  /** Whether `before` and `after` must be the same for the guest. */
  readonly sameForGuest: boolean;
  /** The runs: before, after, then the others. */
  readonly runs: readonly VariantReport[];
  /** Exits by reason and target, a count for each run. */
  readonly rows: readonly ExitRow[];
  /** How each run but the first compares with the first. */
  readonly differences: readonly GuestDifference[];
}

/** What came of a patch. No field depends on the time of day or the machine underneath. */
export interface LabReport {
  /** `"trapline-lab"`. */
  readonly schema: "trapline-lab";
  /** {@linkcode LAB_REPORT_VERSION}. */
  readonly version: number;
  /** The patch, without its code. */
  readonly patch: Pick<
    Patch,
    "id" | "title" | "posted" | "state" | "commits" | "changes" | "shows"
  >;
  /** Its scenarios. */
  readonly scenarios: readonly ScenarioReport[];
}

/** The machine of a scenario. */
export function scenarioMachine(scenario: PatchScenario, options: LabOptions = {}): LabMachine {
  const processors = options.processors ?? scenario.processors;
  return {
    cpus: options.cpus ?? scenario.cpus ?? 1,
    ...(processors === undefined ? {} : { processors }),
    ...(scenario.cpu === undefined ? {} : { cpu: scenario.cpu }),
    ...(scenario.vendor === undefined ? {} : { vendor: scenario.vendor }),
    ...(scenario.svm === undefined ? {} : { svm: scenario.svm }),
    ...(scenario.vmx === undefined ? {} : { vmx: scenario.vmx }),
    ...(scenario.apicv === undefined ? {} : { apicv: scenario.apicv }),
    ...(scenario.lapic === undefined ? {} : { lapic: scenario.lapic }),
    ...(scenario.avic === undefined ? {} : { avic: scenario.avic }),
    ...(scenario.plugins === undefined ? {} : { plugins: scenario.plugins }),
  };
}

/** The guest of a scenario. */
export function scenarioGuest(scenario: PatchScenario, options: LabOptions = {}): LabGuest {
  const { guest: name, commandLine } = scenario;
  return options.guest ?? { name, image: guestImage(name), commandLine };
}

/** Runs all scenarios of a patch with all of its variants. */
export async function runPatch(patch: Patch, options: LabOptions = {}): Promise<LabReport> {
  const { id, title, posted, state, commits, changes, shows } = patch;
  const scenarios: ScenarioReport[] = [];
  for (const scenario of patch.scenarios) {
    scenarios.push(await runScenario(scenario, patchVariants(patch), options));
  }
  return {
    schema: "trapline-lab",
    version: LAB_REPORT_VERSION,
    patch: { id, title, posted, state, commits, changes, shows },
    scenarios,
  };
}

async function runScenario(
  scenario: PatchScenario,
  variants: readonly PatchVariant[],
  options: LabOptions,
): Promise<ScenarioReport> {
  const machine = scenarioMachine(scenario, options);
  const guest = scenarioGuest(scenario, options);
  const runs: LabRun[] = [];
  for (const { plugin } of variants) runs.push(await runOnce(machine, guest, [plugin()]));
  const [first] = runs as [LabRun];
  const vcpus = typeof machine.cpus === "number" ? machine.cpus : machine.cpus.length;
  return {
    name: scenario.name,
    summary: scenario.summary,
    guest: { name: guest.name, commandLine: guest.commandLine },
    vcpus,
    processors: machine.processors ?? vcpus,
    sameForGuest: scenario.sameForGuest,
    runs: runs.map((run, k) => variantReport(variants[k]!, run)),
    rows: exitRows(runs.map(({ reasons }) => reasons)),
    differences: runs.slice(1).map((run) => guestDifference(first, run)),
  };
}

function variantReport({ name, summary }: PatchVariant, run: LabRun): VariantReport {
  const { end, console, instructions, exits, cycles, timeline, state } = run;
  const { memory, vcpus } = state;
  return {
    variant: name,
    summary,
    end,
    console,
    instructions,
    exits,
    cycles,
    timeline,
    state: { memory, vcpus },
  };
}

const MOST_LINES = 8;

function guestDifference(a: LabRun, b: LabRun): GuestDifference {
  const [before, after] = [a.console.split("\n"), b.console.split("\n")];
  const lines: [string, string][] = [];
  for (let k = 0; k < Math.max(before.length, after.length); k++) {
    const [x = "", y = ""] = [before[k], after[k]];
    if (x !== y) lines.push([x, y]);
  }
  return {
    sameOutput: a.console === b.console && a.end.reason === b.end.reason &&
      a.end.code === b.end.code,
    lines: lines.slice(0, MOST_LINES),
    differingLines: lines.length,
    state: stateDifference(a.state, b.state),
  };
}

/** Whether there was no VM to run. */
export function isRefused({ end }: VariantReport): boolean {
  return end.reason === "refused";
}

/** Whether the guest saw a difference between `before` and `after` where it must see none. */
export function breaksGuest({ sameForGuest, differences }: ScenarioReport): boolean {
  return sameForGuest && differences[0]?.sameOutput === false;
}
