/**
 * Charts of a report, as SVG.
 *
 * @module
 */
import { isRefused, type ScenarioReport, type VariantReport } from "./report.ts";
import { differs } from "./rows.ts";
import { grouped } from "./table.ts";

/** Text as it may stand in HTML and SVG. */
export function escape(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;");
}

/** Colours that stay apart for people who see few, in light and in dark (after Okabe and Ito). */
const PALETTE: readonly string[] = [
  "#0072b2",
  "#e69f00",
  "#009e73",
  "#cc79a7",
  "#d55e00",
  "#56b4e9",
  "#8c6bb1",
  "#999933",
];
/** For reasons whose exits are the same in all runs. */
const GREYS: readonly string[] = ["#c3c8d0", "#a4abb7", "#868e9c", "#6b7382"];

/**
 * Gives each exit reason its colour: those that differ between runs get colours, the others greys.
 * Those with most exits come first; when there are no more, the last is shared.
 */
export function reasonColours(scenario: ScenarioReport): ReadonlyMap<string, string> {
  const colours = new Map<string, string>();
  const missing = scenario.runs.map(isRefused);
  const add = (reasons: readonly string[], palette: readonly string[]): void => {
    const fresh = new Set(reasons.filter((reason) => !colours.has(reason)));
    [...fresh].forEach((reason, k) => colours.set(reason, palette[k] ?? palette.at(-1)!));
  };
  add(scenario.rows.filter((row) => differs(row, missing)).map(({ reason }) => reason), PALETTE);
  add(scenario.rows.map(({ reason }) => reason), GREYS);
  return colours;
}

/** Exits of each run by reason, reasons with most exits first. */
function byReason(scenario: ScenarioReport): ReadonlyMap<string, number[]> {
  const sums = new Map<string, number[]>();
  for (const { reason, counts } of scenario.rows) {
    const sum = sums.get(reason) ?? counts.map(() => 0);
    counts.forEach((count, k) => sum[k]! += count);
    sums.set(reason, sum);
  }
  return sums;
}

const LABEL = 190;
const PLOT = 560;
const NUMBERS = 110;
const BAR = 13;
const WIDTH = LABEL + PLOT + NUMBERS;

/** Bars of all runs for each reason whose counts differ. The scale is linear and begins at 0. */
export function barChart(scenario: ScenarioReport): string {
  const { runs } = scenario;
  const groups: [string, readonly number[]][] = [];
  for (const [reason, counts] of byReason(scenario)) {
    const compared = counts.filter((_, k) => !isRefused(runs[k]!));
    if (new Set(compared).size > 1) groups.push([reason, counts]);
  }
  const most = Math.max(1, ...groups.flatMap(([, counts]) => counts));
  const height = BAR * runs.length + 14;
  const bars = groups.flatMap(([reason, counts], group) => {
    const top = 6 + group * height;
    const middle = top + (height - 14) / 2 + 4;
    return [
      `<text x="${LABEL - 10}" y="${middle}" class="name">${escape(reason)}</text>`,
      ...counts.map((count, k) => {
        const width = count / most * PLOT;
        const y = top + k * BAR;
        const what = `${reason}, ${runs[k]!.variant}: ${grouped(count)} exits`;
        return `<g><title>${escape(what)}</title>` +
          `<rect x="${LABEL}" y="${y}" width="${width.toFixed(1)}" height="${BAR - 3}" rx="2" ` +
          `class="run${k}"/><text x="${(LABEL + width + 6).toFixed(1)}" y="${y + BAR - 4}" ` +
          `class="count">${grouped(count)}</text></g>`;
      }),
    ];
  });
  return svg(WIDTH, 6 + groups.length * height, "Exits by reason", bars);
}

const STRIP = 34;
const GAP = 8;
const STRIP_LABEL = 110;
const STRIP_PLOT = WIDTH - STRIP_LABEL - 4;

/**
 * A strip for each vCPU of each run: exits in each step of VM time, stacked by reason. All strips have
 * the same time axis and the same height for the same number of exits.
 */
