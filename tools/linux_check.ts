/**
 * Boots Debian's kernels in several ways, types commands, looks at what they answer, and says how long the
 * boots took.
 *
 *     deno task linux:check                                    # each vendor, 1 and 4 vCPUs, amd64 and i686
 *     deno task linux:check --vendors metal --cpus 1 --archs amd64
 *     deno task linux:check --disk                             # writes a file to ext4 and finds it again
 *     deno task linux:check --time 3                           # beside QEMU's TCG, three rounds
 *
 * With `--time`, each round boots in QEMU, with an empty cache of compiled code and with a full one, in turn;
 * what is told is how long the prompt took to come, in wall time and in time on the processor, medians and
 * ratios. The status is 1 if something was not as it should be.
 *
 * `--disk` needs mkfs.ext4 of e2fsprogs, `--time` QEMU's qemu-system-x86_64.
 *
 * @module
 */

import { taskOptions } from "../bench/options.ts";
import { median } from "../bench/peers/statistics.ts";
import { prepare } from "./linux.ts";

const USAGE =
  `deno task linux:check: boots Debian's kernels, types commands, and looks at the answers

  --vendors LIST   of metal, svm, vmx (all; metal with --time)
  --cpus LIST      numbers of vCPUs (1,4)
  --archs LIST     of amd64, i686 (both)
  --disk           writes a file to ext4, and finds it after another boot
  --time N         N rounds beside QEMU's translator: how long until the prompt`;

/** What a boot showed. */
interface Boot {
  /** What the kernel said, and the answers. */
  readonly text: string;
  /** Seconds until the shell asked for a command. */
  readonly wall: number;
  /** Seconds that the process was on processors until then. */
  readonly busy: number;
}

/** What the shell's prompt ends with, and what it may ask the terminal behind it. */
const PROMPT = "# ";
const WHERE_IS_THE_CURSOR = "\u001b[6n";
/** What both have, in QEMU's and in `trapline run`'s notation. */
const MEMORY = "128M";
const COMMAND_LINE = "console=ttyS0";
/** Ticks of /proc/PID/stat in a second. */
const TICKS = 100;

/** Seconds that a process has been on processors, all threads. */
async function processorTime(pid: number): Promise<number> {
  const text = await Deno.readTextFile(`/proc/${pid}/stat`);
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / TICKS;
}

/** Starts a machine, types `lines` one after the other, and waits for its end. */
async function boot(command: string, args: readonly string[], lines: string[]): Promise<Boot> {
  const start = performance.now();
  const child = new Deno.Command(command, {
    args: [...args],
    stdin: "piped",
    stdout: "piped",
    stderr: "null",
  }).spawn();
  const keyboard = child.stdin.getWriter();
  const left = [...lines];
  let text = "";
  let seen = 0;
  let wall = NaN;
  let busy = NaN;
  for await (const part of child.stdout.pipeThrough(new TextDecoderStream())) {
    text += part;
    const end = text.slice(-20).replaceAll(WHERE_IS_THE_CURSOR, "");
    if (!end.endsWith(PROMPT) || text.length === seen || left.length === 0) continue;
    seen = text.length;
    if (Number.isNaN(wall)) {
      wall = (performance.now() - start) / 1000;
      busy = await processorTime(child.pid);
    }
    await keyboard.write(new TextEncoder().encode(`${left.shift()}\n`));
  }
  await keyboard.close().catch(() => {});
  await child.status;
  return { text, wall, busy };
}

/** A boot of `deno task linux` with these words. */
function bootLinux(words: readonly string[], lines: string[]): Promise<Boot> {
  const tool = new URL("linux.ts", import.meta.url).pathname;
  return boot(Deno.execPath(), ["run", "-A", tool, ...words, "--no-profile", "--quiet"], lines);
}

const POWER_OFF = "poweroff -f";
let failed = false;

/** Says how a check came out. */
function tell(what: string, good: boolean, { text, wall, busy }: Boot): void {
  const times = `${wall.toFixed(1)} s to the prompt, ${busy.toFixed(1)} s on the processor`;
  console.log(`${what.padEnd(24)}  ${good ? "ok    " : "failed"}  ${times}`);
  if (good) return;
  failed = true;
  console.log(text.slice(-2000));
}

