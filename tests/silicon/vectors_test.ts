/**
 * Random programs recorded on a real processor, run on ours: registers, defined flags, memory, faults.
 */
import { assertEquals } from "@std/assert";
import {
  Control,
  Save,
  SvmExit,
  type Tier,
  Vector as Exception,
  VirtExt,
} from "../../plugins/cpu/mod.ts";
import {
  CODE_BASE,
  CODE_SIZE,
  codeImage,
  initialMemory,
  initialState,
  loadVectors,
  LOW_BASE,
  LOW_SIZE,
  SCRATCH_BASE,
  SCRATCH_SIZE,
  type Vector,
  type VectorSet,
} from "../vectors/read.ts";
import { Lab, refuseOutside } from "./lab.ts";

/** Extended features that the processor has. */
const FEATURES: ReadonlySet<string> = new Set([
  "popcnt",
  "lzcnt",
  "movbe",
  "sse4.2",
  "adx",
  "bmi1",
  "bmi2",
]);

/** User pages, accessed and dirty already: writable data, and code. */
const DATA = 0x67n;
const CODE = 0x25n;

const NAMES = "rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15".split(" ");

function makeLab(tier: Tier): Lab {
  const lab = new Lab(refuseOutside(), { tier });
  lab.map(LOW_BASE, LOW_SIZE, DATA);
  lab.map(CODE_BASE, CODE_SIZE, CODE);
  lab.map(SCRATCH_BASE, SCRATCH_SIZE, DATA);
  return lab;
}

/** Ways through a program. All must end the same. */
const WAYS: Readonly<Record<string, (lab: Lab) => void>> = {
  "at once": (lab) => void lab.run(),
  "compiled": (lab) => void lab.run(),
  /** The guest leaves behind each instruction and is entered again. */
  "instruction by instruction": (lab) => {
    let exit: bigint;
    do exit = lab.run(1); while (exit === BigInt(SvmExit.INTR));
  },
  /** While branches are recorded, instructions run one by one. */
  "with branches recorded": (lab) => {
    lab.set32(Control.VIRT_EXT, VirtExt.LBR);
    lab.set64(Save.DBGCTL, 1n);
    lab.run();
  },
};

function run(lab: Lab, vector: Vector, way: string): void {
  const { gpr, rflags } = initialState(vector.seed, vector.mode);
  const { low, scratch } = initialMemory(vector.seed);
  lab.write(LOW_BASE, low);
  lab.write(SCRATCH_BASE, scratch);
  lab.write(CODE_BASE, codeImage(vector));
  lab.prepare(vector.mode, 3);
  lab.set64(Save.RFLAGS, BigInt(rflags));
  lab.set64(Save.RIP, BigInt(vector.start));
  for (let n = 0; n < 16; n++) lab.setRegister(n, gpr[n] ?? 0n);
  WAYS[way]!(lab);
}

/** Everything that differs from what was recorded; undefined if nothing does. */
function difference(lab: Lab, vector: Vector): string | undefined {
  const wrong: string[] = [];
  const compare = (what: string, is: bigint, recorded: bigint): void => {
    if (is !== recorded) {
      wrong.push(`${what} is ${is.toString(16)}, recorded ${recorded.toString(16)}`);
    }
  };
  const { exception } = vector;
  const number = exception?.vector ?? Exception.BP;
  compare("exit", lab.get64(Control.EXITCODE), BigInt(SvmExit.EXCEPTION + number));
  if (exception !== undefined && number >= Exception.DF) {
    compare("error code", lab.get64(Control.EXITINFO1), BigInt(exception.errorCode));
  }
  if (exception !== undefined && number === Exception.PF) {
    compare("CR2", lab.get64(Control.EXITINFO2), BigInt(exception.cr2));
  }
  // An intercepted trap leaves RIP at the instruction; it was recorded behind it.
  const trap = number === Exception.BP || number === Exception.OF;
  const rip = trap ? lab.get64(Control.NRIP) : lab.get64(Save.RIP);
  compare("rip", rip, BigInt(vector.rip));
  for (const [n, recorded] of vector.gpr.entries()) {
    const mask = vector.mode === 64 ? -1n : 0xffff_ffffn;
    compare(NAMES[n]!, BigInt.asUintN(64, lab.register(n) & mask), recorded);
  }
  const defined = BigInt(vector.definedFlags);
  compare("rflags", lab.get64(Save.RFLAGS) & defined, BigInt(vector.rflags) & defined);
  // The images are shared by all programs of an image number.
  const image = initialMemory(vector.seed);
  const low = image.low.slice();
  const scratch = image.scratch.slice();
  for (const { address, bytes } of vector.memory) {
    if (address < SCRATCH_BASE) low.set(bytes, address - LOW_BASE);
    else scratch.set(bytes, address - SCRATCH_BASE);
  }
  for (const [start, recorded] of [[LOW_BASE, low], [SCRATCH_BASE, scratch]] as const) {
    const is = lab.read(start, recorded.length);
    const at = is.findIndex((byte, k) => byte !== recorded[k]);
    if (at >= 0) {
      compare(`byte ${(start + at).toString(16)}`, BigInt(is[at]!), BigInt(recorded[at]!));
    }
  }
  if (wrong.length === 0) return undefined;
  const hex = Array.from(vector.code, (byte) => byte.toString(16).padStart(2, "0")).join(" ");
  return `seed ${vector.seed}, ${vector.mode}-bit: ${wrong.join("; ")}\n  code ${hex}`;
}

/** Runs every `step`-th program of a set. */
async function check(
  set: VectorSet,
  atLeast: number,
  way = "at once",
  step = 1,
): Promise<void> {
  const { vectors } = await loadVectors(set);
  const lab = makeLab(way === "compiled" ? 2 : 1);
  const differences: string[] = [];
  let count = 0;
  for (const [k, vector] of vectors.entries()) {
    if (k % step !== 0) continue;
    if (!vector.features.every((feature) => FEATURES.has(feature.toLowerCase()))) continue;
    count++;
    run(lab, vector, way);
    const found = difference(lab, vector);
    if (found !== undefined && differences.push(found) === 10) break;
  }
  assertEquals(differences.join("\n"), "");
  if (count < atLeast) throw new Error(`only ${count} programs of set "${set}" were run`);
}

Deno.test("10,000 recorded programs of base instructions end as on silicon", async () => {
  await check("base", 10_000);
});

Deno.test("recorded programs of the extended group that the processor has end as on silicon", async () => {
  await check("extended", 400);
});

for (const way of Object.keys(WAYS).filter((name) => name !== "at once")) {
  Deno.test(`recorded programs end the same ${way}`, async () => {
    await check("base", 1000, way, 10);
    await check("extended", 40, way, 10);
  });
}
