/**
 * What `--stats` prints.
 *
 * @module
 */

import type { RunResult, Vm } from "../core/mod.ts";
import { processorsSlot } from "../plugins/cpu/mod.ts";

const share = (part: number, whole: number): string =>
  whole === 0 ? "–" : `${(100 * part / whole).toFixed(1)}%`;

const count = (n: number): string => n.toLocaleString("en-US");

const seconds = (ms: number): string => `${(ms / 1000).toFixed(3)} s`;

/**
 * What the engine has counted during a run that took `wallMs`, as text.
 *
 * Instructions are by samples. Times are shares of all of it: exits that were handled inside of runs, and
 * everything between runs, count as exits; compiling is what its name says; decoding and page walks are
 * estimated from samples; the rest is the guest's code.
 */
export function formatStatistics(vm: Vm, result: RunResult, wallMs: number): string {
  const { blocks, regions, code, ...engine } = vm.slots.ref(processorsSlot).current.statistics;
  const exitsMs = engine.outsideMs + Math.max(0, wallMs - engine.insideMs);
  const guestMs = wallMs - exitsMs - engine.walkMs - blocks.ms - code.compileMs;
  const perMillion = (n: number): string => `${(n / result.instructions * 1e6).toFixed(1)}`;
  const times: readonly (readonly [string, number])[] = [
    ["guest code", guestMs],
    ["page walks (estimated)", engine.walkMs],
    ["exits, devices, waiting", exitsMs],
    ["decoding (estimated)", blocks.ms],
    ["compiling", code.compileMs],
  ];
  const { samples, samplesCompiled } = regions;
  const counts: readonly (readonly [string, number])[] = [
    ["exits", result.exits],
    ["page walks (TLB refills)", engine.walks],
    ["TLB flushes", engine.flushes],
    ["looks for a block", engine.dispatches],
    ["  unknown to the jump cache", engine.searches],
  ];
  return [
    `instructions   tier 1 ${share(samples - samplesCompiled, samples)}, ` +
    `tier 2 ${share(samplesCompiled, samples)} of ${count(samples)} samples`,
    "time",
    ...times.map(([name, ms]) =>
      `  ${name.padEnd(28)}${seconds(ms).padStart(12)}${share(ms, wallMs).padStart(8)}`
    ),
    "counts                             number    per million instructions",
    ...counts.map(([name, n]) =>
      `  ${name.padEnd(28)}${count(n).padStart(12)}${perMillion(n).padStart(12)}`
    ),
    `blocks         ${count(blocks.built)} decoded, ${count(blocks.invalidated)} dropped, ` +
    `${count(blocks.isolated)} because an instruction has to be the last, ` +
    `${count(blocks.resets)} times all`,
    `regions        ${count(regions.compiled)} compiled (${
      count(regions.instructions)
    } instructions, ` +
    `${count(regions.bytes)} bytes), ${count(code.cached)} of them from the cache`,
    `               ${count(regions.dropped)} dropped, ${
      count(regions.evicted)
    } of them for room; ` +
    `${count(regions.live)} live (${count(regions.liveBytes)} bytes)`,
    `               the guest stood still for ${code.longestMs.toFixed(1)} ms at most`,
    "",
  ].join("\n");
}
