import { assertEquals } from "@std/assert";
import type { ReasonCount, TargetCount } from "../plugins/profile/mod.ts";
import { differs, exitRows } from "./rows.ts";

type Target = readonly [text: string, count: number, rips?: readonly (readonly [string, number])[]];

/** Counts with nothing in them but what rows are made of. */
function countsOf(reasons: Readonly<Record<string, readonly Target[]>>): ReasonCount[] {
  return Object.entries(reasons).map(([reason, targets]) => ({
    reason,
    count: targets.reduce((sum, [, count]) => sum + count, 0),
    share: 0,
    vcpus: [],
    targets: targets.map(([text, count, rips = []]): TargetCount => ({
      kind: "none",
      value: 0,
      text,
      count,
      share: 0,
      rips: rips.map(([rip, count]) => ({ rip, count })),
      otherRips: 0,
    })),
  }));
}

Deno.test("what one run has and another has not is counted as 0 there", () => {
  const rows = exitRows([
    countsOf({ HLT: [["", 3]], WRMSR: [["MSR 80fh", 2, [["0x10", 2]]]] }),
    countsOf({ HLT: [["", 3]], WRMSR: [["MSR 83fh", 9, [["0x20", 4], ["0x8", 5]]]] }),
  ]);
  assertEquals(
    rows.map(({ reason, target, counts }) => [reason, target, ...counts]),
    [["WRMSR", "MSR 83fh", 0, 9], ["WRMSR", "MSR 80fh", 2, 0], ["HLT", "", 3, 3]],
  );
  assertEquals(rows.map((row) => differs(row)), [true, true, false]);
  assertEquals(rows[0]!.rips, [{ rip: "0x8", place: "", counts: [0, 5] }, {
    rip: "0x20",
    place: "",
    counts: [0, 4],
  }]);
  assertEquals(rows[1]!.rips, [{ rip: "0x10", place: "", counts: [2, 0] }]);
});

Deno.test("the order is the same whatever the order of the exits", () => {
  const a = countsOf({ B: [["y", 1], ["x", 1]], A: [["", 2]] });
  const b = countsOf({ A: [["", 2]], B: [["x", 1], ["y", 1]] });
  assertEquals(exitRows([a, b]), exitRows([b, a]));
  assertEquals(exitRows([a]).map(({ reason, target }) => reason + target), ["A", "Bx", "By"]);
});
