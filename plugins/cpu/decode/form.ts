/**
 * The form of an instruction: all that decides which code carries it out, without the values.
 *
 * Two instructions of one form differ only in what stands in their micro-op records: register
 * addresses, displacement, immediate. The interpreter has one handler for each form.
 *
 * @module
 */

/** How a memory operand's address is computed. */
export type AddressForm =
  /** Flat, 64-bit: base + displacement. */
  | "b64"
  /** Flat, 64-bit: base + index × scale + displacement. */
  | "x64"
  /** Flat, 32-bit: base + displacement. */
  | "b32"
  /** Flat, 32-bit: base + index × scale + displacement. */
  | "x32"
  /** Anything: address size, segment base, limit and type from the record. */
  | "gen";

/** What an operand is. */
export type OperandKind =
  /** A general-purpose register; its address is where {@linkcode registerPlace} says. */
  | "R"
  /** Memory. */
  | "M"
  /** A constant in IMMEDIATE (or in DISPLACEMENT if it is the second one). */
  | "I"
  /** A vector register; its address is where an "R" operand's would be. */
  | "V"
  /** A direct branch: target in DISPLACEMENT, links behind it. */
  | "J"
  /** Sixteen bits of constant where an "R" operand's address would be. */
  | "K";

/** One operand of a form. */
export interface FormOperand {
  /** What it is. */
  readonly kind: OperandKind;
  /** Its width in bits (8, 16, 32, 64, 128, 256; for far pointers and descriptor tables that of the offset). */
  readonly bits: number;
}

/**
 * Which of REG0 (0), REG1 (1) and BASE (2) in a record is that of register operand `k`. The third and
 * fourth operand share a place, for there is never a register in both; with a memory operand, which
 * needs BASE, it is the one that the memory operand leaves free.
 */
export function registerPlace(operands: readonly FormOperand[], k: number): 0 | 1 | 2 {
  if (k === 0 || k === 1) return k;
  if (operands[0]?.kind === "M") return 0;
  return operands[1]?.kind === "M" ? 1 : 2;
}

/** The form of an instruction. */
export interface Form {
  /** Name of the semantics. */
  readonly name: string;
  /** Operand size in bits: 8, 16, 32 or 64; of vector instructions the width of the first operand. */
  readonly bits: 8 | 16 | 32 | 64 | 128 | 256;
  /** Operands in the manual's order. */
  readonly operands: readonly FormOperand[];
  /** How the memory operand is addressed; `undefined` if there is none. */
  readonly address: AddressForm | undefined;
  /** Address size in bits; 0 if the semantics do not look at it. */
  readonly addressBits: 0 | 16 | 32 | 64;
  /** Code size of the mode: 64-bit, 32-bit, 16-bit; 0 if the semantics do not look at it. */
  readonly code: 0 | 16 | 32 | 64;
  /** Width of the stack pointer; 0 if the semantics do not look at it. */
  readonly stack: 0 | 16 | 32 | 64;
  /** Repeat prefix: 0 none, 1 REP/REPE, 2 REPNE. */
  readonly rep: 0 | 1 | 2;
}

/** Whether the last micro-op of a block has room for links in place of a constant. */
export function hasLinks(operands: readonly FormOperand[]): boolean {
  return operands.every(({ kind }) => kind !== "I");
}

/** Which parts of a form an instruction's semantics look at. */
export interface FormNeeds {
  /** The operand-size attribute rather than the width of the first operand. */
  readonly operandSize?: boolean;
  /** The address size. */
  readonly addressSize?: boolean;
  /** The code size of the mode. */
  readonly code?: boolean;
  /** The width of the stack pointer. */
  readonly stack?: boolean;
  /** The repeat prefix. */
  readonly rep?: boolean;
}
