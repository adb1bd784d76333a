import { assertEquals, assertStringIncludes } from "@std/assert";
import {
  countSubtests,
  judge,
  type KutRecord,
  type KutResult,
  regressions,
  scoreBoard,
  updated,
} from "./kut_score.ts";

const OUTPUT =
  "enabling apic\r\nPASS: one\r\nFAIL: two: three\nSKIP: four\nXFAIL: five\n PASS: no\n";

Deno.test("subtests are counted; an expected failure is none", () => {
  assertEquals(countSubtests(OUTPUT), { passed: 1, failures: ["two: three"], skips: ["four"] });
});

Deno.test("what passes though KVM fails it has passed", () => {
  const summary = "SUMMARY: 45 tests, 2 unexpected failures, 1 skipped\n";
  const output = `PASS: a\r\nXPASS: b\r\nXPASS: c\r\n${summary}`;
  const end = { reason: "exit-code", code: 3 } as const;
  assertEquals(countSubtests(output), { passed: 3, failures: [], skips: [] });
  assertEquals(judge(end, output, undefined), { outcome: "pass", reason: "" });
  assertEquals(judge(end, `FAIL: d\n${output}`, undefined), { outcome: "fail", reason: "d" });
  // A failure that no line told of.
  const silent = output.replace("2 unexpected", "3 unexpected");
  assertEquals(judge(end, silent, undefined), { outcome: "fail", reason: "" });
});

Deno.test("how a test came out", () => {
  const code = (code: number) => ({ reason: "exit-code", code } as const);
  assertEquals(judge(code(1), "PASS: a\n", undefined), { outcome: "pass", reason: "" });
  assertEquals(judge(code(1), OUTPUT, undefined), { outcome: "fail", reason: "" });
  assertEquals(judge(code(3), OUTPUT, undefined), { outcome: "fail", reason: "two: three" });
  assertEquals(judge(code(77), "SKIP: no such unit\n", undefined), {
    outcome: "skip",
    reason: "SKIP: no such unit",
  });
  assertEquals(judge(code(127), "PASS: a\nUnhandled exception 6 #UD\nSTACK: @1\n", undefined), {
    outcome: "fail",
    reason: "aborted: Unhandled exception 6 #UD",
  });
  assertEquals(judge(code(9), "", undefined).reason, "ended with code 9");
  assertEquals(judge({ reason: "reset" }, "PASS: a\n", undefined), {
    outcome: "fail",
    reason: "the guest asked for a reset",
  });
  const stopped = { reason: "stopped", detail: "" } as const;
  assertEquals(judge(stopped, "", 90), { outcome: "fail", reason: "timed out after 90 s" });
});

const RESULT: KutResult = {
  name: "apic",
  groups: ["irq"],
  outcome: "pass",
  passed: 3,
  failed: 0,
  skipped: 0,
  failures: [],
  skips: [],
  reason: "",
  instructions: 1,
  wallMs: 1234,
};

Deno.test("what is worse than in the baseline", () => {
  const baseline = (...tests: KutResult[]): KutRecord => ({
    schema: "trapline-kut",
    version: 2,
    vendor: "metal",
    cpu: null,
    acceleration: [],
    arch: "x86_64",
    tests,
  });
  const worse = (old: Partial<KutResult>, now: Partial<KutResult>): string[] =>
    regressions(baseline({ ...RESULT, ...old }), [{ ...RESULT, ...now }]);
  assertEquals(worse({}, {}), []);
  assertEquals(worse({}, { outcome: "fail", reason: "it hangs" }), [
    "apic: passed, now fail (it hangs)",
  ]);
  assertEquals(worse({}, { outcome: "skip" }), ["apic: passed, now skip"]);
  assertEquals(worse({ outcome: "skip" }, { outcome: "fail", reason: "x" }), [
    "apic: was skipped, now fails (x)",
  ]);
  assertEquals(worse({}, { passed: 2 }), ["apic: 3 subtests passed, now 2"]);
  assertEquals(worse({}, { passed: 4 }), []);
  const failed = { outcome: "fail", failed: 1, failures: ["a"] } as const;
  assertEquals(worse(failed, failed), []);
  assertEquals(worse(failed, { ...failed, failed: 2, failures: ["a", "b"] }), [
    "apic: fails now: b",
  ]);
  assertEquals(worse(failed, {}), []);
  assertEquals(regressions(baseline(), [{ ...RESULT, outcome: "fail" }]), [], "a new test");
});

Deno.test("the score board has the tests by group, and the sums", () => {
  const board = scoreBoard([
    RESULT,
    { ...RESULT, name: "other", groups: [], outcome: "skip", reason: "no such unit" },
    { ...RESULT, name: "x2apic", outcome: "fail", failed: 12, failures: ["a"], reason: "a" },
  ]);
  assertEquals(board.split("\n").map((line) => line.trimEnd()), [
    "test              result  passed  failed  skipped   time  reason",
    "irq:",
    "  apic            PASS         3       0        0  1.2 s",
    "  x2apic          FAIL         3      12        0  1.2 s  a",
    "without a group:",
    "  other           SKIP         3       0        0  1.2 s  no such unit",
    "",
    "3 tests: 1 passed, 1 failed, 1 skipped; subtests: 9 passed, 12 failed, 0 skipped",
    "",
  ]);
  assertStringIncludes(scoreBoard([{ ...RESULT, reason: "x".repeat(200) }]), "x…\n");
});

Deno.test("results of some tests take the places of those that a record has of them", () => {
  const test = (name: string, passed: number): KutResult => ({ ...RESULT, name, passed });
  const old = [test("b", 1), test("gone", 1), test("c", 1)];
  const fresh = [test("a", 2), test("c", 2)];
  assertEquals(updated(old, fresh, ["a", "b", "c", "d"]), [
    test("a", 2),
    test("b", 1),
    test("c", 2),
  ]);
});
