/**
 * Reports as text.
 *
 * @module
 */
import type { MatrixReport } from "./matrix.ts";
import {
  breaksGuest,
  type GuestDifference,
  isRefused,
  type LabReport,
  type ScenarioReport,
  type VariantReport,
} from "./report.ts";
import { differs, type ExitRow } from "./rows.ts";
import { grouped, percent, signed, table } from "./table.ts";

/** Options of {@linkcode formatReport}. */
export interface FormatReportOptions {
  /** Whether to name the RIPs under each target. */
  readonly rips?: boolean;
  /** Whether to show all rows, also those that are the same in all runs. */
  readonly all?: boolean;
}

/** RIPs to show under a target. */
const MOST_RIPS = 8;
/** Targets to show under a reason. */
const MOST_TARGETS = 24;
/** Stands for a count where there was no VM. */
const NOTHING = "–";

function plural(count: number, word: string): string {
  return `${grouped(count)} ${word}${count === 1 ? "" : "s"}`;
}

/** What became of a patch, and where it came from, in one line. */
export function patchState({ state, commits, posted }: LabReport["patch"]): string {
  const ids = commits.length === 0 ? "" : ` as ${commits.join(", ")}`;
  const by = posted.author === undefined ? "" : ` by ${posted.author}`;
  return `${state}${ids}; posted ${posted.date}${by}`;
}

/** A report as text: what the patch is, then a table for each scenario. Lines end in a line feed. */
export function formatReport(report: LabReport, options: FormatReportOptions = {}): string {
  const { patch, scenarios } = report;
  return [
    `${patch.id}: ${patch.title}\n`,
    `  ${patchState(patch)}\n`,
    ...wrap(patch.changes, "  "),
    ...wrap(`Shows: ${patch.shows}`, "  "),
    ...scenarios.map((scenario) => `\n${formatScenario(scenario, options)}`),
  ].join("");
}

function wrap(text: string, indent: string, width = 100): string[] {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(" ")) {
    if (line !== "" && indent.length + line.length + 1 + word.length > width) {
      lines.push(line);
      line = word;
    } else line = line === "" ? word : `${line} ${word}`;
  }
  return [...lines, line].map((text) => `${indent}${text}\n`);
}

function formatScenario(scenario: ScenarioReport, options: FormatReportOptions): string {
  const { name, summary, guest, vcpus, processors, runs } = scenario;
  const machine = `${plural(vcpus, "vCPU")} on ${plural(processors, "processor")}`;
  return [
    `${name}: ${summary}\n`,
    `  ${machine}, guest ${guest.name} ${guest.commandLine}`.trimEnd() + "\n\n",
    exitTable(scenario, options),
    "\n",
    ...runs.slice(1).flatMap(({ variant }, k) => {
      const refusal = refusalLines([runs[0]!, runs[k + 1]!]);
      if (refusal.length > 0) return k === 0 ? refusal : [];
      const [first, difference] = [scenario.differences[0], scenario.differences[k]!];
      return k > 0 && JSON.stringify(first) === JSON.stringify(difference)
        ? [`  ${runs[0]!.variant} and ${variant}: as with ${runs[1]!.variant}\n`]
        : guestLines(runs[0]!.variant, variant, difference);
    }),
    ...endLines(runs),
    ...(breaksGuest(scenario) ? ["  THE GUEST SEES A DIFFERENCE THAT IT MUST NOT SEE\n"] : []),
  ].join("");
}

function exitTable(scenario: ScenarioReport, options: FormatReportOptions): string {
  const { runs, rows } = scenario;
  const missing = runs.map(isRefused);
  const numbers = (counts: readonly number[]): string[] => {
    const cells = counts.map((count, k) => missing[k] ? NOTHING : grouped(count));
    const [before = 0, after = 0] = counts;
    cells.splice(2, 0, missing[0] || missing[1] ? NOTHING : signed(after - before));
    return cells;
  };
  const heads = runs.map(({ variant }) => variant);
  heads.splice(2, 0, "difference");
  const lines: string[][] = [["exit", "", "", ...heads]];
  const shown = rows.filter((row) => options.all || differs(row, missing));
  for (const group of byReason(shown)) {
    const most = options.all ? group.length : MOST_TARGETS;
    group.slice(0, most).forEach((row, k) => {
      lines.push([k === 0 ? row.reason : "", row.target, row.name, ...numbers(row.counts)]);
      if (options.rips) lines.push(...ripLines(row, numbers));
    });
    const more = group.slice(most);
    if (more.length > 0) lines.push(["", `… ${more.length} more`, "", ...numbers(sum(more))]);
  }
  const rest = rows.filter((row) => !shown.includes(row));
  if (rest.length > 0) {
    const what = shown.length === 0 ? "all the same" : "all others, the same";
    lines.push([what, plural(rest.length, "target"), "", ...numbers(sum(rest))]);
  }
  lines.push(["exits", "", "", ...numbers(runs.map(({ exits }) => exits))]);
  lines.push(["cycles of exits", "a model", "", ...numbers(runs.map(({ cycles }) => cycles))]);
  lines.push(["instructions", "", "", ...numbers(runs.map((run) => run.instructions))]);
  return table(lines, 3).replaceAll(/^/gm, "  ").trimEnd() + "\n";
}

