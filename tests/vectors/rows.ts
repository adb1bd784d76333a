/**
 * Opcode tables: a row describes one opcode of the map, and every operand size, addressing kind and
 * LOCK that goes with it becomes a form of its own.
 *
 * @module
 */

import { chooseMemory, type MemoryFault } from "./addressing.ts";
import type { Builder } from "./builder.ts";
import type { Instruction, Memory, OperandSize } from "./encode.ts";
import type { FlagEffect } from "./flags.ts";
import type { Mode } from "./layout.ts";
import { RSP } from "./initial.ts";

/** CPUID features beyond the base set; a program's feature set is a mask of 1 << index. */
export const FEATURES = ["POPCNT", "LZCNT", "MOVBE", "SSE4.2", "BMI1", "BMI2", "ADX"] as const;

/** One of {@linkcode FEATURES}. */
export type Feature = typeof FEATURES[number];

/** Families of forms: the generator chooses a family by weight, then a form evenly. */
export type Group =
  | "alu"
  | "move"
  | "shift"
  | "multiply"
  | "bits"
  | "condition"
  | "atomic"
  | "flags"
  | "stack"
  | "flow"
  | "string"
  | "legacy"
  | "nop"
  | "fault"
  | "extended";

/** Something the generator can append to a program. */
export interface Form {
  /** The family. */
  readonly group: Group;
  /** The processor modes it exists in. */
  readonly modes: readonly Mode[];
  /** The feature it needs, if any. */
  readonly feature?: Feature;
  /** It leaves RSP and the flow of control alone. */
  readonly simple: boolean;
  /** The form of its principal instruction, or of all that it may consist of. */
  readonly names: readonly string[];
  /** Appends it; false when what is locked here leaves no way. */
  readonly emit: (b: Builder) => boolean;
  /** For forms that have a memory operand and nothing else that can fault: appends it so faulting. */
  readonly emitFault?: (b: Builder, fault: MemoryFault) => boolean;
}

/** Which operands a row has: see the Intel SDM vol. 2, 3.1.1.4, "Operand Encoding". */
export type OperandEncoding = "MR" | "RM" | "M" | "MI" | "RMI" | "I" | "O" | "OI" | "ZO";

/** How an operand is used. */
export type Use = "r" | "w" | "rw";

/** What is known of one instruction when its flag effect is asked for. */
export interface FlagQuery {
  /** Operand size in bits. */
  readonly size: OperandSize;
  /** The immediate, if there is one. */
  readonly imm: bigint | undefined;
  /** CL before the instruction, if it is certain. */
  readonly cl: number | undefined;
}

/** One opcode. */
export interface Row {
  /** Mnemonic. */
  readonly name: string;
  /** Opcode bytes. */
  readonly opcode: readonly number[];
  /** Operand encoding. */
  readonly encoding: OperandEncoding;
  /** ModRM.reg as an opcode extension. */
  readonly digit?: number;
  /** Operand sizes. */
  readonly sizes: readonly OperandSize[];
  /** Size of the r/m operand where it is not the operand size (MOVZX and the like). */
  readonly rmSize?: OperandSize;
  /** Size of the ModRM.reg operand where it is not the operand size (CRC32). */
  readonly regSize?: OperandSize;
  /** An operand that the opcode implies, named in the form. */
  readonly implied?: "1" | "CL";
  /** Immediate: a byte, a byte that is sign-extended, 16 or 32 bits by operand size, or up to 64. */
  readonly imm?: "b" | "sb" | "z" | "v";
  /** Use of the r/m operand, or of the opcode's register, or of the accumulator. */
  readonly rm?: Use;
  /** Use of the ModRM.reg operand. */
  readonly reg?: Use;
  /** Only a register or only memory as r/m. */
  readonly only?: "reg" | "mem";
  /** May carry LOCK with a memory destination. */
  readonly lock?: boolean;
  /** Registers changed beside the operands. */
  readonly implicit?: number;
  /** Effect on the status flags. */
  readonly flags?: FlagEffect | ((query: FlagQuery) => FlagEffect);
  /** The only mode it exists in. */
  readonly mode?: Mode;
  /** Feature it needs. */
  readonly feature?: Feature;
  /** Family. */
  readonly group: Group;
  /** Mandatory prefix. */
  readonly mandatory?: 0x66 | 0xf2 | 0xf3;
  /** F2h and F3h before it are ignored. */
  readonly repIgnored?: boolean;
  /** Never with redundant prefixes. */
  readonly plain?: boolean;
  /** Operand size is 64 bits without REX.W. */
  readonly default64?: boolean;
  /** The address is not used to access memory. */
  readonly noAccess?: boolean;
}

