/**
 * A program under construction: its bytes, and what is certain about the machine at its end, so that
 * addresses can be planned and no instruction sees an undefined flag.
 *
 * @module
 */

import { encode, type Instruction, type Memory, type OperandSize } from "./encode.ts";
import { DF, type FlagEffect, NO_FLAGS, STATUS } from "./flags.ts";
import { initialMemory, initialState, type MemoryImage, RSP } from "./initial.ts";
import { CODE_BASE, type Mode, STACK_HIGH, STACK_LOW } from "./layout.ts";
import type { Prng } from "./prng.ts";

/** Index of RAX in a register file. */
export const RAX = 0;
/** Index of RCX. */
export const RCX = 1;
/** Index of RDX. */
export const RDX = 2;
/** Index of RBX. */
export const RBX = 3;
/** Index of RBP. */
export const RBP = 5;
/** Index of RSI. */
export const RSI = 6;
/** Index of RDI. */
export const RDI = 7;

/** One instruction of a program, in layout order. */
export interface ProgramInstruction {
  /** Offset from the program's first byte. */
  readonly offset: number;
  /** Which form it is: mnemonic, operands and opcode, the key of the coverage histogram. */
  readonly form: string;
  /** Its memory operand, if ModRM expresses one. */
  readonly memory: Memory | undefined;
  /** Status flags that may be undefined when it begins: the mask of a fault it raises. */
  readonly undefinedFlags: number;
  /** Exception vectors it may raise. */
  readonly vectors: readonly number[];
  /** What a fault here shows is AMD's choice, where Intel's manual says otherwise. */
  readonly amdFault: boolean;
}

/** What an instruction does that the encoder does not know. */
export interface Effect {
  /** Status flags read and written. */
  readonly flags?: FlagEffect;
  /** Bit r set: general-purpose register r changes. */
  readonly writes?: number;
  /** Exception vectors it may raise. */
  readonly vectors?: readonly number[];
  /** See {@linkcode ProgramInstruction.amdFault}. */
  readonly amdFault?: boolean;
  /** Do not add redundant prefixes. */
  readonly plain?: boolean;
  /** F2h and F3h before it are ignored, so they may be added. */
  readonly repIgnored?: boolean;
  /** The instruction writes its memory operand (a CS override would fault in 32-bit mode). */
  readonly stores?: boolean;
}

/** What is certain at one point of a program. */
export interface Knowledge {
  /** Value of each register where it is certain. */
  readonly known: (bigint | undefined)[];
  /** Status flags that may be undefined. */
  readonly undefinedFlags: number;
  /** DF where it is certain. */
  readonly direction: boolean | undefined;
}

/** Sign-extends the low `bits` of a value. */
export function signed(value: bigint, bits: number): bigint {
  return BigInt.asIntN(bits, value);
}

/** A program under construction. */
export class Builder {
  /** Processor mode of the program. */
  readonly mode: Mode;
  /** Source of every decision. */
  readonly rng: Prng;
  /** Linear address of the first byte. */
  readonly base: number;
  /** Memory as the program begins. */
  readonly image: MemoryImage;
  /** The bytes so far. */
  readonly code: number[] = [];
  /** The instructions so far. */
  readonly instructions: ProgramInstruction[] = [];
  /** Status flags that may be undefined here. */
  undefinedFlags = 0;
  /** DF here, where it is certain. */
  direction: boolean | undefined;
  /** The program's result shows a choice of AMD's that Intel's manual makes otherwise. */
  amd = false;
  /** Status flags undefined at a branch target outside the program; undefined where there is none. */
  outsideUndefined: number | undefined;
  /** What the program was made to fault with; undefined for a program that should end. */
  fault: string | undefined;
  /** Code reaches the end of the code pages, so no INT3 follows it. */
  endless = false;

  #known: (bigint | undefined)[];
  #locked = 0;
  readonly #fill: (b: Builder) => void;
  readonly #define: (b: Builder) => void;

