/**
 * x87 instructions that load, store, compute and compare (SDM vol. 1, 8.3; vol. 2A; APM vol. 5).
 *
 * Each fetches its operand, which may fault, notes itself, and has the unit do the rest.
 *
 * @module
 */
import { S } from "../state/cpu_state.ts";
import { type I32, i32, type I64, i64 } from "../wasm/mod.ts";
import { type RealResult, resultOf, Rounding } from "../x87/format.ts";
import { OfTwo, SINE_AND_COSINE } from "../x87/functions.ts";
import { Binary, Unary } from "../x87/operations.ts";
import { roundingOf } from "../x87/round.ts";
import { Stored } from "../x87/storing.ts";
import { Trigonometric } from "../x87/trigonometry.ts";
import { X87FunctionUnit, X87Unit } from "../x87/header.ts";
import type { Instruction, Semantics } from "./instruction.ts";
import { note, waiting } from "./x87_available.ts";

/** Number of the stack register that operand `k` is. */
function register(i: Instruction, k: number): I32 {
  return i.unsigned(k).wrap();
}

/** A real or an integer in memory, converted, once all that can fault has not. */
function memoryReal(i: Instruction, integer: boolean): RealResult {
  const { f } = i;
  const bits = i.width(0);
  const value = integer ? i.signed(0) : i.unsigned(0);
  note(i);
  if (integer) return resultOf(f, f.call(X87Unit.fromInteger, value));
  return resultOf(f, f.call(bits === 32 ? X87Unit.widen32 : X87Unit.widen64, value));
}

/** Ten bytes in memory: the low eight and the high two. */
function memoryTen(i: Instruction): { readonly low: I64; readonly high: I64 } {
  const at = i.address(10, 0);
  const low = i.load(64, at);
  return { low, high: i.load(16, at.add(8)) };
}

const binary = (operation: number, pops = 0, integer = false): Semantics => ({
  emit: (i) => {
    const { f } = i;
    waiting(i);
    if (i.isMemory(0)) {
      const { significand, word, flags } = memoryReal(i, integer);
      f.call(X87Unit.arithmetic, operation, 0, pops, significand, word, flags);
      return;
    }
    note(i);
    f.call(X87Unit.arithmeticStack, operation, register(i, 0), register(i, 1), pops);
  },
});

/** FCOM and its like: with ST(i), ST1 if no operand is named, or memory. */
const compare = (pops: number, quiet: boolean, integer = false): Semantics => ({
  emit: (i) => {
    const { f } = i;
    waiting(i);
    if (i.isMemory(0)) {
      const { significand, word, flags } = memoryReal(i, integer);
      f.call(X87Unit.compare, significand, word, flags, pops, Number(quiet));
      return;
    }
    note(i);
    const other = i.operandCount > 1 ? register(i, 0) : i32(1);
    f.call(X87Unit.compareStack, other, pops, Number(quiet));
  },
});

/** FCOMI and its like. */
const compareToFlags = (pops: number, quiet: boolean): Semantics => ({
  emit: (i) => {
    const { f } = i;
    waiting(i);
    note(i);
    const found = f.call(X87Unit.compareFlags, register(i, 1), pops, Number(quiet));
    i.flagsValue(found);
  },
});

const operate = (operation: number): Semantics => ({
  emit: (i) => {
    waiting(i);
    note(i);
    i.f.call(X87Unit.operate, operation);
  },
});

/** An instruction that the unit carries out alone. */
const alone = (call: (i: Instruction) => void): Semantics => ({
  emit: (i) => {
    waiting(i);
    note(i);
    call(i);
  },
});

const ofTwo = (operation: number): Semantics =>
  alone(({ f }) => f.call(X87FunctionUnit.operateOnTwo, operation));
const trigonometric = (which: number): Semantics =>
  alone(({ f }) => f.call(X87FunctionUnit.trigonometric, which));

const fld: Semantics = {
  emit: (i) => {
    const { f } = i;
    waiting(i);
    if (!i.isMemory(0)) {
      note(i);
      f.call(X87Unit.loadStack, register(i, 0));
    } else if (i.width(0) === 80) {
      const { low, high } = memoryTen(i);
      note(i);
      f.call(X87Unit.load, low, high.wrap(), 0);
    } else {
      const { significand, word, flags } = memoryReal(i, false);
      f.call(X87Unit.loadNarrow, significand, word, flags);
    }
  },
};

