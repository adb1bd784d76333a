/**
 * Compares our processor with `/dev/kvm`, instruction by instruction.
 *
 *     deno task kvm:compare [--cases N] [--seed S] [--all]
 *
 * `--all` also lists what KVM refused and what was compared. Exit status: 0 if nothing differs but what
 * `quirks.ts` lists, 1 if something does, 2 for bad arguments, 77 where there is no KVM to use.
 *
 * @module
 */
import { taskOptions } from "../bench/options.ts";
import { Comparison, type Kind } from "../tests/kvm/compare.ts";
import { SystemCallError } from "../tests/kvm/libc.ts";

const USAGE = `deno task kvm:compare: random programs step by step in /dev/kvm and in our processor

  --cases N        programs (200)
  --seed S         the first one's seed (any)
  --all            also list what KVM refused, and what was compared`;

const PAUSE = 5000;
const SKIPPED = 77;

/** Whether KVM runs guests with SVM or VMX: there is one without, too. */
async function hasHardware(): Promise<boolean> {
  for (const module of ["kvm_amd", "kvm_intel"]) {
    try {
      await Deno.stat(`/sys/module/${module}`);
      return true;
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }
  return false;
}

function open(hardware: boolean): Comparison {
  try {
    return new Comparison(hardware);
  } catch (error) {
    if (!(error instanceof SystemCallError)) throw error;
    console.log(`/dev/kvm cannot be used here: ${error.message}. Nothing was compared.`);
    Deno.exit(SKIPPED);
  }
}

const sorted = <K, T>(map: Map<K, T>, size: (value: T) => number): [K, T][] =>
  [...map].sort(([, a], [, b]) => size(b) - size(a));

function print(key: string, { count, seed, step, lines }: Kind): void {
  console.log(
    `${String(count).padStart(8)} ${key}\n           seed ${seed}, step ${step}: ${
      lines.join("; ")
    }`,
  );
}

const given = taskOptions({
  name: "kvm:compare",
  usage: USAGE,
  valued: ["cases", "seed"],
  numbers: { cases: 1, seed: 0 },
  flags: ["all"],
});
const cases = Number(given.get("cases") ?? 200);
const from = Number(given.get("seed") ?? Math.floor(Math.random() * 2 ** 31));
const hardware = await hasHardware();
using comparison = open(hardware);
if (!hardware) console.log("This KVM has neither SVM nor VMX: ring 3 is compared in part only.");
const { report } = comparison;
console.log(`${cases} programs, seeds from ${from}`);
let last = performance.now();
for (let seed = from; seed < from + cases; seed++) {
  comparison.check(seed);
  if (performance.now() - last < PAUSE) continue;
  last = performance.now();
  console.error(`${seed - from + 1} of ${cases}`);
}
let compared = 0;
for (const count of report.compared.values()) compared += count;
console.log(`${compared} steps agreed, of ${report.instructions.size} instructions:`);
for (const [mode, count] of sorted(report.compared, Number)) {
  console.log(`${String(count).padStart(8)} ${mode}`);
}
const differences = sorted(report.differences, ({ count }) => count);
if (report.known.size > 0) console.log("Known differences, by reason:");
for (const [{ reason }, count] of sorted(report.known, Number)) {
  console.log(`${String(count).padStart(8)} ${reason}`);
}
if (differences.length > 0) console.log("Differences:");
for (const [key, kind] of differences) print(key, kind);
let refusals = 0;
for (const { count } of report.refused.values()) refusals += count;
console.log(`${refusals} steps KVM did not carry out; ours were gone on with.`);
if (given.has("all")) {
  for (const [key, kind] of sorted(report.refused, ({ count }) => count)) print(key, kind);
  console.log("Instructions compared:");
  console.log(sorted(report.instructions, Number).map(([name, n]) => `${name} ${n}`).join(", "));
}
Deno.exit(differences.length > 0 ? 1 : 0);
