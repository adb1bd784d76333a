import { assert, assertEquals, assertRejects } from "@std/assert";
import { ArgumentError } from "../core/mod.ts";
import { findPatch, type Patch, PATCHES, patchVariants } from "../patches/mod.ts";
import {
  breaksGuest,
  formatMatrix,
  formatReport,
  formatSummary,
  runMatrix,
  runPatch,
} from "./mod.ts";

function patchOf(id: string): Patch {
  const patch = findPatch(id);
  assert(patch !== undefined, id);
  return patch;
}

Deno.test("a report is the same each time, and the same as JSON", async () => {
  const patch = patchOf("svme-intercepts");
  const [first, second] = [await runPatch(patch), await runPatch(patch)];
  assertEquals(JSON.stringify(first), JSON.stringify(second));
  assertEquals(JSON.parse(JSON.stringify(first)), first);
  assertEquals(formatReport(first, { rips: true }), formatReport(second, { rips: true }));
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
    assert(/^\d{4}(-\d\d){0,2}$/.test(patch.posted.date), patch.id);
    assert(/^[a-z0-9-]+$/.test(patch.id), patch.id);
  }
});
