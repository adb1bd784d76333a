/**
 * A bench whose processor has APX switched on, and the comparison of what it does with the evaluator.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { Cr4, type IsaFeatureChoice, S, Xcr0 } from "../../../plugins/cpu/mod.ts";
import type { Prng } from "../../vectors/prng.ts";
import { Bench, Place } from "../bench.ts";
import { refuseOutside } from "../lab.ts";
import { parse, type Parsed } from "./parse.ts";
import { evaluate, type ReferenceState } from "./reference.ts";

/** What is compared of memory: code, data and stack. */
export const DATA: number = Place.DATA;
export const DATA_BYTES = 0x8000;
/** Where the code to be compared stands. */
export const PROGRAM: number = Place.DATA + 0x7000;
/** Where memory operands are put, and the stack. */
const OPERANDS = Place.DATA + 0x1000;
export const STACK: number = Place.DATA + 0x4000;

const RSP = 4;
const FLAGS = 0x8d5;

/** Everything of the processor that a program can change. */
export interface Snapshot {
  readonly registers: readonly bigint[];
  readonly flags: number;
  readonly rip: bigint;
  readonly memory: Uint8Array;
}

/** All features of instructions that the encodings of APX reach. */
export const EVERYTHING: IsaFeatureChoice = {
  xsave: true,
  apx: true,
  wrmsrns: true,
  msr_imm: true,
  bmi1: true,
  bmi2: true,
  movdiri: true,
  movdir64b: true,
  movrs: true,
  cmpccxadd: true,
  rao_int: true,
};

/** A processor with APX on, in 64-bit mode. */
export class ApxBench extends Bench {
  constructor(features: IsaFeatureChoice = EVERYTHING) {
    super({ features, outside: { ...refuseOutside(), cpuid: () => {} } });
    this.start();
  }

  /** 64-bit mode with CR4.OSXSAVE, and XCR0 with or without APX. */
  start(apx = true, cpl = 0): void {
    this.long(cpl);
    this.state.set(S.cr4, this.state.get(S.cr4) | BigInt(Cr4.OSXSAVE | Cr4.OSFXSR));
    this.state.set(S.xcr0, BigInt(Xcr0.X87 | Xcr0.SSE | (apx ? Xcr0.APX : 0)));
    // As FNINIT leaves them.
    this.state.set32(S.fpuControl, 0x37f);
    this.state.set32(S.fpuStatus, 0);
    this.state.set32(S.fpuTag, 0xffff);
    this.processor.refresh();
  }

  /** What is there now. */
  snapshot(): Snapshot {
    const { flags } = this;
    // Reading the flags has made RFLAGS complete, which a run does not expect.
    this.processor.absorbFlags();
    return {
      registers: Array.from({ length: 32 }, (_, n) => this.state.register(n)),
      flags: flags & FLAGS,
      rip: this.state.rip,
      memory: this.read(DATA, DATA_BYTES),
    };
  }

  /** Random registers, flags and data, with RSP at the middle of the data. */
  randomize(random: Prng): void {
    for (let n = 0; n < 32; n++) this.state.setRegister(n, interesting(random));
    this.state.setRegister(RSP, BigInt(STACK));
    this.state.set(S.rip, BigInt(PROGRAM));
    this.flags = random.next() & FLAGS;
    const bytes = new Uint8Array(0x4000);
    for (let k = 0; k < bytes.length; k++) bytes[k] = random.next();
    this.write(OPERANDS - 0x800, bytes);
  }

  /** Sets registers so that the instruction at hand touches only the data, and has a defined result. */
  arrange(code: readonly number[], random: Prng): void {
    const p = parse(code);
    if (p === undefined) return;
    const { state } = this;
    const rcx = state.register(1);
    const double = [0xa5, 0xad].includes(p.opcode);
    if (double && p.bits === 16) state.setRegister(1, rcx & ~0x1fn | BigInt(random.next() & 15));
    const bitTest = p.kind === "rex2" && p.map === 1 && [0xa3, 0xab, 0xb3, 0xbb].includes(p.opcode);
    if (bitTest) {
      state.setRegister(p.reg, BigInt.asUintN(64, BigInt(random.next() & 0xfff) - 0x800n));
    }
    // Half of the targets of indirect branches are addresses that exist.
    const branch = p.kind === "rex2" && p.map === 0 && p.opcode === 0xff && p.rm >= 0;
    if (branch && (p.group === 2 || p.group === 4) && (random.next() & 1) === 0) {
      state.setRegister(p.rm, BigInt.asUintN(64, BigInt.asIntN(47, interesting(random))));
    }
    this.#place(p, random);
  }