const fild: Semantics = {
  emit: (i) => {
    waiting(i);
    const { significand, word } = memoryReal(i, true);
    i.f.call(X87Unit.load, significand, word, 0);
  },
};

const fbld: Semantics = {
  emit: (i) => {
    const { f } = i;
    waiting(i);
    const { low, high } = memoryTen(i);
    note(i);
    const { significand, word } = resultOf(f, f.call(X87Unit.fromBcd, low, high));
    f.call(X87Unit.load, significand, word, 0);
  },
};

/** Stores ST0 to memory in a format, unless an exception forbids. */
function storeMemory(i: Instruction, format: number, pops: number): void {
  const { f } = i;
  const bits = i.width(0);
  // An instruction that stores nothing for an exception checks its operand all the same.
  const at = i.address(bits / 8, 1);
  const value = f.call(X87Unit.stored, format);
  const second = S.fpuSecond.get(f);
  const flags = second.shrU(32).wrap();
  f.if(
    f.call(X87Unit.storeFails, flags).eqz(),
    () => {
      if (bits === 80) {
        i.spill();
        f.call(i.mc.probeStore, at, 10);
        i.store(64, at, value);
        i.store(16, at.add(8), second);
      } else i.store(bits, at, value);
    },
    undefined,
    "likely",
  );
  note(i);
  f.call(X87Unit.afterStore, flags, pops);
}

const REAL_FORMATS: Readonly<Record<number, number>> = {
  32: Stored.SINGLE,
  64: Stored.DOUBLE,
  80: Stored.EXTENDED,
};
const INTEGER_FORMATS: Readonly<Record<number, number>> = {
  16: Stored.INT16,
  32: Stored.INT32,
  64: Stored.INT64,
};

const store = (pops: number): Semantics => ({
  emit: (i) => {
    waiting(i);
    if (i.isMemory(0)) storeMemory(i, REAL_FORMATS[i.width(0)]!, pops);
    else {
      note(i);
      i.f.call(X87Unit.storeStack, register(i, 0), pops);
    }
  },
});

const storeInteger = (pops: number, how = 0): Semantics => ({
  emit: (i) => {
    waiting(i);
    storeMemory(i, INTEGER_FORMATS[i.width(0)]! | how, pops);
  },
});

/** FCMOVcc by the condition code of the same Jcc. */
const conditionalMove = (condition: number): Semantics => ({
  emit: (i) => {
    waiting(i);
    const holds = i.condition(condition);
    note(i);
    i.f.call(X87Unit.conditionalMove, register(i, 1), holds);
  },
});

/**
 * A constant of the unit: the significand rounded down, what rounding to nearest and upwards adds to it,
 * and the exponent (SDM vol. 1, 8.3.8).
 */
const constant = (significand: bigint, nearest: 0 | 1, up: 0 | 1, word: number): Semantics =>
  alone((i) => {
    const { f } = i;
    const rounding = roundingOf(S.fpuControl.get(f));
    const added = rounding.eqz().and(nearest).or(rounding.eq(Rounding.UP).and(up));
    f.call(X87Unit.load, i64(significand).add(added.extendU()), word, 0);
  });

