/**
 * How fast guest code runs beside other ways to run it: `deno task bench:kernels`.
 *
 * The same images run in Trapline with and without compiling and, where `qemu-system-x86_64` is on the
 * PATH, under QEMU's translator (TCG). What is measured is the difference between two runs that differ in
 * nothing but their rounds, so that start and console drop out; all take turns, and medians are compared.
 *
 * @module
 */
import { createVm } from "../core/mod.ts";
import { cpu, type Tier } from "../plugins/cpu/mod.ts";
import { debugExit } from "../plugins/debugexit/mod.ts";
import { metal } from "../plugins/metal/mod.ts";
import { loadImage } from "../plugins/multiboot/mod.ts";
import { pic } from "../plugins/pic/mod.ts";
import { serial } from "../plugins/serial/mod.ts";
import { taskOptions } from "./options.ts";

const USAGE = `deno task bench:kernels: the tiers beside each other and QEMU's translator

  --only NAME      one kernel
  --bits 32|64     guests of one width
  --samples N      runs of each, of which the median counts (3)`;

/** Image, kernel, rounds for something like half a second of compiled code. */
const KERNELS: readonly (readonly [guest: string, kernel: string, rounds: number])[] = [
  ["loops", "sieve", 800],
  ["loops", "sha256", 200],
  ["loops", "sort", 80],
  ["kernels", "chase", 1000],
  ["kernels", "interpret", 3000],
  ["kernels", "calls", 6000],
  ["kernels", "matrix", 150],
  ["kernels", "virtual", 20000],
  ["kernels", "crc", 800],
  ["kernels", "strings", 20000],
];

interface Measured {
  readonly ms: number;
  readonly instructions: number;
}

type Runner = (guest: string, commandLine: string) => Promise<Measured>;

const image = (guest: string): URL =>
  new URL(`../examples/guests/${guest}/${guest}.elf`, import.meta.url);

function trapline(tier: Tier): Runner {
  return async (guest, commandLine) => {
    using vm = await createVm({
      memory: 16 * 2 ** 20,
      plugins: [cpu({ tier }), metal(), pic(), debugExit(), serial()],
      images: [loadImage(await Deno.readFile(image(guest)), { name: guest, commandLine })],
    });
    const start = performance.now();
    const result = await vm.run();
    const ms = performance.now() - start;
    if (result.reason !== "exit-code" || result.code !== 1) {
      throw new Error(`${guest} "${commandLine}" ended with ${JSON.stringify(result)}`);
    }
    return { ms, instructions: result.instructions };
  };
}

const qemu: Runner = async (guest, commandLine) => {
  const command = new Deno.Command("qemu-system-x86_64", {
    args: [
      ...["-accel", "tcg", "-kernel", image(guest).pathname, "-append", commandLine],
      ...["-serial", "null", "-display", "none", "-monitor", "none", "-no-reboot"],
      ...["-device", "isa-debug-exit,iobase=0xf4,iosize=0x4"],
    ],
  });
  const start = performance.now();
  const { code, stderr } = await command.output();
  const ms = performance.now() - start;
  if (code !== 1) throw new Error(`QEMU: status ${code}: ${new TextDecoder().decode(stderr)}`);
  return { ms, instructions: 0 };
};

async function exists(program: string): Promise<boolean> {
  try {
    return (await new Deno.Command(program, { args: ["--version"], stdout: "null" }).output())
      .success;
  } catch {
    return false;
  }
}

const median = (values: readonly number[]): number =>
  values.toSorted((a, b) => a - b)[values.length >> 1]!;

const given = taskOptions({
  name: "bench:kernels",
  usage: USAGE,
  valued: ["samples", "only", "bits"],
  numbers: { samples: 1 },
});
const samples = Number(given.get("samples") ?? 3);
const only = given.get("only");
const bits = given.get("bits");

const runners: (readonly [name: string, run: Runner, part: number])[] = [
  ["tier 1", trapline(1), 0.2],
  ["auto", trapline("auto"), 1],
];
if (await exists("qemu-system-x86_64")) runners.push(["QEMU TCG", qemu, 1]);

const heading = runners.map(([name]) => name.padStart(10)).join("");
const against = runners.slice(2).map(([name]) => `auto : ${name}`.padStart(17)).join("");
console.log(`${"MIPS".padEnd(20)}${heading}${"auto : tier 1".padStart(15)}${against}`);
const logarithms = runners.map((): number[] => []);

for (const [guest, kernel, rounds] of KERNELS) {
  for (const width of guest === "kernels" ? [64, 32] : [64]) {
    if ((only ?? kernel) !== kernel || (bits ?? String(width)) !== String(width)) continue;
    const speeds = runners.map((): number[] => []);
    let perRound = 0;
    for (let k = 0; k < samples; k++) {
      for (const [n, [, run, part]] of runners.entries()) {
        const many = Math.ceil(rounds * part);
        const few = Math.ceil(many / 10);
        const line = (count: number) => `${kernel}=${count} bits=${width}`;
        const short = await run(guest, line(few));
        const long = await run(guest, line(many));
        if (long.instructions > 0) {
          perRound = (long.instructions - short.instructions) / (many - few);
        }
        speeds[n]!.push((perRound * (many - few)) / (long.ms - short.ms) / 1000);
      }
    }
    const medians = speeds.map(median);
    const [slow, fast, ...others] = medians as [number, number, ...number[]];
    const ratios = [fast / slow, ...others.map((other) => fast / other)];
    // What moves whole pages in one instruction would drown the rest.
    if (kernel !== "strings") {
      for (const [n, ratio] of ratios.entries()) logarithms[n]!.push(Math.log(ratio));
    }
    console.log(
      `${`${kernel}, ${width}-bit`.padEnd(20)}` +
        medians.map((speed) => speed.toFixed(0).padStart(10)).join("") +
        ratios.map((ratio, n) => ratio.toFixed(2).padStart(n === 0 ? 15 : 17)).join(""),
    );
  }
}
const mean = (values: readonly number[]): number =>
  Math.exp(values.reduce((sum, value) => sum + value, 0) / values.length);
console.log(
  `${"geometric mean, strings aside".padEnd(20 + 10 * runners.length)}` +
    logarithms.filter((values) => values.length > 0)
      .map((values, n) => mean(values).toFixed(2).padStart(n === 0 ? 15 : 17)).join(""),
);
