/**
 * Multiplication and division. A division is arranged to succeed, arranged to fail, or left to the
 * values that happen to be there.
 *
 * @module
 */

import { chooseMemory } from "../addressing.ts";
import { type Builder, RAX, RDX, signed } from "../builder.ts";
import type { Memory, OperandSize } from "../encode.ts";
import { CF, effect, OF, STATUS } from "../flags.ts";
import { drawValue } from "../initial.ts";
import { expand, type Form, form, type Row } from "../rows.ts";

const WORDS: readonly OperandSize[] = [16, 32, 64];
const PRODUCT = effect(0, CF | OF, STATUS & ~(CF | OF));
const DIVIDE = effect(0, 0, STATUS);

const MUL = { name: "MUL", group: "multiply", rm: "r", encoding: "M", flags: PRODUCT } as const;
const IMUL = { ...MUL, name: "IMUL" } as const;
const BY_IMMEDIATE = { ...IMUL, encoding: "RMI", reg: "w" } as const;

const ROWS: readonly Row[] = [
  { ...MUL, opcode: [0xf6], digit: 4, sizes: [8], implicit: 1 << RAX },
  { ...MUL, opcode: [0xf7], digit: 4, sizes: WORDS, implicit: 1 << RAX | 1 << RDX },
  { ...IMUL, opcode: [0xf6], digit: 5, sizes: [8], implicit: 1 << RAX },
  { ...IMUL, opcode: [0xf7], digit: 5, sizes: WORDS, implicit: 1 << RAX | 1 << RDX },
  { ...IMUL, opcode: [0x0f, 0xaf], encoding: "RM", sizes: WORDS, reg: "rw" },
  { ...BY_IMMEDIATE, opcode: [0x69], sizes: WORDS, imm: "z" },
  { ...BY_IMMEDIATE, opcode: [0x6b], sizes: WORDS, imm: "sb" },
];

/** How a division is to come out. */
export type Outcome = "quotient" | "zero" | "overflow" | "any";

function divisionName(sign: boolean, size: OperandSize, memory: boolean): string {
  const opcode = size === 8 ? "F6" : "F7";
  return `${sign ? "IDIV" : "DIV"} ${memory ? "m" : "r"}${size} [${opcode} /${sign ? 7 : 6}]`;
}

interface Division {
  readonly dividend: bigint;
  readonly divisor: bigint;
}

function atLeast(value: bigint, low: bigint): bigint {
  return value < low ? low : value;
}

/** Numbers whose quotient fits, or is the first that does not. */
function chooseNumbers(
  b: Builder,
  sign: boolean,
  size: OperandSize,
  outcome: "quotient" | "overflow",
): Division {
  const bits = BigInt(size);
  const draw = (): bigint => {
    const value = drawValue(b.rng);
    return sign ? signed(value, size) : BigInt.asUintN(size, value);
  };
  let divisor = draw();
  if (divisor === 0n) divisor = 3n;
  const magnitude = divisor < 0n ? -divisor : divisor;
  const remainder = BigInt.asUintN(size, b.rng.next64()) % magnitude;
  let quotient = draw();
  if (outcome === "overflow") {
    const limit = sign ? 1n << (bits - 1n) : 1n << bits;
    // The quotient just out of range, or, for small excesses, a little further.
    quotient = limit + (b.rng.chance(1, 2) ? 0n : BigInt(b.rng.below(4)));
    if (sign && b.rng.chance(1, 2)) quotient = -quotient - 1n;
  }
  let dividend = quotient * divisor;
  dividend += dividend < 0n || (dividend === 0n && sign && b.rng.chance(1, 2))
    ? -remainder
    : remainder;
  // The dividend itself must fit in twice the operand size.
  const dividendLimit = sign ? 1n << (2n * bits - 1n) : 1n << (2n * bits);
  if (dividend >= dividendLimit) dividend = dividendLimit - 1n;
  dividend = atLeast(dividend, sign ? -dividendLimit : 0n);
  return { dividend, divisor };
}

function loadDividend(b: Builder, size: OperandSize, dividend: bigint): void {
  if (size === 8) {
    b.ensure(RAX, dividend, 16);
    return;
  }
  b.ensure(RAX, dividend, size);
  b.ensure(RDX, dividend >> BigInt(size), size);
}

