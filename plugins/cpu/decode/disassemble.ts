/**
 * Instructions as text, from what the decoder makes of them.
 *
 * @module
 */
import { ISA_NAMES, type IsaFeatureName } from "../isa_features.ts";
import { Rflags } from "../microcode/registers.ts";
import { mmxAddress, registerAddress, S, Seg, vectorAddress } from "../state/cpu_state.ts";
import { Decoder } from "./decoder.ts";
import type { OperandSpec } from "./entries.ts";
import { type FormOperand, registerPlace } from "./form.ts";
import { DecodeStatus } from "./status.ts";

/** An instruction as text. */
export interface Disassembled {
  /** The instruction in lower case, in Intel's order of operands; numbers are hexadecimal with an `h`. */
  readonly text: string;
  /** Its length in bytes. */
  readonly length: number;
  /** Where a direct jump or call goes. */
  readonly target: bigint | undefined;
}

/**
 * The instruction at the start of `bytes`. What follows it does not matter, but what is cut off is no
 * instruction.
 *
 * @param code Size of code: 16, 32 or 64 bits.
 * @param rip Offset of the instruction in the code segment, for relative targets.
 * @returns `undefined` for what is no instruction, is cut off, or is one that the processor does not
 * implement.
 */
export function disassemble(
  bytes: Uint8Array,
  code: 16 | 32 | 64,
  rip: bigint,
): Disassembled | undefined {
  const decoder = new Decoder(EVERY_FEATURE);
  const apx = code === 64;
  const mode = { code, stack: code, flatStack: true, flatData: true, vex: true, apx };
  const low = Number(BigInt.asIntN(32, rip));
  const high = Number(BigInt.asIntN(32, rip >> 32n));
  const status = decoder.decode(bytes, 0, bytes.length, mode, low, high);
  if (status !== DecodeStatus.OK) return undefined;
  const writer = new Writer(decoder, code);
  return { text: writer.text(), length: decoder.length, target: writer.target };
}

/** What a processor may have; which one the bytes are for is not known. */
const EVERY_FEATURE: ReadonlySet<IsaFeatureName> = new Set(ISA_NAMES);

/** Names of the semantics that are not the mnemonic of the manual. */
const MNEMONICS: Readonly<Record<string, string>> = {
  MOVFROMCR: "mov",
  MOVTOCR: "mov",
  MOVFROMDR: "mov",
  MOVTODR: "mov",
  MOVFROMSEG: "mov",
  MOVTOSEG: "mov",
  PUSHSEG: "push",
  POPSEG: "pop",
  CALLIND: "call",
  CALLF: "call",
  CALLFIND: "call far",
  JMPIND: "jmp",
  JMPF: "jmp",
  JMPFIND: "jmp far",
  RETF: "retf",
};

/** Conditions by the manual's first name, and by the one that compilers print. */
const CONDITIONS: Readonly<Record<string, string>> = {
  NB: "ae",
  Z: "e",
  NZ: "ne",
  NBE: "a",
  NL: "ge",
  NLE: "g",
};
const CONDITIONAL = /^(J|SET|SETZU|CMOV|CFCMOV|CFSTORE)(N?[OBZSPL]|N?BE|N?LE)$/;
/** CMPccXADD has its condition in the middle. */
const COMPARE_AND_ADD = /^CMP(N?[OBZSPL]|N?BE|N?LE)XADD$/;
/** CCMP and CTEST with the number of their source condition code. */
const SOURCE_CONDITION = /^(CCMP|CTEST)\.(\d+)$/;
/** Source condition codes by number: the conditions, with always and never in place of P and NP. */
const SOURCE_CONDITIONS: readonly string[] = "o no b ae e ne be a s ns t f l ge le g".split(" ");
/** Default flags in the order in which they are written. */
const DEFAULT_FLAGS: readonly (readonly [string, number])[] = [
  ["of", Rflags.OF],
  ["sf", Rflags.SF],
  ["zf", Rflags.ZF],
  ["cf", Rflags.CF],
];

