/**
 * SSE moves, insertions and extractions (APM vol. 4).
 *
 * @module
 */
import { type I32, i32, type I64, splat, splat64, type V128 } from "../../wasm/mod.ts";
import { type Instruction, Reg, type Semantics } from "../instruction.ts";
import { laneBytes } from "./integer.ts";
import {
  type Alignment,
  readVector,
  sse,
  storeVector,
  vectorOperandAddress,
  writeVector,
} from "./operands.ts";
import { insertDoubleword, insertSingle, laneAt, laneMask } from "./shuffle.ts";
import { VectorUnit, ZERO } from "./unit.ts";

/** A move of 128 bits. */
const full = (alignment: Alignment): Semantics =>
  sse((i) => {
    if (i.isMemory(0)) {
      const linear = vectorOperandAddress(i, 128, 1, alignment);
      storeVector(i, linear, readVector(i, 1));
    } else writeVector(i, 0, readVector(i, 1, alignment));
  });

const quadwords = (low: V128, high: V128, lanes: readonly number[]): V128 =>
  low.shuffle(high, laneBytes(8, lanes));

/** MOVSS and MOVSD: between registers the upper part stays, from memory it is cleared. */
const scalar: Semantics = sse((i) => {
  if (i.isMemory(0)) {
    const low = readVector(i, 1).lane64(0);
    i.write(0, low);
    return;
  }
  const value = readVector(i, 1);
  if (i.isMemory(1)) writeVector(i, 0, value);
  else writeVector(i, 0, mergeLow(Math.min(i.width(0), i.width(1)), readVector(i, 0), value));
});

/** `a` with the low `bits` (32 or 64) of `b`. */
export function mergeLow(bits: number, a: V128, b: V128): V128 {
  return bits === 64
    ? a.shuffle(b, laneBytes(8, [2, 1]))
    : a.shuffle(b, laneBytes(4, [4, 1, 2, 3]));
}

/** MOVLPS, MOVLPD, MOVHPS, MOVHPD: one half of a register and memory. */
const half = (number: 0 | 1): Semantics =>
  sse((i) => {
    if (i.isMemory(0)) i.write(0, readVector(i, 1).lane64(number));
    else {
      const value = readVector(i, 1);
      const lanes = number === 0 ? [2, 1] : [0, 2];
      writeVector(i, 0, quadwords(readVector(i, 0), value, lanes));
    }
  });

/** MOVHLPS, MOVLHPS. */
const halves = (lanes: readonly number[]): Semantics =>
  sse((i) => writeVector(i, 0, quadwords(readVector(i, 0), readVector(i, 1), lanes)));

/** MOVD and its 64-bit form MOVQ between a general-purpose register or memory and a vector register. */
const general: Semantics = sse((i) => {
  if (i.form.operands[0]!.kind === "V") {
    writeVector(i, 0, ZERO.withLane64(0, i.unsigned(1)));
  } else i.write(0, readVector(i, 1).lane64(0));
});

/** MOVQ between vector registers and memory. */
const low: Semantics = sse((i) => {
  const value = readVector(i, 1).lane64(0);
  if (i.isMemory(0)) i.write(0, value);
  else writeVector(i, 0, ZERO.withLane64(0, value));
});

/** The sign bits of the lanes, in a general-purpose register. */
const signs = (name: "i8x16" | "i32x4" | "i64x2"): Semantics =>
  sse((i) => i.write(0, readVector(i, 1).test(`${name}.bitmask`).extendU()));

/** The constant of an instruction, 0–255. */
export const constant = (i: Instruction): I32 => i.immediate().wrap();

/** The value in all lanes of `bits`. */
export function everywhere(bits: 8 | 16 | 32 | 64, value: I64): V128 {
  switch (bits) {
    case 8:
      return splat("i8x16", value.wrap());
    case 16:
      return splat("i16x8", value.wrap());
    case 32:
      return splat("i32x4", value.wrap());
    default:
      return splat64(value);
  }
}

