/**
 * Records the vectors: generates the programs, compiles and runs `record.c`, judges what comes back
 * against what the generator allows, and writes `data/`.
 *
 * Needs x86-64 Linux, gcc, and the right to map pages below 64 KiB (root will do).
 *
 * @module
 */

import { COMPARED } from "./flags.ts";
import { BASE_SEEDS, EXTENDED_SEEDS, generateProgram, type Program } from "./generate.ts";
import { IMAGES, initialMemory, initialState } from "./initial.ts";
import { CODE_BASE, CODE_SIZE, LOW_BASE, LOW_SIZE, SCRATCH_BASE, SCRATCH_SIZE } from "./layout.ts";
import { type MemoryRun, type Processor, type Vector, vectorFile } from "./read.ts";
import { FEATURES } from "./rows.ts";
import { compress, encodeVectors } from "./write.ts";

/** A program did something that the generator rules out: one of the two is wrong. */
export class RecordingError extends Error {
  /** Says which program, by its seed, and what it did. */
  constructor(seed: number, message: string) {
    super(`program ${seed}: ${message}`);
    this.name = "RecordingError";
  }
}

/** What record.c writes about one run. */
interface Run {
  readonly vector: number;
  readonly errorCode: number;
  readonly cr2: bigint;
  readonly rip: number;
  readonly rflags: number;
  readonly gpr: BigUint64Array;
  readonly retiredCount: number;
  readonly retired: readonly number[];
  readonly memory: readonly MemoryRun[];
}

/** Vector record.c gives a program that its timer or its step limit stopped. */
const HUNG = 0xff;
const BREAKPOINT = 3;
const OVERFLOW = 4;
const PAGE_FAULT = 14;

function recorderInput(programs: readonly Program[]): Uint8Array<ArrayBuffer> {
  const records = programs.reduce((sum, { code }) => sum + 8 + 17 * 8 + code.length, 0);
  const images = IMAGES * (LOW_SIZE + SCRATCH_SIZE);
  const bytes = new Uint8Array(6 * 4 + 2 * 4 + images + records);
  const view = new DataView(bytes.buffer);
  let at = 0;
  const u32 = (value: number): void => {
    view.setUint32(at, value, true);
    at += 4;
  };
  const u16 = (value: number): void => {
    view.setUint16(at, value, true);
    at += 2;
  };
  const raw = (data: Uint8Array): void => {
    bytes.set(data, at);
    at += data.length;
  };
  for (const value of [LOW_BASE, LOW_SIZE, CODE_BASE, CODE_SIZE, SCRATCH_BASE, SCRATCH_SIZE]) {
    u32(value);
  }
  u32(IMAGES);
  u32(programs.length);
  for (let i = 0; i < IMAGES; i++) {
    const { low, scratch } = initialMemory(i);
    raw(low);
    raw(scratch);
  }
  for (const { seed, mode, entry, code } of programs) {
    u16(mode);
    u16(seed % IMAGES);
    u16(entry);
    u16(code.length);
    const { gpr, rflags } = initialState(seed, mode);
    for (const value of [...gpr, BigInt(rflags)]) {
      view.setBigUint64(at, value, true);
      at += 8;
    }
    raw(code);
  }
  return bytes;
}

class OutputReader {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  u8(): number {
    return this.#view.getUint8(this.#at++);
  }

  u32(): number {
    this.#at += 4;
    return this.#view.getUint32(this.#at - 4, true);
  }

  u64(): bigint {
    this.#at += 8;
    return this.#view.getBigUint64(this.#at - 8, true);
  }

  take(count: number): Uint8Array {
    this.#at += count;
    return this.#bytes.slice(this.#at - count, this.#at);
  }

  text(count: number): string {
    return new TextDecoder().decode(this.take(count)).replaceAll("\0", "").trim();
  }

  processor(): Processor {
    const vendor = this.text(12);
    const name = this.text(48);
    const signature = this.u32();
    const base = signature >> 8 & 15;
    const family = base === 15 ? base + (signature >> 20 & 255) : base;
    const extended = base === 15 || base === 6;
    const model = (signature >> 4 & 15) | (extended ? signature >> 12 & 0xf0 : 0);
    return { vendor, name, family, model, stepping: signature & 15 };
  }

  run(program: Program): Run {
    const vector = this.u8();
    const errorCode = this.u32();
    const cr2 = this.u64();
    const rip = Number(this.u64());
    const rflags = Number(this.u64());
    const registers = program.mode === 64 ? 16 : 8;
    const all = BigUint64Array.from({ length: 16 }, () => this.u64());
    const gpr = all.slice(0, registers).map((value) => BigInt.asUintN(program.mode, value));
    const retiredCount = this.u32();
    const bitmap = this.take((program.code.length + 7) >> 3);
    const retired: number[] = [];
    for (let i = 0; i < program.code.length; i++) {
      if (((bitmap[i >> 3] ?? 0) >> (i & 7) & 1) !== 0) retired.push(i);
    }
    const memory: MemoryRun[] = [];
    for (;;) {
      const address = this.u32();
      const length = this.u32();
      if (length === 0) break;
      memory.push({ address, bytes: this.take(length) });
    }
    return { vector, errorCode, cr2, rip, rflags, gpr, retiredCount, retired, memory };
  }
}

