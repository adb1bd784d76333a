/**
 * Writes instructions with REX2, VEX and EVEX prefixes.
 *
 * @module
 */
import { little } from "../code.ts";

/** The operand in ModRM.rm: a register, or memory at base + index × 2^scale + displacement (32 bits). */
export type RmOperand =
  | number
  | {
    readonly base: number;
    readonly index: number;
    readonly scale: number;
    readonly displacement: number;
  };

const bit = (value: number, n: number): number => (value >> n) & 1;

/** ModRM and what follows it. */
function modrm(reg: number, rm: RmOperand): number[] {
  if (typeof rm === "number") return [0xc0 | (reg & 7) << 3 | (rm & 7)];
  const { base, index, scale, displacement } = rm;
  return [
    0x84 | (reg & 7) << 3,
    scale << 6 | (index & 7) << 3 | (base & 7),
    ...little(displacement, 4),
  ];
}

const baseOf = (rm: RmOperand): number => typeof rm === "number" ? rm : rm.base;
const indexOf = (rm: RmOperand): number => typeof rm === "number" ? 0 : rm.index;

/** With REX2: map 0 or 1, with a ModRM byte. */
export function rex2(
  map: number,
  opcode: number,
  wide: number,
  reg: number,
  rm: RmOperand,
): number[] {
  const b = baseOf(rm), x = indexOf(rm);
  const payload = map << 7 | bit(reg, 4) << 6 | bit(x, 4) << 5 | bit(b, 4) << 4 | wide << 3 |
    bit(reg, 3) << 2 | bit(x, 3) << 1 | bit(b, 3);
  return [0xd5, payload, opcode, ...modrm(reg, rm)];
}

/** With REX2 and the register in the opcode. */
export function rex2Short(opcode: number, wide: number, register: number): number[] {
  const payload = bit(register, 4) << 4 | wide << 3 | bit(register, 3);
  return [0xd5, payload, opcode | (register & 7)];
}

/** The fields of an EVEX prefix besides the registers. */
export interface EvexFields {
  readonly map: number;
  readonly pp: number;
  readonly wide: number;
  /** Bits 4:0 of P2: ND, V4 (overridden by `v`), NF and a1 a0, or ND and a condition. */
  readonly low: number;
  /** Default flags in place of V, or −1. */
  readonly defaults: number;
}

/** With EVEX. */
export function evex(
  fields: EvexFields,
  opcode: number,
  reg: number,
  rm: RmOperand,
  v: number,
): number[] {
  const { map, pp, wide, low, defaults } = fields;
  const b = baseOf(rm), x = indexOf(rm);
  const not = (value: number, n: number): number => 1 - bit(value, n);
  const p0 = not(reg, 3) << 7 | not(x, 3) << 6 | not(b, 3) << 5 | not(reg, 4) << 4 |
    bit(b, 4) << 3 | map;
  const middle = defaults >= 0 ? defaults : ~v & 15;
  const p1 = wide << 7 | middle << 3 | not(x, 4) << 2 | pp;
  const p2 = defaults >= 0 ? low : (low & ~8) | not(v, 4) << 3;
  return [0x62, p0, p1, p2, opcode, ...modrm(reg, rm)];
}

/** With VEX of three bytes; registers 0–15. */
export function vex(
  map: number,
  pp: number,
  wide: number,
  opcode: number,
  reg: number,
  rm: RmOperand,
  v: number,
): number[] {
  const b = baseOf(rm), x = indexOf(rm);
  const not = (value: number, n: number): number => 1 - bit(value, n);
  const p0 = not(reg, 3) << 7 | not(x, 3) << 6 | not(b, 3) << 5 | map;
  return [0xc4, p0, wide << 7 | (~v & 15) << 3 | pp, opcode, ...modrm(reg, rm)];
}
