/**
 * The x87 instructions that are recorded, and their operands.
 *
 * @module
 */
import { Prng } from "../prng.ts";
import { MMX_FORMS } from "./mmx_forms.ts";
import { reading, Record, REGISTER_BYTES, State, writing } from "./layout.ts";
import {
  angle,
  anyReal,
  bcd,
  floats,
  integer,
  narrowReal,
  packed,
  positive,
  type Real,
  small,
  twoReals,
} from "./operands.ts";

/** What an instruction works on, which decides what its operands are chosen to be. */
type Operands =
  | "none"
  | "one"
  | "two"
  | "m32"
  | "m64"
  | "m80"
  | "i16"
  | "i32"
  | "i64"
  | "bcd"
  | "environment"
  | "angle"
  | "small"
  | "logarithm"
  | "small logarithm"
  | "mmx"
  | "mmx count"
  | "floats 32"
  | "floats 64"
  | "state";

/** One instruction form. */
export interface Form {
  /** As in an assembler. */
  readonly name: string;
  /** Its bytes. */
  readonly code: readonly number[];
  /** What it works on. */
  readonly operands: Operands;
  /** How many records it is run on. */
  readonly count: number;
  /** Results may be a unit in the last place apart, rounded the other way: a transcendental function. */
  readonly approximate: boolean;
}

const forms: Form[] = [];

function form(
  name: string,
  code: readonly number[],
  operands: Operands,
  count: number,
  approximate = false,
): void {
  forms.push({ name, code, operands, count, approximate });
}

const ARITHMETIC = ["fadd", "fmul", "", "", "fsub", "fsubr", "fdiv", "fdivr"];
for (const [digit, name] of ARITHMETIC.entries()) {
  if (name === "") continue;
  const main = digit !== 5 && digit !== 7;
  form(`${name} st, st(1)`, [0xd8, 0xc1 | (digit << 3)], "two", main ? 1200 : 200);
  form(`${name} m32`, reading(0xd8, digit), "m32", main ? 200 : 60);
  form(`${name} m64`, reading(0xdc, digit), "m64", main ? 200 : 60);
  form(`${name.replace("f", "fi")} m16`, reading(0xde, digit), "i16", 60);
  form(`${name.replace("f", "fi")} m32`, reading(0xda, digit), "i32", 60);
  // With ST(i) as the destination the directions of FSUB and FDIV are the other way round.
  const other = digit < 4 ? digit : digit ^ 1;
  form(`${name} st(1), st`, [0xdc, 0xc1 | (other << 3)], "two", 60);
  form(`${name}p st(1), st`, [0xde, 0xc1 | (other << 3)], "two", 80);
}
form("fadd st(3), st", [0xdc, 0xc3], "two", 30);
form("fmul st, st", [0xd8, 0xc8], "one", 60);

form("fcom st(1)", [0xd8, 0xd1], "two", 400);
form("fcomp st(1)", [0xd8, 0xd9], "two", 60);
form("fcompp", [0xde, 0xd9], "two", 60);
form("fucom st(1)", [0xdd, 0xe1], "two", 300);
form("fucomp st(1)", [0xdd, 0xe9], "two", 60);
form("fucompp", [0xda, 0xe9], "two", 60);
form("fcomi st, st(1)", [0xdb, 0xf1], "two", 300);
form("fcomip st, st(1)", [0xdf, 0xf1], "two", 60);
form("fucomi st, st(1)", [0xdb, 0xe9], "two", 200);
form("fucomip st, st(1)", [0xdf, 0xe9], "two", 60);
form("fcom m32", reading(0xd8, 2), "m32", 100);
form("fcomp m32", reading(0xd8, 3), "m32", 40);
form("fcom m64", reading(0xdc, 2), "m64", 100);
form("fcomp m64", reading(0xdc, 3), "m64", 40);
form("ficom m16", reading(0xde, 2), "i16", 60);
form("ficomp m16", reading(0xde, 3), "i16", 40);
form("ficom m32", reading(0xda, 2), "i32", 60);
form("ficomp m32", reading(0xda, 3), "i32", 40);
form("ftst", [0xd9, 0xe4], "one", 150);
form("fxam", [0xd9, 0xe5], "one", 200);

form("fchs", [0xd9, 0xe0], "one", 80);
form("fabs", [0xd9, 0xe1], "one", 80);
form("fsqrt", [0xd9, 0xfa], "one", 800);
form("frndint", [0xd9, 0xfc], "one", 500);
form("fscale", [0xd9, 0xfd], "two", 600);
form("fxtract", [0xd9, 0xf4], "one", 300);
form("fprem", [0xd9, 0xf8], "two", 900);
form("fprem1", [0xd9, 0xf5], "two", 900);

