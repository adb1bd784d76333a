/**
 * What was measured, kept as JSON so that a part can be measured again, and the table made of it.
 *
 * @module
 */
import { geometricMean } from "./statistics.ts";
import { type Group, GROUPS } from "./workloads.ts";

/** One workload, measured. */
export interface Row {
  readonly group: string;
  readonly program: string;
  readonly bits: 32 | 64;
  /** When, as `2026-01-31`. */
  readonly date: string;
  /** Trapline's commit. */
  readonly commit: string;
  /** Nanoseconds a round takes, by peer. */
  readonly ns: Readonly<Record<string, number>>;
  /** Peers that could not run it, and how they ended. */
  readonly failed: Readonly<Record<string, string>>;
}

/** Everything measured. */
export interface Results {
  /** The processor, and how many of them. */
  machine: string;
  /** The peers by name: their versions, or what was missing. */
  peers: Record<string, string>;
  rows: Row[];
}

/** Puts a row in the place of an older one. */
export function record(results: Results, row: Row): void {
  const same = ({ group, program, bits }: Row): boolean =>
    group === row.group && program === row.program && bits === row.bits;
  results.rows = [...results.rows.filter((old) => !same(old)), row];
}

/** Trapline's name among the peers. */
export const SELF = "Trapline";

/** A group's rows of one width. */
export function rowsOf(results: Results, group: Group, bits: 32 | 64): Row[] {
  return group.programs.flatMap((program) =>
    results.rows.filter((row) =>
      row.group === group.name && row.program === program && row.bits === bits
    )
  );
}

/** How many times as fast `who` is as `other`, over rows that both ran; `undefined` if there are none. */
export function ratio(rows: readonly Row[], who: string, other: string): number | undefined {
  const ratios = rows.flatMap(({ ns }) =>
    ns[who] === undefined || ns[other] === undefined ? [] : [ns[other] / ns[who]]
  );
  return ratios.length === 0 ? undefined : geometricMean(ratios);
}

function time(ns: number | undefined): string {
  if (ns === undefined) return "–";
  if (ns < 1e3) return `${ns.toPrecision(3)} ns`;
  return ns < 1e6 ? `${(ns / 1e3).toPrecision(3)} µs` : `${(ns / 1e6).toPrecision(3)} ms`;
}

const times = (value: number | undefined): string =>
  value === undefined ? "–" : value >= 100 ? value.toFixed(0) : value.toPrecision(2);

/** Since when peers are warm before their time counts. */
const WARM_SINCE = "2026-11-22";

/** The page `docs/benchmarks/peers.md`. */
export function page(results: Results): string {
  const others = Object.keys(results.peers).filter((name) =>
    name !== SELF && results.rows.some(({ ns }) => ns[name] !== undefined)
  );
  const cells = (first: readonly string[], row: (other: string) => string): string =>
    `| ${[...first, ...others.map(row)].join(" | ")} |`;
  const lines: string[] = [
    "# Trapline beside other ways to run x86",
    "",
    "Written by `deno task bench:peers`. Each number says how many times as fast Trapline is as the",
    "peer in that column, on the same image, in turn with it: above 1 Trapline is faster. Rows in bold",
    "are geometric means. A round's time is Trapline's own. Times are those on the processor; what V8's",
    "compilers do on threads of their own is not in Trapline's and v86's. Both become fast only once those",
    "are done: what they take before, half a second at least, does not count. The best run of each counts.",
    ...(results.rows.some(({ date }) => date < WARM_SINCE)
      ? [
        `Rows from before ${WARM_SINCE} are medians, with hardly anything left aside: v86 was slower there.`,
      ]
      : []),
    "",
    "![Speeds beside QEMU's](peers.svg)",
    "",
    `Machine: ${results.machine}.`,
    "",
    ...Object.entries(results.peers).map(([name, version]) => `- ${name}: ${version}`),
  ];
  for (const group of GROUPS) {
    const all = [64, 32].flatMap((bits) => rowsOf(results, group, bits as 32 | 64));
    if (all.length === 0) continue;
    lines.push("", `## ${group.name}`, "");
    lines.push(cells(["program", "a round", "measured"], (other) => other));
    lines.push(cells(["---", "--:", "---"], () => "--:"));
    for (const bits of [64, 32] as const) {
      const rows = rowsOf(results, group, bits);
      if (rows.length === 0) continue;
      for (const row of rows) {
        const what = [
          `${row.program}, ${bits}-bit`,
          time(row.ns[SELF]),
          `${row.date} ${row.commit}`,
        ];
        lines.push(cells(what, (other) => times(ratio([row], SELF, other))));
      }
      lines.push(
        cells([`**${bits}-bit**`, "", ""], (other) => {
          const mean = times(ratio(rows, SELF, other));
          const target = group.targets.find((t) => t.peer === other && t.bits === bits);
          return `**${mean}**${target === undefined ? "" : ` (target ${target.ratio})`}`;
        }),
      );
    }
    for (const { program, bits, failed } of all) {
      for (const [peer, why] of Object.entries(failed)) {
        lines.push("", `${program}, ${bits}-bit, could not be run by ${peer}: ${why}.`);
      }
    }
  }
  return lines.join("\n") + "\n";
}