/** Opcode bytes as the manuals print them. */
export function opcodeName(row: Pick<Row, "opcode" | "digit" | "encoding" | "mandatory">): string {
  const hex = (n: number): string => n.toString(16).toUpperCase().padStart(2, "0");
  let text = row.opcode.map(hex).join(" ");
  if (row.mandatory !== undefined) text = `${hex(row.mandatory)} ${text}`;
  if (row.digit !== undefined) text += ` /${row.digit}`;
  if (row.encoding === "O" || row.encoding === "OI") text += "+r";
  return text;
}

function immBytes(imm: Row["imm"], size: OperandSize): number {
  switch (imm) {
    case undefined:
      return 0;
    case "b":
    case "sb":
      return 1;
    case "z":
      return size === 16 ? 2 : 4;
    case "v":
      return size / 8;
  }
}

const ACCUMULATOR: Record<OperandSize, string> = { 8: "AL", 16: "AX", 32: "EAX", 64: "RAX" };

function formName(row: Row, size: OperandSize, memory: boolean, lock: boolean): string {
  const rm = `${memory ? "m" : "r"}${row.noAccess === true ? "" : row.rmSize ?? size}`;
  const bytes = immBytes(row.imm, size);
  const imm = row.imm === undefined ? [] : [`imm${8 * bytes}${row.imm === "sb" ? "s" : ""}`];
  const implied = row.implied === undefined ? [] : [row.implied];
  const reg = `r${row.regSize ?? size}`;
  const operands: Record<OperandEncoding, string[]> = {
    MR: [rm, reg],
    RM: [reg, rm],
    M: [rm, ...implied],
    MI: [rm, ...imm],
    RMI: [reg, rm, ...imm],
    I: [ACCUMULATOR[size], ...imm],
    O: [`r${size}`],
    OI: [`r${size}`, ...imm],
    ZO: row.sizes.length > 1 ? [`(${size})`] : [],
  };
  const list = operands[row.encoding].join(", ");
  return `${lock ? "LOCK " : ""}${row.name}${list && " "}${list} [${opcodeName(row)}]`;
}

interface Operands {
  readonly rex: boolean;
  readonly reg: number | undefined;
  readonly rm: number | Memory | undefined;
  readonly writes: number;
  readonly stores: boolean;
  readonly vectors: readonly number[];
}

/** The exception an access through this operand raises where it is not canonical. */
export function noncanonicalVector(memory: Memory): number {
  const stack = memory.kind === "indexed" && (memory.base === RSP || memory.base === 5);
  return stack ? 12 : 13;
}

function chooseOperands(
  b: Builder,
  row: Row,
  size: OperandSize,
  memory: boolean,
  fault: MemoryFault | undefined,
): Operands | undefined {
  const wide = row.rmSize === undefined ? size : row.rmSize;
  const rex = b.chooseRex(size === 64 && row.default64 !== true ? 64 : 8);
  let writes = row.implicit ?? 0;
  if (b.anyLocked(writes)) return undefined;
  const use = (kind: Use | undefined, of: OperandSize): number => {
    if (kind === undefined || kind === "r") return b.register(rex);
    const r = b.writable(of, rex);
    writes |= 1 << b.parent(r, of, rex);
    return r;
  };
  const hasReg = row.encoding === "MR" || row.encoding === "RM" || row.encoding === "RMI";
  const reg = hasReg ? use(row.reg, row.regSize ?? size) : undefined;
  if (row.encoding === "I" && row.rm !== "r") {
    if (b.anyLocked(1)) return undefined;
    writes |= 1;
  }
  const none = { rex, reg, writes, stores: false, vectors: [] };
  if (row.encoding === "ZO" || row.encoding === "I") return { ...none, rm: undefined };
  if (!memory) {
    const rm = use(row.rm, wide);
    return { ...none, rm, writes };
  }
  const access = row.rm === "w" ? "write" : row.rm === "rw" ? "modify" : "read";
  const choice = chooseMemory(b, {
    size: wide / 8,
    access,
    rex,
    ...(fault === undefined ? {} : { fault }),
  });
  if (choice === undefined) return undefined;
  let vectors: number[] = [];
  if (fault !== undefined) {
    vectors = [fault === "noncanonical" ? noncanonicalVector(choice.memory) : 14];
  }
  return { ...none, rm: choice.memory, writes, stores: access !== "read", vectors };
}

