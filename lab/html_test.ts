import { assert, assertEquals } from "@std/assert";
import { findPatch, PATCHES } from "../patches/mod.ts";
import { labHtml } from "./html.ts";
import { type LabReport, runPatch } from "./report.ts";

const reports: readonly LabReport[] = await Promise.all(
  PATCHES.slice(0, 2).map((patch) => runPatch(patch)),
);

Deno.test("the page needs nothing but itself, and is the same each time", async () => {
  const page = labHtml(reports);
  assertEquals(/<(?:script|link|img|iframe)\b|\bsrc=|@import|url\(/i.test(page), false);
  for (const { patch } of reports) assert(page.includes(`id="${patch.id}"`));
  const again = await runPatch(findPatch(reports[0]!.patch.id)!);
  assertEquals(labHtml([again]), labHtml([reports[0]!]));
});

Deno.test("what a guest prints cannot become part of the page", async () => {
  const [patch] = PATCHES;
  const report = await runPatch(patch!);
  const evil = "<script>alert(1)</script>";
  const scenarios = report.scenarios.map((scenario) => ({
    ...scenario,
    runs: scenario.runs.map((run) => ({ ...run, console: evil })),
  }));
  const page = labHtml([{ ...report, scenarios }]);
  assertEquals(page.includes(evil), false);
  assert(page.includes("&lt;script&gt;alert(1)"));
});

/** Looked at by a browser: what sticks out, and how large the charts are. */
const PROBE = `<script>
addEventListener("load", () => {
  const problems = [];
  const wide = document.documentElement.scrollWidth;
  if (wide > innerWidth) problems.push("the page is " + wide + " wide, the window " + innerWidth);
  const charts = [...document.querySelectorAll("svg[role=img]")];
  for (const chart of charts) {
    const frame = chart.getBoundingClientRect();
    if (frame.width < 300 || frame.height < 20) problems.push("a chart of " + frame.width);
    for (const part of chart.querySelectorAll("text, rect, path")) {
      const box = part.getBoundingClientRect();
      if (box.left < frame.left - 1 || box.right > frame.right + 1 ||
          box.top < frame.top - 1 || box.bottom > frame.bottom + 1) {
        problems.push(part.outerHTML.slice(0, 200) + " is outside its chart");
      }
    }
    const labels = [...chart.querySelectorAll("text.name")].map((text) => text.getBoundingClientRect());
    labels.forEach((a, k) => labels.slice(k + 1).forEach((b) => {
      if (a.top < b.bottom - 2 && b.top < a.bottom - 2) problems.push("two labels overlap");
    }));
  }
  document.title = JSON.stringify({ charts: charts.length, problems });
});
</script>`;

async function findBrowser(): Promise<string | undefined> {
  for (const name of ["chromium", "chromium-browser", "google-chrome"]) {
    try {
      const { success } = await new Deno.Command(name, { args: ["--version"] }).output();
      if (success) return name;
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }
  return undefined;
}

Deno.test("a browser, where there is one, shows every chart whole, in a wide and a narrow window", async () => {
  const browser = await findBrowser();
  if (browser === undefined) {
    console.log("notice: no chromium here; the page was not looked at");
    return;
  }
  const folder = await Deno.makeTempDir();
  try {
    await Deno.writeTextFile(`${folder}/lab.html`, labHtml(reports) + PROBE);
    const scenarios = reports.reduce((sum, { scenarios }) => sum + scenarios.length, 0);
    for (const width of [1400, 700]) {
      const { stdout } = await new Deno.Command(browser, {
        args: [
          ...["--headless", "--no-sandbox", "--disable-gpu", `--user-data-dir=${folder}/profile`],
          ...[`--window-size=${width},1000`, "--virtual-time-budget=5000", "--dump-dom"],
          `file://${folder}/lab.html`,
        ],
        stderr: "null",
      }).output();
      const [, title] = /<title>(.*?)<\/title>/.exec(new TextDecoder().decode(stdout)) ?? [];
      const found = JSON.parse((title ?? "{}").replaceAll("&lt;", "<").replaceAll("&gt;", ">"));
      assertEquals(found.problems, [], `${width} wide`);
      // A timeline for each scenario, and bars where anything differs.
      assert(found.charts > scenarios && found.charts <= 2 * scenarios, `${found.charts} charts`);
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