/** Instructions on shadow stacks whose mnemonics end in their width, d or q. */
const WIDE_NAMES: ReadonlySet<string> = new Set(["RDSSP", "INCSSP", "WRSS", "WRUSS"]);
/** Instructions whose mnemonic says the operand size: by its log2 in bytes, from bytes on. */
const SIZED: Readonly<Record<string, readonly (string | undefined)[]>> = {
  CBW: [undefined, "cbw", "cwde", "cdqe"],
  CWD: [undefined, "cwd", "cdq", "cqo"],
  IRET: [undefined, "iretw", "iretd", "iretq"],
  PUSHF: [undefined, "pushfw", "pushfd", "pushfq"],
  POPF: [undefined, "popfw", "popfd", "popfq"],
  PUSHA: [undefined, "pushaw", "pushad"],
  POPA: [undefined, "popaw", "popad"],
  VMOVD: [undefined, undefined, "vmovd", "vmovq"],
  VPINSRD: [undefined, undefined, "vpinsrd", "vpinsrq"],
  VPEXTRD: [undefined, undefined, "vpextrd", "vpextrq"],
  MOVD: [undefined, undefined, "movd", "movq"],
  PINSRD: [undefined, undefined, "pinsrd", "pinsrq"],
  PEXTRD: [undefined, undefined, "pextrd", "pextrq"],
  FXSAVE: [undefined, undefined, undefined, "fxsave64"],
  FXRSTOR: [undefined, undefined, undefined, "fxrstor64"],
};
const STRINGS: ReadonlySet<string> = new Set([
  "MOVS",
  "CMPS",
  "STOS",
  "LODS",
  "SCAS",
  "INS",
  "OUTS",
]);
/** String instructions that compare, whose F3 prefix is REPE. */
const COMPARING: ReadonlySet<string> = new Set(["CMPS", "SCAS"]);
/** Instructions whose memory operand has no size, or whose name says it. */
const SIZELESS: ReadonlySet<string> = new Set([
  ...["LEA", "SGDT", "SIDT", "LGDT", "LIDT", "INVLPG", "CLFLUSH", "CALLFIND", "JMPFIND"],
  ...["FLDENV", "FNSTENV", "FNSAVE", "FRSTOR"],
  ...["MOVFROMSEG", "FXSAVE", "FXRSTOR", "LES", "LDS", "LSS", "LFS", "LGS", "CMPXCHG8B", "BOUND"],
]);

const LETTERS = ["b", "w", "d", "q"] as const;
const POINTERS: Readonly<Record<number, string>> = {
  8: "byte",
  16: "word",
  32: "dword",
  64: "qword",
  80: "tword",
  128: "oword",
  256: "yword",
};
/** Number of CL. */
const CL = 1;
const SEGMENTS = ["es", "cs", "ss", "ds", "fs", "gs"] as const;
const REGISTERS = ["ax", "cx", "dx", "bx", "sp", "bp", "si", "di"] as const;
const BYTES = ["al", "cl", "dl", "bl", "spl", "bpl", "sil", "dil"] as const;
const HIGH_BYTES = ["ah", "ch", "dh", "bh"] as const;

/** Writes the instruction that a decoder has just decoded. */
class Writer {
  /** Where a direct branch goes. */
  target: bigint | undefined;
  readonly #d: Decoder;
  readonly #code: 16 | 32 | 64;

  constructor(decoder: Decoder, code: 16 | 32 | 64) {
    this.#d = decoder;
    this.#code = code;
  }

