/**
 * From the text of the opcode maps to entries the decoder uses.
 *
 * @module
 */
import { GROUPS, LOCKABLE, MAP_0F38, ONE_BYTE, SUBGROUPS, TWO_BYTE } from "./opcode_map.ts";

/** Where an operand is found. */
export type Place =
  | "A"
  | "C"
  | "D"
  | "E"
  | "G"
  | "I"
  | "J"
  | "M"
  | "O"
  | "R"
  | "S"
  | "V"
  | "W"
  | "Z"
  | "fixed"
  | "one"
  | "segment";

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
  /** Mandatory prefix: "", "NP", "66", "F3" or "F2". */
  readonly prefix: string;
  /** Only with REX.B. */
  readonly rexB: boolean;
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
]);

const FIXED: Readonly<Record<string, [number, string]>> = {
  AL: [0, "b"],
  CL: [1, "b"],
  DX: [2, "w"],
  rAX: [0, "v"],
  eAX: [0, "z"],
};
const SEGMENTS: readonly string[] = ["ES", "CS", "SS", "DS", "FS", "GS"];
/** Places that come out of a ModRM byte. */
const MODRM_PLACES = "CDEGMRSVW";

function parseOperand(text: string): OperandSpec {
  const fixed = FIXED[text];
  if (fixed !== undefined) return { place: "fixed", register: fixed[0], size: fixed[1] };
  const segment = SEGMENTS.indexOf(text);
  if (segment >= 0) return { place: "segment", register: segment, size: "w" };
  if (text === "1") return { place: "one", register: 0, size: "b" };
  return { place: text[0] as Place, register: 0, size: text.slice(1) };
}

function parseAlternative(text: string, inherited: readonly OperandSpec[]): Entry {
  const words = text.trim().split(/\s+/);
  const qualifiers = new Set<string>();
  while (words.length > 1 && QUALIFIERS.has(words[0]!)) qualifiers.add(words.shift()!);
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
  const groupText = GROUPS[name];
  const subgroupText = SUBGROUPS[name];
  const row = (table: string) =>
    table.split("|").map((cell) => parseCell(cell, groupText === undefined ? [] : operands));
  const modrmForm = qualifiers.has("mem") ? "mem" : qualifiers.has("reg") ? "reg" : "";
  return {
    name,
    operands,
    size,
    i64: qualifiers.has("i64"),
    o64: qualifiers.has("o64"),
    wide: qualifiers.has("f64") ? 2 : qualifiers.has("d64") ? 1 : 0,
    prefix: ["NP", "66", "F3", "F2"].find((prefix) => qualifiers.has(prefix)) ?? "",
    rexB: qualifiers.has("rexb"),
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
}

function parseCell(cell: string, inherited: readonly OperandSpec[] = []): readonly Entry[] {
  return cell.split(";").map((alternative) => parseAlternative(alternative, inherited));
}

function parseMap(text: string): readonly (readonly Entry[])[] {
  const map: (readonly Entry[])[] = Array.from({ length: 256 }, () => UNDEFINED);
  for (const line of text.trim().split("\n")) {
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

/** The opcode maps: 0 one-byte, 1 behind 0F, 2 behind 0F 38, 3 behind 0F 3A; alternatives per opcode. */
export const OPCODES: readonly (readonly (readonly Entry[])[])[] = [
  parseMap(ONE_BYTE),
  parseMap(TWO_BYTE),
  parseMap(MAP_0F38),
  Array.from({ length: 256 }, () => UNDEFINED),
];
