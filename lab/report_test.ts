import { assert, assertEquals, assertRejects } from "@std/assert";
import { ArgumentError } from "../core/mod.ts";
import { findPatch, type Patch, PATCHES, patchVariants } from "../patches/mod.ts";
import {
  breaksGuest,
  formatMatrix,
  formatReport,
  formatSummary,
  type LabReport,
  runMatrix,
  runPatch,
} from "./mod.ts";

function patchOf(id: string): Patch {
  const patch = findPatch(id);
  assert(patch !== undefined, id);
  return patch;
}

/** Exits of one reason in each run of a scenario. */
function counts({ scenarios }: LabReport, scenario: string, reason: string): number[] {
  const found = scenarios.find(({ name }) => name === scenario);
  assert(found !== undefined, scenario);
  return found.runs.map((_, k) =>
    found.rows.filter((row) => row.reason === reason).reduce((sum, row) => sum + row.counts[k]!, 0)
  );
}

/** What the guest `svm` is told in the scenarios below. */
const [ROUNDS, TOGGLES] = [100, 2];
/** How often it tries each instruction with EFER.SVME clear: first, and behind each toggle. */
const TRIES = 1 + TOGGLES;

Deno.test("a report is the same each time, and the same as JSON", async () => {
  const patch = patchOf("svme-intercepts");
  const [first, second] = [await runPatch(patch), await runPatch(patch)];
  assertEquals(JSON.stringify(first), JSON.stringify(second));
  assertEquals(JSON.parse(JSON.stringify(first)), first);
  assertEquals(formatReport(first, { rips: true }), formatReport(second, { rips: true }));
});

/**
 * Exits of VMLOAD, VMSAVE, STGI and CLGI that follow from the decision table: each instruction is tried
 * with EFER.SVME clear {@linkcode TRIES} times and executed with it set ROUNDS times a toggle; the guest
 * executes one VMSAVE and one VMLOAD more for SYSENTER. The processor has virtual VMLOAD and GIF.
 */
const SVME_EXITS: Readonly<Record<string, Readonly<Record<string, readonly number[]>>>> = {
  // In the order of the variants: before, after, v3, v4.
  amd: {
    VMLOAD: [0, TRIES, TRIES, TRIES],
    VMSAVE: [0, TRIES, TRIES, TRIES],
    STGI: [0, TRIES, TRIES, TRIES],
    CLGI: [0, TRIES, TRIES, TRIES],
  },
  "intel-compatible": {
    VMLOAD: Array(4).fill(TRIES + ROUNDS * TOGGLES + 1),
    VMSAVE: Array(4).fill(TRIES + ROUNDS * TOGGLES + 1),
    // An STGI that exits takes its own intercept away, until EFER.SVME toggles again.
    STGI: [0, TRIES, TRIES + TOGGLES, TRIES + TOGGLES],
    CLGI: [0, TRIES, TRIES + ROUNDS * TOGGLES, TRIES + ROUNDS * TOGGLES],
  },
};

Deno.test("svme-intercepts: exits are what the decision table says", async () => {
  const report = await runPatch(patchOf("svme-intercepts"));
  for (const [scenario, reasons] of Object.entries(SVME_EXITS)) {
    for (const [reason, wanted] of Object.entries(reasons)) {
      assertEquals(counts(report, scenario, reason), wanted, `${scenario}: ${reason}`);
    }
  }
  // Version 4 is version 3 with other first intercepts, which nothing ever sees.
  for (const { rows, differences } of report.scenarios) {
    for (const { counts } of rows) assertEquals(counts[2], counts[3]);
    assertEquals(differences[1], differences[2]);
  }
  const executed = (scenario: number) => report.scenarios[scenario]!.differences[0]!.differingLines;
  // All four are executed before, but for VMLOAD and VMSAVE of the Intel-compatible guest.
  assertEquals([executed(0), executed(1)], [4 * TRIES, 2 * TRIES]);
});

