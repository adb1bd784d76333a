/**
 * Random programs of APX instructions without branches, made while the evaluator runs them: an
 * instruction that would fault or destroy a pointer is not taken, and undefined flags are replaced.
 *
 * @module
 */
import type { Prng } from "../../vectors/prng.ts";
import { hex, little } from "../code.ts";
import { evex, rex2, rex2Short, type RmOperand, vex } from "./encode.ts";
import { NOT_REPORTED, type Row, rows } from "./lists.ts";
import { parse } from "./parse.ts";
import { evaluate, type ReferenceState } from "./reference.ts";

/** Registers that stay as they are: pointers to data, and an index. */
export const POINTERS: readonly number[] = [13, 29];
export const INDEX = 21;
const RSP = 4;
/** cmp r13, r29: all flags are defined behind it. */
const DEFINE_FLAGS = hex("d5 4d 39 ed");

const ROWS: readonly Row[] = rows().filter(({ mnemonic }) => !NOT_REPORTED.test(mnemonic));

/** Opcodes with ModRM of maps 0 and 1; groups with the extensions that count. */
const MAP0 = hex(
  "00 01 02 03 08 09 0a 0b 10 11 12 13 18 19 1a 1b 20 21 22 23 28 29 2a 2b 30 31 32 33 38 39 3a 3b " +
    "63 69 6b 84 85 86 87 88 89 8a 8b 8d",
);
const MAP0_GROUPS: readonly (readonly [string, string])[] = [
  ["80 81 83", "0 1 2 3 4 5 6 7"],
  ["c0 c1 d0 d1 d2 d3", "0 1 2 3 4 5 7"],
  ["c6 c7", "0"],
  ["f6 f7", "0 2 3 4 5 6 7"],
  ["fe", "0 1"],
  ["ff", "0 1 6"],
];
const GROUPS: readonly (readonly [number, number])[] = MAP0_GROUPS.flatMap((
  [opcodes, extensions],
) =>
  hex(opcodes).flatMap((opcode) => extensions.split(" ").map((e) => [opcode, Number(e)] as const))
);
const MAP1 = hex(
  "40 41 42 43 44 45 46 47 48 49 4a 4b 4c 4d 4e 4f 90 91 92 93 94 95 96 97 98 99 9a 9b 9c 9d 9e 9f " +
    "a3 ab b3 bb a4 a5 ac ad af b0 b1 b6 b7 be bf bc bd c0 c1",
);
/** BMI: map, mandatory prefix, opcode, extension. */
const BMI: readonly (readonly [number, number, number, number])[] = [
  [2, 0, 0xf2, -1],
  [2, 0, 0xf3, 1],
  [2, 0, 0xf3, 2],
  [2, 0, 0xf3, 3],
  [2, 0, 0xf5, -1],
  [2, 2, 0xf5, -1],
  [2, 3, 0xf5, -1],
  [2, 3, 0xf6, -1],
  [2, 0, 0xf7, -1],
  [2, 1, 0xf7, -1],
  [2, 2, 0xf7, -1],
  [2, 3, 0xf7, -1],
  [3, 3, 0xf0, -1],
];

/** Makes programs. */
export class ProgramMaker {
  readonly #random: Prng;

  constructor(random: Prng) {
    this.#random = random;
  }

