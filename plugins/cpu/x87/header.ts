/**
 * The functions of the x87 unit (unit.ts) that instructions call.
 *
 * Reals are passed as significand and sign-and-exponent word, exceptions as in the status word.
 *
 * @module
 */
import type { Fn, I, L } from "../microcode/header/signature.ts";
import { I32T, I64T, reference } from "../wasm/mod.ts";

/** What instructions ask of the unit of transcendental functions (functions.ts). */
export interface X87Functions {
  /** `()`: F2XM1. */
  readonly power: Fn<[]>;
  /** `(function)`: FSIN, FCOS, FPTAN, FSINCOS. */
  readonly trigonometric: Fn<[I]>;
  /** `(operation)`: FYL2X, FYL2XP1, FPATAN. */
  readonly operateOnTwo: Fn<[I]>;
}

/** References to them. */
export const X87FunctionUnit: X87Functions = {
  power: reference("x87f.power", [], undefined),
  trigonometric: reference("x87f.trigonometric", [I32T], undefined),
  operateOnTwo: reference("x87f.operateOnTwo", [I32T], undefined),
};

/** What instructions ask of the unit. Its state is S.fpu*, S.st; second results are in S.fpuSecond. */
export interface X87Routines {
  // Operands (x87/convert.ts).

  /** `(bits)`: a single-precision number as a real, with exceptions. */
  readonly widen32: Fn<[L], L>;
  /** `(bits)`: a double-precision number. */
  readonly widen64: Fn<[L], L>;
  /** `(value)`: a signed integer. */
  readonly fromInteger: Fn<[L], L>;
  /** `(low, high)`: ten bytes of packed BCD. */
  readonly fromBcd: Fn<[L, L], L>;

  // Instructions on the register stack (x87/operations.ts).

  /** `(operation, destination, pops, significand, word, flags)`: ST(destination) and an operand. */
  readonly arithmetic: Fn<[I, I, I, L, I, I]>;
  /** `(operation, destination, source, pops)`: two registers. */
  readonly arithmeticStack: Fn<[I, I, I, I]>;
  /** `(significand, word, flags, pops, quiet)`: compares ST0, and sets the condition codes. */
  readonly compare: Fn<[L, I, I, I, I]>;
  /** `(source, pops, quiet)`: compares ST0 with a register. */
  readonly compareStack: Fn<[I, I, I]>;
  /** `(source, pops, quiet)`: the same; yields ZF, PF and CF. */
  readonly compareFlags: Fn<[I, I, I], I>;
  /** `(operation)`: an instruction on ST0, and perhaps ST1. */
  readonly operate: Fn<[I]>;
  /** `()`: FXAM. */
  readonly examine: Fn<[]>;
  /** `()`: FXTRACT. */
  readonly extract: Fn<[]>;
  /** `(significand, word, flags)`: pushes an operand. */
  readonly load: Fn<[L, I, I]>;
  /** `(significand, word, flags)`: pushes what was a number of single or double precision. */
  readonly loadNarrow: Fn<[L, I, I]>;
  /** `(source)`: pushes a register. */
  readonly loadStack: Fn<[I]>;
  /** `(destination, pops)`: copies ST0. */
  readonly storeStack: Fn<[I, I]>;
  /** `(destination)`: copies ST0 if it is there, and pops. */
  readonly storeUnchecked: Fn<[I]>;
  /** `(other)`: FXCH. */
  readonly exchange: Fn<[I]>;
  /** `(source, condition)`: FCMOVcc. */
  readonly conditionalMove: Fn<[I, I]>;
  /** `(register, pops)`: FFREE. */
  readonly free: Fn<[I, I]>;
  /** `(by)`: moves TOP: FINCSTP, FDECSTP. */
  readonly turn: Fn<[I]>;

  // Storing: first what is to be stored, then what follows from that (x87/storing.ts).

  /** `(format)`: ST0 in a format of memory. The second result has bits 79:64, and the exceptions. */
  readonly stored: Fn<[I], L>;
  /** `(flags)`: 1 if these exceptions leave memory as it is. */
  readonly storeFails: Fn<[I], I>;
  /** `(flags, pops)`: takes the exceptions over, and pops if something was stored. */
  readonly afterStore: Fn<[I, I]>;

  // The environment (x87/environment.ts).

  /** `(linear, wide, real)`: stores the environment, in 32- or 16-bit format. */
  readonly storeEnvironment: Fn<[L, I, I]>;
  /** `(linear, wide, real)`: loads it. */
  readonly loadEnvironment: Fn<[L, I, I]>;
  /** `(linear)`: stores ST0–ST7. */
  readonly storeRegisters: Fn<[L]>;
  /** `(linear)`: loads them. */
  readonly loadRegisters: Fn<[L]>;

  // MMX.

  /** `(linear, value, mask)`: stores those of eight bytes whose bit in the mask is set, after checking all. */
  readonly maskedStore: Fn<[L, L, I]>;
}

/** References to them. */
export const X87Unit: X87Routines = {
  widen32: reference("x87.widen32", [I64T], I64T),
  widen64: reference("x87.widen64", [I64T], I64T),
  fromInteger: reference("x87.fromInteger", [I64T], I64T),
  fromBcd: reference("x87.fromBcd", [I64T, I64T], I64T),
  arithmetic: reference("x87.arithmetic", [I32T, I32T, I32T, I64T, I32T, I32T], undefined),
  arithmeticStack: reference("x87.arithmeticStack", [I32T, I32T, I32T, I32T], undefined),
  compare: reference("x87.compare", [I64T, I32T, I32T, I32T, I32T], undefined),
  compareStack: reference("x87.compareStack", [I32T, I32T, I32T], undefined),
  compareFlags: reference("x87.compareFlags", [I32T, I32T, I32T], I32T),
  operate: reference("x87.operate", [I32T], undefined),
  examine: reference("x87.examine", [], undefined),
  extract: reference("x87.extract", [], undefined),
  load: reference("x87.load", [I64T, I32T, I32T], undefined),
  loadNarrow: reference("x87.loadNarrow", [I64T, I32T, I32T], undefined),
  loadStack: reference("x87.loadStack", [I32T], undefined),
  storeStack: reference("x87.storeStack", [I32T, I32T], undefined),
  storeUnchecked: reference("x87.storeUnchecked", [I32T], undefined),
  exchange: reference("x87.exchange", [I32T], undefined),
  conditionalMove: reference("x87.conditionalMove", [I32T, I32T], undefined),
  free: reference("x87.free", [I32T, I32T], undefined),
  turn: reference("x87.turn", [I32T], undefined),
  stored: reference("x87.stored", [I32T], I64T),
  storeFails: reference("x87.storeFails", [I32T], I32T),
  afterStore: reference("x87.afterStore", [I32T, I32T], undefined),
  storeEnvironment: reference("x87.storeEnvironment", [I64T, I32T, I32T], undefined),
  loadEnvironment: reference("x87.loadEnvironment", [I64T, I32T, I32T], undefined),
  storeRegisters: reference("x87.storeRegisters", [I64T], undefined),
  loadRegisters: reference("x87.loadRegisters", [I64T], undefined),
  maskedStore: reference("x87.maskedStore", [I64T, I64T, I32T], undefined),
};
