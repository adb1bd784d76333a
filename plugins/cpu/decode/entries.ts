/**
 * From the text of the opcode maps to entries the decoder uses.
 *
 * @module
 */
import type { IsaFeatureName } from "../isa_features.ts";
import { APX_GROUPS, EVEX_PROMOTED, MSR_IMMEDIATE, VEX_0F38, VEX_0F3A } from "./apx_map.ts";
import { AVX_0F, AVX_0F38, AVX_0F3A, AVX_GROUPS } from "./avx_map.ts";
import { OpcodeMap } from "./extension.ts";
import { MMX_0F, MMX_0F38, MMX_0F3A, MMX_GROUPS } from "./mmx_map.ts";
import { GROUPS, LOCKABLE, MAP_0F38, ONE_BYTE, SUBGROUPS, TWO_BYTE } from "./opcode_map.ts";
import { SSE_0F, SSE_0F38, SSE_0F3A, SSE_GROUPS } from "./sse_map.ts";
import { X87_GROUPS, X87_SUBGROUPS } from "./x87_map.ts";

/** Where an operand is found. */
export type Place =
  | "A"
  | "B"
  | "C"
  | "D"
  | "E"
  | "G"
  | "H"
  | "I"
  | "J"
  | "L"
  | "M"
  | "N"
  | "O"
  | "P"
  | "Q"
  | "R"
  | "S"
  | "T"
  | "U"
  | "V"
  | "W"
  | "X"
  | "Z"
  | "dfv"
  | "fixed"
  | "fop"
  | "one"
  | "segment"
  | "top";

/** An operand as the map gives it. */
export interface OperandSpec {
  /** Where it is found. */
  readonly place: Place;
  /** Size letters of the map (`b`, `w`, `v`, …). */
  readonly size: string;
  /** Register number of a `fixed` or `segment` operand. */
  readonly register: number;
}

/** An opcode (or one alternative of it). */
export interface Entry {
  /** Name of the semantics. */
  readonly name: string;
  /** Operands. */
  readonly operands: readonly OperandSpec[];
  /** Size letter for instructions with implicit operands, or "". */
  readonly size: string;
  /** Not in 64-bit mode. */
  readonly i64: boolean;
  /** Only in 64-bit mode. */
  readonly o64: boolean;
  /** Default operand size in 64-bit mode: 0 as usual, 1 is 64 (66h gives 16), 2 always 64. */
  readonly wide: 0 | 1 | 2;
  /** Mandatory prefix: "", "NP", "66", "F3", "F2" or "os" (66 or none, which gives the operand size). */
  readonly prefix: string;
  /** Only with REX.B. */
  readonly rexB: boolean;
  /** Not with a REX2 prefix. */
  readonly noRex2: boolean;
  /** Only with a REX2 prefix. */
  readonly rex2: boolean;
  /** Not with W = 1. */
  readonly w0: boolean;
  /** Only with W = 1. */
  readonly w1: boolean;
  /** VEX.L that it has: 0, 1, or −1 for either. */
  readonly vectorLength: -1 | 0 | 1;
  /** The index is a vector register. */
  readonly vectorIndex: boolean;
  /** It is of a vector unit: EVEX does not stand for VEX. */
  readonly vector: boolean;
  /** Not with another address size than the mode's. */
  readonly a64: boolean;
  /** ND bit that the instruction has under EVEX. */
  readonly newDestination: boolean;
  /** NF bit that it has. */
  readonly noFlags: boolean;
  /** Source condition code of CCMP or CTEST that it has; −1 for other instructions. */
  readonly condition: number;
  /** The V field names an operand. */
  readonly usesV: boolean;
  /** No register operand may be RSP. */
  readonly noRsp: boolean;
  /** The two register operands must differ. */
  readonly distinct: boolean;
  /** Feature without which it is undefined. */
  readonly feature: IsaFeatureName | undefined;
  /** Another one. */
  readonly feature2: IsaFeatureName | undefined;
  /** Required form of ModRM: "", "mem" or "reg". */
  readonly modrm: string;
  /** Whether a ModRM byte follows. */
  readonly hasModrm: boolean;
  /** Alternatives by ModRM.reg. */
  readonly group: readonly (readonly Entry[])[] | undefined;
  /** Alternatives by ModRM.rm. */
  readonly subgroup: readonly (readonly Entry[])[] | undefined;
  /** Not defined: #UD. */
  readonly undefined: boolean;
  /** Defined by the manuals, not implemented. */
  readonly unimplemented: boolean;
  /** Takes LOCK with a memory destination. */
  readonly lockable: boolean;
  /** Handlers found so far, by variant number (see `engine/handlers.ts`). */
  readonly handlers: Map<number, number>;
}