export function timelineChart(
  scenario: ScenarioReport,
  runs: readonly VariantReport[],
): string {
  const colours = reasonColours(scenario);
  const order = [...colours.keys()];
  const end = Math.max(1, ...runs.map(({ timeline }) => timeline.width * timeline.steps));
  // Exits in a tick, so that runs with steps of different widths compare.
  const rate = Math.max(0, ...runs.flatMap((run) => stripsOf(run, order).map(({ rate }) => rate)));
  const parts: string[] = [];
  let y = 0;
  for (const run of runs) {
    const found = stripsOf(run, order);
    const strips = found.length > 0 ? found : [{ vcpu: 0, rate: 0, stacks: [] }];
    for (const { vcpu, stacks } of strips) {
      const label = strips.length === 1 ? run.variant : `${run.variant}, vCPU ${vcpu}`;
      parts.push(
        `<text x="${STRIP_LABEL - 10}" y="${y + STRIP / 2 + 4}" class="name">${
          escape(label)
        }</text>`,
        `<rect x="${STRIP_LABEL}" y="${y}" width="${STRIP_PLOT}" height="${STRIP}" class="strip"/>`,
      );
      const { width } = run.timeline;
      const wide = Math.max(0.6, width / end * STRIP_PLOT).toFixed(2);
      for (const [reason, stack] of stacks) {
        // One outline for each reason: a box for each step in which there were exits.
        const boxes = stack.map(({ step, from, to }) => {
          const x = STRIP_LABEL + step * width / end * STRIP_PLOT;
          const bottom = y + STRIP - from / width / rate * STRIP;
          const high = (to - from) / width / rate * STRIP;
          return `M${x.toFixed(1)} ${bottom.toFixed(1)}h${wide}v-${high.toFixed(1)}h-${wide}z`;
        });
        const exits = stack.reduce((sum, { from, to }) => sum + to - from, 0);
        const what = `${label}: ${grouped(exits)} exits, ${reason}`;
        parts.push(
          `<path d="${boxes.join("")}" fill="${colours.get(reason)!}">` +
            `<title>${escape(what)}</title></path>`,
        );
      }
      y += STRIP + GAP;
    }
  }
  parts.push(
    `<text x="${STRIP_LABEL}" y="${y + 10}" class="count">0</text>`,
    `<text x="${WIDTH - 4}" y="${y + 10}" class="count end">${
      grouped(end)
    } ticks of VM time</text>`,
  );
  return svg(WIDTH, y + 18, "Exits over time", parts);
}

/** Exits of one reason in one step, on top of those of other reasons. */
interface Stack {
  readonly step: number;
  readonly from: number;
  readonly to: number;
}

interface Strip {
  readonly vcpu: number;
  /** Most exits in a tick. */
  readonly rate: number;
  readonly stacks: readonly (readonly [reason: string, stack: readonly Stack[]])[];
}

/** Strips in the order of vCPUs; reasons are stacked in `order`, the first at the bottom. */
function stripsOf({ timeline }: VariantReport, order: readonly string[]): Strip[] {
  const strips = new Map<number, { sums: number[]; stacks: [string, Stack[]][] }>();
  const lanes = timeline.lanes.toSorted((a, b) =>
    a.vcpu - b.vcpu || order.indexOf(a.reason) - order.indexOf(b.reason)
  );
  for (const { vcpu, reason, counts } of lanes) {
    const strip = strips.get(vcpu) ??
      { sums: new Array<number>(timeline.steps).fill(0), stacks: [] };
    strips.set(vcpu, strip);
    const stack: Stack[] = [];
    strip.stacks.push([reason, stack]);
    counts.forEach((count, step) => {
      if (count === 0) return;
      const from = strip.sums[step]!;
      stack.push({ step, from, to: from + count });
      strip.sums[step] = from + count;
    });
  }
  return [...strips].map(([vcpu, { sums, stacks }]) => ({
    vcpu,
    rate: Math.max(...sums) / timeline.width,
    stacks,
  }));
}

function svg(width: number, height: number, label: string, parts: readonly string[]): string {
  return `<svg viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img" ` +
    `aria-label="${escape(label)}">${parts.join("\n")}</svg>`;
}