/** Status flags undefined where a program stopped, and whether that stop is AMD's way. */
function judgeStop(program: Program, run: Run): { undefinedFlags: number; amd: boolean } {
  const { seed, entry, code, instructions } = program;
  const offset = run.rip - CODE_BASE - entry;
  if (run.vector === HUNG) throw new RecordingError(seed, "did not end");
  if (run.vector === BREAKPOINT) {
    if (offset !== code.length) throw new RecordingError(seed, `INT3 at offset ${offset - 1}`);
    return { undefinedFlags: program.undefinedFlags, amd: program.amd };
  }
  const here = instructions.findIndex((instruction) => instruction.offset === offset);
  const stop = `vector ${run.vector} at offset ${offset}`;
  if (run.vector === OVERFLOW) {
    // A trap: RIP is at the instruction after INTO.
    const next = here < 0 ? instructions.length : here;
    const into = instructions[next - 1];
    if (into === undefined || !into.vectors.includes(OVERFLOW)) {
      throw new RecordingError(seed, stop);
    }
    const undefinedFlags = instructions[next]?.undefinedFlags ?? program.undefinedFlags;
    return { undefinedFlags, amd: program.amd };
  }
  const instruction = instructions[here];
  if (instruction === undefined) {
    const left = program.outsideUndefined;
    if (left === undefined || run.vector !== PAGE_FAULT || (offset >= 0 && offset < code.length)) {
      throw new RecordingError(seed, `${stop}, which is no instruction`);
    }
    return { undefinedFlags: left, amd: program.amd };
  }
  if (!instruction.vectors.includes(run.vector)) {
    throw new RecordingError(seed, `${stop}, ${instruction.form}, address ${run.cr2.toString(16)}`);
  }
  return {
    undefinedFlags: instruction.undefinedFlags,
    amd: program.amd || instruction.amdFault,
  };
}

function sameMemory(a: readonly MemoryRun[], b: readonly MemoryRun[]): boolean {
  return a.length === b.length && a.every((run, i) => {
    const other = b[i];
    return run.address === other?.address && run.bytes.length === other.bytes.length &&
      run.bytes.every((byte, j) => byte === other.bytes[j]);
  });
}

/** The stepped run must agree with the free one; PUSHF shows it TF, so only the stop is compared. */
function judgeStepped(program: Program, free: Run, stepped: Run): void {
  const same = free.vector === stepped.vector && free.rip === stepped.rip;
  const seesTrap = program.instructions.some(({ form }) => form.startsWith("PUSHF"));
  const state = free.rflags === stepped.rflags && free.errorCode === stepped.errorCode &&
    free.gpr.every((value, r) => value === stepped.gpr[r]) &&
    sameMemory(free.memory, stepped.memory);
  if (!same || (!state && !seesTrap)) {
    throw new RecordingError(program.seed, "stepping through it gave another result");
  }
}

function toVector(program: Program, free: Run, stepped: Run): Vector {
  const { undefinedFlags, amd } = judgeStop(program, free);
  judgeStepped(program, free, stepped);
  const faulted = free.vector !== BREAKPOINT;
  return {
    seed: program.seed,
    mode: program.mode,
    features: FEATURES.filter((_, i) => (program.features >> i & 1) !== 0),
    amd,
    start: CODE_BASE + program.entry,
    code: program.code,
    exception: faulted
      ? {
        vector: free.vector,
        errorCode: free.errorCode,
        cr2: free.vector === PAGE_FAULT ? Number(free.cr2) : 0,
      }
      : undefined,
    rip: free.rip,
    gpr: free.gpr,
    rflags: free.rflags,
    definedFlags: COMPARED & ~undefinedFlags,
    memory: free.memory,
    retiredCount: stepped.retiredCount,
    retired: stepped.retired,
  };
}

async function runTool(command: string, args: readonly string[]): Promise<void> {
  const { success, code } = await new Deno.Command(command, {
    args: [...args],
    stdout: "inherit",
    stderr: "inherit",
  }).output();
  if (!success) throw new Error(`${command} failed with exit code ${code}`);
}

function range(first: number, count: number): number[] {
  return Array.from({ length: count }, (_, i) => first + i);
}

/** What a recording gives. */
export interface Recording {
  /** The processor it was made on. */
  readonly processor: Processor;
  /** A vector for each seed, in their order. */
  readonly vectors: readonly Vector[];
}

/**
 * Runs the programs of some seeds on this machine's processor.
 *
 * @throws {RecordingError} when a program hangs, faults where it should not, or gives another result
 * when stepped.
 */
export async function record(seeds: readonly number[]): Promise<Recording> {
  const directory = await Deno.makeTempDir({ prefix: "trapline-vectors-" });
  try {
    const source = new URL("./record.c", import.meta.url).pathname;
    const tool = `${directory}/record`;
    await runTool("gcc", ["-O1", "-Wall", "-Wextra", "-o", tool, source]);
    const programs = seeds.map((seed) => generateProgram(seed));
    await Deno.writeFile(`${directory}/input`, recorderInput(programs));
    await runTool(tool, [`${directory}/input`, `${directory}/output`]);
    const output = new OutputReader(await Deno.readFile(`${directory}/output`));
    const processor = output.processor();
    const vectors = programs.map((program) => {
      const free = output.run(program);
      return toVector(program, free, output.run(program));
    });
    return { processor, vectors };
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

async function recordFiles(): Promise<void> {
  const sets = [
    ["base", range(0, BASE_SEEDS)],
    ["extended", range(BASE_SEEDS, EXTENDED_SEEDS)],
  ] as const;
  for (const [set, seeds] of sets) {
    const { processor, vectors } = await record(seeds);
    const bytes = await compress(encodeVectors(processor, FEATURES, vectors));
    const file = vectorFile(set);
    await Deno.mkdir(new URL(".", file), { recursive: true });
    await Deno.writeFile(file, bytes);
    const faulted = vectors.filter(({ exception }) => exception !== undefined).length;
    console.log(`${set}: ${vectors.length} programs, ${faulted} ended by a fault`);
    console.log(`${processor.vendor} ${processor.name}, family ${processor.family}`);
  }
}

if (import.meta.main) await recordFiles();