form("fld m32", reading(0xd9, 0), "m32", 200);
form("fld m64", reading(0xdd, 0), "m64", 200);
form("fld m80", reading(0xdb, 5), "m80", 150);
form("fld st(1)", [0xd9, 0xc1], "two", 80);
form("fild m16", reading(0xdf, 0), "i16", 60);
form("fild m32", reading(0xdb, 0), "i32", 60);
form("fild m64", reading(0xdf, 5), "i64", 100);
form("fbld m80", reading(0xdf, 4), "bcd", 100);
form("fst m32", writing(0xd9, 2), "one", 500);
form("fstp m32", writing(0xd9, 3), "one", 60);
form("fst m64", writing(0xdd, 2), "one", 500);
form("fstp m64", writing(0xdd, 3), "one", 60);
form("fstp m80", writing(0xdb, 7), "one", 100);
form("fst st(2)", [0xdd, 0xd2], "one", 60);
form("fstp st(2)", [0xdd, 0xda], "one", 60);
form("fist m16", writing(0xdf, 2), "one", 300);
form("fistp m16", writing(0xdf, 3), "one", 60);
form("fist m32", writing(0xdb, 2), "one", 300);
form("fistp m32", writing(0xdb, 3), "one", 60);
form("fistp m64", writing(0xdf, 7), "one", 300);
form("fisttp m16", writing(0xdf, 1), "one", 150);
form("fisttp m32", writing(0xdb, 1), "one", 150);
form("fisttp m64", writing(0xdd, 1), "one", 150);
form("fbstp m80", writing(0xdf, 6), "one", 300);
form("fxch st(1)", [0xd9, 0xc9], "two", 60);
form("fxch st(5)", [0xd9, 0xcd], "two", 40);
form("ffree st(1)", [0xdd, 0xc1], "two", 40);
form("fincstp", [0xd9, 0xf7], "one", 40);
form("fdecstp", [0xd9, 0xf6], "one", 40);
for (const [k, condition] of ["b", "e", "be", "u"].entries()) {
  form(`fcmov${condition} st, st(1)`, [0xda, 0xc1 | (k << 3)], "two", 80);
  form(`fcmovn${condition} st, st(1)`, [0xdb, 0xc1 | (k << 3)], "two", 80);
}
for (const [k, name] of ["1", "l2t", "l2e", "pi", "lg2", "ln2", "z"].entries()) {
  form(`fld${name}`, [0xd9, 0xe8 | k], "one", 40);
}
// What only the opcode map of the processor has.
form("fstp1 st(2)", [0xd9, 0xda], "one", 20);
form("fcom2 st(1)", [0xdc, 0xd1], "two", 20);
form("fcomp3 st(1)", [0xdc, 0xd9], "two", 20);
form("fxch4 st(1)", [0xdd, 0xc9], "two", 20);
form("fcomp5 st(1)", [0xde, 0xd1], "two", 20);
form("ffreep st(1)", [0xdf, 0xc1], "two", 20);
form("fxch7 st(1)", [0xdf, 0xc9], "two", 20);
form("fstp8 st(2)", [0xdf, 0xd2], "one", 20);
form("fstp9 st(2)", [0xdf, 0xda], "one", 20);

form("fnop", [0xd9, 0xd0], "one", 20);
form("fnclex", [0xdb, 0xe2], "one", 20);
form("fninit", [0xdb, 0xe3], "one", 20);
form("fnstsw m16", writing(0xdd, 7), "one", 20);
form("fnstcw m16", writing(0xd9, 7), "one", 20);
// The environment goes to the end of the record, over flags that are stored again.
form("fnstenv m14", [0x66, ...writing(0xd9, 6)], "environment", 40);
form("fldenv m28", reading(0xd9, 4).with(2, State.CONTROL), "state", 20);

form("fsin", [0xd9, 0xfe], "angle", 700, true);
form("fcos", [0xd9, 0xff], "angle", 500, true);
form("fsincos", [0xd9, 0xfb], "angle", 400, true);
form("fptan", [0xd9, 0xf2], "angle", 500, true);
form("fpatan", [0xd9, 0xf3], "two", 900, true);
form("f2xm1", [0xd9, 0xf0], "small", 600, true);
form("fyl2x", [0xd9, 0xf1], "logarithm", 900, true);
form("fyl2xp1", [0xd9, 0xf9], "small logarithm", 700, true);

for (const { name, code, counted = false, floats: bits } of MMX_FORMS) {
  const operands = bits === undefined ? counted ? "mmx count" : "mmx" : `floats ${bits}` as const;
  form(name, code, operands, operands === "mmx" ? 30 : 40);
}

