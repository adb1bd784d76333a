/**
 * What comes out of tests of kvm-unit-tests: how each ended, the score board, and what is worse than it
 * was.
 *
 * @module
 */

import { describeRunEnd, type RunEnd } from "../core/mod.ts";

/** Version of the data that {@linkcode KutRecord} describes; raised when a field changes. */
export const KUT_RECORD_VERSION = 2;

/** How a test came out. */
export type KutOutcome = "pass" | "fail" | "skip";

/** How a test came out, and why. */
export interface KutResult {
  /** Its name in the list. */
  readonly name: string;
  /** Groups it belongs to. */
  readonly groups: readonly string[];
  /** How it came out. */
  readonly outcome: KutOutcome;
  /** Subtests that passed. */
  readonly passed: number;
  /** Subtests that failed, as expected failures do not. */
  readonly failed: number;
  /** Subtests that were skipped. */
  readonly skipped: number;
  /** Names of the subtests that failed. */
  readonly failures: readonly string[];
  /** Names of the subtests that were skipped. */
  readonly skips: readonly string[];
  /** Why it failed or was skipped; empty if it passed. */
  readonly reason: string;
  /** Instructions that its vCPUs retired. */
  readonly instructions: number;
  /** Milliseconds that it took. */
  readonly wallMs: number;
}

/** What `trapline kut --json` writes, and `--baseline` reads. */
export interface KutRecord {
  /** `"trapline-kut"`. */
  readonly schema: "trapline-kut";
  /** {@linkcode KUT_RECORD_VERSION}. */
  readonly version: number;
  /** Vendor that the tests ran under. */
  readonly vendor: string;
  /** The processor of all tests, as `--cpu` takes it; `null` if each had the one that it asks for. */
  readonly cpu: string | null;
  /** What accelerated interrupts: some of avic, apicv and ipiv. */
  readonly acceleration: readonly string[];
  /** Architecture that the tree was built for. */
  readonly arch: string;
  /** The tests, in the order of the list. */
  readonly tests: readonly KutResult[];
}

/** What a test printed, counted. */
export interface KutCounts {
  /** Lines with PASS. */
  readonly passed: number;
  /** Names behind FAIL. */
  readonly failures: readonly string[];
  /** Names behind SKIP. */
  readonly skips: readonly string[];
}

/**
 * Counts the subtests in what a test printed. An expected failure, XFAIL, counts as neither; what passes
 * though the suite expects KVM to fail it, XPASS, counts as passed.
 */
export function countSubtests(output: string): KutCounts {
  const [passed, failures, skipped] = [[] as string[], [] as string[], [] as string[]];
  const lists: Readonly<Record<string, string[]>> = {
    PASS: passed,
    XPASS: passed,
    FAIL: failures,
    SKIP: skipped,
  };
  for (const line of output.split(/\r?\n/)) {
    const [, word, name] = /^(X?PASS|FAIL|SKIP): (.*)$/.exec(line) ?? [];
    if (word !== undefined && name !== undefined) lists[word]?.push(name);
  }
  return { passed: passed.length, failures, skips: skipped };
}

/** Exit codes of the suite, as the debug-exit port gives them: `(status << 1) | 1`. */
const CODES: ReadonlyMap<number, readonly [outcome: KutOutcome, reason: string]> = new Map([
  [1, ["pass", ""]],
  [3, ["fail", ""]],
  [77, ["skip", ""]],
  [127, ["fail", "aborted"]],
]);

/** The last line that says something about why a test aborted or what it skipped. */
function telling(output: string): string {
  const lines = output.split(/\r?\n/).map((line) => line.trim());
  return lines.findLast((line) =>
    /^(?:ABORT|SKIP|Unhandled|ASSERT|.*assertion failed)|unhandled/i.test(line)
  ) ?? "";
}

/** Whether nothing was unexpected but what passed where the suite expects a failure. */
function onlyPassed(output: string): boolean {
  const unexpected = /^SUMMARY: .*?(\d+) unexpected failures/m.exec(output)?.[1];
  return unexpected !== undefined &&
    Number(unexpected) === output.match(/^XPASS: /gm)?.length;
}

/**
 * How a test came out, by how its run ended and what it printed.
 *
 * @param timedOut Seconds it was given, if it took longer.
 */