/** Boots and asks for a sum, the number of processors and the architecture. */
async function check(vendor: string, cpus: string, arch: string): Promise<void> {
  const words = ["--vendor", vendor, "--cpus", cpus, "--arch", arch];
  const result = await bootLinux(words, ["echo $((6*7)) $(nproc) $(uname -m) end", POWER_OFF]);
  const machine = arch === "amd64" ? "x86_64" : "i686";
  const good = result.text.includes(`42 ${cpus} ${machine} end`);
  tell(`${arch} ${vendor}, ${cpus} vCPU`, good, result);
}

/** Writes a file to a disk in one boot, and reads it in the next. */
async function checkDisk(vendor: string): Promise<void> {
  const disk = await Deno.makeTempFile({ suffix: ".img" });
  try {
    await Deno.truncate(disk, 32 * 2 ** 20);
    const made = await new Deno.Command("mkfs.ext4", { args: ["-q", disk] }).output();
    if (!made.success) throw new Error("mkfs.ext4 has failed");
    const words = ["--vendor", vendor, "--disk", disk, "--keep-disks"];
    const mount = "mount -t ext4 /dev/vda /mnt";
    const first = await bootLinux(words, [
      `${mount} && echo kept$((6*7)) > /mnt/file && umount /mnt && echo un$((1+1))mounted`,
      POWER_OFF,
    ]);
    tell(`ext4 ${vendor}, written`, first.text.includes("un2mounted"), first);
    const second = await bootLinux(words, [`${mount} && cat /mnt/file`, POWER_OFF]);
    tell(`ext4 ${vendor}, read`, second.text.includes("kept42"), second);
  } finally {
    await Deno.remove(disk);
  }
}

/** Times boots beside QEMU's. */
async function time(vendor: string, rounds: number): Promise<void> {
  const { kernel, initrd } = await prepare({}, "amd64");
  const cache = await Deno.makeTempFile({ suffix: ".code" });
  const qemu = [
    "-accel",
    "tcg,thread=single",
    "-m",
    MEMORY,
    "-display",
    "none",
    "-serial",
    "stdio",
  ];
  qemu.push("-no-reboot", "-kernel", kernel, "-initrd", initrd, "-append", COMMAND_LINE);
  const kinds = ["QEMU TCG", "first", "warm"] as const;
  const results: Boot[][] = kinds.map(() => []);
  for (let round = 0; round < rounds; round++) {
    await Deno.remove(cache).catch(() => {});
    const words = ["--vendor", vendor, "--memory", MEMORY, "--code-cache", cache];
    results[0]!.push(await boot("qemu-system-x86_64", qemu, [POWER_OFF]));
    for (const k of [1, 2]) results[k]!.push(await bootLinux(words, [POWER_OFF]));
    for (const [k, kind] of kinds.entries()) {
      const result = results[k]!.at(-1)!;
      tell(`round ${round + 1}, ${kind}`, !Number.isNaN(result.wall), result);
    }
  }
  await Deno.remove(cache).catch(() => {});
  for (const by of ["wall", "busy"] as const) {
    const medians = results.map((boots) => median(boots.map((each) => each[by])));
    const [tcg, first, warm] = medians.map((value) => value.toFixed(1));
    const [ratioFirst, ratioWarm] = [1, 2].map((k) => (medians[k]! / medians[0]!).toFixed(1));
    console.log(
      `${
        by === "wall" ? "wall time" : "processor time"
      }: QEMU TCG ${tcg} s, first boot ${first} s ` +
        `(${ratioFirst} x), warm ${warm} s (${ratioWarm} x)`,
    );
  }
}

if (import.meta.main) {
  const given = taskOptions({
    name: "linux:check",
    usage: USAGE,
    valued: ["vendors", "cpus", "archs", "time"],
    numbers: { time: 1 },
    flags: ["disk"],
  });
  const list = (name: string, usual: string): string[] => (given.get(name) ?? usual).split(",");
  const vendors = list("vendors", "metal,svm,vmx");
  if (given.has("time")) {
    for (const vendor of list("vendors", "metal")) await time(vendor, Number(given.get("time")));
  } else if (given.has("disk")) { for (const vendor of vendors) await checkDisk(vendor); }
  else {
    for (const arch of list("archs", "amd64,i686")) {
      for (const cpus of list("cpus", "1,4")) {
        for (const vendor of vendors) await check(vendor, cpus, arch);
      }
    }
  }
  Deno.exit(failed ? 1 : 0);
}
