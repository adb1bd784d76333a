/**
 * Integer instructions beyond the base set, each marked with the CPUID feature it needs: POPCNT,
 * LZCNT, MOVBE, CRC32 (SSE4.2), BMI1 with TZCNT, BMI2 and ADX.
 *
 * @module
 */

import { chooseMemory, type MemoryFault } from "../addressing.ts";
import type { Builder } from "../builder.ts";
import type { Memory, OperandSize } from "../encode.ts";
import { AF, CF, effect, type FlagEffect, NO_FLAGS, OF, PF, SF, STATUS, ZF } from "../flags.ts";
import type { Mode } from "../layout.ts";
import { expand, type Feature, type Form, noncanonicalVector, type Row } from "../rows.ts";

const WORDS: readonly OperandSize[] = [16, 32, 64];
const COUNT = {
  group: "extended",
  encoding: "RM",
  sizes: WORDS,
  rm: "r",
  reg: "w",
  plain: true,
} as const;
const ZEROS = effect(0, CF | ZF, STATUS & ~(CF | ZF));
const CRC = {
  name: "CRC32",
  group: "extended",
  encoding: "RM",
  mandatory: 0xf2,
  feature: "SSE4.2",
  rm: "r",
  reg: "rw",
  plain: true,
} as const;
const MOVBE = {
  name: "MOVBE",
  group: "extended",
  feature: "MOVBE",
  only: "mem",
  plain: true,
} as const;
const CARRY = {
  group: "extended",
  encoding: "RM",
  sizes: [32, 64],
  feature: "ADX",
  plain: true,
} as const;

const ROWS: readonly Row[] = [
  {
    ...COUNT,
    name: "POPCNT",
    opcode: [0x0f, 0xb8],
    mandatory: 0xf3,
    feature: "POPCNT",
    flags: effect(0, STATUS),
  },
  {
    ...COUNT,
    name: "LZCNT",
    opcode: [0x0f, 0xbd],
    mandatory: 0xf3,
    feature: "LZCNT",
    flags: ZEROS,
  },
  { ...COUNT, name: "TZCNT", opcode: [0x0f, 0xbc], mandatory: 0xf3, feature: "BMI1", flags: ZEROS },
  { ...CRC, opcode: [0x0f, 0x38, 0xf0], sizes: [32, 64], rmSize: 8 },
  { ...CRC, opcode: [0x0f, 0x38, 0xf1], sizes: [16], regSize: 32 },
  { ...CRC, opcode: [0x0f, 0x38, 0xf1], sizes: [32], rmSize: 32 },
  { ...CRC, opcode: [0x0f, 0x38, 0xf1], sizes: [64], rmSize: 64 },
  { ...MOVBE, opcode: [0x0f, 0x38, 0xf0], encoding: "RM", sizes: WORDS, rm: "r", reg: "w" },
  { ...MOVBE, opcode: [0x0f, 0x38, 0xf1], encoding: "MR", sizes: WORDS, rm: "w", reg: "r" },
  {
    ...CARRY,
    name: "ADCX",
    opcode: [0x0f, 0x38, 0xf6],
    mandatory: 0x66,
    rm: "r",
    reg: "rw",
    flags: effect(CF, CF),
  },
  {
    ...CARRY,
    name: "ADOX",
    opcode: [0x0f, 0x38, 0xf6],
    mandatory: 0xf3,
    rm: "r",
    reg: "rw",
    flags: effect(OF, OF),
  },
];

/** A VEX-encoded integer instruction. */
interface VexRow {
  readonly name: string;
  readonly feature: Feature;
  readonly map: 2 | 3;
  readonly pp: number;
  readonly opcode: number;
  /** ModRM.reg as an opcode extension; the destination is then vvvv. */
  readonly digit?: number;
  /** VEX.vvvv: a source, a second destination (MULX), or not used. */
  readonly vvvv: "source" | "destination" | "none";
  readonly imm?: true;
  readonly flags: FlagEffect;
}

const LOGIC = effect(0, SF | ZF | OF | CF, AF | PF);
const EXTRACT = effect(0, ZF | CF | OF, AF | SF | PF);

