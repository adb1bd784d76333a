/**
 * Reports as a page: one file, with everything in it, that a browser shows without a network.
 *
 * @module
 */
import { barChart, escape, reasonColours, timelineChart } from "./charts.ts";
import { patchState } from "./format.ts";
import { STYLE } from "./page_style.ts";
import { breaksGuest, isRefused, type LabReport, type ScenarioReport } from "./report.ts";
import { differs, type ExitRow } from "./rows.ts";
import { grouped, percent, signed } from "./table.ts";

/** The page. It holds no date and no name of a machine: the same reports give the same page. */
export function labHtml(reports: readonly LabReport[]): string {
  return `<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Trapline lab</title>
<style>${STYLE}</style>
<main>
<h1>Trapline lab</h1>
<p class="dim">One guest with and without each patch, to the last exit. Counts are exact; cycles are a
model of what exits cost, and no measurement.</p>
${summary(reports)}
${reports.map(patchSection).join("\n")}
</main>
</html>
`;
}

function verdict(scenario: ScenarioReport): string {
  if (breaksGuest(scenario)) return '<span class="flag">a wrong difference</span>';
  return scenario.differences[0]!.sameOutput ? "the same" : "the repair";
}

function change(before: number, after: number): string {
  const kind = after > before ? "up" : after < before ? "down" : "dim";
  return `<span class="${kind}">${percent(before, after)}</span>`;
}

function summary(reports: readonly LabReport[]): string {
  const rows = reports.flatMap(({ patch, scenarios }) =>
    scenarios.map((scenario) => {
      const [before, after] = scenario.runs;
      return `<tr><td><a href="#${patch.id}">${patch.id}</a></td><td>${escape(scenario.name)}</td>
<td>${verdict(scenario)}</td>
<td class="number">${isRefused(before!) ? "no VM" : grouped(before!.exits)}</td>
<td class="number">${grouped(after!.exits)}</td>
<td class="number">${isRefused(before!) ? "–" : change(before!.exits, after!.exits)}</td>
<td class="number">${isRefused(before!) ? "–" : change(before!.cycles, after!.cycles)}</td></tr>`;
    })
  );
  return `<div class="scroll"><table><thead><tr><th>patch</th><th>scenario</th><th>the guest sees</th>
<th class="number">exits before</th><th class="number">after</th><th class="number">change</th>
<th class="number">cycles (model)</th></tr></thead><tbody>
${rows.join("\n")}
</tbody></table></div>`;
}

function patchSection({ patch, scenarios }: LabReport): string {
  return `<section id="${patch.id}">
<h2>${escape(patch.title)}</h2>
<p class="dim">${escape(patch.id)} · ${escape(patchState({ ...patch }))} · ${
    escape(patch.posted.where)
  }</p>
<p>${escape(patch.changes)}</p>
<p>${escape(patch.shows)}</p>
${scenarios.map(scenarioSection).join("\n")}
</section>`;
}

function scenarioSection(scenario: ScenarioReport): string {
  const { name, summary, guest, vcpus, processors, runs } = scenario;
  const missing = runs.map(isRefused);
  const words = `${vcpus} vCPU${vcpus === 1 ? "" : "s"} on ${processors} ` +
    `processor${processors === 1 ? "" : "s"}, guest ${guest.name} ${guest.commandLine}`;
  return `<h3>${escape(name)}: ${escape(summary)}</h3>
<p class="dim">${escape(words)}</p>
<ul class="legend">${
    runs.map(({ variant, summary }, k) =>
      `<li>${swatch(`class="run${k}"`)}<b>${escape(variant)}</b> ${escape(summary)}</li>`
    ).join("")
  }</ul>
<h4>Exits by reason</h4>
${
    scenario.rows.some((row) => differs(row, missing))
      ? barChart(scenario)
      : "<p>The same in all runs.</p>"
  }
<h4>Exits over VM time</h4>
<ul class="legend">${
    [...reasonColours(scenario)].map(([reason, colour]) =>
      `<li>${swatch(`fill="${colour}"`)}${escape(reason)}</li>`
    ).join("")
  }</ul>
${timelineChart(scenario, runs)}
<h4>Exits by target</h4>
${exitTable(scenario)}
<h4>What the guest saw</h4>
${guestView(scenario)}`;
}

function swatch(paint: string): string {
  return `<svg width="10" height="10" viewBox="0 0 10 10"><rect width="10" height="10" rx="2" ${paint}/></svg>`;
}

