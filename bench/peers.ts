/**
 * Trapline beside whichever other ways to run x86 are installed: `deno task bench:peers`.
 *
 * Each program of the guests runs on every peer in turn, several times, once its compilers are through with
 * it; the best times are compared. What was measured goes to `docs/benchmarks/`: as JSON, as a table and as a chart. A run of a part replaces that
 * part of what is there.
 *
 * `--only NAME,…` (groups or programs), `--bits 32|64`, `--peers NAME,…`, `--samples N` (3), `--target MS`
 * that count in a sample (300, but four times `--warm` where there is any), `--warm MS` before them (500),
 * `--print` to write nothing.
 *
 * QEMU, Bochs and Unicorn are Debian's `qemu-system-x86`, `bochs bochs-term` and `libunicorn2`; v86 comes
 * from npm. What is missing is named and skipped.
 *
 * @module
 */
import { taskOptions } from "./options.ts";
import { findBochs } from "./peers/bochs.ts";
import { chart } from "./peers/chart.ts";
import { measure } from "./peers/measure.ts";
import { findNative } from "./peers/native.ts";
import { outputOf, type Peer } from "./peers/peer.ts";
import { findQemu } from "./peers/qemu.ts";
import { page, ratio, record, type Results, type Row, SELF } from "./peers/results.ts";
import { traplineOn } from "./peers/trapline.ts";
import { findUnicorn } from "./peers/unicorn.ts";
import { findV86 } from "./peers/v86.ts";
import { GROUPS, workloadsOf } from "./peers/workloads.ts";

const FOLDER = new URL("../docs/benchmarks/", import.meta.url);

async function machine(): Promise<string> {
  const info = await Deno.readTextFile("/proc/cpuinfo").catch(() => "");
  const model = /^model name\s*: (.*)$/m.exec(info)?.[1] ?? Deno.build.arch;
  return `${model}, ${navigator.hardwareConcurrency} processors, ${Deno.build.os}`;
}

async function commit(): Promise<string> {
  const hash = (await outputOf("git", "rev-parse", "--short", "HEAD"))?.trim() ?? "unknown";
  const changed = (await outputOf("git", "status", "--porcelain", "-uno"))?.trim();
  return changed ? `${hash}+` : hash;
}

const USAGE =
  `deno task bench:peers: measures Trapline beside its peers, and writes docs/benchmarks/

  --only NAME,…    groups or programs; all without it
  --bits 32|64     guests of one width
  --peers NAME,…   parts of peers' names
  --samples N      runs of each, of which the best counts (3)
  --target MS      how long what counts of a run is to take (300), or four times --warm
  --warm MS        what does not count before it, where compilers work beside the guest (500)
  --print          write nothing`;

const given = taskOptions({
  name: "bench:peers",
  usage: USAGE,
  valued: ["only", "bits", "peers", "samples", "target", "warm"],
  numbers: { samples: 1, target: 1, warm: 0 },
  flags: ["print"],
});
const chosen = given.get("only")?.split(",");
const wanted = given.get("peers")?.split(",").map((name) => name.toLowerCase());
const bitsWanted = given.get("bits");
const effort = {
  samples: Number(given.get("samples") ?? 3),
  target: Number(given.get("target") ?? 300),
  warm: Number(given.get("warm") ?? 500),
};
const writing = !given.has("print");

let results: Results = { machine: await machine(), peers: {}, rows: [] };
try {
  const old: Results = JSON.parse(await Deno.readTextFile(new URL("peers.json", FOLDER)));
  if (old.machine === results.machine) results = old;
} catch (error) {
  if (!(error instanceof Deno.errors.NotFound)) throw error;
}

const trapline = traplineOn("metal");
const peers: Peer[] = [trapline];
results.peers[SELF] = trapline.version;
for (const find of [findQemu, findBochs, findUnicorn, findV86, findNative]) {
  const found = await find();
  if ("missing" in found) {
    console.log(`${found.name} is left out: ${found.missing}`);
    results.peers[found.name] ??= `missing (${found.missing})`;
  } else if (wanted?.some((name) => found.name.toLowerCase().includes(name)) ?? true) {
    peers.push(found);
    results.peers[found.name] = found.version;
  }
}

const heading = peers.slice(1).map(({ name }) => name.padStart(10)).join("");
console.log(`${"Trapline : peer".padEnd(24)}${"ns a round".padStart(14)}${heading}`);
const now = { date: new Date().toISOString().slice(0, 10), commit: await commit() };

let measured = 0;
for (const group of GROUPS) {
  for (const workload of workloadsOf(group)) {
    const { program, bits } = workload;
    if (chosen !== undefined && !chosen.includes(program) && !chosen.includes(group.name)) continue;
    if ((bitsWanted ?? String(bits)) !== String(bits)) continue;
    measured++;
    const outcomes = [...await measure(peers, workload, effort)];
    const row: Row = {
      ...{ group: group.name, program, bits, ...now },
      ns: Object.fromEntries(
        outcomes.flatMap(([name, outcome]) =>
          "ns" in outcome ? [[name, Math.round(outcome.ns)]] : []
        ),
      ),
      failed: Object.fromEntries(
        outcomes.flatMap(([name, outcome]) => "failed" in outcome ? [[name, outcome.failed]] : []),
      ),
    };
    record(results, row);
    const ratios = peers.slice(1).map(({ name }) =>
      ratio([row], SELF, name)?.toPrecision(3) ?? "–"
    );
    console.log(
      `${`${program}, ${bits}-bit`.padEnd(24)}${String(row.ns[SELF] ?? "–").padStart(14)}` +
        ratios.map((text) => text.padStart(10)).join(""),
    );
    for (const [name, why] of Object.entries(row.failed)) console.log(`  ${name}: ${why}`);
    if (!writing) continue;
    await Deno.mkdir(FOLDER, { recursive: true });
    await Deno.writeTextFile(
      new URL("peers.json", FOLDER),
      JSON.stringify(results, null, 2) + "\n",
    );
    await Deno.writeTextFile(new URL("peers.md", FOLDER), page(results));
    await Deno.writeTextFile(new URL("peers.svg", FOLDER), chart(results));
  }
}
if (measured === 0) {
  console.error(
    "there is no such group or program of that width; bench/peers/workloads.ts has them",
  );
  Deno.exit(2);
}
