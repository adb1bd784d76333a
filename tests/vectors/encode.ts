/**
 * The instruction encoder: legacy prefixes, REX, VEX, opcode, ModRM, SIB, displacement and
 * immediate (AMD APM vol. 3, chapter 1). It encodes what it is told, including the redundant and
 * the ignored, and knows nothing of what instructions mean.
 *
 * @module
 */

import type { Mode } from "./layout.ts";
import type { Prng } from "./prng.ts";

/** Operand size in bits. */
export type OperandSize = 8 | 16 | 32 | 64;

/** A memory operand of 32- or 64-bit addressing: `[base + index * 2^scale + disp]`. */
export interface IndexedMemory {
  /** Tells the kinds of memory operand apart. */
  readonly kind: "indexed";
  /** Address size in bits. */
  readonly addressSize: 32 | 64;
  /** Base register 0–15; undefined for none. */
  readonly base: number | undefined;
  /** Index register 0–15 other than 4; undefined for none. */
  readonly index: number | undefined;
  /** Log2 of the factor on the index, 0–3; also encoded when there is no index. */
  readonly scale: number;
  /** Displacement, a signed 32-bit number. */
  readonly disp: number;
  /** Bytes of displacement wanted: 0, 1 or 4. Encodings that have no choice take what they must. */
  readonly dispBytes: 0 | 1 | 4;
  /** Use a SIB byte even where ModRM alone would do. */
  readonly sib: boolean;
}

/** A memory operand of 64-bit mode relative to the end of its own instruction. */
export interface RelativeMemory {
  /** Tells the kinds of memory operand apart. */
  readonly kind: "relative";
  /** Address size in bits. */
  readonly addressSize: 32 | 64;
  /** The linear address meant; below 2^31. */
  readonly target: number;
}

/** A memory operand of 16-bit addressing (APM vol. 3, table 1-16). */
export interface WordMemory {
  /** Tells the kinds of memory operand apart. */
  readonly kind: "word";
  /** Address size in bits. */
  readonly addressSize: 16;
  /** ModRM.rm, 0–7: BX+SI, BX+DI, BP+SI, BP+DI, SI, DI, BP or disp16, BX. */
  readonly rm: number;
  /** Displacement, a signed 16-bit number. */
  readonly disp: number;
  /** Bytes of displacement wanted: 0, 1 or 2. */
  readonly dispBytes: 0 | 1 | 2;
  /** `rm` 6 without a base: a bare 16-bit displacement. */
  readonly absolute: boolean;
}

/** Any memory operand. */
export type Memory = IndexedMemory | RelativeMemory | WordMemory;

/** The VEX fields of an instruction that the other members of {@linkcode Instruction} do not give. */
export interface Vex {
  /** Opcode map: 1 is 0F, 2 is 0F 38, 3 is 0F 3A. */
  readonly map: number;
  /** VEX.pp: 0 none, 1 66h, 2 F3h, 3 F2h. */
  readonly pp: number;
  /** VEX.vvvv as a register number; 0 when the instruction has no such operand. */
  readonly vvvv: number;
  /** VEX.W. */
  readonly w: number;
}

/** One instruction to encode. */
export interface Instruction {
  /** Opcode bytes, escapes included (not with VEX). */
  readonly opcode: readonly number[];
  /** Operand size: decides the 66h prefix and REX.W. Absent: neither. */
  readonly size?: OperandSize;
  /** In 64-bit mode the operand size is 64 without REX.W (stack operations and near branches). */
  readonly default64?: boolean;
  /** Address size of an operand that ModRM does not express: decides the 67h prefix. */
  readonly addressSize?: 16 | 32 | 64;
  /** A 66h, F2h or F3h that is part of the opcode. */
  readonly mandatory?: 0x66 | 0xf2 | 0xf3;
  /** Further legacy prefixes: LOCK, REP, segment overrides, repetitions. */
  readonly prefixes?: readonly number[];
  /** Encode a REX prefix even where none is needed. */
  readonly rex?: boolean;
  /** REX bits 3:0 to set wherever this instruction ignores them. */
  readonly spareRex?: number;
  /** A REX byte that is ignored because a legacy prefix or another REX follows it. */
  readonly deadRex?: number;
  /** ModRM.reg as a register. */
  readonly reg?: number;
  /** ModRM.reg as an opcode extension. */
  readonly digit?: number;
  /** ModRM.rm: a register number or a memory operand. */
  readonly rm?: number | Memory;
  /** Register in the low three bits of the last opcode byte. */
  readonly opcodeReg?: number;
  /** Immediate, moffs address or branch displacement. */
  readonly imm?: bigint;
  /** Its size in bytes. */
  readonly immBytes?: number;
  /** Encode with VEX in place of legacy escapes and REX. */
  readonly vex?: Vex;
}