function emitRow(
  b: Builder,
  row: Row,
  size: OperandSize,
  memory: boolean,
  lock: boolean,
  fault?: MemoryFault,
): boolean {
  // One time in two a count is made certain first, so that the flags are too.
  if (row.implied === "CL" && b.rng.chance(1, 2) && !b.anyLocked(2)) {
    b.ensure(1, BigInt(b.rng.chance(1, 6) ? b.rng.below(256) : b.rng.below(66)), 8);
  }
  const bytes = immBytes(row.imm, size);
  const imm = bytes === 0 ? undefined : b.immediate(bytes);
  const operands = chooseOperands(b, row, size, memory, fault);
  if (operands === undefined) return false;
  // Loading address registers does not touch the flags, but making flags defined may change any
  // register, so the operands must survive that.
  const rcx = b.known(1);
  const cl = rcx === undefined ? undefined : Number(rcx & 0xffn);
  const flags = typeof row.flags === "function" ? row.flags({ size, imm, cl }) : row.flags;
  if (flags !== undefined && (b.undefinedFlags & flags.reads) !== 0) {
    const addresses = typeof operands.rm === "object" ? b.addressRegisters(operands.rm) : 0;
    const locks = b.lock(addresses | (row.implied === "CL" ? 2 : 0));
    b.defineFlags(flags.reads);
    b.restore(locks);
  }
  const ins: Instruction = {
    opcode: row.opcode,
    size,
    ...(row.default64 === true ? { default64: true } : {}),
    ...(row.digit === undefined ? {} : { digit: row.digit }),
    ...(row.mandatory === undefined ? {} : { mandatory: row.mandatory }),
    ...(operands.reg === undefined ? {} : { reg: operands.reg }),
    ...opcodeOperand(row, operands),
    ...(imm === undefined ? {} : { imm, immBytes: bytes }),
    ...(lock ? { prefixes: [0xf0] } : {}),
    rex: operands.rex,
  };
  b.emit(formName(row, size, memory, lock), ins, {
    ...(flags === undefined ? {} : { flags }),
    writes: operands.writes,
    vectors: operands.vectors,
    stores: operands.stores,
    plain: row.plain === true || fault === "noncanonical",
    repIgnored: row.repIgnored === true && !memory,
  });
  return true;
}

function opcodeOperand(row: Row, operands: Operands): Pick<Instruction, "rm" | "opcodeReg"> {
  if (operands.rm === undefined) return {};
  if ((row.encoding === "O" || row.encoding === "OI") && typeof operands.rm === "number") {
    return { opcodeReg: operands.rm };
  }
  return { rm: operands.rm };
}

const BOTH: readonly Mode[] = [64, 32];

/** All forms of a table of rows. */
export function expand(rows: readonly Row[]): Form[] {
  const forms: Form[] = [];
  for (const row of rows) {
    const hasRm = row.encoding.includes("M");
    const kinds = !hasRm || row.only === "reg"
      ? [false]
      : row.only === "mem"
      ? [true]
      : [false, true];
    for (const size of row.sizes) {
      const modes = size === 64 ? [64 as const] : row.mode === undefined ? BOTH : [row.mode];
      if (row.mode === 32 && size === 64) continue;
      for (const memory of kinds) {
        for (const lock of memory && row.lock === true ? [false, true] : [false]) {
          forms.push({
            group: row.group,
            modes,
            ...(row.feature === undefined ? {} : { feature: row.feature }),
            simple: true,
            names: [formName(row, size, memory, lock)],
            emit: (b) => emitRow(b, row, size, memory, lock),
            ...(memory && row.noAccess !== true
              ? { emitFault: (b, fault) => emitRow(b, row, size, memory, lock, fault) }
              : {}),
          });
        }
      }
    }
  }
  return forms;
}

/** A form that is not a row of a table. */
export function form(
  group: Group,
  names: string | readonly string[],
  emit: (b: Builder) => boolean,
  options: { readonly modes?: readonly Mode[]; readonly simple?: boolean } = {},
): Form {
  return {
    group,
    modes: options.modes ?? BOTH,
    simple: options.simple ?? false,
    names: typeof names === "string" ? [names] : names,
    emit,
  };
}
