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
import { taskOptions } from "../bench/options.ts";
import { Finding, Tally } from "../tests/fuzz/campaign.ts";
import { VMCB_CHECKS } from "../tests/fuzz/vmcb_checks.ts";
import { fuzzVmcbs } from "../tests/fuzz/vmcb_fuzz.ts";
import { ENTRY_CHECKS } from "../tests/fuzz/vmcs_checks.ts";
import { fuzzVmcs } from "../tests/fuzz/vmcs_fuzz.ts";

const USAGE = `deno task fuzz: VMCSs and VMCBs near valid ones are entered, and judged

  --vendor NAME    vmx, svm or all (all)
  --cases N        of each (1000000)
  --seed S         the first slice's seed (any)`;

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

const given = taskOptions({
  name: "fuzz",
  usage: USAGE,
  valued: ["vendor", "cases", "seed"],
  numbers: { cases: 1, seed: 0 },
});
const vendor = given.get("vendor") ?? "all";
const names = vendor === "all" ? Object.keys(CAMPAIGNS) : [vendor];
const cases = Number(given.get("cases") ?? MILLION);
const seed = Number(given.get("seed") ?? Math.floor(Math.random() * 0x1_0000_0000));
let found = false;
for (const name of names) {
  const campaign = Object.hasOwn(CAMPAIGNS, name) ? CAMPAIGNS[name] : undefined;
  if (campaign === undefined) {
    console.error(`--vendor ${name}: there are vmx, svm and all`);
    Deno.exit(2);
  }
  found = !run(campaign, cases, seed) || found;
}
Deno.exit(found ? 1 : 0);
