/**
 * Random programs with shadow stacks and tracked branches end the same interpreted and compiled, whole and in
 * pieces of a few instructions: registers, SSP, the tracker, stacks and the number of instructions.
 */
import { assert, assertEquals } from "@std/assert";
import { S, Stop } from "../../plugins/cpu/mod.ts";
import { Place } from "./bench.ts";
import { CetBench, Control, Msrs, Shadow } from "./cet_bench.ts";
import { Random } from "./programs.ts";

const SEED = 7_301;
const PROGRAMS = 40;
const FUNCTIONS = 6;
const BYTES = 0x80;
const ENDBR64 = [0xf3, 0x0f, 0x1e, 0xfa];
/** Eight bytes for each function's address, for branches through memory. */
const TABLE = Place.DATA;
const CONTROL_PROTECTION = 21;

const dword = (value: number): number[] => [0, 8, 16, 24].map((shift) => (value >>> shift) & 0xff);
const functionAt = (k: number): number => Place.CODE + BYTES * (k + 1);

interface Program {
  readonly code: Uint8Array;
  readonly control: number;
  readonly ssp: number;
}

/** Writes code at a place in a page. */
class Writer {
  readonly at: number;
  readonly bytes: number[] = [];

  constructor(at: number) {
    this.at = at;
  }

  add(...bytes: number[]): void {
    this.bytes.push(...bytes);
  }

  /** A branch with a 32-bit distance. */
  relative(opcode: readonly number[], target: number): void {
    this.add(...opcode, ...dword(target - (this.at + this.bytes.length + opcode.length + 4)));
  }
}

/** Goes to `target`, with a return address (`call`) or without, directly or in several other ways. */
function branch(w: Writer, random: Random, target: number, call: boolean): void {
  const at = functionAt(target);
  const noTrack = random.below(4) === 0 ? [0x3e] : [];
  switch (random.below(3)) {
    case 0:
      return w.relative([call ? 0xe8 : 0xe9], at);
    case 1:
      w.add(0xbb, ...dword(at)); // mov ebx, target
      return w.add(...noTrack, 0xff, call ? 0xd3 : 0xe3);
    default:
      return w.add(...noTrack, 0xff, call ? 0x14 : 0x24, 0x25, ...dword(TABLE + 8 * target));
  }
}

/** Calls functions behind it, and returns; now and then to itself. */
function makeFunction(random: Random, k: number): number[] {
  const w = new Writer(functionAt(k));
  if (random.below(12) > 0) w.add(...ENDBR64);
  w.add(0x05, ...dword(random.below(1000))); // add eax, imm32
  for (let calls = random.below(3); calls > 0 && k + 1 < FUNCTIONS; calls--) {
    const rotate = random.pick([0xc0, 0xc8]); // rol eax, cl; ror eax, cl
    w.add(0xd3, rotate);
    branch(w, random, k + 1 + random.below(FUNCTIONS - k - 1), true);
  }
  if (k + 1 < FUNCTIONS && random.below(4) === 0) branch(w, random, k + 1, false);
  if (random.below(8) === 0) {
    const round = random.below(200);
    w.add(0x81, 0xf9, ...dword(round), 0x75, 0x07); // cmp ecx, round; jne over it
    w.add(0x68, ...dword(functionAt(k)), 0xff, 0xc9); // push itself; dec ecx
  }
  w.add(random.pick([0xc3, 0xc3, 0xf3]), 0xc3, 0x90);
  return w.bytes;
}

function makeProgram(seed: number): Program {
  const random = new Random(seed);
  const bits = [Control.SHADOW, Control.TRACK, Control.SHADOW | Control.TRACK];
  const code = new Uint8Array(BYTES * (FUNCTIONS + 1)).fill(0xf4);
  const w = new Writer(Place.CODE);
  w.add(0xb9, ...dword(300)); // mov ecx, 300
  const loop = w.bytes.length;
  for (let calls = 1 + random.below(4); calls > 0; calls--) {
    branch(w, random, random.below(FUNCTIONS), true);
  }
  w.add(0xff, 0xc9, 0x75, loop - (w.bytes.length + 4), 0xf4); // dec ecx; jnz; hlt
  code.set(w.bytes);
  for (let k = 0; k < FUNCTIONS; k++) code.set(makeFunction(random, k), BYTES * (k + 1));
  return {
    code,
    control: random.pick(bits) | random.pick([0, Control.NO_TRACK]),
    // Some near the end of a page, which they cross.
    ssp: Shadow.SUPERVISOR + 0x1000 + 8 * random.pick([-1, 0, 1, 2, 60]),
  };
}

function run(one: CetBench, program: Program, pieces: Random | undefined): unknown {
  const { state } = one;
  one.processor.reset();
  one.long(0);
  one.fill(Place.DATA, Place.TABLES - Place.DATA, 0);
  one.fill(Shadow.SUPERVISOR, 0x3000, 0);
  one.write(Place.CODE, program.code);
  one.write(one.handler(CONTROL_PROTECTION), ENDBR64);
  for (let k = 0; k < FUNCTIONS; k++) one.set64(TABLE + 8 * k, BigInt(functionAt(k)));
  for (let n = 0; n < 16; n++) if (n !== 4) state.setRegister(n, 0n);
  one.enable({ supervisor: program.control });
  one.ssp = program.ssp;
  let outcome = one.run(0);
  let retired = 0;
  for (let left = 200_000; left > 0 && outcome.stop === Stop.BUDGET;) {
    const piece = pieces === undefined ? left : 1 + pieces.below(97);
    outcome = one.run(piece);
    left -= piece;
    retired += one.processor.retired;
  }
  assert(outcome.stop !== Stop.BUDGET, "the program has an end");
  return {
    stop: outcome.stop,
    registers: Array.from({ length: 16 }, (_, n) => state.register(n)),
    rip: state.rip,
    flags: one.flags,
    ssp: one.ssp,
    control: one.readMsr(Msrs.S_CET),
    mode: state.get32(S.mode),
    retired,
    stack: one.read(Place.STACK, 0x1000),
    shadow: one.read(Shadow.SUPERVISOR, 0x3000),
  };
}

Deno.test(`${PROGRAMS} programs with control-flow enforcement from seed ${SEED} on run the same in all tiers`, () => {
  const benches = ([1, 2, "auto"] as const).map((tier) => new CetBench({ tier }));
  for (let seed = SEED; seed < SEED + PROGRAMS; seed++) {
    const program = makeProgram(seed);
    const [expected, ...others] = benches.flatMap((one) => [
      run(one, program, undefined),
      run(one, program, new Random(seed)),
    ]);
    for (const [k, other] of others.entries()) {
      assertEquals(other, expected, `seed ${seed}, way ${k + 1}`);
    }
  }
});
