/**
 * `deno task bench`: the quick figures of `speed.ts`, or with `--against REV` the comparison with another
 * commit of `against.ts`.
 *
 * @module
 */
import { taskOptions } from "./options.ts";

const USAGE =
  `deno task bench: how fast guests run on metal, under svm and under vmx, and what exits cost

  --against REV    compares with another commit, in turn; status 1 where something takes a tenth longer
  --samples N      with it: pairs of runs, of which the median counts (3)`;

const given = taskOptions({
  name: "bench",
  usage: USAGE,
  valued: ["against", "samples"],
  numbers: { samples: 1 },
});
const revision = given.get("against");
const samples = given.get("samples");
if (revision !== undefined) {
  const { against } = await import("./against.ts");
  await against(revision, Number(samples ?? 3));
} else if (samples !== undefined) {
  console.error("--samples goes with --against; deno task bench --help lists the options");
  Deno.exit(2);
} else await import("./speed.ts");
