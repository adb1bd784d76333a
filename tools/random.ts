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
import { taskOptions } from "../bench/options.ts";
import { Campaign, type Finding } from "../tests/random/campaign.ts";
import { HOSTS } from "../tests/random/hosts.ts";

const USAGE = `deno task random: random programs in all modes, on metal, svm and vmx, compared

  --cases N        programs (1000)
  --seed S         the first one's seed; the others have S + 1 and so on (any)
  --vendors LIST   of metal, svm, vmx; those that are left out are not compared
  --slow K         every Kth also compiled, and with virtual local APICs; 0 for none (20)`;

/** Milliseconds between two lines of progress. */
const PAUSE = 5000;
/** Findings after which a campaign is given up. */
const ENOUGH = 20;
const MOST_LINES = 12;

function report({ seed, expected, actual, lines }: Finding): void {
  console.log(`seed ${seed}: ${actual} is not as ${expected}`);
  for (const line of lines.slice(0, MOST_LINES)) console.log(`  ${line}`);
  if (lines.length > MOST_LINES) console.log(`  and ${lines.length - MOST_LINES} more`);
  console.log(`  again: deno task random --seed ${seed} --cases 1 --slow 1`);
}

const given = taskOptions({
  name: "random",
  usage: USAGE,
  valued: ["cases", "seed", "vendors", "slow"],
  numbers: { cases: 1, seed: 0, slow: 0 },
});
const known = [...new Set(HOSTS.map(({ vendor }) => vendor))];
const words = given.get("vendors")?.split(",") ?? known;
for (const word of words) {
  if (known.some((name) => name === word)) continue;
  console.error(`--vendors ${word}: there are ${known}`);
  Deno.exit(2);
}
const cases = Number(given.get("cases") ?? 1000);
const from = Number(given.get("seed") ?? Math.floor(Math.random() * 2 ** 31));
const slow = Number(given.get("slow") ?? 20);

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
