/**
 * Random programs with what the evaluator makes of them.
 *
 * @module
 */
import { Prng } from "../../vectors/prng.ts";
import {
  access,
  DATA,
  DATA_BYTES,
  interesting,
  PROGRAM,
  type Snapshot,
  STACK,
} from "./apx_bench.ts";
import { INDEX, POINTERS, ProgramMaker } from "./program.ts";
import type { ReferenceState } from "./reference.ts";

/** A program, the state before it, and the state behind it. The data has no code in it. */
export interface Program {
  readonly name: string;
  readonly before: Snapshot;
  readonly code: readonly (readonly number[])[];
  readonly after: Snapshot;
}

/** Random registers and data, a program, and what the evaluator makes of them. */
export function makeProgram(seed: number, number: number, length: number): Program {
  const random = new Prng(seed, number);
  const registers = Array.from({ length: 32 }, () => interesting(random));
  for (const n of POINTERS) registers[n] = BigInt(DATA + 0x1800 + (random.next() & 0x3ff));
  registers[INDEX] = BigInt(random.next() & 0x3f);
  registers[4] = BigInt(STACK);
  const memory = new Uint8Array(DATA_BYTES);
  for (let k = 0x1000; k < 0x6000; k++) memory[k] = random.next();
  const flags = random.next() & 0x8d5;
  const name = `seed ${seed.toString(16)}, program ${number}`;
  const rip = BigInt(PROGRAM);
  const before = { registers: [...registers], flags, rip, memory: memory.slice() };
  const state: ReferenceState = { registers, flags, rip, ...access(memory, name) };
  const code = new ProgramMaker(random).make(state, length, memory);
  // The evaluator's memory has no code in it.
  const after = { registers: [...registers], flags: state.flags, rip: state.rip, memory };
  return { name, before, code, after };
}

/** Number of instructions, those that define flags included. */
export const instructions = (code: Program["code"]): number =>
  code.reduce((sum, bytes) => sum + (bytes.length > 4 && endsWithCompare(bytes) ? 2 : 1), 0);

function endsWithCompare(bytes: readonly number[]): boolean {
  return [0xd5, 0x4d, 0x39, 0xed].every((byte, k) => bytes[bytes.length - 4 + k] === byte);
}

/** The memory of `snapshot` with the program in it. */
export function withCode({ memory, ...rest }: Snapshot, code: Program["code"]): Snapshot {
  const copy = memory.slice();
  copy.set(code.flat(), PROGRAM - DATA);
  return { ...rest, memory: copy };
}
