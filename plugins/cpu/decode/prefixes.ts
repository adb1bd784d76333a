/**
 * What stands in front of an instruction, up to and with its opcode, and which entries of the maps it
 * allows.
 *
 * @module
 */
import type { IsaFeatureName } from "../isa_features.ts";
import { Seg } from "../state/cpu_state.ts";
import type { Cursor } from "./cursor.ts";
import { type Entry, OPCODES, prefixedMap } from "./entries.ts";
import { Encoding, Extension } from "./extension.ts";
import { type DecodeMode, DecodeStatus } from "./status.ts";

const SEGMENT_PREFIXES: Readonly<Record<number, number>> = {
  0x26: Seg.ES,
  0x2e: Seg.CS,
  0x36: Seg.SS,
  0x3e: Seg.DS,
  0x64: Seg.FS,
  0x65: Seg.GS,
};

/** The prefixes of the instruction being decoded. */
export class Prefixes {
  /** 0 none, 1 F3, 2 F2. */
  rep: 0 | 1 | 2 = 0;
  /** LOCK. */
  lock = false;
  /** 66, or the same in the pp field of VEX or EVEX. */
  operand = false;
  /** 67. */
  address = false;
  /** The opcode, where there is one byte of it. */
  opcode = 0;
  /** The segment that is named, −1 for none. */
  segment = -1;
  /** The last prefix for a segment is 3E, which in front of an indirect branch is NOTRACK. */
  noTrack = false;
  /** REX, REX2, VEX or EVEX. */
  readonly extension: Extension = new Extension();
  readonly #isa: ReadonlySet<IsaFeatureName>;
  #mode: DecodeMode;
  #rex = 0;

  /** For a processor with these features. */
  constructor(isa: ReadonlySet<IsaFeatureName>, mode: DecodeMode) {
    this.#isa = isa;
    this.#mode = mode;
  }

  /** Reads prefixes and opcode: what they may stand for, or why that cannot be told. */
  read(cursor: Cursor, mode: DecodeMode): readonly Entry[] | DecodeStatus {
    this.#mode = mode;
    const opcode = this.#legacy(cursor, mode.code === 64);
    if (opcode < 0) return DecodeStatus.TRUNCATED;
    this.opcode = opcode;
    this.extension.legacy(this.#rex);
    switch (opcode) {
      case 0x0f:
        return this.#escaped(cursor);
      case 0xd5:
        if (mode.apx) return this.#rex2(cursor);
        break;
      case 0x62:
        if (mode.apx) return this.#evex(cursor);
        break;
      case 0xc4:
      case 0xc5:
        // Outside of 64-bit mode this is LES or LDS if a memory operand follows.
        if (mode.vex && (mode.code === 64 || cursor.peek() >= 0xc0)) {
          return this.#vex(cursor, opcode === 0xc5);
        }
        break;
    }
    return OPCODES[0]![opcode]!;
  }

  /** The one-byte prefixes; yields the byte behind them, or −1. */
  #legacy(cursor: Cursor, long: boolean): number {
    this.#rex = 0;
    this.operand = false;
    this.address = false;
    this.segment = -1;
    this.rep = 0;
    this.lock = false;
    this.noTrack = false;
    for (;;) {
      const byte = cursor.byte();
      switch (byte) {
        case 0x66:
          this.operand = true;
          break;
        case 0x67:
          this.address = true;
          break;
        case 0xf0:
          this.lock = true;
          break;
        case 0xf2:
          this.rep = 2;
          break;
        case 0xf3:
          this.rep = 1;
          break;
        case 0x26:
        case 0x2e:
        case 0x36:
        case 0x3e:
        case 0x64:
        case 0x65: {
          // In 64-bit mode the four old overrides are ignored, and do not cancel FS or GS.
          const segment = SEGMENT_PREFIXES[byte]!;
          this.noTrack = segment === Seg.DS;
          if (!long || segment >= Seg.FS) this.segment = segment;
          break;
        }
        default:
          if (long && byte >= 0x40 && byte <= 0x4f) {
            this.#rex = byte;
            continue;
          }
          return byte;
      }
      // A REX prefix counts only if it stands right before the opcode.
      this.#rex = 0;
    }
  }