interface Operand {
  readonly bytes: number[];
  /** Index in `bytes` of a displacement relative to the instruction's end; -1 for none. */
  readonly relativeAt: number;
  readonly x: number;
  readonly b: number;
  /** REX.X and REX.B bits that this operand ignores. */
  readonly free: number;
}

function littleEndian(value: bigint, count: number): number[] {
  const bytes: number[] = [];
  for (let i = 0; i < count; i++) bytes.push(Number((value >> BigInt(8 * i)) & 0xffn));
  return bytes;
}

function encodeWord(memory: WordMemory, reg: number): Operand {
  if (memory.absolute) {
    const bytes = [reg << 3 | 6, ...littleEndian(BigInt(memory.disp), 2)];
    return { bytes, relativeAt: -1, x: 0, b: 0, free: 0 };
  }
  let dispBytes = memory.dispBytes;
  if (memory.rm === 6 && dispBytes === 0) dispBytes = 1;
  const bytes = [dispBytes << 6 | reg << 3 | memory.rm];
  bytes.push(...littleEndian(BigInt(memory.disp), dispBytes));
  return { bytes, relativeAt: -1, x: 0, b: 0, free: 0 };
}

function encodeIndexed(memory: IndexedMemory, reg: number, mode: Mode): Operand {
  const { base, index, disp } = memory;
  const disp32 = littleEndian(BigInt(disp), 4);
  if (base === undefined) {
    if (index === undefined && mode === 32 && !memory.sib) {
      return { bytes: [reg << 3 | 5, ...disp32], relativeAt: -1, x: 0, b: 0, free: 0 };
    }
    const sib = memory.scale << 6 | ((index ?? 4) & 7) << 3 | 5;
    const bytes = [reg << 3 | 4, sib, ...disp32];
    return { bytes, relativeAt: -1, x: (index ?? 0) >> 3, b: 0, free: 1 };
  }
  let dispBytes = memory.dispBytes;
  if ((base & 7) === 5 && dispBytes === 0) dispBytes = 1;
  const mod = dispBytes === 4 ? 2 : dispBytes;
  const tail = littleEndian(BigInt(disp), dispBytes);
  if (index === undefined && !memory.sib && (base & 7) !== 4) {
    const bytes = [mod << 6 | reg << 3 | (base & 7), ...tail];
    return { bytes, relativeAt: -1, x: 0, b: base >> 3, free: 2 };
  }
  const sib = memory.scale << 6 | ((index ?? 4) & 7) << 3 | (base & 7);
  const bytes = [mod << 6 | reg << 3 | 4, sib, ...tail];
  return { bytes, relativeAt: -1, x: (index ?? 0) >> 3, b: base >> 3, free: 0 };
}

function encodeOperand(rm: number | Memory, reg: number, mode: Mode): Operand {
  if (typeof rm === "number") {
    const bytes = [0xc0 | reg << 3 | (rm & 7)];
    return { bytes, relativeAt: -1, x: 0, b: rm >> 3, free: 2 };
  }
  switch (rm.kind) {
    case "word":
      return encodeWord(rm, reg);
    case "relative":
      return { bytes: [reg << 3 | 5, 0, 0, 0, 0], relativeAt: 1, x: 0, b: 0, free: 3 };
    case "indexed":
      return encodeIndexed(rm, reg, mode);
  }
}