const QUALIFIERS: ReadonlySet<string> = new Set([
  "i64",
  "o64",
  "d64",
  "f64",
  "NP",
  "66",
  "F3",
  "F2",
  "mem",
  "reg",
  "rexb",
  "no2",
  "rex2",
  "w0",
  "w1",
  "l1",
  "lig",
  "a64",
  "os",
  "nd",
  "nf",
  "cc",
  "ND",
  "NF",
  "norsp",
  "distinct",
]);

const FIXED: Readonly<Record<string, [number, string]>> = {
  AL: [0, "b"],
  CL: [1, "b"],
  AX: [0, "w"],
  DX: [2, "w"],
  rAX: [0, "v"],
  eAX: [0, "z"],
};
/** Operands of x87 instructions: ST(i), the top of the stack, and the opcode as the unit keeps it. */
const X87_PLACES: Readonly<Record<string, Place>> = { T: "T", ST: "top", fop: "fop" };
const SEGMENTS: readonly string[] = ["ES", "CS", "SS", "DS", "FS", "GS"];
/** Places that come out of a ModRM byte. */
const MODRM_PLACES = "CDEGMNPQRSTUVW";
/** Places of vector registers. */
const VECTOR_PLACES = "HLUVWX";
/** Places that the register in V of VEX or EVEX stands for. */
const V_PLACES = "BH";
/** The operand that ND adds: the register in V. */
const DESTINATION: Place = "B";
/** Number of source condition codes. */
const CONDITIONS = 16;

function parseOperand(text: string): OperandSpec {
  const fixed = FIXED[text];
  if (fixed !== undefined) return { place: "fixed", register: fixed[0], size: fixed[1] };
  const segment = SEGMENTS.indexOf(text);
  if (segment >= 0) return { place: "segment", register: segment, size: "w" };
  const x87 = X87_PLACES[text];
  if (x87 !== undefined) return { place: x87, register: 0, size: "w" };
  if (text === "1") return { place: "one", register: 0, size: "b" };
  return { place: text[0] as Place, register: 0, size: text.slice(1) };
}

/** `nd` and `nf` stand for both values of the bit, `cc` for all conditions: an entry for each. */
function expand(base: Entry, qualifiers: ReadonlySet<string>): readonly Entry[] {
  const variants: Entry[] = [];
  const both = (name: string): readonly boolean[] => qualifiers.has(name) ? [false, true] : [false];
  if (qualifiers.has("cc")) {
    for (let condition = 0; condition < CONDITIONS; condition++) {
      variants.push({
        ...base,
        name: `C${base.name}.${condition}`,
        operands: [...base.operands, { place: "dfv", register: 0, size: "w" }],
        condition,
        usesV: true,
        handlers: new Map(),
      });
    }
    return variants;
  }
  for (const nd of both("nd")) {
    for (const nf of both("nf")) {
      const size = base.operands[0]?.size ?? "";
      variants.push({
        ...base,
        name: base.name + (nd ? ".nd" : "") + (nf ? ".nf" : ""),
        operands: nd
          ? [...base.operands, { place: DESTINATION, register: 0, size }]
          : base.operands,
        newDestination: nd || base.newDestination,
        noFlags: nf || base.noFlags,
        usesV: nd || base.usesV,
        handlers: new Map(),
      });
    }
  }
  return variants;
}