  /**
   * Starts an empty program.
   *
   * @param entry offset of its first byte in the code region.
   * @param fill appends one instruction that changes neither RSP nor the flow of control.
   * @param define appends one instruction that defines every status flag.
   */
  constructor(
    seed: number,
    mode: Mode,
    entry: number,
    rng: Prng,
    fill: (b: Builder) => void,
    define: (b: Builder) => void,
  ) {
    this.mode = mode;
    this.rng = rng;
    this.base = CODE_BASE + entry;
    this.image = initialMemory(seed);
    const initial = initialState(seed, mode);
    this.#known = [...initial.gpr].slice(0, mode === 64 ? 16 : 8);
    this.direction = (initial.rflags & DF) !== 0;
    this.#fill = fill;
    this.#define = define;
  }

  /** Linear address of the next byte. */
  get here(): number {
    return this.base + this.code.length;
  }

  // Registers

  /** Number of registers an instruction with or without REX can name. */
  registers(rex: boolean): number {
    return rex ? 16 : 8;
  }

  /** Whether an instruction of this size is to carry a REX prefix. */
  chooseRex(size: OperandSize): boolean {
    return this.mode === 64 && (size === 64 || this.rng.chance(1, 2));
  }

  /** The register that operand number `r` is part of (AH–BH are parts of RAX–RBX). */
  parent(r: number, size: OperandSize, rex: boolean): number {
    return size === 8 && !rex && r >= 4 ? r - 4 : r;
  }

  /** Any register. */
  register(rex: boolean): number {
    return this.rng.below(this.registers(rex));
  }

