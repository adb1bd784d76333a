import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import type { KutRecord, KutResult } from "../cli/mod.ts";
import {
  misses,
  type PageSources,
  readKutPage,
  type Reason,
  renderKutPage,
  renderPage,
  score,
} from "./kut_doc.ts";

Deno.test("docs/kvm-unit-tests.md is current, and everything that does not pass has a reason", async () => {
  assertEquals(await readKutPage(), await renderKutPage(), "run deno task docs:kut");
});

const RESULT: KutResult = {
  name: "apic",
  groups: [],
  outcome: "pass",
  passed: 3,
  failed: 0,
  skipped: 0,
  failures: [],
  skips: [],
  reason: "",
  instructions: 1,
  wallMs: 1,
};
const FAILED: KutResult = {
  ...RESULT,
  outcome: "fail",
  failed: 1,
  failures: ["timer: late"],
  skipped: 1,
  skips: ["no HPET"],
  reason: "timer: late",
};

Deno.test("what of a test did not pass: subtests, or all of it", () => {
  assertEquals(misses(RESULT), []);
  assertEquals(misses(FAILED).map(({ outcome, what }) => [outcome, what]), [
    ["fail", "timer: late"],
    ["skip", "no HPET"],
  ]);
  const late = { ...FAILED, reason: "timed out after 90 s" };
  assertEquals(misses(late).at(-1), { test: "apic", outcome: "fail", what: late.reason });
  const skipped = { ...RESULT, outcome: "skip", skips: ["TSX"], reason: "SKIP: TSX" } as const;
  assertEquals(misses(skipped), [{ test: "apic", outcome: "skip", what: "TSX" }]);
});

Deno.test("a score in a cell", () => {
  const none = { ...RESULT, passed: 0 };
  assertEquals(score(undefined), "");
  assertEquals(score(RESULT), "3");
  assertEquals(score(none), "pass");
  assertEquals(score({ ...RESULT, skipped: 2 }), "3/0/2");
  assertEquals(score(FAILED), "**3/1/1**");
  assertEquals(score({ ...RESULT, outcome: "fail", reason: "it hangs" }), "**fails** 3");
  assertEquals(score({ ...none, outcome: "skip" }), "skip");
});

function sources(reasons: readonly Reason[]): PageSources {
  const record: KutRecord = {
    schema: "trapline-kut",
    version: 2,
    vendor: "svm",
    cpu: null,
    acceleration: [],
    arch: "x86_64",
    tests: [FAILED, { ...RESULT, name: "idt" }],
  };
  const others = { emulators: ["QEMU"], scores: { idt: ["2/1"] } };
  return { records: [{ name: "svm", record }], reasons, others };
}

Deno.test("the page has every score, and what does not pass with its reason", () => {
  const page = renderPage(sources([
    { tests: ["a*"], subtest: "timer*", records: ["svm"], reason: "The clock is slow." },
    { tests: ["apic"], reason: "There is none." },
  ]));
  assertStringIncludes(page, "| `apic` | **3/1/1** |  |\n| `idt` | 3 | 2/1 |");
  assertStringIncludes(page, "| fail | `apic`: “timer: late” | The clock is slow. |");
  assertStringIncludes(page, "| skip | `apic`: “no HPET” | There is none. |");
  assertStringIncludes(page, "kut TREE --vendor svm --avic off");
});

Deno.test("what has no reason, and reasons for nothing, are errors", () => {
  assertThrows(
    () => renderPage(sources([{ tests: ["apic"], subtest: "timer*", reason: "x" }])),
    Error,
    'no reason is given why "no HPET" of apic does not pass',
  );
  const all = { tests: ["apic"], reason: "x" };
  assertThrows(
    () => renderPage(sources([all, { tests: ["idt"], reason: "y" }])),
    Error,
    "a reason explains nothing: idt: y",
  );
});