function parseAlternative(text: string, inherited: readonly OperandSpec[]): readonly Entry[] {
  const words = text.trim().split(/\s+/);
  const qualifiers = new Set<string>();
  let feature: IsaFeatureName | undefined;
  let second: IsaFeatureName | undefined;
  while (words.length > 1) {
    const word = words[0]!;
    if (word.startsWith("@")) {
      second = feature;
      feature = word.slice(1) as IsaFeatureName;
    } else if (QUALIFIERS.has(word)) qualifiers.add(word);
    else break;
    words.shift();
  }
  const [first, operandText] = words as [string, string | undefined];
  const unimplemented = first.startsWith("?");
  const name = unimplemented ? first.slice(1) : first;
  let operands = inherited;
  let size = "";
  if (operandText !== undefined && /^[bvz]$/.test(operandText)) {
    size = operandText;
  } else if (operandText?.startsWith("+")) {
    operands = [
      ...inherited,
      ...operandText.slice(1).split(",").map((operand) =>
        parseOperand(inherited[0]?.size === "b" ? "Ib" : operand)
      ),
    ];
  } else if (operandText !== undefined) {
    operands = operandText.split(",").map(parseOperand);
  }
  const groupText = GROUPS[name] ?? APX_GROUPS[name] ?? SSE_GROUPS[name] ??
    AVX_GROUPS[name] ?? MMX_GROUPS[name] ?? X87_GROUPS[name];
  const subgroupText = SUBGROUPS[name] ?? X87_SUBGROUPS[name];
  const row = (table: string) =>
    table.split("|").map((cell) => parseCell(cell, groupText === undefined ? [] : operands));
  // An operand whose size is that of the vector takes both lengths.
  const lengthIgnored = qualifiers.has("lig") ||
    operands.some(({ size }) => size.startsWith("x"));
  const modrmForm = qualifiers.has("mem") ? "mem" : qualifiers.has("reg") ? "reg" : "";
  const base: Entry = {
    name,
    operands,
    size,
    i64: qualifiers.has("i64"),
    o64: qualifiers.has("o64"),
    wide: qualifiers.has("f64") ? 2 : qualifiers.has("d64") ? 1 : 0,
    prefix: ["NP", "66", "F3", "F2", "os"].find((prefix) => qualifiers.has(prefix)) ?? "",
    rexB: qualifiers.has("rexb"),
    noRex2: qualifiers.has("no2"),
    rex2: qualifiers.has("rex2"),
    w0: qualifiers.has("w0"),
    w1: qualifiers.has("w1"),
    vectorLength: qualifiers.has("l1") ? 1 : lengthIgnored ? -1 : 0,
    vectorIndex: operands.some(({ place }) => place === "X"),
    vector: qualifiers.has("lig") || qualifiers.has("l1") ||
      operands.some(({ place }) => VECTOR_PLACES.includes(place)),
    a64: qualifiers.has("a64"),
    newDestination: qualifiers.has("ND"),
    noFlags: qualifiers.has("NF"),
    condition: -1,
    usesV: operands.some(({ place }) => V_PLACES.includes(place)),
    noRsp: qualifiers.has("norsp"),
    distinct: qualifiers.has("distinct"),
    feature,
    feature2: second,
    modrm: modrmForm,
    hasModrm: groupText !== undefined || subgroupText !== undefined || modrmForm !== "" ||
      operands.some(({ place }) => MODRM_PLACES.includes(place)),
    group: groupText === undefined ? undefined : row(groupText),
    subgroup: subgroupText === undefined ? undefined : row(subgroupText),
    undefined: name === "-",
    unimplemented,
    lockable: LOCKABLE.has(name),
    handlers: new Map(),
  };
  return expand(base, qualifiers);
}

function parseCell(cell: string, inherited: readonly OperandSpec[] = []): readonly Entry[] {
  return cell.split(";").flatMap((alternative) => parseAlternative(alternative, inherited));
}

function parseMap(text: string): readonly (readonly Entry[])[] {
  const map: (readonly Entry[])[] = Array.from({ length: 256 }, () => UNDEFINED);
  for (const line of text.split("\n").filter((row) => row !== "")) {
    const start = parseInt(line.slice(0, 2), 16);
    const cells = line.slice(3).split("|");
    if (cells.length !== 8) {
      throw new Error(`opcode map row ${line.slice(0, 2)}: not eight entries`);
    }
    for (const [i, cell] of cells.entries()) map[start + i] = parseCell(cell);
  }
  return map;
}

const UNDEFINED: readonly Entry[] = parseCell("-");

const NO_OPCODES: readonly (readonly Entry[])[] = Array.from({ length: 256 }, () => UNDEFINED);

/** Maps behind VEX and EVEX, by number; undefined numbers have none. */
const PREFIXED: Readonly<Record<number, readonly (readonly Entry[])[]>> = {
  1: parseMap(AVX_0F),
  2: parseMap(AVX_0F38 + VEX_0F38),
  3: parseMap(AVX_0F3A + VEX_0F3A),
  [OpcodeMap.MSR_IMMEDIATE]: parseMap(MSR_IMMEDIATE),
};
const PROMOTED: readonly (readonly Entry[])[] = parseMap(EVEX_PROMOTED);

/** The map that a VEX or EVEX prefix names; without opcodes if there is none of that number. */
export function prefixedMap(map: number, evex: boolean): readonly (readonly Entry[])[] {
  if (map === OpcodeMap.EVEX_PROMOTED) return evex ? PROMOTED : NO_OPCODES;
  if (map === OpcodeMap.VECTOR && evex) return NO_OPCODES;
  return PREFIXED[map] ?? NO_OPCODES;
}

/** The alternatives of both maps, those of `first` first. */
function joined(
  first: readonly (readonly Entry[])[],
  second: readonly (readonly Entry[])[],
): readonly (readonly Entry[])[] {
  return second.map((entries, opcode) => {
    const before = first[opcode]!.filter((entry) => !entry.undefined);
    return [...before, ...entries];
  });
}

/** The opcode maps: 0 one-byte, 1 behind 0F, 2 behind 0F 38, 3 behind 0F 3A; alternatives per opcode. */
export const OPCODES: readonly (readonly (readonly Entry[])[])[] = [
  parseMap(ONE_BYTE),
  joined(parseMap(MMX_0F), parseMap(TWO_BYTE + SSE_0F)),
  joined(parseMap(MMX_0F38), parseMap(MAP_0F38 + SSE_0F38)),
  joined(parseMap(MMX_0F3A), parseMap(SSE_0F3A)),
];
