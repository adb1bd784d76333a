/**
 * The invalid-state fuzzers as a program: VMCSs and VMCBs near valid ones, a million of each unless told
 * otherwise.
 *
 *     deno task fuzz [--vendor vmx|svm|all] [--cases N] [--seed S]
 *
 * Cases come in slices, each with a seed of its own, which a finding names: `--seed` and `--cases` of a
 * slice repeat it. Exit status: 0 if nothing was found, 1 for a finding, 2 for bad arguments.
 *
 * @module
 */
import { parseArgs } from "@std/cli";
import { Finding, Tally } from "./campaign.ts";
import { VMCB_CHECKS } from "./vmcb_checks.ts";
import { fuzzVmcbs } from "./vmcb_fuzz.ts";
import { ENTRY_CHECKS } from "./vmcs_checks.ts";
import { fuzzVmcs } from "./vmcs_fuzz.ts";

const MILLION = 1_000_000;
/** Cases of one seed. */
const SLICE = 20_000;
/** Milliseconds between two lines of progress. */
const PAUSE = 2000;

interface Campaign {
  readonly structure: string;
  readonly rules: readonly string[];
  readonly fuzz: (cases: number, seed: number, tally: Tally) => void;
}

const CAMPAIGNS: { readonly [vendor: string]: Campaign } = {
  vmx: {
    structure: "VMCSs",
    rules: ENTRY_CHECKS.map(({ group, rule }) => `${group}: ${rule}`),
    fuzz: fuzzVmcs,
  },
  svm: { structure: "VMCBs", rules: VMCB_CHECKS.map(({ rule }) => rule), fuzz: fuzzVmcbs },
};

function refuse(text: string): never {
  console.error(`fuzz: ${text}`);
  Deno.exit(2);
}

function numberOf(name: string, text: unknown, otherwise: number): number {
  const value = text === undefined ? otherwise : Number(text);
  if (!Number.isInteger(value) || value < 0) refuse(`--${name} ${text} is not a number`);
  return value;
}

/** Runs one campaign; whether nothing was found. */
function run({ structure, rules, fuzz }: Campaign, cases: number, seed: number): boolean {
  const start = performance.now();
  let last = start;
  const rate = (tally: Tally): string =>
    `${Math.round(tally.cases / ((performance.now() - start) / 1000))} a second`;
  const tally = new Tally(rules, (sofar) => {
    const now = performance.now();
    if (now - last < PAUSE) return;
    last = now;
    console.error(`${sofar.cases} of ${cases} ${structure}, ${rate(sofar)}`);
  });
  console.log(`${cases} ${structure} near valid ones, seed ${seed}`);
  try {
    for (let slice = 0; slice * SLICE < cases; slice++) {
      fuzz(Math.min(SLICE, cases - slice * SLICE), (seed + slice) >>> 0, tally);
    }
  } catch (error) {
    if (!(error instanceof Finding)) throw error;
    console.log(`${error.message}${error.cause === undefined ? "" : `\n  ${error.cause}`}`);
    return false;
  }
  console.log(`each was judged as the list of ${rules.length} checks says; ${rate(tally)}`);
  for (const [kind, count] of tally.kinds) console.log(`  ${String(count).padStart(8)} ${kind}`);
  const { missed } = tally;
  if (missed.length > 0) {
    console.log(`Checks that never were the only one to refuse:\n  ${missed.join("\n  ")}`);
  }
  return true;
}

const options = parseArgs(Deno.args, {
  string: ["vendor", "cases", "seed"],
  unknown: (name) => refuse(`${name}: there is no such argument`),
});
const vendor = typeof options.vendor === "string" ? options.vendor : "all";
const names = vendor === "all" ? Object.keys(CAMPAIGNS) : [vendor];
const cases = numberOf("cases", options.cases, MILLION);
const seed = numberOf("seed", options.seed, Math.floor(Math.random() * 0x1_0000_0000));
let found = false;
for (const name of names) {
  const campaign = Object.hasOwn(CAMPAIGNS, name) ? CAMPAIGNS[name] : undefined;
  if (campaign === undefined) refuse(`--vendor ${name}: there are vmx, svm and all`);
  found = !run(campaign, cases, seed) || found;
}
Deno.exit(found ? 1 : 0);