  /** A register to write to: none that is locked, and RSP seldom. */
  writable(size: OperandSize, rex: boolean): number {
    for (;;) {
      const r = this.register(rex);
      const parent = this.parent(r, size, rex);
      if ((this.#locked >> parent & 1) !== 0) continue;
      if (parent === RSP && !this.rng.chance(1, 4)) continue;
      return r;
    }
  }

  /** True when any register of the mask is locked. */
  anyLocked(mask: number): boolean {
    return (this.#locked & mask) !== 0;
  }

  /** Forbids writing to the registers of a mask; returns what {@linkcode restore} wants. */
  lock(mask: number): number {
    const before = this.#locked;
    this.#locked |= mask;
    return before;
  }

  /** Puts back the locks of before a {@linkcode lock}. */
  restore(locks: number): void {
    this.#locked = locks;
  }

  /** The value of a register where it is certain. */
  known(r: number): bigint | undefined {
    return this.#known[r];
  }

  /** States a register's value, or that it is no longer certain. */
  setKnown(r: number, value: bigint | undefined): void {
    this.#known[r] = value === undefined ? undefined : BigInt.asUintN(this.mode, value);
  }

  /** What is certain here. */
  snapshot(): Knowledge {
    const { undefinedFlags, direction } = this;
    return { known: [...this.#known], undefinedFlags, direction };
  }

  /** Two paths meet: keeps what is certain on both. */
  join(other: Knowledge): void {
    this.#known = this.#known.map((value, r) => value === other.known[r] ? value : undefined);
    this.undefinedFlags |= other.undefinedFlags;
    if (this.direction !== other.direction) this.direction = undefined;
  }

  /** A loop begins: nothing is certain but the locked registers. */
  forget(): void {
    this.#known = this.#known.map((value, r) => (this.#locked >> r & 1) !== 0 ? value : undefined);
    this.undefinedFlags = STATUS;
    this.direction = undefined;
  }

  // Instructions

  /** Appends one instruction. */
  emit(form: string, ins: Instruction, effect: Effect = {}): void {
    let bytes = encode(ins, this.mode, this.here, this.rng);
    if (effect.plain !== true) {
      const decorated = encode(this.#decorate(ins, effect), this.mode, this.here, this.rng);
      if (decorated.length <= 15) bytes = decorated;
    }
    if (bytes.length > 15) throw new Error(`${form} is ${bytes.length} bytes long`);
    const memory = typeof ins.rm === "object" ? ins.rm : undefined;
    this.append(form, bytes, effect, memory);
  }

  /** Appends one instruction given as bytes. */
  append(form: string, bytes: readonly number[], effect: Effect = {}, memory?: Memory): void {
    const flags = effect.flags ?? NO_FLAGS;
    if ((this.undefinedFlags & flags.reads) !== 0) throw new Error(`${form} reads undefined flags`);
    this.instructions.push({
      offset: this.code.length,
      form,
      memory,
      undefinedFlags: this.undefinedFlags,
      vectors: effect.vectors ?? [],
      amdFault: effect.amdFault ?? false,
    });
    this.code.push(...bytes);
    this.undefinedFlags = (this.undefinedFlags & ~flags.writes) | flags.undef;
    const writes = effect.writes ?? 0;
    if ((writes & this.#locked) !== 0) throw new Error(`${form} writes a locked register`);
    for (let r = 0; r < this.#known.length; r++) {
      if ((writes >> r & 1) !== 0) this.#known[r] = undefined;
    }
  }

  #decorate(ins: Instruction, effect: Effect): Instruction {
    const { rng } = this;
    const prefixes = [...(ins.prefixes ?? [])];
    let result = ins;
    if (rng.chance(1, 24)) {
      // In 64-bit mode these overrides are ignored; in 32-bit mode the segments are flat, but CS
      // cannot be written to.
      const cs = this.mode === 64 || effect.stores !== true;
      prefixes.push(rng.pick(cs ? [0x26, 0x2e, 0x36, 0x3e] : [0x26, 0x36, 0x3e]));
    }
    if (effect.repIgnored === true && rng.chance(1, 40)) prefixes.push(rng.pick([0xf2, 0xf3]));
    const wide = this.mode === 64 && ins.size === 64 && ins.default64 !== true;
    if (ins.size === 8 || wide || ins.size === 16) {
      if (rng.chance(1, 24) && ins.mandatory === undefined) prefixes.push(0x66);
    }
    if (ins.rex === true || wide) result = { ...result, spareRex: rng.below(16) & rng.below(16) };
    if (this.mode === 64 && rng.chance(1, 32)) {
      result = { ...result, deadRex: 0x40 + rng.below(16) };
    }
    return { ...result, prefixes };
  }

  /** Overwrites four bytes of the program: a branch displacement or an absolute address. */
  patch32(offset: number, value: number): void {
    for (let i = 0; i < 4; i++) this.code[offset + i] = value >> 8 * i & 0xff;
  }

  /** Overwrites two bytes of the program. */
  patch16(offset: number, value: number): void {
    for (let i = 0; i < 2; i++) this.code[offset + i] = value >> 8 * i & 0xff;
  }

  /**
   * Points the branch whose displacement is the last `count` bytes before offset `end` at `target`,
   * also an offset.
   */
  patchBranch(end: number, count: 1 | 2 | 4, target: number): void {
    const distance = target - end;
    if (count === 1 && (distance < -128 || distance > 127)) {
      throw new RangeError(`short branch over ${distance} bytes`);
    }
    if (count === 1) this.code[end - 1] = distance & 0xff;
    else if (count === 2) this.patch16(end - 2, distance);
    else this.patch32(end - 4, distance);
  }

  /**
   * Appends instructions that leave RSP and the flow of control alone, at most `count` of them and
   * about 60 bytes.
   */
  block(count: number): void {
    const start = this.code.length;
    for (let i = 0; i < count && this.code.length - start < 40; i++) this.#fill(this);
  }

  /** Makes sure that none of these flags is undefined, by an instruction that defines them all. */
  defineFlags(mask: number): void {
    if ((this.undefinedFlags & mask) !== 0) this.#define(this);
    if ((this.undefinedFlags & mask) !== 0) throw new Error("flags are still undefined");
  }

  /** Loads a constant by one of the MOV forms that can. */
  load(r: number, value: bigint): void {
    const { rng, mode } = this;
    const wanted = BigInt.asUintN(mode, value);
    const choices: Instruction[] = [];
    const forms: string[] = [];
    if (wanted >> 32n === 0n) {
      choices.push({ opcode: [0xb8], size: 32, opcodeReg: r, imm: wanted, immBytes: 4 });
      forms.push("MOV r32, imm32 [B8+r]");
      choices.push({ opcode: [0xc7], size: 32, digit: 0, rm: r, imm: wanted, immBytes: 4 });
      forms.push("MOV r32, imm32 [C7 /0]");
    }
    if (mode === 64 && signed(wanted, 32) === signed(wanted, 64)) {
      choices.push({ opcode: [0xc7], size: 64, digit: 0, rm: r, imm: wanted, immBytes: 4 });
      forms.push("MOV r64, imm32 [C7 /0]");
    }
    if (mode === 64 && (choices.length === 0 || rng.chance(1, 8))) {
      choices.push({ opcode: [0xb8], size: 64, opcodeReg: r, imm: wanted, immBytes: 8 });
      forms.push("MOV r64, imm64 [B8+r]");
    }
    const i = rng.below(choices.length);
    this.emit(forms[i] as string, choices[i] as Instruction, { writes: 1 << r });
    this.setKnown(r, wanted);
  }

  /** Makes the low `bits` of a register a certain value; with `bits` short, the rest may be anything. */
  ensure(r: number, value: bigint, bits: number): void {
    const wanted = BigInt.asUintN(bits, value);
    const present = this.known(r);
    if (present !== undefined && BigInt.asUintN(bits, present) === wanted) return;
    const rest = this.rng.chance(1, 2) ? this.rng.next64() >> BigInt(bits) << BigInt(bits) : 0n;
    this.load(r, wanted | rest);
  }

  /** Makes RSP certain and well inside the stack; false when it is not and may not be changed. */
  ensureStack(): boolean {
    const rsp = this.known(RSP);
    const low = BigInt(STACK_LOW + 0x800);
    const high = BigInt(STACK_HIGH - 0x800);
    if (rsp !== undefined && rsp >= low && rsp <= high) return true;
    if (this.anyLocked(1 << RSP)) return false;
    this.load(RSP, BigInt(STACK_LOW + 0x2000 + this.rng.below(0x200)));
    return true;
  }

  /** Moves a certain RSP by a number of bytes. */
  moveStack(bytes: number): void {
    const rsp = this.known(RSP);
    if (rsp !== undefined) this.setKnown(RSP, rsp + BigInt(bytes));
  }

  /** An immediate of `bytes` bytes, of the kinds that {@linkcode drawImmediate} tells apart. */
  immediate(bytes: number): bigint {
    return drawImmediate(this.rng, bytes);
  }

  /** The general-purpose registers a memory operand uses, as a mask. */
  addressRegisters(memory: Memory): number {
    if (memory.kind === "relative") return 0;
    if (memory.kind === "indexed") {
      return (memory.base === undefined ? 0 : 1 << memory.base) |
        (memory.index === undefined ? 0 : 1 << memory.index);
    }
    return memory.absolute ? 0 : WORD_REGISTERS[memory.rm]?.reduce((m, r) => m | 1 << r, 0) ?? 0;
  }
}

/** Registers that each ModRM.rm of 16-bit addressing adds up. */
export const WORD_REGISTERS: readonly (readonly number[])[] = [
  [RBX, RSI],
  [RBX, RDI],
  [RBP, RSI],
  [RBP, RDI],
  [RSI],
  [RDI],
  [RBP],
  [RBX],
];

/** Draws an immediate: any bits, or near zero, or near the sign bit. */
export function drawImmediate(rng: Prng, bytes: number): bigint {
  const bits = 8 * bytes;
  const kind = rng.below(8);
  if (kind === 0) return BigInt.asUintN(bits, BigInt(rng.below(5) - 2));
  if (kind === 1) return BigInt.asUintN(bits, (1n << BigInt(bits - 1)) + BigInt(rng.below(5) - 2));
  if (kind === 2) return BigInt.asUintN(bits, BigInt(rng.below(256) - 128));
  return BigInt.asUintN(bits, rng.next64());
}