  #below(n: number): number {
    return this.#random.next() % n;
  }

  #pick<T>(list: readonly T[]): T {
    return list[this.#below(list.length)]!;
  }

  #register(): number {
    return this.#below(32);
  }

  #memory(): RmOperand {
    const indexed = this.#below(2) === 1;
    return {
      base: this.#pick(POINTERS),
      // 4 is none.
      index: indexed ? INDEX : 4,
      scale: indexed ? this.#below(4) : 0,
      displacement: this.#below(0x200) - 0x100,
    };
  }

  #rm(): RmOperand {
    return this.#below(3) === 0 ? this.#memory() : this.#register();
  }

  #candidate(): number[] {
    const kind = this.#below(10);
    const wide = this.#below(2);
    const word = wide === 0 && this.#below(3) === 0 ? [0x66] : [];
    if (kind < 4) {
      const form = this.#below(8);
      if (form === 0) {
        const opcode = this.#pick([0x50, 0x58, 0x90, 0xb0, 0xb8]);
        return [...(opcode === 0xb0 ? [] : word), ...rex2Short(opcode, wide, this.#register())];
      }
      if (form < 4) {
        const [opcode, extension] = this.#pick(GROUPS);
        return [...word, ...rex2(0, opcode, wide, extension, this.#rm())];
      }
      if (form < 6) {
        const opcode = this.#pick(MAP0);
        const rm = opcode === 0x8d ? this.#memory() : this.#rm();
        return [...word, ...rex2(0, opcode, wide, this.#register(), rm)];
      }
      return [...word, ...rex2(1, this.#pick(MAP1), wide, this.#register(), this.#rm())];
    }
    if (kind < 5) {
      const [map, pp, opcode, extension] = this.#pick(BMI);
      const needsV = opcode !== 0xf0;
      if (this.#below(2) === 0) {
        const low = () => this.#below(16);
        const reg = extension < 0 ? low() : extension;
        const rm = this.#below(3) === 0
          ? { ...(this.#memory() as object), base: 13, index: 4, scale: 0 }
          : low();
        return vex(map, pp, wide, opcode, reg, rm as RmOperand, needsV ? low() : 0);
      }
      const mayNf = pp === 0;
      const low = mayNf && this.#below(2) === 1 ? 4 : 0;
      const reg = extension < 0 ? this.#register() : extension;
      const v = needsV ? this.#register() : 0;
      return evex({ map, pp, wide, low, defaults: -1 }, opcode, reg, this.#rm(), v);
    }
    const row = this.#pick(ROWS);
    const { opcode, pp, group, forms } = row;
    const rm = !forms.includes("M")
      ? this.#register()
      : !forms.includes("R")
      ? this.#memory()
      : this.#rm();
    const reg = group < 0 ? this.#register() : group;
    const w = this.#pick(row.wides);
    if (/^C(CMP|TEST)/.test(row.mnemonic)) {
      const fields = { map: 4, pp, wide: w, low: this.#below(16), defaults: this.#below(16) };
      return evex(fields, opcode, reg, rm, 0);
    }
    const nd = this.#below(2), nf = this.#below(2);
    if (!row.allows(nd, nf)) return [];
    const zeroUpper = /^(IMUL)$/.test(row.mnemonic) && opcode !== 0xaf;
    const usesV = nd === 1 && !zeroUpper && !row.mnemonic.startsWith("SET");
    const fields = { map: 4, pp, wide: w, low: nd << 4 | nf << 2, defaults: -1 };
    return evex(fields, opcode, reg, rm, usesV ? this.#register() : 0);
  }

  /**
   * Makes a program of `count` instructions that runs from `state` on, and leaves `state` as the evaluator
   * has it behind the program. `restore` is called with a copy of what memory was to take a step back.
   */
  make(state: ReferenceState, count: number, memory: Uint8Array): number[][] {
    const program: number[][] = [];
    while (program.length < count) {
      const candidate = this.#candidate();
      if (candidate.length === 0) continue;
      const immediate = little(
        (BigInt(this.#random.next()) << 32n) | BigInt(this.#random.next()),
        8,
      );
      const length = parse([...candidate, ...immediate])!.length;
      const code = [...candidate, ...immediate].slice(0, length);
      if (!this.#run(code, state, memory)) continue;
      program.push(code);
    }
    return program;
  }

  /** Runs `code` if it may be part of a program; a trailing instruction defines its undefined flags. */
  #run(code: number[], state: ReferenceState, memory: Uint8Array): boolean {
    const p = parse(code)!;
    // A double shift of words by more than 15 is undefined.
    const double = [0x24, 0x2c, 0xa4, 0xa5, 0xac, 0xad].includes(p.opcode) && p.bits === 16;
    if (double) {
      const count = (p.opcode & 1) === 0 ? p.immediate : state.registers[1]!;
      if ((count & 31n) > 15n) return false;
    }
    const pair = p.kind === "evex" && p.map === 4 &&
      (p.opcode === 0x8f || (p.opcode === 0xff && p.group === 6));
    if (pair && (p.v === RSP || p.rm === RSP || (p.opcode === 0x8f && p.v === p.rm))) return false;
    const before = { registers: [...state.registers], flags: state.flags, rip: state.rip };
    const saved = memory.slice();
    const undo = (): false => {
      state.registers.splice(0, 32, ...before.registers);
      state.flags = before.flags;
      state.rip = before.rip;
      memory.set(saved);
      return false;
    };
    let verdict;
    try {
      verdict = evaluate(code, state);
    } catch (error) {
      // An access outside of the data.
      if (!(error instanceof RangeError)) throw error;
      return undo();
    }
    if (verdict === undefined || verdict.fault !== undefined) return undo();
    const kept = [...POINTERS, INDEX].every((n) => state.registers[n] === before.registers[n]);
    const moved = state.registers[RSP]! - before.registers[RSP]!;
    if (!kept || moved > 16n || moved < -16n || (moved & 7n) !== 0n) return undo();
    if (state.rip !== before.rip + BigInt(code.length)) return undo();
    if (verdict.undefinedFlags !== 0) {
      evaluate(DEFINE_FLAGS, state);
      code.push(...DEFINE_FLAGS);
    }
    return true;
  }
}
