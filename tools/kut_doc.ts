/**
 * Writes `docs/kvm-unit-tests.md` from what `trapline kut --update` has written into
 * `docs/kvm-unit-tests/`, beside the scores of other emulators.
 *
 *     deno task docs:kut             # writes the page
 *     deno task docs:kut --check     # fails if the page is not current
 *
 * `reasons.json` says of each subtest that does not pass why, and `others.json` what other emulators
 * score. A subtest that nobody has explained, and a reason that explains none, are errors.
 *
 * @module
 */

import type { KutRecord, KutResult } from "../cli/mod.ts";
import { totals } from "../cli/kut_score.ts";

const FOLDER = new URL("../docs/kvm-unit-tests/", import.meta.url);
const PAGE = new URL("../docs/kvm-unit-tests.md", import.meta.url);

/** Why some subtests do not pass. In names, `*` stands for any text. */
export interface Reason {
  /** Names of the tests. */
  readonly tests: readonly string[];
  /** The subtest, or what is said of the whole test; all of them if not given. */
  readonly subtest?: string;
  /** Names of the records it is about, without `.json`; all if not given. */
  readonly records?: readonly string[];
  /** The reason, in words. */
  readonly reason: string;
}

/** Scores of other emulators. */
export interface Others {
  /** The emulators. */
  readonly emulators: readonly string[];
  /** By test: a score for each, as subtests passed/failed/skipped or a word; empty where not measured. */
  readonly scores: Readonly<Record<string, readonly string[]>>;
}

/** A record with its file's name, without `.json`. */
export interface NamedRecord {
  /** The name. */
  readonly name: string;
  /** What is in it. */
  readonly record: KutRecord;
}

/** What the page is made of. */
export interface PageSources {
  /** The records, in the order of the columns. */
  readonly records: readonly NamedRecord[];
  /** Why subtests do not pass. */
  readonly reasons: readonly Reason[];
  /** Other emulators. */
  readonly others: Others;
}

/** Something that did not pass. */
interface Miss {
  readonly test: string;
  readonly outcome: "fail" | "skip";
  /** The subtest's name, or what the record says of the whole test. */
  readonly what: string;
}

function matches(pattern: string, text: string): boolean {
  const parts = pattern.split("*").map((part) => part.replaceAll(/[.+?^${}()|[\]\\]/g, "\\$&"));
  return new RegExp(`^${parts.join(".*")}$`).test(text);
}

/** What of a test did not pass: its subtests, or all of it where none is to blame. */
export function misses(test: KutResult): Miss[] {
  const { name, outcome, failures, skips, reason } = test;
  const found: Miss[] = [
    ...failures.map((what) => ({ test: name, outcome: "fail", what } as const)),
    ...skips.map((what) => ({ test: name, outcome: "skip", what } as const)),
  ];
  const blamed = failures.includes(reason) || skips.some((what) => reason === `SKIP: ${what}`);
  if (outcome !== "pass" && reason !== "" && !blamed) {
    found.push({ test: name, outcome, what: reason });
  }
  return found;
}

/** Tests that have the same thing to say about them, under one reason. */
interface Row {
  readonly reason: string;
  readonly outcome: "fail" | "skip";
  readonly whats: Map<string, Set<string>>;
}

/**
 * What did not pass in a record, by reason.
 *
 * @param used Takes the reasons that explain something.
 * @throws {Error} If something has no reason.
 */
export function explain(
  { name, record }: NamedRecord,
  reasons: readonly Reason[],
  used: Set<Reason>,
): Row[] {
  const rows = new Map<string, Row>();
  for (const miss of record.tests.flatMap(misses)) {
    const found = reasons.find(({ tests, subtest = "*", records = ["*"] }) =>
      tests.some((pattern) => matches(pattern, miss.test)) && matches(subtest, miss.what) &&
      records.some((pattern) => matches(pattern, name))
    );
    if (found === undefined) {
      throw new Error(
        `${name}: no reason is given why "${miss.what}" of ${miss.test} does not pass`,
      );
    }
    used.add(found);
    const key = `${miss.outcome} ${found.reason}`;
    const row = rows.get(key) ??
      { reason: found.reason, outcome: miss.outcome, whats: new Map<string, Set<string>>() };
    rows.set(key, row);
    const whats = row.whats.get(miss.test) ?? new Set();
    row.whats.set(miss.test, whats.add(miss.what));
  }
  return [...rows.values()];
}

