/**
 * Random programs of APX instructions against the evaluator: as a block on the bare processor, one
 * instruction at a time, and in guest mode.
 */
import { assert, assertEquals } from "@std/assert";
import { Control, Cr4, S, Save, Xcr0 } from "../../../plugins/cpu/mod.ts";
import { SvmBench, SvmPlace } from "../svm_bench.ts";
import { ApxBench, assertSame, DATA, DATA_BYTES, EVERYTHING, PROGRAM } from "./apx_bench.ts";
import { instructions, makeProgram, type Program, withCode } from "./programs.ts";

const SEED = 0xa9c0_0005;
const PROGRAMS = 60;
const LENGTH = 60;

const programs = Array.from({ length: PROGRAMS }, (_, number) => makeProgram(SEED, number, LENGTH));
console.log(`seed ${SEED.toString(16)}`);

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
