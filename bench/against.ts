/**
 * Two commits beside each other: `deno task bench --against REV`.
 *
 * The other commit is checked out into a temporary worktree, with this tree's benchmarks and guests in the
 * place of its own, so that both run the same. Samples are taken in turn, each in a process of its own.
 * What takes more than a tenth longer here than there is measured again; if it still does, it is named and
 * the exit status is 1.
 *
 * @module
 */
import type { Rounds } from "./peers/measure.ts";
import { geometricMean, median } from "./peers/statistics.ts";

const LIMIT = 1.1;
const HERE = new URL("../", import.meta.url).pathname;

async function run(program: string, args: readonly string[], cwd: string): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command(program, { args: [...args], cwd })
    .output();
  if (success) return new TextDecoder().decode(stdout);
  console.error(`${program} ${args[0]}: ${new TextDecoder().decode(stderr)}`);
  Deno.exit(2);
}

/** Nanoseconds a round, or how many rounds to time, by program. */
type Figures<T> = Record<string, T>;

/** Times programs in a tree; asked with `null`, says how many rounds take long enough. */
async function sampleIn<T>(tree: string, rounds: Figures<Rounds> | null): Promise<Figures<T>> {
  const args = ["run", "-A", "--no-check", "bench/sample.ts", JSON.stringify(rounds)];
  return JSON.parse(await run(Deno.execPath(), args, tree));
}

/** How many times as long each takes here as there: the ratios of pairs of samples. */
async function compare(
  there: string,
  rounds: Figures<Rounds>,
  samples: number,
): Promise<[string, number[]][]> {
  const ratios = new Map(Object.keys(rounds).map((name): [string, number[]] => [name, []]));
  for (let k = 0; k < samples; k++) {
    const first = await sampleIn<number>(k % 2 === 0 ? HERE : there, rounds);
    const second = await sampleIn<number>(k % 2 === 0 ? there : HERE, rounds);
    const [ours, theirs] = k % 2 === 0 ? [first, second] : [second, first];
    for (const [name, list] of ratios) {
      const ratio = ours[name]! / theirs[name]!;
      if (ratio > 0) list.push(ratio); // a difference of two times may be noise below nothing
    }
  }
  return [...ratios].filter(([, list]) => list.length > 0);
}

function print(name: string, ratios: readonly number[]): void {
  const text = (value: number) => value.toFixed(2).padStart(8);
  const flag = median(ratios) > LIMIT ? "  slower" : "";
  console.log(
    `${name.padEnd(28)}${text(median(ratios))}${text(Math.min(...ratios))} –` +
      `${text(Math.max(...ratios))}${flag}`,
  );
}

/** Compares this tree with `revision`, and ends the program with status 1 where it is slower. */
export async function against(revision: string, samples: number): Promise<void> {
  const folder = await Deno.makeTempDir();
  const there = `${folder}/tree`;
  let regressions: [string, number[]][] = [];
  try {
    await run("git", ["worktree", "add", "--detach", there, revision], HERE);
    for (const path of ["bench", "examples/guests"]) {
      await Deno.remove(`${there}/${path}`, { recursive: true }).catch(() => {});
      await run("cp", ["-r", `${HERE}${path}`, `${there}/${path}`], HERE);
    }
    const rounds = await sampleIn<Rounds>(HERE, null);
    const all = await compare(there, rounds, samples);
    console.log(`${`time here : at ${revision}`.padEnd(28)}  median   least –    most`);
    for (const [name, ratios] of all) print(name, ratios);
    const mean = geometricMean(all.map(([, ratios]) => median(ratios)));
    console.log(`geometric mean${mean.toFixed(2).padStart(22)}`);

    const suspects = all.filter(([, ratios]) => median(ratios) > LIMIT).map(([name]) => name);
    if (suspects.length > 0) {
      console.log(`\nonce more: ${suspects.length} that took more than a tenth longer`);
      const some = Object.fromEntries(suspects.map((name) => {
        const { short, long } = rounds[name]!;
        return [name, { short: 2 * short, long: 2 * long }];
      }));
      const again = await compare(there, some, samples);
      for (const [name, ratios] of again) print(name, ratios);
      regressions = again.filter(([, ratios]) => median(ratios) > LIMIT);
    }
  } finally {
    await run("git", ["worktree", "remove", "--force", there], HERE);
    await Deno.remove(folder, { recursive: true });
  }
  if (regressions.length > 0) {
    console.log(`\nslower by more than a tenth: ${regressions.map(([name]) => name).join("; ")}`);
    Deno.exit(1);
  }
}