export function judge(
  end: RunEnd,
  output: string,
  timedOut: number | undefined,
): { readonly outcome: KutOutcome; readonly reason: string } {
  if (timedOut !== undefined) return { outcome: "fail", reason: `timed out after ${timedOut} s` };
  if (end.reason !== "exit-code") return { outcome: "fail", reason: describeRunEnd(end) };
  const [outcome, why] = CODES.get(end.code) ?? ["fail", `ended with code ${end.code}`];
  const counts = countSubtests(output);
  // A test that ends well after a subtest failed did not pass.
  if (outcome === "pass" && counts.failures.length > 0) return { outcome: "fail", reason: "" };
  if (outcome === "skip" && counts.passed > 0) return { outcome: "pass", reason: "" };
  if (outcome === "pass") return { outcome, reason: "" };
  if (outcome === "fail" && counts.failures.length === 0 && onlyPassed(output)) {
    return { outcome: "pass", reason: "" };
  }
  if (outcome === "fail" && counts.failures.length > 0 && why === "") {
    return { outcome, reason: counts.failures[0] as string };
  }
  return { outcome, reason: [why, telling(output)].filter((part) => part !== "").join(": ") };
}

/**
 * The results of a record with those of another run of some of its tests in their places.
 *
 * @param order Names of all tests of the list, in its order; what it has no more is left out.
 */
export function updated(
  old: readonly KutResult[],
  fresh: readonly KutResult[],
  order: readonly string[],
): KutResult[] {
  const byName = new Map([...old, ...fresh].map((test) => [test.name, test]));
  return order.map((name) => byName.get(name)).filter((test) => test !== undefined);
}

/** What got worse from one record to another, in a line each. */
export function regressions(baseline: KutRecord, tests: readonly KutResult[]): string[] {
  const before = new Map(baseline.tests.map((test) => [test.name, test]));
  const worse: string[] = [];
  for (const test of tests) {
    const old = before.get(test.name);
    if (old === undefined) continue;
    if (old.outcome === "pass" && test.outcome !== "pass") {
      const reason = test.reason === "" ? "" : ` (${test.reason})`;
      worse.push(`${test.name}: passed, now ${test.outcome}${reason}`);
    } else if (old.outcome === "skip" && test.outcome === "fail") {
      worse.push(`${test.name}: was skipped, now fails (${test.reason})`);
    } else if (test.passed < old.passed) {
      worse.push(`${test.name}: ${old.passed} subtests passed, now ${test.passed}`);
    } else {
      const fresh = test.failures.filter((name) => !old.failures.includes(name));
      if (fresh.length > 0 && test.failed > old.failed) {
        worse.push(`${test.name}: fails now: ${fresh.join("; ")}`);
      }
    }
  }
  return worse;
}

const HEADINGS = ["test", "result", "passed", "failed", "skipped", "time", "reason"] as const;
/** Columns that are numbers, and stand at the right. */
const RIGHT: ReadonlySet<number> = new Set([2, 3, 4, 5]);
const LONGEST_REASON = 100;

function table(rows: readonly (readonly string[])[]): string {
  const widths = HEADINGS.map((_, column) =>
    Math.max(...rows.map((row) => (row[column] ?? "").length))
  );
  return rows.map((row) =>
    row.map((cell, column) =>
      RIGHT.has(column) ? cell.padStart(widths[column] ?? 0) : cell.padEnd(widths[column] ?? 0)
    ).join("  ").trimEnd() + "\n"
  ).join("");
}

/** A test in the columns of the score board. */
function cells(test: KutResult): string[] {
  const { name, outcome, passed, failed, skipped, wallMs, reason } = test;
  const short = reason.length > LONGEST_REASON ? `${reason.slice(0, LONGEST_REASON)}…` : reason;
  const counts = [passed, failed, skipped].map(String);
  return [name, outcome.toUpperCase(), ...counts, `${(wallMs / 1000).toFixed(1)} s`, short];
}

/** The score board: tests by group, and the sums. */
export function scoreBoard(tests: readonly KutResult[]): string {
  const groups = new Map<string, KutResult[]>();
  for (const test of tests) {
    const group = test.groups[0] ?? "without a group";
    groups.set(group, [...groups.get(group) ?? [], test]);
  }
  const rows: string[][] = [[...HEADINGS]];
  for (const [group, members] of [...groups].sort(([a], [b]) => a < b ? -1 : 1)) {
    rows.push([`${group}:`]);
    for (const test of members) {
      rows.push(cells(test).map((cell, i) => i === 0 ? `  ${cell}` : cell));
    }
  }
  return `${table(rows)}\n${totals(tests)}\n`;
}

/** The sums in a line. */
export function totals(tests: readonly KutResult[]): string {
  const count = (outcome: KutOutcome): number =>
    tests.filter((test) => test.outcome === outcome).length;
  const sum = (field: "passed" | "failed" | "skipped"): number =>
    tests.reduce((total, test) => total + test[field], 0);
  return `${tests.length} tests: ${count("pass")} passed, ${count("fail")} failed, ` +
    `${count("skip")} skipped; subtests: ${sum("passed")} passed, ${sum("failed")} failed, ` +
    `${sum("skipped")} skipped`;
}