/** Rows of one reason stand together. */
function byReason(rows: readonly ExitRow[]): ExitRow[][] {
  const groups: ExitRow[][] = [];
  for (const row of rows) {
    const group = groups.at(-1);
    if (group?.[0]?.reason === row.reason) group.push(row);
    else groups.push([row]);
  }
  return groups;
}

function sum(rows: readonly ExitRow[]): number[] {
  const sums = rows[0]?.counts.map(() => 0) ?? [];
  for (const { counts } of rows) counts.forEach((count, k) => sums[k]! += count);
  return sums;
}

function ripLines(row: ExitRow, numbers: (counts: readonly number[]) => string[]): string[][] {
  return row.rips.slice(0, MOST_RIPS)
    .map(({ rip, place, counts }) => {
      const where = place === "" ? `${rip.slice(2)}h` : place;
      return ["", `  at ${where}`, "", ...numbers(counts)];
    });
}

/** Runs that there was no VM for. */
function refusalLines(runs: readonly VariantReport[]): string[] {
  return runs.filter(isRefused).map(({ variant, end }) => `  ${variant}: ${end.text}\n`);
}

/** Runs that ended by other means than the guest's own, where not all did alike. */
function endLines(runs: readonly VariantReport[]): string[] {
  if (runs.every(({ end }) => end.text === runs[0]!.end.text)) return [];
  return runs.filter(({ end }) => end.reason !== "exit-code" && end.reason !== "refused")
    .map(({ variant, end }) => `  ${variant} ended so: ${end.text}\n`);
}

/** What the guest saw of a variant, against the first. */
function guestLines(first: string, variant: string, difference: GuestDifference): string[] {
  const { sameOutput, lines, differingLines, state } = difference;
  const words = `  ${first} and ${variant}: `;
  const end = sameOutput
    ? "the guest prints the same and ends alike"
    : differingLines === 0
    ? "the guest prints the same and ends differently"
    : `the guest prints ${plural(differingLines, "line")} differently`;
  const { pages, firstPage, registers } = state;
  const memory = pages === 0
    ? "memory is the same"
    : `${plural(pages, "page")} of memory differ, the first at ${firstPage!.toString(16)}h`;
  const left = registers.length === 0
    ? "registers are the same"
    : `${plural(registers.length, "register")} differ: ${registerNames(registers)}`;
  const shown = lines.slice(0, 3).map(([before, after]) =>
    `    ${first}: ${before}\n    ${variant}: ${after}\n`
  );
  return [`${words}${end}; ${memory}; ${left}\n`, ...shown];
}

function registerNames(registers: GuestDifference["state"]["registers"]): string {
  const names = registers.map(({ vcpu, name }) => vcpu === 0 ? name : `${name} of vCPU ${vcpu}`);
  return names.slice(0, 4).join(", ") + (names.length > 4 ? " …" : "");
}

/** The closing table: a line for each scenario. */
export function formatSummary(reports: readonly LabReport[]): string {
  const lines = [
    ["patch", "scenario", "guest sees", "exits before", "after", "", "cycles before", "after", ""],
  ];
  for (const { patch, scenarios } of reports) {
    for (const scenario of scenarios) {
      const [before, after] = scenario.runs as [VariantReport, VariantReport];
      const pair = (of: (run: VariantReport) => number): string[] => {
        const [x, y] = [of(before), of(after)];
        if (isRefused(before)) return ["no VM", grouped(y), ""];
        return [grouped(x), grouped(y), percent(x, y)];
      };
      const same = scenario.differences[0]!.sameOutput;
      lines.push([
        patch.id,
        scenario.name,
        breaksGuest(scenario) ? "A WRONG DIFFERENCE" : same ? "the same" : "the repair",
        ...pair((run) => run.exits),
        ...pair((run) => run.cycles),
      ]);
    }
  }
  return table(lines, 3) + "Cycles are a model of what exits cost, and no measurement.\n";
}

/** A matrix as text: a column for each combination. */
export function formatMatrix(report: MatrixReport, options: FormatReportOptions = {}): string {
  const { patches, runs, rows, guest } = report;
  const lines = patches.map((id, k) => [id, "", "", ...runs.map(({ variants }) => variants[k]!)]);
  const shown = rows.filter((row) => options.all || differs(row));
  for (const { reason, target, name, counts } of shown) {
    lines.push([reason, target, name, ...counts.map(grouped)]);
  }
  lines.push(["exits", "", "", ...runs.map(({ exits }) => grouped(exits))]);
  lines.push(["cycles of exits", "a model", "", ...runs.map(({ cycles }) => grouped(cycles))]);
  lines.push(["guest prints", "", "", ...runs.map(({ sameOutput }) => sameOutput ? "=" : "other")]);
  return `guest ${guest.name} ${guest.commandLine}`.trimEnd() + "\n\n" + table(lines, 3);
}