  text(): string {
    const { entry, operands, lock } = this.#d;
    const written = entry.operands.flatMap((spec, i) =>
      // A vector that is an index stands in the memory operand.
      spec.place === "X" ? [] : [this.#operand(spec, operands[i]!, i)]
    );
    // What the x87 unit keeps of the opcode is no operand to a reader.
    if (entry.operands.at(-1)?.place === "fop") written.pop();
    // A new destination stands first; so do the default flags, and the index of an MSR that is written.
    const last = entry.operands.at(-1)?.place === "dfv" || entry.name === "WRMSRNS.imm" ||
      (entry.newDestination && entry.operands.at(-1)?.place === "B");
    if (last) written.unshift(written.pop()!);
    if (written[0]?.startsWith("{")) written.splice(0, 2, written.slice(0, 2).join(" "));
    const prefix = lock ? "lock " : entry.name.endsWith(".nf") ? "{nf} " : this.#repeat();
    const list = written.length === 0 ? "" : ` ${written.join(", ")}`;
    return `${prefix}${this.#mnemonic()}${list}`;
  }

  #repeat(): string {
    const { rep, entry } = this.#d;
    if (rep === 0 || !STRINGS.has(entry.name)) return "";
    if (rep === 2) return "repne ";
    return COMPARING.has(entry.name) ? "repe " : "rep ";
  }

