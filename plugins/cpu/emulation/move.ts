/**
 * Plain moves between memory and a register or constant, decoded and kept: what guests reach device
 * registers with.
 *
 * @module
 */
import { type Decoder, MAX_INSTRUCTION_BYTES } from "../decode/decoder.ts";
import { type DecodeMode, DecodeStatus } from "../decode/status.ts";
import { registerAddress, S } from "../state/cpu_state.ts";

const LEGACY_REGISTERS = 16;

/** Names of the moves, and whether what they load is sign-extended. */
const MOVES: { readonly [name: string]: boolean | undefined } = {
  MOV: false,
  MOVNTI: false,
  MOVZX: false,
  MOVSX: true,
  MOVSXD: true,
};

/** What of the mode matters to plain moves; there is none for 16-bit code. */
const DECODE_MODES: { readonly [code: number]: DecodeMode } = {
  32: { code: 32, stack: 32, flatStack: true, flatData: true, vex: true, apx: false },
  64: { code: 64, stack: 64, flatStack: true, flatData: true, vex: true, apx: false },
};

/** One move. */
export class Move {
  /** RIP that it was decoded for, bits 31:0. */
  rip = 0;
  /** Size of the code: 32 or 64; 0 while nothing is kept here. */
  code = 0;
  /** Length in bytes. */
  length = 0;
  /** It stores. */
  write = false;
  /** Bytes of the access: 1, 2, 4 or 8. */
  size = 0;
  /** Number of the register; −1 for a constant. */
  register = -1;
  /** The register is AH, CH, DH or BH. */
  second = false;
  /** Width in bits of what a load writes. */
  bits = 0;
  /** What is loaded is sign-extended. */
  signed = false;
  /** The constant, bits 31:0. */
  low = 0;
  /** Its bits 63:32. */
  high = 0;
  /** Base register; −1 for none. */
  base = -1;
  /** Index register; −1 for none. */
  index = -1;
  /** The index is shifted left by so much. */
  scale = 0;
  /** Segment register. */
  segment = 0;
  /** Displacement, bits 31:0; relative to RIP, it is the address. */
  displacement = 0;
  readonly #bytes: Uint8Array = new Uint8Array(MAX_INSTRUCTION_BYTES);

  /** Whether it is the instruction that the first `count` of `bytes` begin with. */
  is(bytes: Uint8Array, count: number, code: number, rip: number): boolean {
    if (this.code !== code || this.rip !== rip || this.length > count) return false;
    for (let k = 0; k < this.length; k++) if (this.#bytes[k] !== bytes[k]) return false;
    return true;
  }

  /** Takes the instruction that `bytes` begin with; false if it is none of these. */
  decode(decoder: Decoder, bytes: Uint8Array, count: number, code: number, rip: number): boolean {
    this.code = 0;
    const mode = DECODE_MODES[code];
    if (mode === undefined) return false;
    if (decoder.decode(bytes, 0, count, mode, rip, 0) !== DecodeStatus.OK) return false;
    const signed = MOVES[decoder.entry.name];
    if (signed === undefined || decoder.addressBits === 16) return false;
    if (!this.#operands(decoder)) return false;
    this.signed = signed;
    this.base = numberOf(decoder.base);
    this.index = numberOf(decoder.index);
    if (this.base >= LEGACY_REGISTERS || this.index >= LEGACY_REGISTERS) return false;
    this.scale = decoder.addressing & 3;
    this.segment = (decoder.addressing >> 4) & 7;
    this.displacement = decoder.displacementLow;
    this.length = decoder.length;
    this.#bytes.set(bytes.subarray(0, this.length));
    this.rip = rip;
    this.code = code;
    return true;
  }

  #operands({ operands, reg0, reg1, immediateLow, immediateHigh }: Decoder): boolean {
    const [to, from] = operands;
    if (to === undefined || from === undefined) return false;
    this.write = to.kind === "M";
    const other = this.write ? from : to;
    if (!this.write && from.kind !== "M") return false;
    this.size = (this.write ? to : from).bits / 8;
    this.bits = to.bits;
    this.register = -1;
    this.second = false;
    if (other.kind === "I") {
      this.low = immediateLow;
      this.high = immediateHigh;
      return true;
    }
    if (other.kind !== "R") return false;
    const address = this.write ? reg1 : reg0;
    this.register = numberOf(address);
    this.second = ((address - registerAddress(0)) & 1) !== 0;
    return this.register >= 0 && this.register < LEGACY_REGISTERS;
  }
}

/** Number of the register at `address` of the state; −1 for none. */
function numberOf(address: number): number {
  return address === S.zero ? -1 : (address - registerAddress(0)) >> 3;
}