/** A cell that may hold any text. */
function cell(text: string): string {
  return text.replaceAll("|", "\\|").replaceAll("<", "&lt;").replaceAll("\n", " ");
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  return [head, head.map(() => "---"), ...rows]
    .map((row) => `| ${row.join(" | ")} |`).join("\n");
}

/** A score as other emulators' are written. */
export function score(test: KutResult | undefined): string {
  if (test === undefined) return "";
  const { outcome, passed, failed, skipped } = test;
  const counts = passed + failed + skipped === 0
    ? ""
    : skipped > 0
    ? `${passed}/${failed}/${skipped}`
    : failed > 0
    ? `${passed}/${failed}`
    : `${passed}`;
  if (outcome === "pass") return counts === "" ? "pass" : counts;
  if (outcome === "skip") return "skip";
  return failed > 0 ? `**${counts}**` : `**fails** ${counts}`.trimEnd();
}

/** At most so many names stand in a row. */
const MOST_NAMES = 6;

function reasonRows(rows: readonly Row[]): string[][] {
  return rows.map(({ reason, outcome, whats }) => {
    const texts = [...whats].map(([test, names]) => {
      const listed = [...names].slice(0, MOST_NAMES).map((name) => `“${cell(name)}”`);
      const more = names.size - listed.length;
      return `\`${test}\`: ${listed.join(", ")}${more > 0 ? ` and ${more} more` : ""}`;
    });
    return [outcome, texts.join("<br>"), cell(reason)];
  });
}

/** What the runs of a record were like. */
function title({ vendor, cpu, acceleration, arch }: KutRecord): string {
  const parts = [
    vendor === "metal" ? "the bare processor" : `under ${vendor}`,
    ...(vendor === "metal"
      ? []
      : [acceleration.length === 0 ? "no acceleration" : acceleration.join(", ")]),
    ...(cpu === null ? [] : [`--cpu ${cpu}`]),
    arch,
  ];
  return parts.join(", ");
}

/** The command whose results a record has. */
function command(name: string, { vendor, cpu, acceleration, arch }: KutRecord): string {
  const knobs = vendor === "svm" ? ["avic"] : vendor === "vmx" ? ["apicv", "ipiv"] : [];
  const off = knobs.filter((knob) => !acceleration.includes(knob)).map((knob) => ` --${knob} off`);
  return `deno task trapline kut ${arch === "i386" ? "TREE32" : "TREE"} --vendor ${vendor}` +
    `${cpu === null ? "" : ` --cpu ${cpu}`}${off.join("")} --timeout 1200 ` +
    `--update docs/kvm-unit-tests/${name}.json`;
}

/**
 * The page.
 *
 * @throws {Error} If something that does not pass has no reason, or a reason is of no use.
 */
export function renderPage({ records, reasons, others }: PageSources): string {
  const used = new Set<Reason>();
  const explained = records.map((named) => ({ ...named, rows: explain(named, reasons, used) }));
  const idle = reasons.find((reason) => !used.has(reason));
  if (idle !== undefined) {
    throw new Error(`a reason explains nothing: ${idle.tests.join(", ")}: ${idle.reason}`);
  }
  const names = [
    ...new Set([
      ...records.flatMap(({ record }) => record.tests.map(({ name }) => name)),
      ...Object.keys(others.scores),
    ]),
  ];
  const scores = names.map((name) => [
    `\`${name}\``,
    ...records.map(({ record }) => score(record.tests.find((test) => test.name === name))),
    ...others.emulators.map((_, i) => others.scores[name]?.[i] ?? ""),
  ]);
  return `<!-- Written by tools/kut_doc.ts from docs/kvm-unit-tests/. Do not edit. -->

# kvm-unit-tests

How the tests of [kvm-unit-tests](https://gitlab.com/kvm-unit-tests/kvm-unit-tests) come out here, at
commit 1da1819e49fc, built for x86_64 and for i386. Each column is a record in
\`docs/kvm-unit-tests/\`, which \`trapline kut --update\` writes and \`--baseline\` compares with:

\`\`\`sh
${records.map(({ name, record }) => command(name, record)).join("\n")}
deno task docs:kut
\`\`\`

${
    table(
      ["record", "runs", "outcome"],
      records.map(({ name, record }) => [`\`${name}\``, title(record), totals(record.tests)]),
    )
  }

