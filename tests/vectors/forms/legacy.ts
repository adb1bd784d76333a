/**
 * What 64-bit mode took away: decimal adjustment, BOUND, INTO, ARPL and SALC. (The one-byte INC and
 * DEC, PUSHA and POPA, 16-bit addressing and opcode 82 stand with their families.)
 *
 * @module
 */

import { chooseMemory } from "../addressing.ts";
import { type Builder, RAX } from "../builder.ts";
import { AF, CF, effect, OF, PF, SF, STATUS, ZF } from "../flags.ts";
import { expand, type Form, form, type Row } from "../rows.ts";

const ADJUST = {
  group: "legacy",
  encoding: "ZO",
  sizes: [32],
  mode: 32,
  implicit: 1 << RAX,
} as const;
const DECIMAL = effect(AF | CF, STATUS & ~OF, OF);
const ASCII = effect(AF, AF | CF, STATUS & ~(AF | CF));
const UNPACK = effect(0, SF | ZF | PF, STATUS & ~(SF | ZF | PF));

const ROWS: readonly Row[] = [
  { ...ADJUST, name: "DAA", opcode: [0x27], flags: DECIMAL },
  { ...ADJUST, name: "DAS", opcode: [0x2f], flags: DECIMAL },
  { ...ADJUST, name: "AAA", opcode: [0x37], flags: ASCII },
  { ...ADJUST, name: "AAS", opcode: [0x3f], flags: ASCII },
  // Undocumented, and in every processor: AL becomes FFh or 00h as CF is set or clear.
  { ...ADJUST, name: "SALC", opcode: [0xd6], flags: effect(CF, 0) },
  {
    name: "ARPL",
    group: "legacy",
    opcode: [0x63],
    encoding: "MR",
    sizes: [16],
    mode: 32,
    rm: "rw",
    reg: "r",
    flags: effect(0, ZF),
    plain: true,
  },
];

/** AAM or AAD, whose base is an immediate; AAM by 0 is a division by zero. */
export function adjustBase(b: Builder, multiply: boolean, base: number): boolean {
  if (b.anyLocked(1 << RAX)) return false;
  const name = multiply ? "AAM imm8 [D4]" : "AAD imm8 [D5]";
  b.emit(name, { opcode: [multiply ? 0xd4 : 0xd5], imm: BigInt(base), immBytes: 1 }, {
    flags: UNPACK,
    writes: 1 << RAX,
    vectors: multiply && base === 0 ? [0] : [],
  });
  return true;
}

/**
 * BOUND of a certain index against bounds put in memory just before. An index outside them faults
 * (#BR).
 */
export function bound(b: Builder, size: 16 | 32, inside: boolean): boolean {
  const { rng } = b;
  const r = b.register(false);
  if (r === 4 || b.anyLocked(1 << r)) return false;
  const bits = size;
  const limit = 2 ** (bits - 1);
  const index = rng.below(limit > 0x10000 ? 0x100000 : limit * 2) -
    (limit > 0x10000 ? 0x80000 : limit);
  const low = rng.chance(1, 4) ? index : Math.max(-limit, index - rng.below(0x8000));
  const high = rng.chance(1, 4) ? index : Math.min(limit - 1, index + rng.below(0x8000));
  b.ensure(r, BigInt(index), size);
  const choice = chooseMemory(b, {
    size: size / 4,
    access: "write",
    rex: false,
    keep: 1 << r,
    still: true,
    natural: true,
  });
  if (choice === undefined || choice.memory.kind !== "indexed") return false;
  const { memory } = choice;
  if (memory.disp > 0x7fff_fff0) return false;
  const outside = rng.chance(1, 2);
  const bounds = inside || index === -limit || index === limit - 1
    ? [low, high]
    : outside
    ? [index + 1, limit - 1]
    : [-limit, index - 1];
  const bytes = size / 8;
  bounds.forEach((value, i) => {
    const rm = { ...memory, disp: memory.disp + i * bytes, dispBytes: 4 } as const;
    b.emit(`MOV m${size}, imm${size} [C7 /0]`, {
      opcode: [0xc7],
      digit: 0,
      size,
      rm,
      imm: BigInt(value),
      immBytes: bytes,
    }, { stores: true });
  });
  b.emit(`BOUND r${size}, m${2 * size} [62]`, { opcode: [0x62], size, reg: r, rm: memory }, {
    vectors: inside ? [] : [5],
  });
  return true;
}

/** INTO; with OF set it traps (#OF), and the processor has passed it. */
export function interruptOverflow(b: Builder, overflow: boolean): boolean {
  if (overflow || b.rng.chance(1, 2)) {
    // 7Fh + 1 in AL overflows; 0 + 1 does not.
    if (b.anyLocked(1 << RAX)) return false;
    const first = overflow ? 0x7fn : BigInt(b.rng.below(0x7f));
    b.emit("MOV r8, imm8 [B0+r]", {
      opcode: [0xb0],
      size: 8,
      opcodeReg: RAX,
      imm: first,
      immBytes: 1,
    }, { writes: 1 << RAX });
    b.emit("ADD AL, imm8 [04]", { opcode: [0x04], size: 8, imm: 1n, immBytes: 1 }, {
      flags: effect(0, STATUS),
      writes: 1 << RAX,
    });
  } else {
    // AND, OR, XOR and TEST clear OF.
    b.emit("TEST AL, imm8 [A8]", {
      opcode: [0xa8],
      size: 8,
      imm: BigInt(b.rng.below(256)),
      immBytes: 1,
    }, { flags: effect(0, STATUS & ~AF, AF) });
  }
  b.emit("INTO [CE]", { opcode: [0xce] }, {
    flags: effect(OF, 0),
    vectors: overflow ? [4] : [],
  });
  return true;
}

const LEGACY_MODE = { modes: [32 as const], simple: true };

/** Forms that exist outside 64-bit mode only. */
export const LEGACY: readonly Form[] = [
  ...expand(ROWS),
  form(
    "legacy",
    "AAM imm8 [D4]",
    (b) => adjustBase(b, true, b.rng.chance(1, 2) ? 10 : 1 + b.rng.below(255)),
    LEGACY_MODE,
  ),
  form(
    "legacy",
    "AAD imm8 [D5]",
    (b) => adjustBase(b, false, b.rng.chance(1, 2) ? 10 : b.rng.below(256)),
    LEGACY_MODE,
  ),
  form("legacy", "BOUND r16, m32 [62]", (b) => bound(b, 16, true), LEGACY_MODE),
  form("legacy", "BOUND r32, m64 [62]", (b) => bound(b, 32, true), LEGACY_MODE),
  form("legacy", "INTO [CE]", (b) => interruptOverflow(b, false), LEGACY_MODE),
];