/** All forms. */
export const FORMS: readonly Form[] = forms;

/** Writes an 80-bit real. */
function writeReal(view: DataView, at: number, [word, significand]: Real): void {
  view.setBigUint64(at, significand, true);
  view.setUint16(at + 8, word, true);
}

/** The tag that a register in use has. */
function tagOf([word, significand]: Real): number {
  const exponent = word & 0x7fff;
  if (exponent === 0) return significand === 0n ? 1 : 2;
  return exponent === 0x7fff || significand >> 63n === 0n ? 2 : 0;
}

/** Fills one record. */
function fill(view: DataView, rng: Prng, { operands }: Form): void {
  const masks = rng.chance(3, 5) ? 0x3f : rng.below(64);
  const precision = rng.pick([3, 3, 2, 0, 1]);
  const control = masks | 0x40 | (precision << 8) | (rng.below(4) << 10);
  const top = rng.below(8);
  // Flags that are set already are masked, for nothing may be pending; of the codes any may be set.
  const sticky = rng.chance(1, 2) ? 0 : rng.below(64) & masks;
  const codes = rng.below(16);
  const status = sticky | ((codes & 7) << 8) | (top << 11) | ((codes >> 3) << 14);
  const first = stackOperands(rng, operands);
  const registers = Array.from(
    { length: 8 },
    (_, k) => first[k] ?? [0x3fff + k, 1n << 63n] as Real,
  );
  let tags = 0;
  for (const [k, register] of registers.entries()) {
    // One time in ten an operand is not there, and mostly there is room above it.
    const empty = k < 2 ? rng.chance(1, 14) : k === 7 ? rng.chance(5, 6) : rng.chance(1, 4);
    const tag = empty ? 3 : tagOf(register);
    tags |= tag << (2 * ((top + k) & 7));
    writeReal(view, State.REGISTERS + REGISTER_BYTES * k, register);
  }
  view.setUint32(State.CONTROL, 0xffff_0000 | control, true);
  view.setUint32(State.STATUS, 0xffff_0000 | status, true);
  view.setUint32(State.TAGS, 0xffff_0000 | tags, true);
  view.setUint32(State.INSTRUCTION, 0x1234_5678, true);
  view.setUint16(State.SELECTOR, 0x33, true);
  view.setUint16(State.OPCODE, rng.below(0x800), true);
  view.setUint32(State.DATA, 0x9abc_def0, true);
  view.setUint32(State.DATA_SELECTOR, 0xffff_002b, true);
  const memory = memoryOperand(rng, operands);
  view.setBigUint64(Record.MEMORY, BigInt.asUintN(64, memory), true);
  view.setBigUint64(Record.MEMORY + 8, memory >> 64n, true);
  view.setBigUint64(Record.FLAGS, 0x202n | BigInt(rng.next()) & 0x8d5n, true);
}

/** What ST0 holds, and perhaps ST1. */
function stackOperands(rng: Prng, operands: Operands): readonly Real[] {
  switch (operands) {
    case "two":
      return twoReals(rng);
    case "angle":
      return [angle(rng)];
    case "small":
      return [small(rng)];
    case "logarithm":
      return [positive(rng), anyReal(rng)];
    case "small logarithm":
      return [small(rng), anyReal(rng)];
    case "mmx":
    case "mmx count":
      return Array.from({ length: 8 }, (): Real => [rng.below(0x1_0000), packed(rng, operands)]);
    default:
      return [anyReal(rng)];
  }
}

function memoryOperand(rng: Prng, operands: Operands): bigint {
  switch (operands) {
    case "m32":
      return narrowReal(rng, 32);
    case "m64":
      return narrowReal(rng, 64);
    case "m80": {
      const [word, significand] = anyReal(rng);
      return BigInt(word) << 64n | significand;
    }
    case "i16":
      return integer(rng, 16);
    case "i32":
      return integer(rng, 32);
    case "i64":
      return integer(rng, 64);
    case "bcd":
      return bcd(rng);
    case "mmx":
    case "mmx count":
      return packed(rng, operands);
    case "floats 32":
      return floats(rng, 32);
    case "floats 64":
      return floats(rng, 64);
    default:
      return 0n;
  }
}

/** The records that form number `index` is run on. */
export function inputOf(index: number): Uint8Array<ArrayBuffer> {
  const chosen = FORMS[index]!;
  const rng = new Prng(index, 87);
  const bytes = new Uint8Array(chosen.count * Record.BYTES);
  for (let k = 0; k < chosen.count; k++) {
    fill(new DataView(bytes.buffer, k * Record.BYTES, Record.BYTES), rng, chosen);
  }
  return bytes;
}