  #mnemonic(): string {
    const { entry, bits, addressBits, operands } = this.#d;
    const name = plainName(entry.name);
    if (WIDE_NAMES.has(name)) return name.toLowerCase() + (operands[0]?.bits === 64 ? "q" : "d");
    const size = Math.log2(bits / 8);
    const [, compare, source] = SOURCE_CONDITION.exec(name) ?? [];
    if (compare !== undefined) return compare.toLowerCase() + SOURCE_CONDITIONS[Number(source)]!;
    const [, added] = COMPARE_AND_ADD.exec(name) ?? [];
    if (added !== undefined) return `cmp${CONDITIONS[added] ?? added.toLowerCase()}xadd`;
    if (STRINGS.has(name)) {
      const wide = entry.size === "z" ? Math.min(size, 2) : size;
      return name.toLowerCase() + LETTERS[entry.size === "b" ? 0 : wide];
    }
    if (name === "JRCXZ") return { 16: "jcxz", 32: "jecxz", 64: "jrcxz" }[addressBits];
    const [, stem, condition] = CONDITIONAL.exec(name) ?? [];
    if (stem !== undefined && condition !== undefined) {
      const lower = stem === "CFSTORE" ? "cfcmov" : stem.toLowerCase();
      return lower + (CONDITIONS[condition] ?? condition.toLowerCase());
    }
    return SIZED[name]?.[size] ?? MNEMONICS[name] ?? name.toLowerCase();
  }

  #operand(spec: OperandSpec, operand: FormOperand, i: number): string {
    switch (spec.place) {
      case "A":
        return `${hex(this.#d.displacementLow >>> 0)}:${hex(this.#d.immediateLow >>> 0)}`;
      case "segment":
        return SEGMENTS[spec.register] as string;
      case "one":
        return "1";
      case "S":
        return SEGMENTS[this.#d.immediateLow] ?? "?";
      case "C":
        return `cr${this.#d.immediateLow}`;
      case "D":
        return `dr${this.#d.immediateLow}`;
      case "L":
        return vectorName(this.#d.immediateLow, this.#d.vectorBits);
      case "N":
      case "P":
        return mmxName(this.#place(i));
      case "T":
        return `st(${Number(this.#value(i))})`;
      case "top":
        return "st";
      default:
        break;
    }
    switch (operand.kind) {
      case "R":
        return this.#register(i, operand.bits);
      case "V":
        if (spec.place === "Q") return mmxName(this.#place(i));
        return vectorName(this.#place(i), operand.bits === 256 ? 256 : 128);
      case "K":
        return this.#defaultFlags(i);
      case "M":
        return this.#memory(operand.bits);
      case "J":
        return this.#branch();
      default:
        return this.#constant(spec, operand.bits, i);
    }
  }

  #register(i: number, bits: number): string {
    return registerName(this.#place(i), bits);
  }

  /** What the decoder has put where operand `i` has its register. */
  #place(i: number): number {
    const { reg0, reg1, base, operands } = this.#d;
    const place = registerPlace(operands, i);
    return place === 0 ? reg0 : place === 1 ? reg1 : base;
  }

  #defaultFlags(i: number): string {
    const value = this.#place(i);
    const set = DEFAULT_FLAGS.filter(([, flag]) => (value & flag) !== 0).map(([name]) => name);
    return `{dfv=${set.join(", ")}}`;
  }

  #branch(): string {
    const value = join(this.#d.displacementLow, this.#d.displacementHigh);
    this.target = BigInt.asUintN(this.#code === 64 ? 64 : this.#d.bits, value);
    return hex(this.target);
  }

  /** Constant operand `i`. */
  #value(i: number): bigint {
    const { operands, immediateLow, immediateHigh, displacementLow, displacementHigh } = this.#d;
    const second = i > 0 && operands[i - 1]?.kind === "I";
    return second ? join(displacementLow, displacementHigh) : join(immediateLow, immediateHigh);
  }

  #constant({ size }: OperandSpec, bits: number, i: number): string {
    const value = this.#value(i);
    // What is extended reads best with its sign.
    const extended = size === "bs" || (size === "z" && bits === 64);
    if (extended && value < 0n) return `-${hex(-value)}`;
    return hex(BigInt.asUintN(bits, value));
  }

  #memory(bits: number): string {
    const { entry, operands, addressBits, addressing, base, index } = this.#d;
    const parts: string[] = [];
    if (base !== S.zero) parts.push(registerName(base, addressBits));
    const scale = 1 << (addressing & 3);
    const scaled = (name: string): string => name + (scale === 1 ? "" : `*${scale}`);
    if (index !== S.zero) parts.push(scaled(registerName(index, addressBits)));
    if (entry.vectorIndex) {
      parts.push(scaled(vectorName(this.#d.immediateLow, this.#d.vectorBits)));
    }
    const displacement = join(this.#d.displacementLow, this.#d.displacementHigh);
    let inside = parts.join("+");
    if (inside === "") inside = hex(BigInt.asUintN(addressBits, displacement));
    else if (displacement < 0n) inside += `-${hex(-displacement)}`;
    else if (displacement > 0n) inside += `+${hex(displacement)}`;
    const stack = base === registerAddress(4) || base === registerAddress(5);
    const usual = stack ? Seg.SS : Seg.DS;
    const segment = (addressing >> 4) & 7;
    const override = segment === usual ? "" : `${SEGMENTS[segment]}:`;
    // A register of the same width says the size, except CL, which counts.
    const said = SIZELESS.has(entry.name) || entry.operands.some(({ place, register }, i) => {
      const other = operands[i]!;
      const count = place === "fixed" && register === CL;
      return /[RV]/.test(other.kind) && other.bits === bits && !count;
    });
    return `${said ? "" : `${POINTERS[bits]} `}${override}[${inside}]`;
  }
}

/** The mnemonic in the name of a form that writes its result in another way. */
function plainName(name: string): string {
  const [mnemonic, ...suffixes] = name.replace(/\.(nf|nd|imm|mm$)/g, "").split(/\.(?=zu)/);
  if (suffixes[0] !== "zu") return mnemonic!;
  return mnemonic!.startsWith("SET") ? `SETZU${mnemonic!.slice(3)}` : `${mnemonic}ZU`;
}

function vectorName(address: number, bits: 128 | 256): string {
  return `${bits === 256 ? "y" : "x"}mm${(address - vectorAddress(0)) >> 6}`;
}

function mmxName(address: number): string {
  return `mm${(address - mmxAddress(0)) >> 4}`;
}

function registerName(address: number, bits: number): string {
  const offset = address - registerAddress(0);
  const n = offset >> 3;
  if ((offset & 7) === 1) return HIGH_BYTES[n] ?? "?";
  if (n >= 8) return `r${n}${{ 8: "b", 16: "w", 32: "d" }[bits] ?? ""}`;
  if (bits === 8) return BYTES[n] as string;
  return `${{ 32: "e", 64: "r" }[bits] ?? ""}${REGISTERS[n]}`;
}

/** Two halves as a signed number. */
function join(low: number, high: number): bigint {
  return (BigInt(high | 0) << 32n) | BigInt(low >>> 0);
}

/** With a zero in front where it could be taken for a name: `0ah` is a number, `ah` a register. */
function hex(value: number | bigint): string {
  const digits = value.toString(16);
  return /^[a-f]/.test(digits) ? `0${digits}h` : `${digits}h`;
}
