/**
 * One instruction of the evaluator on its way: what it reads and writes, and the flags.
 *
 * @module
 */
import type { Parsed } from "../parse.ts";

/** Bits of RFLAGS. */
export const CF = 1, PF = 4, AF = 0x10, ZF = 0x40, SF = 0x80, OF = 0x800;
/** All six. */
export const ALL: number = CF | PF | AF | ZF | SF | OF;

/** What a program works on. */
export interface ReferenceState {
  /** R0–R31. */
  readonly registers: bigint[];
  /** The six arithmetic flags in their places. */
  flags: number;
  rip: bigint;
  readonly load: (address: bigint, bytes: number) => bigint;
  readonly store: (address: bigint, bytes: number, value: bigint) => void;
}

/** How an instruction ended: flags that it leaves undefined, or the exception. */
export interface Verdict {
  readonly fault?: string;
  readonly undefinedFlags: number;
}

/** Registers that instructions name by themselves. */
export const RAX = 0, RCX = 1, RDX = 2, RBX = 3, RSP = 4;

/** The low `bits` bits set. */
export const mask = (bits: number): bigint => (1n << BigInt(bits)) - 1n;
/** The low `bits` bits of a value. */
export const cut = (value: bigint, bits: number): bigint => BigInt.asUintN(bits, value);
/** The low `bits` bits of a value as a signed number. */
export const wide = (value: bigint, bits: number): bigint => BigInt.asIntN(bits, value);

function parity(value: bigint): boolean {
  let ones = 0;
  for (let k = 0n; k < 8n; k++) ones += Number((value >> k) & 1n);
  return ones % 2 === 0;
}

/** The truth of condition `code` (low four bits of Jcc). */
export function holds(code: number, flags: number): boolean {
  const has = (flag: number): boolean => (flags & flag) !== 0;
  const less = has(SF) !== has(OF);
  const base = [has(OF), has(CF), has(ZF), has(CF) || has(ZF), has(SF), has(PF), less][code >> 1] ??
    (less || has(ZF));
  return base !== ((code & 1) === 1);
}

/** An exception, in words. */
export class Fault extends Error {}

/** One instruction on its way. */
export class Step {
  readonly state: ReferenceState;
  readonly p: Parsed;
  undefinedFlags = 0;

  constructor(state: ReferenceState, p: Parsed) {
    this.state = state;
    this.p = p;
  }

  get(n: number, bits: number): bigint {
    return cut(this.state.registers[n]!, bits);
  }

  /** As legacy instructions write: 8 and 16 bits keep the rest, 32 clear it. */
  set(n: number, bits: number, value: bigint): void {
    const { registers } = this.state;
    registers[n] = bits >= 32
      ? cut(value, bits)
      : (registers[n]! & ~mask(bits) & mask(64)) | cut(value, bits);
  }

  get address(): bigint {
    const { base, index, scale, displacement, ripRelative } = this.p.memory!;
    const { registers, rip } = this.state;
    const start = ripRelative ? rip + BigInt(this.p.length) : base < 0 ? 0n : registers[base]!;
    const offset = index < 0 ? 0n : registers[index]! * BigInt(scale);
    return cut(start + offset + displacement, 64);
  }

  getRm(bits: number): bigint {
    return this.p.memory === undefined
      ? this.get(this.p.rm, bits)
      : this.state.load(this.address, bits / 8);
  }

  setRm(bits: number, value: bigint): void {
    if (this.p.memory === undefined) this.set(this.p.rm, bits, value);
    else this.state.store(this.address, bits / 8, cut(value, bits));
  }

  /** Writes the result: to V, cleared above, with ND; else to the destination as usual. */
  put(bits: number, value: bigint, usual: (bits: number, value: bigint) => void): void {
    if (this.p.kind === "evex" && this.p.map === 4 && this.p.nd) {
      this.state.registers[this.p.v] = cut(value, bits);
    } else usual(bits, value);
  }

  flags(changed: number, values: number, undefinedFlags = 0): void {
    if (this.p.kind === "evex" && this.p.nf) return;
    this.state.flags = (this.state.flags & ~changed) | (values & changed);
    this.undefinedFlags = undefinedFlags;
  }

  resultFlags(result: bigint, bits: number): number {
    const value = cut(result, bits);
    return (value === 0n ? ZF : 0) | (value >> BigInt(bits - 1) ? SF : 0) |
      (parity(value) ? PF : 0);
  }

  /** Flags of a + b + carry, or of a − b − carry. */
  sumFlags(a: bigint, b: bigint, carry: bigint, bits: number, subtract: boolean): number {
    const x = cut(a, bits), y = cut(b, bits);
    const exact = subtract ? x - y - carry : x + y + carry;
    const exactSigned = subtract
      ? wide(x, bits) - wide(y, bits) - carry
      : wide(x, bits) + wide(y, bits) + carry;
    const low = subtract ? (x & 15n) - (y & 15n) - carry : (x & 15n) + (y & 15n) + carry;
    return this.resultFlags(exact, bits) |
      (exact < 0n || exact > mask(bits) ? CF : 0) |
      (low < 0n || low > 15n ? AF : 0) |
      (wide(cut(exact, bits), bits) !== exactSigned ? OF : 0);
  }
}
