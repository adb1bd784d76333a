/**
 * The decoder: instruction bytes to a form and the values that go into a micro-op record.
 *
 * @module
 */
import { mmxAddress, registerAddress, S, Seg, vectorAddress } from "../state/cpu_state.ts";
import type { IsaFeatureName } from "../isa_features.ts";
import { AddressDecoder, START_MODE } from "./addressing.ts";
import { type Entry, OPCODES, type OperandSpec } from "./entries.ts";
import { type Form, type FormNeeds, type FormOperand, registerPlace } from "./form.ts";
import { Prefixes } from "./prefixes.ts";
import { type DecodeMode, DecodeStatus } from "./status.ts";

/** Longest instruction (APM vol. 3, 1.1). */
export const MAX_INSTRUCTION_BYTES = 15;

/** Decodes one instruction at a time into its own fields. */
export class Decoder extends AddressDecoder {
  /** The opcode's entry. */
  entry: Entry = OPCODES[0]![0]![0]!;
  /** Length in bytes. */
  length = 0;
  /** Effective operand size. */
  bits: 16 | 32 | 64 = 32;
  /** 0 none, 1 F3, 2 F2. */
  rep: 0 | 1 | 2 = 0;
  /** Operands of the form. */
  readonly operands: FormOperand[] = [];
  /** Addresses of register operands 0 and 1. */
  reg0 = 0;
  /** Address of register operand 1. */
  reg1 = 0;
  /** Immediate: low half. */
  immediateLow = 0;
  /** High half. */
  immediateHigh = 0;

  #vectorIndex = 0;

  /** Whether a LOCK prefix stands in front. */
  get lock(): boolean {
    return this.prefixes.lock;
  }

  /** Whether a NOTRACK prefix does. */
  get noTrack(): boolean {
    return this.prefixes.noTrack;
  }

  /** Decodes for a processor with these features. */
  constructor(isa: ReadonlySet<IsaFeatureName>) {
    super(new Prefixes(isa, START_MODE));
  }

  /**
   * Decodes the instruction at `bytes[start]`; bytes from `end` on are not there. `ripLow`/`ripHigh` is
   * the instruction's RIP, for relative addresses.
   */
  decode(
    bytes: Uint8Array,
    start: number,
    end: number,
    mode: DecodeMode,
    ripLow: number,
    ripHigh: number,
  ): DecodeStatus {
    const cursor = this.cursor;
    cursor.bytes = bytes;
    cursor.at = start;
    cursor.end = Math.min(end, start + MAX_INSTRUCTION_BYTES);
    this.mode = mode;
    const status = this.#run();
    this.length = cursor.at - start;
    if (status === DecodeStatus.TRUNCATED && end - start >= MAX_INSTRUCTION_BYTES) {
      return DecodeStatus.TOO_LONG;
    }
    if (status === DecodeStatus.OK) this.#relocate(ripLow, ripHigh);
    return status;
  }

  #run(): DecodeStatus {
    const prefixes = this.prefixes;
    const alternatives = prefixes.read(this.cursor, this.mode);
    if (typeof alternatives === "number") return alternatives;
    const status = this.#select(alternatives);
    if (status !== DecodeStatus.OK) return status;
    const { entry } = this;
    this.bits = prefixes.operandSize(entry);
    this.addressBits = prefixes.addressSize;
    this.operands.length = 0;
    this.reg0 =
      this.reg1 =
      this.base =
      this.index =
        0;
    this.addressing = 0;
    this.displacementLow = this.displacementHigh = 0;
    this.immediateLow = this.immediateHigh = 0;
    this.addressForm = undefined;
    this.ripRelative = false;
    if (entry.hasModrm && this.#hasMemoryOperand(entry)) {
      const complete = this.memory();
      if (!complete) return DecodeStatus.TRUNCATED;
      if (entry.vectorIndex && !this.#takeVectorIndex()) return DecodeStatus.UNDEFINED;
    } else {
      this.implicitAddressing();
    }
    for (let i = 0; i < entry.operands.length; i++) {
      const done = this.#operand(i, entry.operands[i]!);
      if (done !== DecodeStatus.OK) return done;
    }
    if (entry.vectorIndex && !this.#gatherAllowed()) return DecodeStatus.UNDEFINED;
    if (entry.noRsp && !this.#pairAllowed(entry)) return DecodeStatus.UNDEFINED;
    if (prefixes.lock && !(entry.lockable && this.operands[0]?.kind === "M")) {
      return DecodeStatus.UNDEFINED;
    }
    return DecodeStatus.OK;
  }

  /** PUSH2 and POP2 refuse RSP, and POP2 one register twice. */
  #pairAllowed({ distinct }: Entry): boolean {
    const rsp = registerAddress(4);
    return this.reg0 !== rsp && this.reg1 !== rsp && !(distinct && this.reg0 === this.reg1);
  }

  /** Takes the index for that of a vector register, number 4 included; there has to be a SIB byte. */
  #takeVectorIndex(): boolean {
    if (this.addressBits === 16 || (this.modrm & 7) !== 4) return false;
    this.#vectorIndex = vectorAddress((this.sib >> 3 & 7) | this.prefixes.extension.index & 8);
    this.index = S.zero;
    this.addressing = this.addressing & ~3 | this.sib >> 6;
    if (this.addressForm !== "gen") this.addressForm = this.mode.code === 64 ? "b64" : "b32";
    return true;
  }

