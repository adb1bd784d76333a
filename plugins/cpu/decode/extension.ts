/**
 * What the prefixes REX, REX2, VEX and EVEX say: register numbers beyond three bits, operand size,
 * opcode map, and for EVEX map 4 the new destination (ND), no flags (NF) and conditional forms of APX
 * (Intel APX architecture specification, 3.1).
 *
 * @module
 */
import { Rflags } from "../microcode/registers.ts";

/** Which of the prefixes an instruction has. */
export const Encoding = { LEGACY: 0, REX2: 1, VEX: 2, EVEX: 3 } as const;
/** One of {@linkcode Encoding}. */
export type Encoding = typeof Encoding[keyof typeof Encoding];

/** Maps of VEX and EVEX, by number. */
export const OpcodeMap = { VECTOR: 1, EVEX_PROMOTED: 4, MSR_IMMEDIATE: 7 } as const;

/**
 * Rows of sixteen opcodes that are undefined with REX2, a bit each, for maps 0 and 1: branches, string
 * and port instructions, and in map 1 WRMSR to SYSEXIT and Jcc. A1h in map 0 is JMPABS.
 */
const REX2_UNDEFINED_ROWS: readonly number[] = [0x4490, 0x0108];
const JMPABS_OPCODE = 0xa1;

/** Default flags in P1 6:3, with the flags that they stand for; PF follows CF, AF is 0. */
const DEFAULT_FLAGS: readonly (readonly [number, number])[] = [
  [0x40, Rflags.OF],
  [0x20, Rflags.SF],
  [0x10, Rflags.ZF],
  [0x08, Rflags.CF | Rflags.PF],
];

/** The prefix of the instruction being decoded. */
export class Extension {
  /** Which it is. */
  encoding: Encoding = Encoding.LEGACY;
  /** Operand size 64. */
  wide = false;
  /** Bits 4:3 of the register in ModRM.reg, in their places. */
  reg = 0;
  /** Bits 4:3 of the index register. */
  index = 0;
  /** Bits 4:3 of the base, of the register in ModRM.rm or in the opcode. */
  base = 0;
  /** Byte registers 4–7 are SPL, BPL, SIL and DIL. */
  byteRegisters = false;
  /** The register in V (0–31); 0 if none is named, for V counts downwards. */
  v = 0;
  /** VEX.L: vectors of 256 bits. */
  long = false;
  /** W as it stands in VEX, which outside of 64-bit mode is no operand size. */
  w = false;
  /** EVEX.ND. */
  newDestination = false;
  /** EVEX.NF. */
  noFlags = false;
  /** EVEX.X4 is set, so that ModRM cannot name a register. */
  memoryOnly = false;
  /** Source condition code of CCMP and CTEST. */
  condition = 0;
  /** Default flags of CCMP and CTEST in their RFLAGS positions. */
  defaultFlags = 0;
  /** Bits 1:0 of P2 (a1 a0), which must be 0 but in conditional forms. */
  low = 0;

  /** None but a REX prefix, or 0. */
  legacy(rex: number): void {
    this.encoding = Encoding.LEGACY;
    this.wide = (rex & 8) !== 0;
    this.reg = (rex & 4) << 1;
    this.index = (rex & 2) << 2;
    this.base = (rex & 1) << 3;
    this.byteRegisters = rex !== 0;
    this.v = 0;
    this.long = false;
    this.w = this.wide;
    this.newDestination = false;
    this.noFlags = false;
    this.memoryOnly = false;
  }

  /** REX2: M0 R4 X4 B4 W R3 X3 B3. Yields the map. */
  rex2(payload: number): 0 | 1 {
    this.legacy(payload & 0xf);
    this.encoding = Encoding.REX2;
    this.byteRegisters = true;
    this.reg |= (payload & 0x40) >> 2;
    this.index |= (payload & 0x20) >> 1;
    this.base |= payload & 0x10;
    return payload >= 0x80 ? 1 : 0;
  }

  /** Whether an opcode is undefined because of REX2. */
  static undefinedWithRex2(map: 0 | 1, opcode: number): boolean {
    if (map === 0 && opcode === JMPABS_OPCODE) return false;
    return ((REX2_UNDEFINED_ROWS[map]! >> (opcode >> 4)) & 1) !== 0;
  }

  /** VEX of three bytes: R X B mmmmm, W vvvv L pp; R, X, B and vvvv inverted. Yields the map. */
  vex(p0: number, p1: number, long: boolean): number {
    // Outside of 64-bit mode there are eight registers.
    const rex = long ? (~p0 >> 5) & 7 : 0;
    this.legacy(rex | (long ? (p1 & 0x80) >> 4 : 0));
    this.encoding = Encoding.VEX;
    this.long = (p1 & 4) !== 0;
    this.w = (p1 & 0x80) !== 0;
    this.byteRegisters = true;
    this.v = (~p1 >> 3) & (long ? 15 : 7);
    this.low = 0;
    return p0 & 31;
  }

  /**
   * EVEX: R3 X3 B3 R4 B4 mmm, W V3–V0 X4 pp, z L1 L0 ND V4 NF a1 a0; all register bits but B4 inverted.
   * Yields the map; −1 if z or L is set, which nothing here has.
   */
  evex(p0: number, p1: number, p2: number): number {
    this.legacy(((~p0 >> 5) & 7) | ((p1 & 0x80) >> 4));
    this.encoding = Encoding.EVEX;
    this.byteRegisters = true;
    this.reg |= ~p0 & 0x10;
    this.index |= (~p1 & 4) << 2;
    this.base |= (p0 & 8) << 1;
    this.v = ((~p1 >> 3) & 15) | ((~p2 & 8) << 1);
    this.newDestination = (p2 & 0x10) !== 0;
    this.noFlags = (p2 & 4) !== 0;
    this.memoryOnly = (p1 & 4) === 0;
    this.condition = p2 & 15;
    this.low = p2 & 3;
    this.defaultFlags = 0;
    for (const [bit, flags] of DEFAULT_FLAGS) if ((p1 & bit) !== 0) this.defaultFlags |= flags;
    return (p2 & 0xe0) !== 0 ? -1 : p0 & 7;
  }
}