## Scores

Subtests passed, or passed/failed, or passed/failed/skipped; “pass” where a test has no subtests,
“skip” where all of it is skipped. The last columns are other emulators with the same images, a test
for 60 to 90 s; Bochs with images that were changed so that they start on it, and with one
processor. What is empty was not measured, and “–” does not run. The tests of svm and vmx are
hypervisors themselves, and run on the bare processor: \`metal\` gives each test a processor of the maker that it asks
for.

${table(["test", ...records.map(({ name }) => name), ...others.emulators], scores)}

## What the list leaves out

\`vmx\` runs all of the image's tests that no other entry runs, but for four. \`nmi_hlt\` and
\`vmx_apic_passthrough_test\` need two processors, and pass with two; \`exit_monitor_from_l2_test\`, which ends the machine from inside of a guest, passes.
\`atomic_switch_overflow_msrs_test\` provokes the failed VM entry for which the suite's own code to enter a guest
aborts on any processor: it knows of failures by the guest's state, not by the loading of MSRs.

\`svm_exception_test\` passes in its place in \`svm\` and aborts by itself, on any processor: the exit of a guest's
intercepted single-step trap leaves RFLAGS.TF in what the suite loads for the next guest, and the handlers that
clear it are left behind by earlier tests.

## What does not pass

${
    explained.map(({ name, record, rows }) =>
      `### ${name}: ${title(record)}\n\n${
        rows.length === 0
          ? "Everything passes."
          : table(["outcome", "subtests", "reason"], reasonRows(rows))
      }\n`
    ).join("\n")
  }`;
}

async function readJson<T>(name: string): Promise<T> {
  return JSON.parse(await Deno.readTextFile(new URL(name, FOLDER))) as T;
}

/** Columns in this order; others behind them by name. */
const ORDER = [
  "metal",
  "metal-intel",
  "metal-i386",
  "svm",
  "svm-plain",
  "vmx",
  "vmx-plain",
];

/** Reads what the page is made of. */
export async function readSources(): Promise<PageSources> {
  const names: string[] = [];
  for await (const { name } of Deno.readDir(FOLDER)) {
    const [, record] = /^(.+)\.json$/.exec(name) ?? [];
    if (record !== undefined && record !== "reasons" && record !== "others") names.push(record);
  }
  const place = (name: string): number =>
    (ORDER.indexOf(name) + ORDER.length + 1) % (ORDER.length + 1);
  names.sort((a, b) => place(a) - place(b) || (a < b ? -1 : 1));
  return {
    records: await Promise.all(
      names.map(async (name) => ({ name, record: await readJson<KutRecord>(`${name}.json`) })),
    ),
    reasons: await readJson<Reason[]>("reasons.json"),
    others: await readJson<Others>("others.json"),
  };
}

/** The page as it ought to be. */
export async function renderKutPage(): Promise<string> {
  const process = new Deno.Command(Deno.execPath(), {
    args: ["fmt", "--ext", "md", "--line-width", "100", "-"],
    stdin: "piped",
    stdout: "piped",
  }).spawn();
  const writer = process.stdin.getWriter();
  await writer.write(new TextEncoder().encode(renderPage(await readSources())));
  await writer.close();
  return new TextDecoder().decode((await process.output()).stdout);
}

/** The page as it is; empty if there is none. */
export async function readKutPage(): Promise<string> {
  try {
    return await Deno.readTextFile(PAGE);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return "";
    throw error;
  }
}

if (import.meta.main) {
  const page = await renderKutPage();
  if (!Deno.args.includes("--check")) {
    await Deno.writeTextFile(PAGE, page);
  } else if (page !== await readKutPage()) {
    console.error("docs/kvm-unit-tests.md is not current: run deno task docs:kut");
    Deno.exit(1);
  }
}