function exitTable(scenario: ScenarioReport): string {
  const { runs, rows } = scenario;
  const missing = runs.map(isRefused);
  const changed = (row: ExitRow): boolean => differs(row, missing);
  const cells = (counts: readonly number[]): string => {
    const [before = 0, after = 0] = counts;
    const kind = after > before ? "up" : after < before ? "down" : "dim";
    const cells = counts.map((count, k) => missing[k] ? "–" : grouped(count));
    const difference = missing[0] || missing[1]
      ? "–"
      : `<span class="${kind}">${signed(after - before)}</span>`;
    cells.splice(2, 0, difference);
    return cells.map((text) => `<td class="number">${text}</td>`).join("");
  };
  const line = (row: ExitRow): string =>
    `<tr${changed(row) ? "" : ' class="same"'}><td>${escape(row.reason)}</td><td>${
      escape(`${row.target} ${row.name}`.trim())
    }${places(row)}</td>${cells(row.counts)}</tr>`;
  const heads = runs.map(({ variant }) => variant);
  heads.splice(2, 0, "difference");
  const sum = (what: string, counts: readonly number[]): string =>
    `<tr class="sum"><td>${what}</td><td></td>${cells(counts)}</tr>`;
  const [shown, rest] = [rows.filter(changed), rows.filter((row) => !changed(row))];
  const table = (body: string): string =>
    `<div class="scroll"><table><thead><tr><th>exit</th><th>target</th>${
      heads.map((head) => `<th class="number">${escape(head)}</th>`).join("")
    }</tr></thead><tbody>${body}</tbody></table></div>`;
  const sums = sum("exits", runs.map(({ exits }) => exits)) +
    sum("cycles of exits (model)", runs.map(({ cycles }) => cycles)) +
    sum("instructions", runs.map(({ instructions }) => instructions));
  const same = rest.length === 0
    ? ""
    : `<details><summary>${rest.length} more, the same in all runs</summary>${
      table(rest.map(line).join("\n"))
    }</details>`;
  return table(shown.map(line).join("\n") + sums) + same;
}

/** Where in the guest the exits of a row came from. */
function places({ rips }: ExitRow): string {
  if (rips.length === 0) return "";
  const lines = rips.map(({ rip, place, counts }) =>
    `${`${rip.slice(2)}h ${place}`.trimEnd()}  ${counts.map(grouped).join(" / ")}`
  );
  return `<details><summary>from ${rips.length} place${
    rips.length === 1 ? "" : "s"
  }</summary><pre>${escape(lines.join("\n"))}</pre></details>`;
}

function guestView({ runs, differences }: ScenarioReport): string {
  const views = differences.map(({ sameOutput, lines, differingLines, state }, k) => {
    const variant = escape(runs[k + 1]!.variant);
    const refused = [runs[0]!, runs[k + 1]!].filter(isRefused);
    if (refused.length > 0) {
      return k > 0
        ? ""
        : refused.map(({ variant, end }) => `<p><b>${escape(variant)}</b>: ${escape(end.text)}</p>`)
          .join("");
    }
    const first = escape(runs[0]!.variant);
    const output = sameOutput
      ? "prints the same and ends alike"
      : `prints ${differingLines} line${differingLines === 1 ? "" : "s"} differently`;
    if (k > 0 && JSON.stringify(differences[k]) === JSON.stringify(differences[0])) {
      return `<p>With <b>${variant}</b> it is the same as with ${escape(runs[1]!.variant)}.</p>`;
    }
    const memory = state.pages === 0
      ? "memory is the same"
      : `${state.pages} page${state.pages === 1 ? "" : "s"} of memory differ`;
    const registers = state.registers.length === 0
      ? "registers are the same"
      : `${state.registers.length} register${state.registers.length === 1 ? "" : "s"} differ`;
    const diff = lines.map(([before, after]) =>
      `<del>- ${escape(before)}</del>\n<ins>+ ${escape(after)}</ins>`
    ).join("\n");
    return `<p>Between ${first} and <b>${variant}</b> the guest ${output}; ${memory}; ${registers}.</p>${
      diff === "" ? "" : `<pre>${diff}</pre>`
    }`;
  });
  const consoles = runs.map(({ variant, console, end }) =>
    `<details><summary>console, ${escape(variant)} (${escape(end.text)})</summary><pre>${
      escape(console)
    }</pre></details>`
  );
  return views.join("\n") + consoles.join("\n");
}