/** `a` with the low `bits` of `value` in the lane that the constant names. */
export function inserted(bits: 8 | 16 | 32 | 64, a: V128, value: I64, number: I32): V128 {
  return everywhere(bits, value).select(a, laneMask(bits, number));
}

/** PINSRB, PINSRW, PINSRD and PINSRQ. The last two are one opcode and have the width of the operand. */
const insert = (bits?: 8 | 16): Semantics =>
  sse((i) => {
    const width = bits ?? (i.width(1) === 64 ? 64 : 32);
    const value = i.unsigned(1);
    writeVector(i, 0, inserted(width, readVector(i, 0), value, constant(i)));
  });

/** The lane that a number known at run time names, zero-extended. */
export function extracted(bits: number, a: V128, number: I32): I64 {
  switch (bits) {
    case 8:
      return laneAt("i8x16", a, number).extendU();
    case 16:
      return laneAt("i16x8", a, number).extendU();
    case 32:
      return laneAt("i32x4", a, number).extendU();
    default:
      return number.and(1).select(a.lane64(1), a.lane64(0));
  }
}

const extract = (bits?: 8 | 16): Semantics =>
  sse((i) => i.write(0, extracted(bits ?? i.width(0), readVector(i, 1), constant(i))));

/** INSERTPS. */
const insertps: Semantics = sse((i) => {
  const number = constant(i);
  if (i.isMemory(1)) {
    const value = splat("i32x4", i.unsigned(1).wrap());
    writeVector(i, 0, insertDoubleword(readVector(i, 0), value, number));
  } else writeVector(i, 0, insertSingle(readVector(i, 0), readVector(i, 1), number));
});

/** Address of the implicit operand of MASKMOVDQU: rDI in the segment that string sources use. */
function maskedAddress(i: Instruction): I64 {
  const offset = i.reg(Reg.RDI, i.addressBits);
  i.spill();
  return i.f.call(i.mc.segmentAddress, i.segment(), offset, i32(16), 1);
}

/** Bytes whose mask has bit 7 set are stored; memory that none is stored to is not touched. */
export function maskedStore(i: Instruction, value: V128, mask: V128): void {
  const { f } = i;
  const linear = maskedAddress(i);
  f.if(mask.test("i8x16.bitmask"), () => {
    i.spill();
    f.call(VectorUnit.maskedStore, linear, value, mask);
  });
}

/** Moves by mnemonic. */
export const MOVES: Readonly<Record<string, Semantics>> = {
  MOVAPS: full("aligned"),
  MOVAPD: full("aligned"),
  MOVDQA: full("aligned"),
  MOVNTPS: full("aligned"),
  MOVNTPD: full("aligned"),
  MOVNTDQ: full("aligned"),
  MOVNTDQA: full("aligned"),
  MOVUPS: full("any"),
  MOVUPD: full("any"),
  MOVDQU: full("any"),
  LDDQU: full("any"),
  MOVSS: scalar,
  MOVSD: scalar,
  MOVLPS: half(0),
  MOVLPD: half(0),
  MOVHPS: half(1),
  MOVHPD: half(1),
  MOVHLPS: halves([3, 1]),
  MOVLHPS: halves([0, 2]),
  MOVD: general,
  MOVQ: low,
  MOVMSKPS: signs("i32x4"),
  MOVMSKPD: signs("i64x2"),
  PMOVMSKB: signs("i8x16"),
  PINSRB: insert(8),
  PINSRW: insert(16),
  PINSRD: insert(),
  PEXTRB: extract(8),
  PEXTRW: extract(16),
  PEXTRD: extract(),
  EXTRACTPS: extract(),
  INSERTPS: insertps,
  MASKMOVDQU: {
    ...sse((i) => maskedStore(i, readVector(i, 0), readVector(i, 1))),
    addressSize: true,
  },
};