/** Instructions by mnemonic. */
export const X87: Readonly<Record<string, Semantics>> = {
  FADD: binary(Binary.ADD),
  FADDP: binary(Binary.ADD, 1),
  FIADD: binary(Binary.ADD, 0, true),
  FMUL: binary(Binary.MULTIPLY),
  FMULP: binary(Binary.MULTIPLY, 1),
  FIMUL: binary(Binary.MULTIPLY, 0, true),
  FSUB: binary(Binary.SUBTRACT),
  FSUBP: binary(Binary.SUBTRACT, 1),
  FISUB: binary(Binary.SUBTRACT, 0, true),
  FSUBR: binary(Binary.SUBTRACT_FROM),
  FSUBRP: binary(Binary.SUBTRACT_FROM, 1),
  FISUBR: binary(Binary.SUBTRACT_FROM, 0, true),
  FDIV: binary(Binary.DIVIDE),
  FDIVP: binary(Binary.DIVIDE, 1),
  FIDIV: binary(Binary.DIVIDE, 0, true),
  FDIVR: binary(Binary.DIVIDE_BY),
  FDIVRP: binary(Binary.DIVIDE_BY, 1),
  FIDIVR: binary(Binary.DIVIDE_BY, 0, true),

  FCOM: compare(0, false),
  FCOMP: compare(1, false),
  FCOMPP: compare(2, false),
  FICOM: compare(0, false, true),
  FICOMP: compare(1, false, true),
  FUCOM: compare(0, true),
  FUCOMP: compare(1, true),
  FUCOMPP: compare(2, true),
  FCOMI: compareToFlags(0, false),
  FCOMIP: compareToFlags(1, false),
  FUCOMI: compareToFlags(0, true),
  FUCOMIP: compareToFlags(1, true),
  FTST: alone(({ f }) => f.call(X87Unit.compare, 0, 0, 0, 0, 0)),
  FXAM: alone(({ f }) => f.call(X87Unit.examine)),

  FCHS: operate(Unary.CHANGE_SIGN),
  FABS: operate(Unary.ABSOLUTE),
  FSQRT: operate(Unary.SQUARE_ROOT),
  FRNDINT: operate(Unary.ROUND),
  FSCALE: operate(Unary.SCALE),
  FPREM: operate(Unary.REMAINDER),
  FPREM1: operate(Unary.REMAINDER_NEAREST),
  F2XM1: alone(({ f }) => f.call(X87FunctionUnit.power)),
  FYL2X: ofTwo(OfTwo.LOGARITHM),
  FYL2XP1: ofTwo(OfTwo.LOGARITHM_OF_ONE_MORE),
  FPATAN: ofTwo(OfTwo.ARCTANGENT),
  FSIN: trigonometric(Trigonometric.SINE),
  FCOS: trigonometric(Trigonometric.COSINE),
  FPTAN: trigonometric(Trigonometric.TANGENT),
  FSINCOS: trigonometric(SINE_AND_COSINE),
  FXTRACT: alone(({ f }) => f.call(X87Unit.extract)),

  FLD: fld,
  FILD: fild,
  FBLD: fbld,
  FST: store(0),
  FSTP: store(1),
  FIST: storeInteger(0),
  FISTP: storeInteger(1),
  FISTTP: storeInteger(1, Stored.TRUNCATED),
  FBSTP: {
    emit: (i) => {
      waiting(i);
      storeMemory(i, Stored.BCD, 1);
    },
  },
  FSTPNCE: alone((i) => i.f.call(X87Unit.storeUnchecked, register(i, 0))),
  FXCH: alone((i) => i.f.call(X87Unit.exchange, register(i, 0))),
  FFREE: alone((i) => i.f.call(X87Unit.free, register(i, 0), 0)),
  FFREEP: alone((i) => i.f.call(X87Unit.free, register(i, 0), 1)),
  FINCSTP: alone(({ f }) => f.call(X87Unit.turn, 1)),
  FDECSTP: alone(({ f }) => f.call(X87Unit.turn, -1)),
  FCMOVB: conditionalMove(2),
  FCMOVNB: conditionalMove(3),
  FCMOVE: conditionalMove(4),
  FCMOVNE: conditionalMove(5),
  FCMOVBE: conditionalMove(6),
  FCMOVNBE: conditionalMove(7),
  FCMOVU: conditionalMove(10),
  FCMOVNU: conditionalMove(11),

  FLD1: constant(0x8000_0000_0000_0000n, 0, 0, 0x3fff),
  FLDZ: constant(0n, 0, 0, 0),
  FLDPI: constant(0xc90f_daa2_2168_c234n, 1, 1, 0x4000),
  FLDL2T: constant(0xd49a_784b_cd1b_8afen, 0, 1, 0x4000),
  FLDL2E: constant(0xb8aa_3b29_5c17_f0bbn, 1, 1, 0x3fff),
  FLDLG2: constant(0x9a20_9a84_fbcf_f798n, 1, 1, 0x3ffd),
  FLDLN2: constant(0xb172_17f7_d1cf_79abn, 1, 1, 0x3ffe),
};
