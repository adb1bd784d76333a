/**
 * Shifts and rotates, by one, by an immediate and by CL, and the double shifts.
 *
 * @module
 */

import { chooseMemory } from "../addressing.ts";
import { type Builder, RCX } from "../builder.ts";
import type { OperandSize } from "../encode.ts";
import { AF, CF, effect, type FlagEffect, NO_FLAGS, OF, PF, SF, ZF } from "../flags.ts";
import { expand, type FlagQuery, type Form, form, type Row } from "../rows.ts";

/** The count after masking, or undefined when CL decides and is not certain. */
function maskedCount(count: number | undefined, size: OperandSize): number | undefined {
  return count === undefined ? undefined : count & (size === 64 ? 63 : 31);
}

/** What a shift or rotate does with CF: rotates, RCL and RCR, SHL and SHR, SAR. */
export type Kind = "rotate" | "carry" | "shift" | "arithmetic";

/**
 * Flags of a shift or rotate by a count, or by an uncertain one (undefined). A count of 0 changes
 * nothing. OF is defined for a count of 1 only. CF is undefined when SHL or SHR moves an 8- or
 * 16-bit operand by its size or more (SDM); RCL and RCR leave CF alone when the count is a multiple
 * of the size and one.
 */
export function shiftFlags(kind: Kind, size: OperandSize, count: number | undefined): FlagEffect {
  const n = maskedCount(count, size);
  const overflow = n === 1 ? OF : 0;
  switch (kind) {
    case "rotate":
      if (n === 0) return NO_FLAGS;
      return effect(0, n === undefined ? 0 : CF | overflow, OF & ~overflow);
    case "carry":
      if (n === 0) return NO_FLAGS;
      return effect(CF, CF | overflow, OF & ~overflow);
    case "shift":
    case "arithmetic": {
      if (n === 0) return NO_FLAGS;
      const short = kind === "shift" && size < 32;
      if (n === undefined) return effect(0, 0, AF | OF | (short ? CF : 0));
      const carry = short && n >= size ? 0 : CF;
      return effect(0, SF | ZF | PF | carry | overflow, AF | (OF & ~overflow) | (CF & ~carry));
    }
  }
}

const OPERATIONS: readonly (readonly [name: string, kind: Kind])[] = [
  ["ROL", "rotate"],
  ["ROR", "rotate"],
  ["RCL", "carry"],
  ["RCR", "carry"],
  ["SHL", "shift"],
  ["SHR", "shift"],
  // APM vol. 3, appendix A, group 2: /6 is SHL as well.
  ["SHL", "shift"],
  ["SAR", "arithmetic"],
];

const WORDS: readonly OperandSize[] = [16, 32, 64];

const ROWS: readonly Row[] = OPERATIONS.flatMap(([name, kind], digit): Row[] => {
  const shared = { digit, group: "shift", rm: "rw" } as const;
  const byImm = ({ size, imm }: FlagQuery): FlagEffect =>
    shiftFlags(kind, size, imm === undefined ? undefined : Number(imm));
  const byOne = ({ size }: FlagQuery): FlagEffect => shiftFlags(kind, size, 1);
  const byCl = ({ size, cl }: FlagQuery): FlagEffect => shiftFlags(kind, size, cl);
  const imm = { ...shared, name, encoding: "MI", imm: "b", flags: byImm } as const;
  const one = { ...shared, name, encoding: "M", flags: byOne, implied: "1" } as const;
  const cl = { ...shared, name, encoding: "M", flags: byCl, implied: "CL" } as const;
  return [
    { ...imm, opcode: [0xc0], sizes: [8] },
    { ...imm, opcode: [0xc1], sizes: WORDS },
    { ...one, opcode: [0xd0], sizes: [8] },
    { ...one, opcode: [0xd1], sizes: WORDS },
    { ...cl, opcode: [0xd2], sizes: [8] },
    { ...cl, opcode: [0xd3], sizes: WORDS },
  ];
});

/** SHLD and SHRD: a 16-bit operand moved by more than 16 bits is undefined, so it never is. */
function doubleFlags(size: OperandSize, count: number): FlagEffect {
  const n = maskedCount(count, size);
  if (n === 0) return NO_FLAGS;
  const overflow = n === 1 ? OF : 0;
  return effect(0, CF | SF | ZF | PF | overflow, AF | (OF & ~overflow));
}

function doubleShift(
  b: Builder,
  right: boolean,
  size: OperandSize,
  memory: boolean,
  byCl: boolean,
): boolean {
  const { rng } = b;
  const rex = b.chooseRex(size);
  let count = rng.below(256);
  if (size === 16) count = count & 0xe0 | rng.below(17);
  if (rng.chance(1, 6)) count &= 0xe1;
  if (byCl) {
    if (b.anyLocked(1 << RCX)) return false;
    b.ensure(RCX, BigInt(count), 8);
  }
  const keep = byCl ? 1 << RCX : 0;
  let writes = 0;
  let rm;
  if (memory) {
    const choice = chooseMemory(b, { size: size / 8, access: "modify", rex, keep });
    if (choice === undefined) return false;
    rm = choice.memory;
  } else {
    rm = b.writable(size, rex);
    writes = 1 << rm;
  }
  b.emit(
    doubleName(right, size, memory, byCl),
    {
      opcode: [0x0f, doubleOpcode(right, byCl)],
      size,
      reg: b.register(rex),
      rm,
      rex,
      ...(byCl ? {} : { imm: BigInt(count), immBytes: 1 }),
    },
    { flags: doubleFlags(size, count), writes, stores: memory },
  );
  return true;
}

function doubleOpcode(right: boolean, byCl: boolean): number {
  return (right ? 0xac : 0xa4) + (byCl ? 1 : 0);
}

function doubleName(right: boolean, size: OperandSize, memory: boolean, byCl: boolean): string {
  const hex = doubleOpcode(right, byCl).toString(16).toUpperCase();
  const rm = `${memory ? "m" : "r"}${size}`;
  return `SH${right ? "R" : "L"}D ${rm}, r${size}, ${byCl ? "CL" : "imm8"} [0F ${hex}]`;
}

function doubleForms(): Form[] {
  const forms: Form[] = [];
  for (const right of [false, true]) {
    for (const size of [16, 32, 64] as const) {
      for (const memory of [false, true]) {
        for (const byCl of [false, true]) {
          forms.push(
            form(
              "shift",
              doubleName(right, size, memory, byCl),
              (b) => doubleShift(b, right, size, memory, byCl),
              { modes: size === 64 ? [64] : [64, 32], simple: true },
            ),
          );
        }
      }
    }
  }
  return forms;
}

/** Forms of shifts and rotates. */
export const SHIFT: readonly Form[] = [...expand(ROWS), ...doubleForms()];
