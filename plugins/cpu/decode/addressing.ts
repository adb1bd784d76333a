/**
 * How an instruction addresses memory: ModRM, SIB and displacement (APM vol. 3, 1.4 and 1.5).
 *
 * @module
 */
import { registerAddress, S, Seg } from "../state/cpu_state.ts";
import { Cursor } from "./cursor.ts";
import type { AddressForm } from "./form.ts";
import type { Prefixes } from "./prefixes.ts";
import type { DecodeMode } from "./status.ts";

/** Base and index of 16-bit addressing by ModRM.rm; -1 for none. */
const ADDRESSING_16: readonly (readonly [number, number])[] = [
  [3, 6],
  [3, 7],
  [5, 6],
  [5, 7],
  [6, -1],
  [7, -1],
  [5, -1],
  [3, -1],
];

/** log2-style code of an address size in a record. */
const ADDRESS_SIZE = { 16: 0, 32: 1, 64: 2 } as const;

/** The mode before the first instruction; any will do. */
export const START_MODE: DecodeMode = {
  code: 32,
  stack: 32,
  flatStack: true,
  flatData: true,
  vex: false,
  apx: false,
};

/** Decodes the memory operand of one instruction at a time into its own fields. */
export abstract class AddressDecoder {
  /** Effective address size. */
  addressBits: 16 | 32 | 64 = 32;
  /** How the memory operand is addressed. */
  addressForm: AddressForm | undefined;
  /** Address of the base register, or of register operand 2. */
  base = 0;
  /** Address of the index register. */
  index = 0;
  /** The ADDRESSING byte of the record. */
  addressing = 0;
  /** Displacement, branch target or second immediate: low half. */
  displacementLow = 0;
  /** High half. */
  displacementHigh = 0;

  /** The bytes that are read. */
  protected readonly cursor: Cursor = new Cursor();
  /** What stood before the opcode. */
  protected readonly prefixes: Prefixes;
  /** The mode that is decoded for. */
  protected mode: DecodeMode = START_MODE;
  /** The ModRM byte. */
  protected modrm = 0;
  /** The SIB byte, if there is one. */
  protected sib = 0;
  /** The displacement counts from the next instruction. */
  protected ripRelative = false;

  constructor(prefixes: Prefixes) {
    this.prefixes = prefixes;
  }

  /** Fills in segment, scale and form, once base and index are known. */
  protected finishAddressing(defaultSegment: number, scale: number): void {
    const segment = this.prefixes.segment >= 0 ? this.prefixes.segment : defaultSegment;
    this.addressing = scale | (ADDRESS_SIZE[this.addressBits] << 2) | (segment << 4);
    const { code, flatStack, flatData } = this.mode;
    const indexed = this.index !== S.zero;
    const based64 = code === 64 && this.addressBits === 64 && segment < Seg.FS;
    const flat = segment === Seg.SS
      ? flatStack
      : segment === Seg.DS || segment === Seg.ES
      ? flatData
      : false;
    if (based64) this.addressForm = indexed ? "x64" : "b64";
    else if (code !== 64 && this.addressBits === 32 && flat) {
      this.addressForm = indexed ? "x32" : "b32";
    } else this.addressForm = "gen";
  }

  /** Segment and address size for string instructions, XLAT and absolute offsets. */
  protected implicitAddressing(): void {
    const segment = this.prefixes.segment >= 0 ? this.prefixes.segment : Seg.DS;
    this.addressing = (ADDRESS_SIZE[this.addressBits] << 2) | (segment << 4);
  }

  /** Decodes the memory operand that the ModRM byte at hand names; false if bytes are missing. */
  protected memory(): boolean {
    return this.addressBits === 16 ? this.#memory16() : this.#memory32();
  }

  #memory16(): boolean {
    const mod = this.modrm >> 6;
    const rm = this.modrm & 7;
    const [base, index] = ADDRESSING_16[rm]!;
    this.base = registerAddress(base);
    this.index = index < 0 ? S.zero : registerAddress(index);
    let segment: number = base === 5 ? Seg.SS : Seg.DS;
    let complete = true;
    if (mod === 0 && rm === 6) {
      this.base = S.zero;
      segment = Seg.DS;
      complete = this.displacement(16);
    } else if (mod === 1) complete = this.displacement(8);
    else if (mod === 2) complete = this.displacement(16);
    this.finishAddressing(segment, 0);
    return complete;
  }

  #memory32(): boolean {
    const mod = this.modrm >> 6;
    let rm = this.modrm & 7;
    let scale = 0;
    this.index = S.zero;
    let noBase = false;
    if (rm === 4) {
      const sib = this.cursor.byte();
      if (sib < 0) return false;
      this.sib = sib;
      scale = sib >> 6;
      const index = ((sib >> 3) & 7) | this.prefixes.extension.index;
      if (index !== 4) this.index = registerAddress(index);
      else scale = 0;
      rm = sib & 7;
      noBase = rm === 5 && mod === 0;
    } else if (rm === 5 && mod === 0) {
      noBase = true;
      this.ripRelative = this.mode.code === 64;
    }
    const base = rm | this.prefixes.extension.base;
    this.base = noBase ? S.zero : registerAddress(base);
    let complete = true;
    if (mod === 1) complete = this.displacement(8);
    else if (mod === 2 || noBase) complete = this.displacement(32);
    const stack = !noBase && (base === 4 || base === 5);
    this.finishAddressing(stack ? Seg.SS : Seg.DS, scale);
    return complete;
  }

  /** Reads a sign-extended displacement. */
  protected displacement(bits: 8 | 16 | 32): boolean {
    const value = this.cursor.signed(bits);
    if (value === undefined) return false;
    this.displacementLow = value;
    this.displacementHigh = value >> 31;
    return true;
  }
}
