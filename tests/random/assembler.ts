/**
 * Writes instructions for 16-, 32- and 64-bit code. Memory operands are always EBX (RBX) with a
 * displacement of 32 bits, whatever the width.
 *
 * @module
 */
import { At } from "./machine.ts";

export type Width = 16 | 32 | 64;
export type Size = 8 | 16 | 32 | 64;

/** The r/m operand: a register, or EBX plus a displacement. */
export type Operand = { readonly reg: number } | { readonly disp: number };

/** An instruction: `[prefixes] [REX] opcode ModRM [imm]`. */
export interface Instruction {
  /** Operand size; 32 is without prefix except in 16-bit code. Not given for those that have none. */
  readonly size?: Size;
  /** A prefix that is part of the opcode. */
  readonly mandatory?: number;
  readonly opcode: readonly number[];
  readonly reg: number;
  readonly rm: Operand;
  readonly imm?: readonly number[];
  /** Other prefixes. */
  readonly prefixes?: readonly number[];
}

const CODE_BYTES = 0x1_0000;

/** The code segment of a program, filled from its start. */
export class Assembler {
  readonly bytes: Uint8Array<ArrayBuffer> = new Uint8Array(CODE_BYTES);
  readonly #view = new DataView(this.bytes.buffer);
  /** Offset of the next byte. */
  at = 0;
  width: Width = 32;

  /** Linear address of the next byte. */
  get here(): number {
    return At.CODE + this.at;
  }

  put(...bytes: readonly number[]): void {
    if (this.at + bytes.length > CODE_BYTES) throw new RangeError("the program is too long");
    this.bytes.set(bytes, this.at);
    this.at += bytes.length;
  }

  put16(value: number): void {
    this.put(value & 0xff, value >>> 8 & 0xff);
  }

  put32(value: number): void {
    this.put(value & 0xff, value >>> 8 & 0xff, value >>> 16 & 0xff, value >>> 24);
  }

  set16(at: number, value: number): void {
    this.#view.setUint16(at, value, true);
  }

  set32(at: number, value: number): void {
    this.#view.setUint32(at, value, true);
  }

  /** Prefix of an operand size. */
  operandSize(size: 16 | 32): void {
    if ((size === 16) !== (this.width === 16)) this.put(0x66);
  }

  /** The prefix that makes addresses 32 bits wide in 16-bit code. */
  wideAddress(): void {
    if (this.width === 16) this.put(0x67);
  }

  /** An instruction with a ModRM byte. */
  op({ size, mandatory, opcode, reg, rm, imm = [], prefixes = [] }: Instruction): void {
    this.put(...prefixes);
    const memory = "disp" in rm;
    if (memory) this.wideAddress();
    if (size === 16 || size === 32) this.operandSize(size);
    if (mandatory !== undefined) this.put(mandatory);
    const base = memory ? 3 : rm.reg;
    const rex = (size === 64 ? 8 : 0) | (reg >> 3) << 2 | base >> 3;
    if (rex !== 0) this.put(0x40 | rex);
    this.put(...opcode, (memory ? 0x80 : 0xc0) | (reg & 7) << 3 | (base & 7));
    if (memory) this.put32(rm.disp);
    this.put(...imm);
  }

  /** `mov r32, imm32`. */
  load(reg: number, value: number): void {
    this.operandSize(32);
    if (reg > 7) this.put(0x41);
    this.put(0xb8 | (reg & 7));
    this.put32(value);
  }

  /** `mov dword [ebx + disp], imm32`. */
  store(disp: number, value: number): void {
    this.op({ size: 32, opcode: [0xc7], reg: 0, rm: { disp } });
    this.put32(value);
  }

  /** `mov ax, selector; mov sreg, ax`. */
  loadSegment(segment: number, selector: number): void {
    this.operandSize(16);
    this.put(0xb8);
    this.put16(selector);
    this.put(0x8e, 0xc0 | segment << 3);
  }

  /** A jump or call with a displacement of the mode's width; the opcode for 32 bits is given. */
  near(opcode: readonly number[], target: number): void {
    this.put(...opcode);
    if (this.width === 16) this.put16((target - (this.here + 2)) & 0xffff);
    else this.put32(target - (this.here + 4));
  }

  /** A jump or call forward, to where the function that it returns is called. */
  forward(opcode: readonly number[]): () => void {
    this.put(...opcode);
    const { at, width } = this;
    if (width === 16) this.put16(0);
    else this.put32(0);
    const from = this.at;
    return () => {
      if (width === 16) this.set16(at, (this.at - from) & 0xffff);
      else this.set32(at, this.at - from);
    };
  }
}
