/**
 * Random programs in all modes and both rings, on metal, svm and vmx, interpreted and compiled.
 *
 *     deno task random [--cases N] [--seed S] [--vendors metal,svm,vmx] [--slow K]
 *
 * Programs have the seeds S, S + 1 and so on, so that a campaign goes on where it was interrupted with the
 * seed that its last line of progress names. Every Kth seed (20, if not said; 0 for none) also runs
 * compiled, and under hypervisors that virtualize a local APIC, which takes far longer. Exit status: 0 if
 * all agreed, 1 if some did not, 2 for bad arguments.
 *
 * @module
 */
import { parseArgs } from "@std/cli";
import { Campaign, type Finding } from "./campaign.ts";
import { HOSTS } from "./hosts.ts";

/** Milliseconds between two lines of progress. */
const PAUSE = 5000;
/** Findings after which a campaign is given up. */
const ENOUGH = 20;
const MOST_LINES = 12;

function refuse(text: string): never {
  console.error(`random: ${text}`);
  Deno.exit(2);
}

function numberOf(name: string, text: unknown, otherwise: number): number {
  const value = text === undefined ? otherwise : Number(text);
  if (!Number.isInteger(value) || value < 0) refuse(`--${name} ${text} is not a number`);
  return value;
}

function report({ seed, expected, actual, lines }: Finding): void {
  console.log(`seed ${seed}: ${actual} is not as ${expected}`);
  for (const line of lines.slice(0, MOST_LINES)) console.log(`  ${line}`);
  if (lines.length > MOST_LINES) console.log(`  and ${lines.length - MOST_LINES} more`);
  console.log(`  again: deno task random --seed ${seed} --cases 1 --slow 1`);
}

const options = parseArgs(Deno.args, {
  string: ["cases", "seed", "vendors", "slow"],
  unknown: (name) => refuse(`${name}: there is no such argument`),
});
const known = [...new Set(HOSTS.map(({ vendor }) => vendor))];
const words = typeof options.vendors === "string" ? options.vendors.split(",") : known;
for (const word of words) {
  if (!known.some((name) => name === word)) refuse(`--vendors ${word}: there are ${known}`);
}
const cases = numberOf("cases", options.cases, 1000);
const from = numberOf("seed", options.seed, Math.floor(Math.random() * 2 ** 31));
const slow = numberOf("slow", options.slow, 20);

console.log(`${cases} random programs, seeds from ${from}`);
using campaign = new Campaign({
  vendors: known.filter((name) => words.includes(name)),
  slow,
});
const { tally } = campaign;
const start = performance.now();
let last = start;
let found = 0;
for (let seed = from; seed < from + cases && found < ENOUGH; seed++) {
  for (const finding of campaign.check(seed)) {
    found++;
    report(finding);
  }
  const now = performance.now();
  if (now - last < PAUSE) continue;
  last = now;
  const rate = (tally.programs / ((now - start) / 1000)).toFixed(1);
  console.error(`${tally.programs} of ${cases}, ${rate} a second; go on with --seed ${seed + 1}`);
}
console.log(
  `${tally.programs} programs, ${tally.neutral} of them for both families, ${tally.slow} compiled and ` +
    `with virtual APICs: ${tally.instructions} instructions, ${tally.logged} events logged, ` +
    `${tally.unfinished} not come to their end, ${found} differences`,
);
if (found >= ENOUGH) console.log("That is enough: the rest was not run.");
Deno.exit(found === 0 ? 0 : 1);
