/**
 * A profile as a table.
 *
 * @module
 */

import type { ExitProfile, TargetCount } from "./profile.ts";

/** Options of {@linkcode formatProfile}. */
export interface FormatProfileOptions {
  /** Most targets to show for each reason; 8 if not given. */
  readonly targets?: number;
  /** Most RIPs to show for each target; 3 if not given. */
  readonly rips?: number;
}

interface Line {
  readonly what: string;
  readonly name: string;
  readonly count: string;
  readonly share: string;
  readonly rips: string;
}

/**
 * The profile as text: a table of exits by reason and target, then the totals. Lines end in a line feed.
 */
export function formatProfile(profile: ExitProfile, options: FormatProfileOptions = {}): string {
  const { targets = 8, rips = 3 } = options;
  const lines: Line[] = [];
  for (const reason of profile.reasons) {
    const { count, share } = reason;
    const lone = reason.targets.length === 1 && reason.targets[0]!.kind === "none"
      ? reason.targets[0]
      : undefined;
    lines.push(line(reason.reason, "", count, share, lone, rips));
    if (lone !== undefined) continue;
    for (const target of reason.targets.slice(0, targets)) {
      const what = `  ${target.text}`;
      lines.push(line(what, target.name ?? "", target.count, target.share, target, rips));
    }
    const rest = reason.targets.slice(targets);
    if (rest.length === 0) continue;
    const sum = rest.reduce((total, target) => total + target.count, 0);
    const what = `  … ${rest.length} more`;
    lines.push(line(what, "", sum, sum / profile.exits, undefined, rips));
  }
  return table(lines) + totals(profile);
}

function line(
  what: string,
  name: string,
  count: number,
  share: number,
  target: TargetCount | undefined,
  rips: number,
): Line {
  return {
    what,
    name,
    count: grouped(count),
    share: percent(share),
    rips: target === undefined ? "" : places(target, rips),
  };
}

function places(target: TargetCount, limit: number): string {
  const shown = target.rips.slice(0, limit);
  const parts = shown.map(({ rip, place, count }) => {
    const at = place ?? `${rip.slice(2)}h`;
    return count === target.count ? at : `${at} ${percent(count / target.count)}`;
  });
  const named = shown.reduce((sum, { count }) => sum + count, 0);
  if (named < target.count) parts.push(`… ${percent(1 - named / target.count)}`);
  return parts.join("  ");
}

function table(lines: readonly Line[]): string {
  if (lines.length === 0) return "no exits\n";
  const head: Line = { what: "exit", name: "", count: "count", share: "share", rips: "at RIP" };
  const all = [head, ...lines];
  const width = (column: keyof Line) => Math.max(...all.map((line) => line[column].length));
  const [what, name, count, share] = [width("what"), width("name"), width("count"), width("share")];
  return all.map((line) =>
    [
      line.what.padEnd(what),
      ...(name === 0 ? [] : [line.name.padEnd(name)]),
      line.count.padStart(count),
      line.share.padStart(share),
      line.rips,
    ].join("  ").trimEnd() + "\n"
  ).join("");
}

function totals(profile: ExitProfile): string {
  const { instructions, exits, exitsPerMillion, wallMs, mips } = profile;
  const parts = [`${grouped(instructions)} instructions`, `${grouped(exits)} exits`];
  if (exitsPerMillion !== null) {
    parts.push(`${decimal(exitsPerMillion)} exits per million instructions`);
  }
  if (wallMs !== null) parts.push(`${(wallMs / 1000).toFixed(3)} s`);
  if (mips !== null) parts.push(`${decimal(mips)} MIPS`);
  const who = profile.vcpus === 1 ? profile.vendor : `${profile.vendor}, ${profile.vcpus} vCPUs`;
  return `${who}: ${parts.join(", ")}\n`;
}

/** One digit behind the point for small numbers only, where it says something. */
function decimal(value: number): string {
  return value < 100 ? value.toFixed(1) : grouped(Math.round(value));
}

function percent(share: number): string {
  return `${(share * 100).toFixed(1)}%`;
}

function grouped(count: number): string {
  return count.toString().replace(/\B(?=(\d{3})+$)/g, ",");
}
