/**
 * Random programs of APX instructions against the evaluator: as a block on the bare processor, one
 * instruction at a time, and in guest mode.
 */
import { assert, assertEquals } from "@std/assert";
import { Control, Cr4, S, Save, Xcr0 } from "../../../plugins/cpu/mod.ts";
import { Prng } from "../../vectors/prng.ts";
import { SvmBench, SvmPlace } from "../svm_bench.ts";
import { ApxBench, assertSame, EVERYTHING, interesting, type Snapshot } from "./apx_bench.ts";
import { DATA, DATA_BYTES, PROGRAM, STACK } from "./apx_bench.ts";
import { access } from "./apx_bench.ts";
import { INDEX, POINTERS, ProgramMaker } from "./program.ts";
import type { ReferenceState } from "./reference.ts";

const SEED = 0xa9c0_0005;
const PROGRAMS = 60;
const LENGTH = 60;

interface Program {
  readonly name: string;
  readonly before: Snapshot;
  readonly code: readonly (readonly number[])[];
  readonly after: Snapshot;
}

/** Random registers and data, a program, and what the evaluator makes of them. */
function makeProgram(number: number): Program {
  const random = new Prng(SEED, number);
  const registers = Array.from({ length: 32 }, () => interesting(random));
  for (const n of POINTERS) registers[n] = BigInt(DATA + 0x1800 + (random.next() & 0x3ff));
  registers[INDEX] = BigInt(random.next() & 0x3f);
  registers[4] = BigInt(STACK);
  const memory = new Uint8Array(DATA_BYTES);
  for (let k = 0x1000; k < 0x6000; k++) memory[k] = random.next();
  const flags = random.next() & 0x8d5;
  const name = `seed ${SEED.toString(16)}, program ${number}`;
  const rip = BigInt(PROGRAM);
  const before = { registers: [...registers], flags, rip, memory: memory.slice() };
  const state: ReferenceState = { registers, flags, rip, ...access(memory, name) };
  const code = new ProgramMaker(random).make(state, LENGTH, memory);
  // The evaluator's memory has no code in it.
  const after = { registers: [...registers], flags: state.flags, rip: state.rip, memory };
  return { name, before, code, after };
}

const programs = Array.from({ length: PROGRAMS }, (_, number) => makeProgram(number));
console.log(`seed ${SEED.toString(16)}`);

/** Number of instructions, those that define flags included. */
const instructions = (code: Program["code"]): number =>
  code.reduce((sum, bytes) => sum + (bytes.length > 4 && endsWithCompare(bytes) ? 2 : 1), 0);

function endsWithCompare(bytes: readonly number[]): boolean {
  return [0xd5, 0x4d, 0x39, 0xed].every((byte, k) => bytes[bytes.length - 4 + k] === byte);
}

/** The memory of `snapshot` with the program in it. */
function withCode({ memory, ...rest }: Snapshot, code: Program["code"]): Snapshot {
  const copy = memory.slice();
  copy.set(code.flat(), PROGRAM - DATA);
  return { ...rest, memory: copy };
}

function load(bench: ApxBench, { before, code }: Program): void {
  bench.start();
  bench.write(DATA, before.memory);
  bench.write(PROGRAM, code.flat());
  for (const [n, value] of before.registers.entries()) bench.state.setRegister(n, value);
  bench.state.set(S.rip, before.rip);
  bench.flags = before.flags;
}

const bench = new ApxBench();

Deno.test("a program as a whole does what the evaluator does", () => {
  for (const program of programs) {
    load(bench, program);
    const { events } = bench.run(instructions(program.code));
    assertEquals(events, [], program.name);
    assertSame(bench.snapshot(), withCode(program.after, program.code), 0, program.name);
  }
});

Deno.test("and so it does one instruction at a time", () => {
  for (const program of programs) {
    load(bench, program);
    const steps = instructions(program.code);
    for (let k = 0; k < steps; k++) assertEquals(bench.run(1).events, [], program.name);
    assertSame(bench.snapshot(), withCode(program.after, program.code), 0, program.name);
  }
});

Deno.test("a guest's programs do the same, and no entry or exit touches R16–R31", () => {
  const guest = new SvmBench({ features: EVERYTHING });
  for (const { name, before, code, after } of programs) {
    guest.guest();
    guest.setControl64(Save.CR4, Cr4.PAE | Cr4.OSXSAVE);
    guest.state.set(S.xcr0, BigInt(Xcr0.X87 | Xcr0.SSE | Xcr0.APX));
    guest.write(DATA, before.memory);
    const bytes = code.flat();
    guest.write(PROGRAM, [...bytes, 0xf4]);
    for (const [n, value] of before.registers.entries()) guest.state.setRegister(n, value);
    guest.setControl64(Save.RAX, before.registers[0]!);
    guest.setControl64(Save.RSP, before.registers[4]!);
    guest.setControl64(Save.RIP, PROGRAM);
    guest.setControl64(Save.RFLAGS, before.flags | 2);
    assertEquals(guest.resume(instructions(code) + 100), "78", name);
    const registers = after.registers.map((_, n) =>
      n === 0
        ? guest.control64(Save.RAX)
        : n === 4
        ? guest.control64(Save.RSP)
        : guest.state.register(n)
    );
    const memory = guest.read(DATA, DATA_BYTES);
    memory[PROGRAM - DATA + bytes.length] = 0;
    const flags = Number(guest.control64(Save.RFLAGS)) & 0x8d5;
    const rip = guest.control64(Save.RIP);
    assertSame({ registers, flags, rip, memory }, withCode(after, code), 0, name);
    assertEquals(guest.control64(Control.EXITINTINFO), 0n);
  }
  assert(SvmPlace.VMCB > 0);
});

Deno.test("the programs reach what they are meant to reach", () => {
  const prefixes = new Set(
    programs.flatMap(({ code }) => code.map((bytes) => bytes.find((b) => b !== 0x66))),
  );
  assertEquals([...prefixes].sort(), [0x62, 0xc4, 0xd5].sort());
});