  #place(p: Parsed, random: Prng): void {
    const { memory } = p;
    if (memory === undefined || memory.base < 0) return;
    const { state } = this;
    // Some instructions want an operand that is aligned to its size.
    const target = BigInt(OPERANDS) + (BigInt(random.next()) & 0x7f0n) +
      (needsAlignment(p) ? 0n : BigInt(random.next() & 15));
    const { base, index, scale, displacement } = memory;
    if (index === base) {
      const value = (target - displacement) / BigInt(scale + 1);
      state.setRegister(base, BigInt.asUintN(64, value));
      return;
    }
    const offset = index < 0 ? 0n : state.register(index) * BigInt(scale);
    const value = target - displacement - offset;
    if (base === RSP) return;
    state.setRegister(base, BigInt.asUintN(64, value));
  }

  /**
   * Runs one instruction here and in the evaluator, from the state as it is, and compares; true if the
   * evaluator knows it.
   */
  compare(code: readonly number[], name: string): boolean {
    this.write(Number(this.state.rip), code);
    const before = this.snapshot();
    const memory = before.memory.slice();
    const reference: ReferenceState = {
      registers: [...before.registers],
      flags: before.flags,
      rip: before.rip,
      ...access(memory, name),
    };
    const expected = evaluate(code, reference);
    if (expected === undefined) return false;
    const outcome = this.judge(code);
    const after = this.snapshot();
    if (expected.fault !== undefined) {
      assertEquals(outcome, expected.fault, name);
      assertSame(after, before, 0, name);
      return true;
    }
    assertEquals(outcome, "ok", name);
    const { registers, flags, rip } = reference;
    assertSame(after, { registers, flags, rip, memory }, expected.undefinedFlags, name);
    return true;
  }
}

/** Whether an instruction wants its memory operand aligned to its size. */
export function needsAlignment({ map, opcode, kind }: Parsed): boolean {
  if (kind === "rex2") return map === 1 && opcode === 0xc7;
  return (map === 2 && (opcode & 0xf0) === 0xe0) || (map === 4 && opcode === 0xfc);
}

/** Little-endian access to the window; an address outside of it is a mistake of the test. */
export function access(memory: Uint8Array, name: string): Pick<ReferenceState, "load" | "store"> {
  const at = (address: bigint, bytes: number): number => {
    const offset = Number(address) - DATA;
    if (!(offset >= 0 && offset + bytes <= DATA_BYTES)) {
      throw new RangeError(`${name}: the test does not watch ${address.toString(16)}h`);
    }
    return offset;
  };
  return {
    load: (address, bytes) => {
      const offset = at(address, bytes);
      let value = 0n;
      for (let k = 0; k < bytes; k++) value |= BigInt(memory[offset + k]!) << BigInt(8 * k);
      return value;
    },
    store: (address, bytes, value) => {
      const offset = at(address, bytes);
      for (let k = 0; k < bytes; k++) memory[offset + k] = Number((value >> BigInt(8 * k)) & 0xffn);
    },
  };
}

/** Whether two states are the same but for some flags. */
function isSame(a: Snapshot, b: Snapshot, ignored: number): boolean {
  if (((a.flags ^ b.flags) & ~ignored) !== 0 || a.rip !== b.rip) return false;
  for (let n = 0; n < 32; n++) if (a.registers[n] !== b.registers[n]) return false;
  for (let k = 0; k < DATA_BYTES; k++) if (a.memory[k] !== b.memory[k]) return false;
  return true;
}

/** Compares two states but for some flags. */
export function assertSame(
  actual: Snapshot,
  expected: Snapshot,
  ignored: number,
  name: string,
): void {
  if (isSame(actual, expected, ignored)) return;
  const text = (values: readonly bigint[]): string[] =>
    values.map((value, n) => `R${n} ${value.toString(16)}`);
  assertEquals(text(actual.registers), text(expected.registers), name);
  const flags = (value: number): string => `flags ${(value & ~ignored).toString(16)}`;
  assertEquals(flags(actual.flags), flags(expected.flags), name);
  assertEquals(actual.rip.toString(16), expected.rip.toString(16), name);
  const differs = actual.memory.findIndex((byte, k) => byte !== expected.memory[k]);
  assertEquals(differs, -1, `${name}: memory at ${(DATA + differs).toString(16)}h`);
}

/** Random bits, of which many values have few significant ones or none. */
export function interesting(random: Prng): bigint {
  const value = (BigInt(random.next()) << 32n) | BigInt(random.next());
  switch (random.next() & 7) {
    case 0:
      return 0n;
    case 1:
      return BigInt.asUintN(64, -1n) >> BigInt(random.next() & 63);
    case 2:
      return 1n << BigInt(random.next() & 63);
    case 3:
      return value >> BigInt(random.next() & 63);
    default:
      return value;
  }
}
