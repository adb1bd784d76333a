/**
 * How fast guests run and how long an exit takes: `deno task bench`.
 *
 * Each figure is the median of several runs in one process, after one that is not counted, with the
 * least and the most behind it; what is compared is run in turns. Time is that of the thread itself where
 * the system tells it. Exits and interrupts are measured as the difference
 * between two runs that differ in nothing but their number, so that boot and console drop out; the
 * guest's loop around the exit, a few instructions, is in.
 *
 * @module
 */

import { createVm, type Plugin } from "../core/mod.ts";
import { cpu } from "../plugins/cpu/mod.ts";
import { debugExit } from "../plugins/debugexit/mod.ts";
import { metal } from "../plugins/metal/mod.ts";
import { loadImage } from "../plugins/multiboot/mod.ts";
import { pic } from "../plugins/pic/mod.ts";
import { postMortem } from "../plugins/postmortem/mod.ts";
import { profile } from "../plugins/profile/mod.ts";
import { serial } from "../plugins/serial/mod.ts";
import { svm } from "../plugins/svm/mod.ts";
import { vmx } from "../plugins/vmx/mod.ts";
import { ownTime } from "./peers/clock.ts";
import type { Workload } from "./peers/peer.ts";
import { traplineOn } from "./peers/trapline.ts";

const SAMPLES = 5;
const VENDORS: readonly (() => Plugin)[] = [metal, svm, vmx];

/** The port that the exits guest is told to use. */
const PORT = 0x80;

/** A device with nothing to do, so that what is measured is the way to it. */
function postCode(): Plugin {
  let last = 0;
  return {
    name: "post-code",
    version: "1.0.0",
    setup: (ctx) =>
      void ctx.registerPio({
        name: "post code",
        base: PORT,
        length: 1,
        width: 1,
        read: () => last,
        write: (_offset, _size, value) => void (last = value),
      }),
  };
}

interface Timed {
  readonly ms: number;
  readonly instructions: number;
  readonly exits: number;
}

/** Runs one of the guests. */
async function time(
  vendor: () => Plugin,
  guest: string,
  commandLine: string,
  plugins: readonly Plugin[] = [],
): Promise<Timed> {
  const bytes = await Deno.readFile(
    new URL(`../examples/guests/${guest}/${guest}.elf`, import.meta.url),
  );
  const model = vendor === vmx ? "sapphire-rapids" : "zen4";
  using vm = await createVm({
    memory: 16 * 2 ** 20,
    plugins: [cpu({ model }), vendor(), pic(), debugExit(), serial(), postCode(), ...plugins],
    images: [loadImage(bytes, { name: `${guest}.elf`, commandLine })],
  });
  const start = ownTime();
  const result = await vm.run();
  const ms = ownTime() - start;
  if (result.reason !== "exit-code" || result.code !== 1) {
    throw new Error(`${guest} "${commandLine}" ended with ${JSON.stringify(result)}`);
  }
  return { ms, instructions: result.instructions, exits: result.exits };
}

/** One line of the output: what is measured, and how to take one sample of it. */
interface Row {
  readonly what: string;
  readonly measure: () => Promise<number>;
}

/**
 * Samples all rows in turns, so that whatever else the machine does falls on all of them alike, and
 * prints their medians.
 */
async function table(title: string, rows: readonly Row[]): Promise<void> {
  const samples = rows.map((): number[] => []);
  for (const { measure } of rows) await measure();
  for (let i = 0; i < SAMPLES; i++) {
    for (const [k, { measure }] of rows.entries()) samples[k]!.push(await measure());
  }
  console.log(`${title.padEnd(WIDTH)}  median     least – most`);
  for (const [k, { what }] of rows.entries()) print(what, samples[k]!.sort((a, b) => a - b));
}

const WIDTH = 54;

function print(what: string, sorted: readonly number[]): void {
  const text = (value: number | undefined) => value!.toFixed(0).padStart(8);
  const ends = `${text(sorted[0])} –${text(sorted.at(-1))}`;
  console.log(`${what.padEnd(WIDTH)}${text(sorted[sorted.length >> 1])}  ${ends}`);
}

/** Rounds of each loop, for about a quarter of a second. */
const LOOPS: readonly (readonly [name: string, rounds: number])[] = [
  ["sieve", 400],
  ["sha256", 100],
  ["sort", 60],
];

await table(
  "millions of instructions per second",
  LOOPS.flatMap(([loop, rounds]) =>
    VENDORS.map((vendor): Row => ({
      what: `${loop}, ${vendor.name}`,
      async measure() {
        const { ms, instructions } = await time(vendor, "loops", `${loop}=${rounds}`);
        return instructions / ms / 1000;
      },
    }))
  ),
);

/** The two numbers of exits whose runs are compared. */
const FEW = 20_000;
const MANY = 220_000;

/** What exits, under which vendors, and the argument of the exits guest that makes it. */
const EXITS: readonly (readonly [what: string, key: string, vendors: readonly (() => Plugin)[]])[] =
  [
    ["OUT to a device", "out", VENDORS],
    ["IN from a device", "in", VENDORS],
    ["CPUID", "cpuid", VENDORS],
    // The bare processor has its MSRs to itself.
    ["RDMSR", "rdmsr", [svm, vmx]],
  ];

/** Who watches. */
const WATCHERS: readonly (readonly [name: string, make: () => Plugin[]])[] = [
  ["", () => []],
  [", with profile and postmortem", () => [profile(), postMortem()]],
];

console.log();
await table(
  "nanoseconds per exit, there and back",
  EXITS.flatMap(([what, key, vendors]) =>
    vendors.flatMap((vendor) =>
      WATCHERS.map(([watched, watchers]): Row => ({
        what: `${what}, ${vendor.name}${watched}`,
        async measure() {
          const run = (count: number) =>
            time(vendor, "exits", `${key}=${count} port=${PORT}`, watchers());
          const few = await run(FEW);
          const many = await run(MANY);
          if (many.exits - few.exits < MANY - FEW) throw new Error(`${key}: too few exits`);
          return (many.ms - few.ms) * 1e6 / (MANY - FEW);
        },
      }))
    )
  ),
);

/** Rounds of the interrupts' programs that are compared, and what they have of them in one. */
const FEW_ROUNDS = 20;
const MANY_ROUNDS = 420;
const IN_ROUND = 100;

/** Programs of the system guest that wait for interrupts, on a board with local APICs. */
const INTERRUPTS: readonly (readonly [what: string, program: string])[] = [
  ["the timer ends a HLT", "timer"],
  ["an IPI to oneself", "ipi"],
];

console.log();
await table(
  "nanoseconds per interrupt, with all exits it takes",
  INTERRUPTS.flatMap(([what, program]) =>
    VENDORS.map(({ name }): Row => ({
      what: `${what}, ${name}`,
      async measure() {
        const workload: Workload = {
          ...{ group: "interrupts", guest: "system", program, bits: 64, userMode: false },
        };
        const peer = traplineOn(name);
        const few = await peer.run(workload, FEW_ROUNDS);
        const many = await peer.run(workload, MANY_ROUNDS);
        return (many.ms - few.ms) * 1e6 / ((MANY_ROUNDS - FEW_ROUNDS) * IN_ROUND);
      },
    }))
  ),
);