const VEX: readonly VexRow[] = [
  { name: "ANDN", feature: "BMI1", map: 2, pp: 0, opcode: 0xf2, vvvv: "source", flags: LOGIC },
  {
    name: "BLSR",
    feature: "BMI1",
    map: 2,
    pp: 0,
    opcode: 0xf3,
    digit: 1,
    vvvv: "destination",
    flags: LOGIC,
  },
  {
    name: "BLSMSK",
    feature: "BMI1",
    map: 2,
    pp: 0,
    opcode: 0xf3,
    digit: 2,
    vvvv: "destination",
    flags: LOGIC,
  },
  {
    name: "BLSI",
    feature: "BMI1",
    map: 2,
    pp: 0,
    opcode: 0xf3,
    digit: 3,
    vvvv: "destination",
    flags: LOGIC,
  },
  { name: "BEXTR", feature: "BMI1", map: 2, pp: 0, opcode: 0xf7, vvvv: "source", flags: EXTRACT },
  { name: "BZHI", feature: "BMI2", map: 2, pp: 0, opcode: 0xf5, vvvv: "source", flags: LOGIC },
  { name: "PDEP", feature: "BMI2", map: 2, pp: 3, opcode: 0xf5, vvvv: "source", flags: NO_FLAGS },
  { name: "PEXT", feature: "BMI2", map: 2, pp: 2, opcode: 0xf5, vvvv: "source", flags: NO_FLAGS },
  {
    name: "MULX",
    feature: "BMI2",
    map: 2,
    pp: 3,
    opcode: 0xf6,
    vvvv: "destination",
    flags: NO_FLAGS,
  },
  { name: "SARX", feature: "BMI2", map: 2, pp: 2, opcode: 0xf7, vvvv: "source", flags: NO_FLAGS },
  { name: "SHLX", feature: "BMI2", map: 2, pp: 1, opcode: 0xf7, vvvv: "source", flags: NO_FLAGS },
  { name: "SHRX", feature: "BMI2", map: 2, pp: 3, opcode: 0xf7, vvvv: "source", flags: NO_FLAGS },
  {
    name: "RORX",
    feature: "BMI2",
    map: 3,
    pp: 3,
    opcode: 0xf0,
    vvvv: "none",
    imm: true,
    flags: NO_FLAGS,
  },
];

function vexName(row: VexRow, size: 32 | 64, memory: boolean): string {
  const rm = `${memory ? "m" : "r"}${size}`;
  const pp = ["", "66 ", "F3 ", "F2 "][row.pp];
  const map = row.map === 2 ? "0F38" : "0F3A";
  const digit = row.digit === undefined ? "" : ` /${row.digit}`;
  const hex = row.opcode.toString(16).toUpperCase();
  return `${row.name} r${size}, ${rm} [VEX ${pp}${map} ${hex}${digit}]`;
}

function emitVex(
  b: Builder,
  row: VexRow,
  size: 32 | 64,
  memory: boolean,
  fault?: MemoryFault,
): boolean {
  const all = b.mode === 64;
  let writes = 0;
  const destination = (): number => {
    const r = b.writable(size, all);
    writes |= 1 << r;
    return r;
  };
  const reg = row.digit === undefined ? destination() : undefined;
  const vvvv = row.vvvv === "destination"
    ? destination()
    : row.vvvv === "source"
    ? b.register(all)
    : 0;
  let rm: number | Memory;
  let vectors: readonly number[] = [];
  if (memory) {
    const choice = chooseMemory(b, {
      size: size / 8,
      access: "read",
      rex: all,
      ...(fault === undefined ? {} : { fault }),
    });
    if (choice === undefined) return false;
    rm = choice.memory;
    if (fault !== undefined) {
      vectors = [fault === "noncanonical" ? noncanonicalVector(rm) : 14];
    }
  } else {
    rm = b.register(all);
  }
  const w = size === 64 ? 1 : 0;
  b.emit(
    vexName(row, size, memory),
    {
      opcode: [row.opcode],
      vex: { map: row.map, pp: row.pp, vvvv, w },
      rm,
      ...(reg === undefined ? {} : { reg }),
      ...(row.digit === undefined ? {} : { digit: row.digit }),
      ...(row.imm === true ? { imm: b.immediate(1), immBytes: 1 } : {}),
    },
    { flags: row.flags, writes, vectors, plain: true },
  );
  return true;
}

function vexForms(): Form[] {
  const forms: Form[] = [];
  for (const row of VEX) {
    for (const size of [32, 64] as const) {
      const modes: readonly Mode[] = size === 64 ? [64] : [64, 32];
      for (const memory of [false, true]) {
        forms.push({
          group: "extended",
          modes,
          feature: row.feature,
          simple: true,
          names: [vexName(row, size, memory)],
          emit: (b) => emitVex(b, row, size, memory),
          ...(memory ? { emitFault: (b, fault) => emitVex(b, row, size, memory, fault) } : {}),
        });
      }
    }
  }
  return forms;
}

/** Forms of the extended group. */
export const EXTENDED: readonly Form[] = [...expand(ROWS), ...vexForms()];