  #escaped(cursor: Cursor): readonly Entry[] | DecodeStatus {
    let map = 1;
    let opcode = cursor.byte();
    if (opcode === 0x38 || opcode === 0x3a) {
      map = opcode === 0x38 ? 2 : 3;
      opcode = cursor.byte();
    }
    return opcode < 0 ? DecodeStatus.TRUNCATED : OPCODES[map]![opcode]!;
  }

  #rex2(cursor: Cursor): readonly Entry[] | DecodeStatus {
    const payload = cursor.byte();
    const opcode = cursor.byte();
    if (opcode < 0) return DecodeStatus.TRUNCATED;
    if (this.#rex !== 0) return DecodeStatus.UNDEFINED;
    const map = this.extension.rex2(payload);
    if (Extension.undefinedWithRex2(map, opcode)) return DecodeStatus.UNDEFINED;
    return OPCODES[map]![opcode]!;
  }

  /** Two bytes stand for three with X and B inverted, map 1 and W = 0. */
  #vex(cursor: Cursor, short: boolean): readonly Entry[] | DecodeStatus {
    const first = cursor.byte();
    const p0 = short ? (first & 0x80) | 0x61 : first;
    const p1 = short ? first & 0x7f : cursor.byte();
    const opcode = cursor.byte();
    if (opcode < 0) return DecodeStatus.TRUNCATED;
    if (!this.#bare()) return DecodeStatus.UNDEFINED;
    const map = this.extension.vex(p0, p1, this.#mode.code === 64);
    this.#mandatory(p1);
    return prefixedMap(map, false)[opcode]!;
  }

  #evex(cursor: Cursor): readonly Entry[] | DecodeStatus {
    const p0 = cursor.byte();
    const p1 = cursor.byte();
    const p2 = cursor.byte();
    const opcode = cursor.byte();
    if (opcode < 0) return DecodeStatus.TRUNCATED;
    if (!this.#bare()) return DecodeStatus.UNDEFINED;
    const map = this.extension.evex(p0, p1, p2);
    this.#mandatory(p1);
    return prefixedMap(map, true)[opcode]!;
  }

  /** Whether no prefix stands in front that VEX and EVEX do not bear. */
  #bare(): boolean {
    return this.#rex === 0 && !this.operand && this.rep === 0 && !this.lock;
  }

  /** Takes the pp field of VEX or EVEX for the prefix that it stands for. */
  #mandatory(p1: number): void {
    this.operand = (p1 & 3) === 1;
    this.rep = (p1 & 3) === 2 ? 1 : (p1 & 3) === 3 ? 2 : 0;
  }

  /** Whether mode, features and prefixes are those of `entry`. */
  allow(entry: Entry, modrm: number): boolean {
    if (this.#mode.code === 64 ? entry.i64 : entry.o64) return false;
    if (entry.rexB && this.extension.base === 0) return false;
    if (entry.feature !== undefined && !this.#isa.has(entry.feature)) return false;
    if (entry.feature2 !== undefined && !this.#isa.has(entry.feature2)) return false;
    if (this.extension.encoding !== Encoding.LEGACY || entry.rex2) {
      if (!this.#extensionAllows(entry, modrm)) return false;
    }
    if (entry.modrm !== "" && (entry.modrm === "reg") !== (modrm >= 0xc0)) return false;
    switch (entry.prefix) {
      case "F3":
        return this.rep === 1;
      case "F2":
        return this.rep === 2;
      case "66":
        return this.rep === 0 && this.operand;
      case "NP":
        return this.rep === 0 && !this.operand;
      case "os":
        return this.rep === 0;
      default:
        return true;
    }
  }

  /** Whether a REX2, VEX or EVEX prefix allows `entry`. */
  #extensionAllows(entry: Entry, modrm: number): boolean {
    const { extension } = this;
    if (extension.encoding === Encoding.LEGACY) return false;
    if (extension.w ? entry.w0 : entry.w1) return false;
    if (extension.encoding === Encoding.REX2) {
      return !entry.noRex2 && !(entry.a64 && this.address);
    }
    // What an opcode extension stands for decides on the rest.
    if (entry.group !== undefined) return true;
    if (extension.encoding === Encoding.EVEX && entry.vector) return false;
    if (entry.vectorLength >= 0 && Number(extension.long) !== entry.vectorLength) return false;
    if (extension.memoryOnly && modrm >= 0xc0) return false;
    if (entry.condition >= 0) {
      return !extension.newDestination && extension.condition === entry.condition;
    }
    if (extension.newDestination !== entry.newDestination) return false;
    if (extension.noFlags !== entry.noFlags || extension.low !== 0) return false;
    return entry.usesV || extension.v === 0;
  }

  /** Operand size of `entry`. */
  operandSize(entry: Entry): 16 | 32 | 64 {
    const { code } = this.#mode;
    const other = this.operand && entry.prefix !== "66";
    if (code === 64) {
      if (entry.wide === 2 || this.extension.wide) return 64;
      if (other) return 16;
      return entry.wide === 1 ? 64 : 32;
    }
    if (this.extension.encoding === Encoding.VEX) return 32;
    return (code === 32) !== other ? 32 : 16;
  }

  /** Address size. */
  get addressSize(): 16 | 32 | 64 {
    const { code } = this.#mode;
    if (code === 64) return this.address ? 32 : 64;
    return (code === 32) !== this.address ? 32 : 16;
  }
}
