/**
 * How fast guests run and how long an exit takes: `deno task bench`.
 *
 * Each figure is the median of several runs in one process, after one that is not counted, with the
 * slowest and fastest behind it. Exits are measured as the difference between two runs that differ in
 * nothing but their number, so that boot and console drop out; the guest's loop around the exit, a few
 * instructions, is in.
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

const SAMPLES = 5;
const VENDORS: readonly (() => Plugin)[] = [metal, svm];

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
  using vm = await createVm({
    memory: 16 * 2 ** 20,
    plugins: [cpu(), vendor(), pic(), debugExit(), serial(), postCode(), ...plugins],
    images: [loadImage(bytes, { name: `${guest}.elf`, commandLine })],
  });
  const start = performance.now();
  const result = await vm.run();
  const ms = performance.now() - start;
  if (result.reason !== "exit-code" || result.code !== 1) {
    throw new Error(`${guest} "${commandLine}" ended with ${JSON.stringify(result)}`);
  }
  return { ms, instructions: result.instructions, exits: result.exits };
}

/** Takes samples and returns them in ascending order. */
async function sample(measure: () => Promise<number>): Promise<number[]> {
  await measure();
  const found: number[] = [];
  for (let i = 0; i < SAMPLES; i++) found.push(await measure());
  return found.sort((a, b) => a - b);
}

function print(what: string, sorted: readonly number[], digits: number): void {
  const text = (value: number) => value.toFixed(digits).padStart(8);
  const middle = sorted[sorted.length >> 1] as number;
  const ends = `${text(sorted[0] as number)} –${text(sorted.at(-1) as number)}`;
  console.log(`${what.padEnd(54)}${text(middle)}  ${ends}`);
}

/** Rounds of each loop, for about half a second. */
const LOOPS: readonly (readonly [name: string, rounds: number])[] = [
  ["sieve", 120],
  ["sha256", 40],
  ["sort", 20],
];

console.log("millions of instructions per second                     median      least – most");
for (const vendor of VENDORS) {
  for (const [loop, rounds] of LOOPS) {
    const mips = await sample(async () => {
      const { ms, instructions } = await time(vendor, "loops", `${loop}=${rounds}`);
      return instructions / ms / 1000;
    });
    print(`${vendor.name}, ${loop}`, mips, 0);
  }
}

/** The two numbers of exits whose runs are compared. */
const FEW = 20_000;
const MANY = 220_000;
const EXITS: readonly (readonly [name: string, key: string])[] = [
  ["OUT to a device", "out"],
  ["IN from a device", "in"],
  ["CPUID", "cpuid"],
];

/** Who watches. */
const WATCHERS: readonly (readonly [name: string, make: () => Plugin[]])[] = [
  ["", () => []],
  [", with profile and postmortem", () => [profile(), postMortem()]],
];

console.log("\nnanoseconds per exit, there and back                    median      least – most");
for (const vendor of VENDORS) {
  for (const [watched, watchers] of WATCHERS) {
    for (const [name, key] of EXITS) {
      const run = (count: number) =>
        time(vendor, "exits", `${key}=${count} port=${PORT}`, watchers());
      const ns = await sample(async () => {
        const few = await run(FEW);
        const many = await run(MANY);
        if (many.exits - few.exits < MANY - FEW) throw new Error(`${key}: too few exits`);
        return (many.ms - few.ms) * 1e6 / (MANY - FEW);
      });
      print(`${vendor.name}, ${name}${watched}`, ns, 0);
    }
  }
}
