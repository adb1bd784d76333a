/**
 * Arithmetic and logic with two operands and with one: the eight operations of opcodes 00–3D and
 * 80–83, TEST, INC, DEC, NOT, NEG, and the exchanging XADD, CMPXCHG, CMPXCHG8B and CMPXCHG16B.
 *
 * @module
 */

import { chooseMemory } from "../addressing.ts";
import { type Builder, RAX, RDX } from "../builder.ts";
import type { OperandSize } from "../encode.ts";
import { AF, CF, effect, type FlagEffect, STATUS, ZF } from "../flags.ts";
import { LOW_BASE, LOW_SIZE, SCRATCH_BASE, SCRATCH_SIZE } from "../layout.ts";
import { expand, type Form, form, type Row } from "../rows.ts";

const ARITHMETIC = effect(0, STATUS);
const WITH_CARRY = effect(CF, STATUS);
const LOGIC = effect(0, STATUS & ~AF, AF);
const ALL: readonly OperandSize[] = [8, 16, 32, 64];
const WORDS: readonly OperandSize[] = [16, 32, 64];

const OPERATIONS: readonly (readonly [name: string, flags: FlagEffect])[] = [
  ["ADD", ARITHMETIC],
  ["OR", LOGIC],
  ["ADC", WITH_CARRY],
  ["SBB", WITH_CARRY],
  ["AND", LOGIC],
  ["SUB", ARITHMETIC],
  ["XOR", LOGIC],
  ["CMP", ARITHMETIC],
];

function binaryRows(): Row[] {
  const rows: Row[] = [];
  OPERATIONS.forEach(([name, flags], digit) => {
    const at = digit * 8;
    const dest = name === "CMP" ? "r" : "rw";
    const lock = name !== "CMP";
    const shared = { name, flags, group: "alu", repIgnored: true } as const;
    const immediate = { ...shared, encoding: "MI", digit, rm: dest, lock } as const;
    rows.push(
      { ...shared, opcode: [at], encoding: "MR", sizes: [8], rm: dest, reg: "r", lock },
      { ...shared, opcode: [at + 1], encoding: "MR", sizes: WORDS, rm: dest, reg: "r", lock },
      { ...shared, opcode: [at + 2], encoding: "RM", sizes: [8], rm: "r", reg: dest },
      { ...shared, opcode: [at + 3], encoding: "RM", sizes: WORDS, rm: "r", reg: dest },
      { ...shared, opcode: [at + 4], encoding: "I", sizes: [8], imm: "b", rm: dest },
      { ...shared, opcode: [at + 5], encoding: "I", sizes: WORDS, imm: "z", rm: dest },
      { ...immediate, opcode: [0x80], sizes: [8], imm: "b" },
      { ...immediate, opcode: [0x81], sizes: WORDS, imm: "z" },
      { ...immediate, opcode: [0x82], sizes: [8], imm: "b", mode: 32 },
      { ...immediate, opcode: [0x83], sizes: WORDS, imm: "sb" },
    );
  });
  return rows;
}

const TEST = { name: "TEST", flags: LOGIC, group: "alu", rm: "r", repIgnored: true } as const;
const INC = { name: "INC", flags: effect(0, STATUS & ~CF), group: "alu", rm: "rw" } as const;
const DEC = { ...INC, name: "DEC" } as const;
const NOT = { name: "NOT", group: "alu", rm: "rw", lock: true, encoding: "M", digit: 2 } as const;
const NEG = { ...NOT, name: "NEG", digit: 3, flags: ARITHMETIC } as const;

const UNARY: readonly Row[] = [
  { ...TEST, opcode: [0x84], encoding: "MR", sizes: [8], reg: "r" },
  { ...TEST, opcode: [0x85], encoding: "MR", sizes: WORDS, reg: "r" },
  { ...TEST, opcode: [0xa8], encoding: "I", sizes: [8], imm: "b" },
  { ...TEST, opcode: [0xa9], encoding: "I", sizes: WORDS, imm: "z" },
  { ...TEST, opcode: [0xf6], encoding: "MI", digit: 0, sizes: [8], imm: "b" },
  { ...TEST, opcode: [0xf7], encoding: "MI", digit: 0, sizes: WORDS, imm: "z" },
  // APM vol. 3, appendix A, group 3: /1 is TEST as well.
  { ...TEST, opcode: [0xf6], encoding: "MI", digit: 1, sizes: [8], imm: "b" },
  { ...TEST, opcode: [0xf7], encoding: "MI", digit: 1, sizes: WORDS, imm: "z" },
  { ...INC, opcode: [0xfe], encoding: "M", digit: 0, sizes: [8], lock: true },
  { ...INC, opcode: [0xff], encoding: "M", digit: 0, sizes: WORDS, lock: true },
  { ...INC, opcode: [0x40], encoding: "O", sizes: [16, 32], mode: 32 },
  { ...DEC, opcode: [0xfe], encoding: "M", digit: 1, sizes: [8], lock: true },
  { ...DEC, opcode: [0xff], encoding: "M", digit: 1, sizes: WORDS, lock: true },
  { ...DEC, opcode: [0x48], encoding: "O", sizes: [16, 32], mode: 32 },
  { ...NOT, opcode: [0xf6], sizes: [8] },
  { ...NOT, opcode: [0xf7], sizes: WORDS },
  { ...NEG, opcode: [0xf6], sizes: [8] },
  { ...NEG, opcode: [0xf7], sizes: WORDS },
];