  /** Destination, mask and index of a gather differ from each other. */
  #gatherAllowed(): boolean {
    const index = this.#vectorIndex;
    return this.reg0 !== this.reg1 && this.reg0 !== index && this.reg1 !== index;
  }

  #select(alternatives: readonly Entry[]): DecodeStatus {
    let candidates = alternatives;
    let haveModrm = false;
    for (;;) {
      if (!haveModrm && candidates.some(({ hasModrm }) => hasModrm)) {
        this.modrm = this.cursor.byte();
        if (this.modrm < 0) return DecodeStatus.TRUNCATED;
        haveModrm = true;
      }
      const entry = candidates.find((candidate) => this.prefixes.allow(candidate, this.modrm));
      if (entry === undefined || entry.undefined) return DecodeStatus.UNDEFINED;
      this.entry = entry;
      if (entry.unimplemented) return DecodeStatus.UNIMPLEMENTED;
      if (entry.group !== undefined) candidates = entry.group[(this.modrm >> 3) & 7]!;
      else if (entry.subgroup !== undefined) candidates = entry.subgroup[this.modrm & 7]!;
      else break;
    }
    // A prefix that selects the instruction does not repeat it.
    const { prefix } = this.entry;
    this.rep = prefix === "F3" || prefix === "F2" ? 0 : this.prefixes.rep;
    return DecodeStatus.OK;
  }

  /** Width of vectors: 256 where VEX.L is set. */
  get vectorBits(): 128 | 256 {
    return this.prefixes.extension.long ? 256 : 128;
  }

  /** Width in bits that a size letter stands for. */
  #width(size: string): number {
    switch (size) {
      case "b":
        return 8;
      case "bs":
      case "v":
        return this.bits;
      case "w":
        return 16;
      case "d":
        return 32;
      case "q":
        return 64;
      case "t":
        return 80;
      case "dq":
        return 128;
      case "qq":
        return 256;
      case "x":
        return this.vectorBits;
      case "xh":
        return this.vectorBits / 2;
      case "xf":
        return this.vectorBits / 4;
      case "xe":
        return this.vectorBits / 8;
      case "z":
      case "p":
        return this.bits === 16 ? 16 : size === "p" ? this.bits : 32;
      case "y":
        return this.bits === 64 ? 64 : 32;
      case "r":
      case "s":
        return this.mode.code === 64 ? 64 : 32;
      default:
        return this.bits;
    }
  }

  #hasMemoryOperand(entry: Entry): boolean {
    return this.modrm < 0xc0 &&
      entry.operands.some(({ place }) =>
        place === "E" || place === "M" || place === "Q" || place === "W"
      );
  }

  /** Address of register `n` as an operand of `bits`: bytes 4–7 without REX are AH, CH, DH, BH. */
  #register(n: number, bits: number): number {
    if (bits === 8 && !this.prefixes.extension.byteRegisters && n >= 4 && n < 8) {
      return registerAddress(n - 4) + 1;
    }
    return registerAddress(n);
  }

  #setRegister(operand: number, address: number): void {
    switch (registerPlace(this.operands, operand)) {
      case 0:
        this.reg0 = address;
        break;
      case 1:
        this.reg1 = address;
        break;
      default:
        this.base = address;
    }
  }

  #operand(i: number, spec: OperandSpec): DecodeStatus {
    const bits = this.#width(spec.size);
    const modReg = ((this.modrm >> 3) & 7) | this.prefixes.extension.reg;
    const modRm = (this.modrm & 7) | this.prefixes.extension.base;
    switch (spec.place) {
      case "E":
        if (this.modrm < 0xc0) {
          this.operands.push({ kind: "M", bits });
          return DecodeStatus.OK;
        }
        this.#setRegister(i, this.#register(modRm, bits));
        this.operands.push({ kind: "R", bits });
        return DecodeStatus.OK;
      case "M":
        if (this.modrm >= 0xc0) return DecodeStatus.UNDEFINED;
        this.operands.push({ kind: "M", bits });
        return DecodeStatus.OK;
      case "R":
        this.#setRegister(i, this.#register(modRm, bits));
        this.operands.push({ kind: "R", bits });
        return DecodeStatus.OK;
      case "G":
        this.#setRegister(i, this.#register(modReg, bits));
        this.operands.push({ kind: "R", bits });
        return DecodeStatus.OK;
      case "Z": {
        const opcode = this.cursor.last;
        const n = (opcode & 7) | this.prefixes.extension.base;
        this.#setRegister(i, this.#register(n, bits));
        this.operands.push({ kind: "R", bits });
        return DecodeStatus.OK;
      }
      case "fixed":
        this.#setRegister(i, registerAddress(spec.register));
        this.operands.push({ kind: "R", bits });
        return DecodeStatus.OK;
      case "one":
        return this.#constant(i, 8, 1, 0);
      case "segment":
        return this.#constant(i, 16, spec.register, 0);
      case "S":
        return (modReg & 7) > 5 ? DecodeStatus.UNDEFINED : this.#constant(i, 16, modReg & 7, 0);
      case "C":
      case "D":
        // There are sixteen of them: R4 does not count.
        return this.#constant(i, bits, modReg & 15, 0);
      case "B":
        this.#setRegister(i, this.#register(this.prefixes.extension.v, bits));
        this.operands.push({ kind: "R", bits });
        return DecodeStatus.OK;
      // There are sixteen vector registers: the fourth bit that APX adds does not count.
      case "V":
        return this.#vector(i, bits, modReg);
      case "U":
        return this.#vector(i, bits, modRm);
      case "W":
        if (this.modrm >= 0xc0) return this.#vector(i, bits, modRm);
        this.operands.push({ kind: "M", bits });
        return DecodeStatus.OK;
      // There are eight MMX registers: no prefix counts.
      case "P":
        return this.#mmx(i, (this.modrm >> 3) & 7);
      case "N":
        return this.#mmx(i, this.modrm & 7);
      case "Q":
        if (this.modrm >= 0xc0) return this.#mmx(i, this.modrm & 7);
        this.operands.push({ kind: "M", bits });
        return DecodeStatus.OK;
      case "H":
        return this.#vector(i, bits, this.prefixes.extension.v);
      case "X":
        return this.#constant(i, bits, this.#vectorIndex, 0);
      case "L": {
        const byte = this.cursor.byte();
        if (byte < 0) return DecodeStatus.TRUNCATED;
        const n = (byte >> 4) & (this.mode.code === 64 ? 15 : 7);
        return this.#constant(i, 16, vectorAddress(n), 0);
      }
      case "dfv":
        this.#setRegister(i, this.prefixes.extension.defaultFlags);
        this.operands.push({ kind: "K", bits });
        return DecodeStatus.OK;
      case "T":
        // There are eight: REX.B does not count.
        return this.#constant(i, bits, this.modrm & 7, 0);
      case "top":
        return this.#constant(i, bits, 0, 0);
      case "fop":
        this.#setRegister(i, ((this.prefixes.opcode & 7) << 8) | this.modrm);
        this.operands.push({ kind: "K", bits });
        return DecodeStatus.OK;
      case "I":
        return this.#immediate(i, spec.size, bits);
      case "J": {
        const value = this.cursor.signed(spec.size === "b" ? 8 : this.bits === 16 ? 16 : 32);
        if (value === undefined) return DecodeStatus.TRUNCATED;
        this.displacementLow = value;
        this.displacementHigh = value >> 31;
        this.operands.push({ kind: "J", bits: this.bits });
        return DecodeStatus.OK;
      }
      case "O":
        return this.#absolute(bits);
      case "A": {
        const offset = this.cursor.signed(this.bits === 16 ? 16 : 32);
        const selector = this.cursor.signed(16);
        if (offset === undefined || selector === undefined) return DecodeStatus.TRUNCATED;
        this.immediateLow = this.bits === 16 ? offset & 0xffff : offset;
        this.displacementLow = selector & 0xffff;
        this.operands.push({ kind: "I", bits: this.bits });
        return DecodeStatus.OK;
      }
      default:
        return DecodeStatus.UNDEFINED;
    }
  }

  #vector(i: number, bits: number, n: number): DecodeStatus {
    this.#setRegister(i, vectorAddress(n & 15));
    this.operands.push({ kind: "V", bits });
    return DecodeStatus.OK;
  }

  #mmx(i: number, n: number): DecodeStatus {
    this.#setRegister(i, mmxAddress(n));
    this.operands.push({ kind: "V", bits: 64 });
    return DecodeStatus.OK;
  }

  #constant(i: number, bits: number, low: number, high: number): DecodeStatus {
    // The first constant of an instruction is in IMMEDIATE, a second one in DISPLACEMENT.
    if (i > 0 && this.operands[i - 1]?.kind === "I") {
      this.displacementLow = low;
      this.displacementHigh = high;
    } else {
      this.immediateLow = low;
      this.immediateHigh = high;
    }
    this.operands.push({ kind: "I", bits });
    return DecodeStatus.OK;
  }

  #immediate(i: number, size: string, bits: number): DecodeStatus {
    if ((size === "v" || size === "q") && bits === 64) {
      if (!this.cursor.has(8)) return DecodeStatus.TRUNCATED;
      const low = this.cursor.signed(32)!;
      return this.#constant(i, 64, low, this.cursor.signed(32)!);
    }
    const stored = size === "b" || size === "bs" ? 8 : size === "w" || this.bits === 16 ? 16 : 32;
    const value = this.cursor.signed(stored);
    if (value === undefined) return DecodeStatus.TRUNCATED;
    // Bytes and words that are counts, ports and frame sizes are unsigned; the rest sign-extends.
    const unsigned = (size === "b" && this.operands[0]?.bits !== 8) || size === "w" ||
      (size === "b" && i === 0);
    const low = unsigned ? value & (stored === 8 ? 0xff : 0xffff) : value;
    return this.#constant(i, size === "z" ? this.bits : bits, low, low >> 31);
  }

  #absolute(bits: number): DecodeStatus {
    const width = this.addressBits;
    if (!this.cursor.has(width / 8)) return DecodeStatus.TRUNCATED;
    if (width === 16) this.displacementLow = this.cursor.signed(16)! & 0xffff;
    else {
      this.displacementLow = this.cursor.signed(32)!;
      this.displacementHigh = width === 64 ? this.cursor.signed(32)! : 0;
    }
    this.base = S.zero;
    this.index = S.zero;
    this.finishAddressing(Seg.DS, 0);
    this.operands.push({ kind: "M", bits });
    return DecodeStatus.OK;
  }

  /** Turns relative targets and RIP-relative displacements into absolute addresses. */
  #relocate(ripLow: number, ripHigh: number): void {
    const branch = this.operands.length > 0 && this.operands[0]!.kind === "J";
    if (!branch && !this.ripRelative) return;
    const next = (ripLow >>> 0) + this.length;
    const sum = next + (this.displacementLow >>> 0);
    const carry = Math.floor(sum / 0x1_0000_0000);
    this.displacementLow = sum | 0;
    this.displacementHigh = (ripHigh + this.displacementHigh + carry) | 0;
    if (branch && this.mode.code !== 64) {
      this.displacementHigh = 0;
      if (this.bits === 16) this.displacementLow &= 0xffff;
    }
  }

  /** The form of the instruction just decoded, with what its semantics do not look at left out. */
  form(needs: FormNeeds): Form {
    const { entry } = this;
    const bits = entry.size === ""
      ? (this.operands[0]?.bits ?? this.bits)
      : this.#width(entry.size);
    return {
      name: entry.name,
      bits: (needs.operandSize ? this.bits : bits) as Form["bits"],
      operands: [...this.operands],
      address: this.addressForm,
      addressBits: needs.addressSize ? this.addressBits : 0,
      code: needs.code ? this.mode.code : 0,
      stack: needs.stack ? this.mode.stack : 0,
      rep: needs.rep ? this.rep : 0,
    };
  }

  /** A number that tells the forms of one entry apart. */
  variant(needs: FormNeeds): number {
    const { operands } = this;
    let kinds = 0;
    for (let i = 0; i < operands.length; i++) {
      kinds = kinds * 8 + WIDTH_CODE[operands[i]!.bits]!;
    }
    const address = this.addressForm === undefined ? 0 : ADDRESS_CODE[this.addressForm];
    let number = kinds * 6 + address;
    number = number * 3 + SIZE_CODE[this.bits];
    number = number * 3 + (needs.addressSize ? SIZE_CODE[this.addressBits] : 0);
    number = number * 3 + (needs.code ? SIZE_CODE[this.mode.code] : 0);
    number = number * 3 + (needs.stack ? SIZE_CODE[this.mode.stack] : 0);
    return number * 3 + (needs.rep ? this.rep : 0);
  }
}

const SIZE_CODE = { 16: 0, 32: 1, 64: 2 } as const;
const WIDTH_CODE: Readonly<Record<number, number>> = {
  8: 0,
  16: 1,
  32: 2,
  64: 3,
  128: 4,
  256: 5,
  80: 6,
};
const ADDRESS_CODE = { b64: 1, x64: 2, b32: 3, x32: 4, gen: 5 } as const;
