/**
 * One sample of many programs, for `against.ts`, which runs this file in two trees: `JSON` with the rounds
 * of each, `null` to find out how many take long enough. Prints rounds or nanoseconds as JSON.
 *
 * @module
 */
import { calibrate, type Rounds, sample } from "./peers/measure.ts";
import type { Workload } from "./peers/peer.ts";
import { traplineOn } from "./peers/trapline.ts";
import { GROUPS, workloadsOf } from "./peers/workloads.ts";

const TARGET_MS = 80;

/** What exits under a hypervisor, besides everything on the bare processor. */
const EXITS: readonly Workload[] = ["out", "cpuid", "fast", "fault"].map((program) => ({
  ...{ group: "under a hypervisor", guest: "system", program, bits: 64, userMode: false },
}));

const jobs = [
  ...GROUPS.flatMap(workloadsOf).map((workload) => ({ vendor: "metal", workload })),
  ...["svm", "vmx"].flatMap((vendor) => EXITS.map((workload) => ({ vendor, workload }))),
];

const given: Record<string, Rounds> | null = JSON.parse(Deno.args[0]!);
const answer: Record<string, Rounds | number> = {};
for (const { vendor, workload } of jobs) {
  const name = `${workload.program}, ${workload.bits}-bit, ${vendor}`;
  if (given !== null && given[name] === undefined) continue;
  const peer = traplineOn(vendor);
  answer[name] = given === null
    ? await calibrate(peer, workload, { target: TARGET_MS, warm: 0 })
    : await sample(peer, workload, given[name]!);
}
console.log(JSON.stringify(answer));