const XADD = {
  name: "XADD",
  flags: ARITHMETIC,
  group: "atomic",
  encoding: "MR",
  rm: "rw",
  reg: "rw",
  lock: true,
} as const;
const CMPXCHG = { ...XADD, name: "CMPXCHG", reg: "r", implicit: 1 << RAX } as const;

const ATOMIC: readonly Row[] = [
  { ...XADD, opcode: [0x0f, 0xc0], sizes: [8] },
  { ...XADD, opcode: [0x0f, 0xc1], sizes: WORDS },
  { ...CMPXCHG, opcode: [0x0f, 0xb0], sizes: [8] },
  { ...CMPXCHG, opcode: [0x0f, 0xb1], sizes: WORDS },
];

/** CMPXCHG just after the accumulator was loaded from its destination, so that it succeeds. */
function matchingCompareExchange(b: Builder, size: OperandSize): boolean {
  const rex = b.chooseRex(size);
  if (b.anyLocked(1 << RAX)) return false;
  const choice = chooseMemory(b, { size: size / 8, access: "modify", rex, keep: 1, still: true });
  if (choice === undefined || (b.addressRegisters(choice.memory) & 1) !== 0) return false;
  const load = size === 8 ? 0x8a : 0x8b;
  const name = size === 8 ? "MOV r8, m8 [8A]" : `MOV r${size}, m${size} [8B]`;
  b.emit(name, { opcode: [load], size, reg: RAX, rm: choice.memory, rex }, { writes: 1 << RAX });
  const lock = b.rng.chance(1, 2);
  b.emit(
    `CMPXCHG m${size}, r${size} equal`,
    {
      opcode: [0x0f, size === 8 ? 0xb0 : 0xb1],
      size,
      reg: b.register(rex),
      rm: choice.memory,
      rex,
      ...(lock ? { prefixes: [0xf0] } : {}),
    },
    { flags: ARITHMETIC, writes: 1 << RAX, stores: true },
  );
  return true;
}

function imageQuad(b: Builder, address: bigint): bigint | undefined {
  const at = Number(address);
  for (
    const [base, size, bytes] of [
      [LOW_BASE, LOW_SIZE, b.image.low],
      [SCRATCH_BASE, SCRATCH_SIZE, b.image.scratch],
    ] as const
  ) {
    if (at >= base && at + 8 <= base + size) {
      return new DataView(bytes.buffer, at - base, 8).getBigUint64(0, true);
    }
  }
  return undefined;
}

/** CMPXCHG8B or CMPXCHG16B, half the time against what the memory held as the program began. */
function compareExchangePair(b: Builder, wide: boolean, lock: boolean): boolean {
  const pair = 1 << RAX | 1 << RDX;
  if (b.anyLocked(pair)) return false;
  const rex = b.chooseRex(wide ? 64 : 32);
  const choice = chooseMemory(b, {
    size: wide ? 16 : 8,
    access: "modify",
    rex,
    ...(wide ? { align: 16, keep: pair } : { keep: pair }),
    still: true,
  });
  if (choice === undefined) return false;
  if (b.rng.chance(1, 2) && (b.addressRegisters(choice.memory) & pair) === 0) {
    const low = imageQuad(b, choice.address);
    const high = imageQuad(b, choice.address + 8n);
    if (low !== undefined && (!wide || high !== undefined)) {
      b.load(RAX, wide ? low : low & 0xffff_ffffn);
      b.load(RDX, wide ? high ?? 0n : low >> 32n);
    }
  }
  b.emit(
    `${lock ? "LOCK " : ""}CMPXCHG${wide ? "16B" : "8B"} m${wide ? 128 : 64} [0F C7 /1]`,
    {
      opcode: [0x0f, 0xc7],
      digit: 1,
      rm: choice.memory,
      rex,
      ...(wide ? { size: 64 as const } : {}),
      ...(lock ? { prefixes: [0xf0] } : {}),
    },
    { flags: effect(0, ZF), writes: pair, stores: true },
  );
  return true;
}

const SPECIAL: readonly Form[] = [
  ...ALL.map((size) =>
    form(
      "atomic",
      `CMPXCHG m${size}, r${size} equal`,
      (b) => matchingCompareExchange(b, size),
      { modes: size === 64 ? [64] : [64, 32], simple: true },
    )
  ),
  ...[false, true].flatMap((wide) =>
    [false, true].map((lock) =>
      form(
        "atomic",
        `${lock ? "LOCK " : ""}CMPXCHG${wide ? "16B" : "8B"} m${wide ? 128 : 64} [0F C7 /1]`,
        (b) => compareExchangePair(b, wide, lock),
        { modes: wide ? [64] : [64, 32], simple: true },
      )
    )
  ),
];

/** Forms of arithmetic, logic and exchange. */
export const ALU: readonly Form[] = [
  ...expand(binaryRows()),
  ...expand(UNARY),
  ...expand(ATOMIC),
  ...SPECIAL,
];

const DEFINERS: readonly Form[] = expand(
  binaryRows().filter((row) => row.flags === ARITHMETIC && row.opcode[0] !== 0x82),
);

/** Appends an instruction that defines all six status flags and reads none. */
export function defineStatus(b: Builder): void {
  for (;;) {
    const form = b.rng.pick(DEFINERS);
    if (form.modes.includes(b.mode) && form.emit(b)) return;
  }
}