Deno.test("svme-intercepts: without virtual VMLOAD and GIF nothing changes", async () => {
  const patch = patchOf("svme-intercepts");
  const scenarios = patch.scenarios.map((scenario) => ({
    ...scenario,
    cpu: { features: { vgif: false, v_vmsave_vmload: false } },
  }));
  const report = await runPatch({ ...patch, scenarios });
  for (const { rows, differences, runs } of report.scenarios) {
    for (const { counts } of rows) assertEquals(new Set(counts).size, 1);
    for (const { sameOutput, state } of differences) {
      assertEquals([sameOutput, state.pages, state.registers.length], [true, 0, 0]);
    }
    assert(runs[0]!.console.includes("svme=0 vmload: vector 6"));
  }
});

Deno.test("invlpga-ud: as many exits, and #UD in place of what was executed", async () => {
  const report = await runPatch(patchOf("invlpga-ud"));
  const all = TRIES + ROUNDS * TOGGLES;
  assertEquals(counts(report, "amd", "INVLPGA"), [all, all]);
  const [difference] = report.scenarios[0]!.differences;
  assert(difference !== undefined);
  assertEquals(difference.sameOutput, false);
  assertEquals(difference.differingLines, TRIES);
  assertEquals(
    difference.lines,
    Array(TRIES).fill(["svme=0 invlpga: executed", "svme=0 invlpga: vector 6"]),
  );
  // That is what it is for.
  assertEquals(breaksGuest(report.scenarios[0]!), false);
});

Deno.test("the sums of the rows are the exits", async () => {
  for (const patch of PATCHES) {
    const { scenarios } = await runPatch(patch);
    for (const { runs, rows } of scenarios) {
      runs.forEach(({ exits, timeline }, k) => {
        assertEquals(rows.reduce((sum, row) => sum + row.counts[k]!, 0), exits);
        const recorded = timeline.lanes.flatMap((lane) => lane.counts);
        assertEquals(recorded.reduce((sum, count) => sum + count, 0), exits);
      });
    }
  }
});

Deno.test("a difference that must not be is said", async () => {
  const patch = patchOf("invlpga-ud");
  const [scenario] = patch.scenarios;
  const strict: Patch = { ...patch, scenarios: [{ ...scenario!, sameForGuest: true }] };
  const report = await runPatch(strict);
  assertEquals(breaksGuest(report.scenarios[0]!), true);
  assert(formatReport(report).includes("MUST NOT SEE"));
  assert(formatSummary([report]).includes("A WRONG DIFFERENCE"));
});

Deno.test("a matrix runs every combination, and a lone column is the patch alone", async () => {
  const patches = [patchOf("invlpga-ud"), patchOf("svme-intercepts")];
  const matrix = await runMatrix(patches);
  assertEquals(
    matrix.runs.map(({ variants }) => variants.join()),
    ["before,before", "before,after", "after,before", "after,after"],
  );
  assertEquals(matrix.runs[0]!.sameOutput, true);
  assertEquals(matrix.runs[2]!.sameOutput, false);
  assert(formatMatrix(matrix).includes("after"));
  await assertRejects(() => runMatrix([]), ArgumentError, "at least one");
  await assertRejects(() => runMatrix(Array(9).fill(patches[0])), ArgumentError, "512");
});

Deno.test("options take the place of what a scenario says", async () => {
  const options = { cpus: 3, processors: 2 };
  const { scenarios } = await runPatch(patchOf("invlpga-ud"), options);
  assertEquals([scenarios[0]!.vcpus, scenarios[0]!.processors], [3, 2]);
});

Deno.test("patches are told apart, and so are their variants and scenarios", () => {
  assertEquals(new Set(PATCHES.map(({ id }) => id)).size, PATCHES.length);
  for (const patch of PATCHES) {
    const variants = patchVariants(patch);
    const names = variants.map(({ name }) => name);
    assertEquals(names.slice(0, 2), ["before", "after"]);
    assertEquals(new Set(names).size, names.length);
    assertEquals(new Set(variants.map(({ plugin }) => plugin().name)).size, 1, patch.id);
    const scenarios = patch.scenarios.map(({ name }) => name);
    assertEquals(new Set(scenarios).size, scenarios.length);
    assert(scenarios.length > 0);
    assert(/^\d{4}-\d\d-\d\d$/.test(patch.posted.date), patch.id);
    assert(/^[a-z0-9-]+$/.test(patch.id), patch.id);
  }
});