/** Writes a constant to memory, for an instruction that follows to read. */
function plant(b: Builder, memory: Memory, size: OperandSize, value: bigint, rex: boolean): void {
  const bytes = size === 8 ? 1 : size === 16 ? 2 : 4;
  const opcode = size === 8 ? 0xc6 : 0xc7;
  b.emit(
    `MOV m${size}, imm${8 * bytes} [${size === 8 ? "C6" : "C7"} /0]`,
    { opcode: [opcode], digit: 0, size, rm: memory, imm: value, immBytes: bytes, rex },
    { stores: true },
  );
}

/** DIV or IDIV with a register or memory operand; see {@linkcode Outcome}. */
export function divide(
  b: Builder,
  sign: boolean,
  size: OperandSize,
  memory: boolean,
  outcome: Outcome,
): boolean {
  const pair = size === 8 ? 1 << RAX : 1 << RAX | 1 << RDX;
  if (b.anyLocked(pair)) return false;
  const rex = b.chooseRex(size);
  let numbers: Division | undefined;
  if (outcome === "zero") {
    numbers = { dividend: BigInt.asUintN(2 * size, b.rng.next64()), divisor: 0n };
  } else if (outcome !== "any") {
    numbers = chooseNumbers(b, sign, size, outcome);
  }
  if (numbers !== undefined && memory && size === 64) {
    // A quadword constant in memory is sign-extended from 32 bits.
    if (signed(numbers.divisor, 32) !== signed(numbers.divisor, 64)) return false;
  }
  if (numbers !== undefined && b.rng.chance(1, 6) && size > 8 && outcome === "quotient") {
    return divideExtended(b, sign, size as 16 | 32 | 64, numbers, rex);
  }
  let rm: number | Memory;
  if (memory) {
    const choice = chooseMemory(b, {
      size: size / 8,
      access: numbers === undefined ? "read" : "write",
      rex,
      still: true,
    });
    if (choice === undefined) return false;
    if (numbers !== undefined) {
      if ((b.addressRegisters(choice.memory) & pair) !== 0) return false;
      plant(b, choice.memory, size, numbers.divisor, rex);
      loadDividend(b, size, numbers.dividend);
    }
    rm = choice.memory;
  } else {
    rm = b.register(rex);
    const parent = b.parent(rm, size, rex);
    if (numbers !== undefined) {
      if ((pair >> parent & 1) !== 0 || b.anyLocked(1 << parent) || parent === 4) return false;
      const high = parent !== rm;
      b.ensure(parent, high ? numbers.divisor << 8n : numbers.divisor, high ? 16 : size);
      loadDividend(b, size, numbers.dividend);
    }
  }
  b.emit(
    divisionName(sign, size, memory),
    { opcode: [size === 8 ? 0xf6 : 0xf7], digit: sign ? 7 : 6, size, rm, rex },
    { flags: DIVIDE, writes: pair, vectors: [0] },
  );
  return true;
}

/** IDIV after CWD, CDQ or CQO, or DIV with a high half of zero: what compilers emit. */
function divideExtended(
  b: Builder,
  sign: boolean,
  size: 16 | 32 | 64,
  numbers: Division,
  rex: boolean,
): boolean {
  const rm = b.register(rex);
  if (rm === RAX || rm === RDX || rm === 4 || b.anyLocked(1 << rm)) return false;
  let divisor = numbers.divisor;
  if (sign && signed(divisor, size) === -1n) divisor = 7n;
  b.ensure(rm, divisor, size);
  if (sign) {
    b.emit(`CWD/CDQ/CQO (${size}) [99]`, { opcode: [0x99], size }, { writes: 1 << RDX });
  } else {
    b.ensure(RDX, 0n, size);
  }
  b.emit(
    divisionName(sign, size, false),
    { opcode: [0xf7], digit: sign ? 7 : 6, size, rm, rex },
    { flags: DIVIDE, writes: 1 << RAX | 1 << RDX, vectors: [0] },
  );
  return true;
}

function divisionForms(): Form[] {
  const forms: Form[] = [];
  for (const sign of [false, true]) {
    for (const size of [8, 16, 32, 64] as const) {
      for (const memory of [false, true]) {
        forms.push(
          form(
            "multiply",
            divisionName(sign, size, memory),
            (b) => divide(b, sign, size, memory, b.rng.chance(1, 60) ? "any" : "quotient"),
            { modes: size === 64 ? [64] : [64, 32], simple: true },
          ),
        );
      }
    }
  }
  return forms;
}

/** Forms of multiplication and division. */
export const MULTIPLY: readonly Form[] = [...expand(ROWS), ...divisionForms()];
