import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { chart } from "./chart.ts";
import { page, ratio, record, type Results, type Row } from "./results.ts";

const row = (program: string, bits: 32 | 64, ns: Record<string, number>): Row => ({
  ...{ group: "memory and REP strings", program, bits, date: "2026-01-31", commit: "abc1234" },
  ns,
  failed: {},
});

const results = (): Results => ({
  machine: "a machine",
  peers: { Trapline: "1", "QEMU TCG": "7", v86: "missing (npm)" },
  rows: [
    row("copy", 64, { Trapline: 100, "QEMU TCG": 400 }),
    row("pages", 64, { Trapline: 100, "QEMU TCG": 100 }),
    row("search", 64, { Trapline: 2e7 }),
  ],
});

Deno.test("ratios are geometric means over what both ran", () => {
  const { rows } = results();
  assertEquals(ratio(rows, "Trapline", "QEMU TCG")?.toFixed(6), "2.000000");
  assertEquals(ratio(rows, "QEMU TCG", "Trapline")?.toFixed(6), "0.500000");
  assertEquals(ratio(rows, "Trapline", "v86"), undefined);
});

Deno.test("a new row takes the place of the one with the same name and width", () => {
  const all = results();
  record(all, row("copy", 64, { Trapline: 1 }));
  record(all, row("copy", 32, { Trapline: 2 }));
  assertEquals(all.rows.map(({ program, bits, ns }) => [program, bits, ns["Trapline"]]), [
    ["pages", 64, 100],
    ["search", 64, 2e7],
    ["copy", 64, 1],
    ["copy", 32, 2],
  ]);
});

Deno.test("the page has a line for each program, a mean beside its target, and what was missing", () => {
  const text = page(results());
  assertStringIncludes(text, "| copy, 64-bit | 100 ns | 2026-01-31 abc1234 | 4.0 |");
  assertStringIncludes(text, "| search, 64-bit | 20.0 ms | 2026-01-31 abc1234 | – |");
  assertStringIncludes(text, "| **64-bit** |  |  | **2.0** (target 1) |");
  assertStringIncludes(text, "- v86: missing (npm)");
  assert(!text.includes("32-bit"));
});

Deno.test("the chart has a dot for each peer that was measured", () => {
  const text = chart(results());
  assertStringIncludes(text, "<title>Trapline: 2.00×</title>");
  assertStringIncludes(text, "<title>QEMU TCG: 1.00×</title>");
  assert(!text.includes("v86"));
});