function encodeRex(ins: Instruction, operand: Operand | undefined, mode: Mode): number[] {
  const bit3 = (n: number | undefined): number => (n ?? 0) >> 3;
  const w = ins.size === 64 && ins.default64 !== true ? 8 : 0;
  const r = bit3(ins.reg) << 2;
  const x = (operand?.x ?? 0) << 1;
  const b = (operand?.b ?? 0) | bit3(ins.opcodeReg);
  const needed = w | r | x | b;
  if (needed === 0 && ins.rex !== true) return [];
  if (mode === 32) throw new RangeError("REX prefix asked for in 32-bit mode");
  let free = operand?.free ?? (ins.opcodeReg === undefined ? 3 : 2);
  // REX.W would override the 66h prefix of a 16-bit operand.
  if (ins.size === 8 || (ins.default64 === true && ins.size !== 16)) free |= 8;
  if (ins.reg === undefined) free |= 4;
  return [0x40 | needed | ((ins.spareRex ?? 0) & free)];
}

function encodeVex(ins: Instruction, vex: Vex, operand: Operand): number[] {
  const r = ~((ins.reg ?? 0) >> 3) & 1;
  return [
    0xc4,
    r << 7 | (~operand.x & 1) << 6 | (~operand.b & 1) << 5 | vex.map,
    vex.w << 7 | (~vex.vvvv & 15) << 3 | vex.pp,
  ];
}

function legacyPrefixes(ins: Instruction, mode: Mode): number[] {
  const prefixes = [...(ins.prefixes ?? [])];
  if (ins.mandatory !== undefined) prefixes.push(ins.mandatory);
  if (ins.size === 16) prefixes.push(0x66);
  const memory = typeof ins.rm === "object" ? ins.rm : undefined;
  const addressSize = memory?.addressSize ?? ins.addressSize ?? mode;
  if (addressSize !== mode) {
    if (addressSize === 64 || (mode === 64 && addressSize === 16)) {
      throw new RangeError(`no ${addressSize}-bit addresses in ${mode}-bit mode`);
    }
    prefixes.push(0x67);
  }
  return prefixes;
}

/**
 * Encodes one instruction.
 *
 * @param address linear address of its first byte, for relative memory operands.
 * @param order where given, puts the legacy prefixes into a random order.
 * @throws {RangeError} where the mode has no such encoding.
 */
export function encode(ins: Instruction, mode: Mode, address: number, order?: Prng): number[] {
  const prefixes = legacyPrefixes(ins, mode);
  if (order !== undefined) {
    for (let i = prefixes.length - 1; i > 0; i--) {
      const j = order.below(i + 1);
      [prefixes[i], prefixes[j]] = [prefixes[j] as number, prefixes[i] as number];
    }
  }
  const field = (ins.reg ?? ins.digit ?? 0) & 7;
  const operand = ins.rm === undefined ? undefined : encodeOperand(ins.rm, field, mode);
  const opcode = [...ins.opcode];
  if (ins.opcodeReg !== undefined) {
    const last = opcode.pop() ?? 0;
    opcode.push(last | (ins.opcodeReg & 7));
  }
  const bytes = [...prefixes];
  if (ins.vex !== undefined && operand !== undefined) {
    bytes.push(...encodeVex(ins, ins.vex, operand));
  } else {
    const rex = encodeRex(ins, operand, mode);
    if (ins.deadRex !== undefined && bytes.length + rex.length > 0) {
      const at = rex.length === 0 ? bytes.length - 1 : bytes.length;
      bytes.splice(at, 0, ins.deadRex);
    }
    bytes.push(...rex);
  }
  bytes.push(...opcode);
  const operandAt = bytes.length;
  bytes.push(...(operand?.bytes ?? []));
  bytes.push(...littleEndian(ins.imm ?? 0n, ins.immBytes ?? 0));
  if (operand !== undefined && operand.relativeAt >= 0 && typeof ins.rm === "object") {
    const target = ins.rm.kind === "relative" ? ins.rm.target : 0;
    const disp = littleEndian(BigInt(target - (address + bytes.length)), 4);
    bytes.splice(operandAt + operand.relativeAt, 4, ...disp);
  }
  return bytes;
}
