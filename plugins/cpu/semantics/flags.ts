/**
 * The arithmetic flags, kept as the operation that last set them and computed when someone looks.
 *
 * A flag state is a kind and two 64-bit operands, sign-extended from the operation's size. Kinds below
 * 24 are an operation times four plus log2 of the size in bytes. Logic operations are a comparison of
 * their result with zero, so that most conditions do not depend on the size at all.
 *
 * @module
 */
import type { Microcode } from "../microcode/microcode.ts";
import { Rflags } from "../microcode/registers.ts";
import { Event, S } from "../state/cpu_state.ts";
import { type FunctionBuilder, type I32, i32, I32T, type I64, i64 } from "../wasm/mod.ts";

/** Kinds of flag state; add log2 of the operand's bytes to those below {@linkcode FlagsKind.RESULT}. */
export const FlagsKind = {
  /** a − b. */
  SUB: 0,
  /** a is the sum, b one summand. */
  ADD: 4,
  /** a − b − 1. */
  SBB: 8,
  /** a is the sum with carry-in 1, b one summand. */
  ADC: 12,
  /** a is the incremented value, b the carry as it was (0 or 1). */
  INC: 16,
  /** a is the decremented value, b the carry as it was. */
  DEC: 20,
  /** a is a sign-extended result for ZF, SF and PF; b holds CF, AF and OF in their RFLAGS positions. */
  RESULT: 24,
  /** a holds all six flags in their RFLAGS positions. */
  VALUE: 25,
} as const;

/** log2 of the bytes of an operand of `bits`. */
export function sizeLog(bits: number): number {
  return 28 - Math.clz32(bits);
}

/** A flag state while code is built; the kind may be known then. */
export interface FlagState {
  /** {@linkcode FlagsKind} and size. */
  readonly kind: I32;
  /** First operand. */
  readonly a: I64;
  /** Second operand. */
  readonly b: I64;
}

/** Flags that are computed where they are looked at, each time anew. */
class DeferredFlags implements FlagState {
  readonly make: () => FlagState;

  constructor(make: () => FlagState) {
    this.make = make;
  }

  get kind(): I32 {
    return this.make().kind;
  }

  get a(): I64 {
    return this.make().a;
  }

  get b(): I64 {
    return this.make().b;
  }
}

/**
 * Flags whose code is emitted where they are looked at. Most are looked at nowhere but where code leaves a
 * block, which in compiled code is off the path. `make` may use values, but must not read registers: by then
 * they are others.
 */
export function deferFlags(make: () => FlagState): FlagState {
  return new DeferredFlags(make);
}

/** Emits what is deferred of a state, once, for several uses here. */
export function settleFlags(state: FlagState): FlagState {
  return state instanceof DeferredFlags ? settleFlags(state.make()) : state;
}

/** Numbers of the sixteen conditions are the low four opcode bits of Jcc (APM vol. 3, table 1-7). */
export const Condition = {
  O: 0,
  NO: 1,
  B: 2,
  NB: 3,
  Z: 4,
  NZ: 5,
  BE: 6,
  NBE: 7,
  S: 8,
  NS: 9,
  P: 10,
  NP: 11,
  L: 12,
  NL: 13,
  LE: 14,
  NLE: 15,
} as const;

/** 1 if the low byte has an even number of ones. */
export function parity(low: I32): I32 {
  return low.and(0xff).popcnt().and(1).xor(1);
}

/** Bit `bit` (an i64 position) as 0 or 1. */
const bit = (value: I64, position: I64 | number): I32 => value.shrU(position).wrap().and(1);

/** Condition `code` on the flags of a − b at `bits`; only O, S and P depend on the size. */
function subCondition(code: number, a: I64, b: I64, sign: I64 | number): I32 {
  const difference = a.sub(b);
  switch (code & ~1) {
    case Condition.O:
      return bit(a.xor(b).and(a.xor(difference)), sign);
    case Condition.B:
      return a.ltU(b);
    case Condition.Z:
      return a.eq(b);
    case Condition.BE:
      return a.leU(b);
    case Condition.S:
      return bit(difference, sign);
    case Condition.P:
      return parity(difference.wrap());
    case Condition.L:
      return a.ltS(b);
    default:
      return a.leS(b);
  }
}

/** Condition `code` (even) on flag bits in their RFLAGS positions. */
function valueCondition(code: number, flags: I32): I32 {
  const has = (mask: number): I32 => flags.and(mask).ne(0);
  switch (code & ~1) {
    case Condition.O:
      return has(Rflags.OF);
    case Condition.B:
      return flags.and(Rflags.CF);
    case Condition.Z:
      return has(Rflags.ZF);
    case Condition.BE:
      return has(Rflags.CF | Rflags.ZF);
    case Condition.S:
      return has(Rflags.SF);
    case Condition.P:
      return has(Rflags.PF);
    case Condition.L:
      return has(Rflags.SF).ne(has(Rflags.OF));
    default:
      return has(Rflags.ZF).or(has(Rflags.SF).ne(has(Rflags.OF)));
  }
}

/** 1 if condition `code` holds for `state`. */
export function emitCondition(
  mc: Microcode,
  f: FunctionBuilder,
  code: number,
  state: FlagState,
): I32 {
  const { kind, a, b } = settleFlags(state);
  const negate = (condition: I32): I32 => code & 1 ? condition.eqz() : condition;
  if (kind.constant === FlagsKind.VALUE) return negate(valueCondition(code, a.wrap()));
  if (kind.constant !== undefined && kind.constant < FlagsKind.ADD) {
    return negate(subCondition(code, a, b, (8 << kind.constant) - 1));
  }
  if (kind.constant !== undefined) {
    return negate(valueCondition(code, emitFlagsValue(mc, f, { kind, a, b })));
  }
  const holds = f.choose(
    I32T,
    kind.ltU(FlagsKind.ADD),
    () => subCondition(code, a, b, i32(8).shl(kind).sub(1).extendU()),
    () => valueCondition(code, f.callPure(mc.flagsValue, kind, a, b)),
    "likely",
  );
  return negate(holds);
}

/** The six flags of `state` in their RFLAGS positions. */
export function emitFlagsValue(mc: Microcode, f: FunctionBuilder, state: FlagState): I32 {
  const { kind, a, b } = settleFlags(state);
  if (kind.constant === FlagsKind.VALUE) return a.wrap();
  return f.callPure(mc.flagsValue, kind, a, b);
}

/** The carry of `state` as 0 or 1. */
export function emitCarry(mc: Microcode, f: FunctionBuilder, state: FlagState): I32 {
  return emitCondition(mc, f, Condition.B, state);
}

/** Gives the flag functions their bodies. */
export function defineFlags(mc: Microcode): void {
  const { module } = mc;

  module.body(mc.flagsValue, (f, kind, a, b) => {
    f.if(kind.eq(FlagsKind.VALUE), () => f.return(a.wrap()));
    const sign = i32(8).shl(kind.and(3)).sub(1).extendU();
    const flag = (value: I32, position: number): I32 => value.shl(position);
    const resultFlags = (result: I64): I32 =>
      flag(result.shl(i64(63).sub(sign)).eqz(), 6)
        .or(flag(bit(result, sign), 7))
        .or(flag(parity(result.wrap()), 2));
    const arithmetic = (result: I64, carry: I32, overflow: I64, x: I64, y: I64): I32 =>
      resultFlags(result)
        .or(carry)
        .or(flag(bit(overflow, sign), 11))
        .or(x.xor(y).xor(result).wrap().and(Rflags.AF));
    f.if(kind.eq(FlagsKind.RESULT), () => {
      f.return(
        flag(a.eqz(), 6).or(flag(bit(a, 63), 7)).or(flag(parity(a.wrap()), 2)).or(b.wrap()),
      );
    });
    f.switch(kind.shrU(2), [
      () => {
        const result = a.sub(b);
        f.return(arithmetic(result, a.ltU(b), a.xor(b).and(a.xor(result)), a, b));
      },
      () => {
        const other = a.sub(b);
        f.return(arithmetic(a, a.ltU(b), other.xor(a).and(b.xor(a)), other, b));
      },
      () => {
        const result = a.sub(b).sub(1);
        f.return(arithmetic(result, a.leU(b), a.xor(b).and(a.xor(result)), a, b));
      },
      () => {
        const other = a.sub(b).sub(1);
        f.return(arithmetic(a, a.leU(b), other.xor(a).and(b.xor(a)), other, b));
      },
      () => {
        const before = a.sub(1);
        f.return(arithmetic(a, b.wrap(), before.xor(-1).and(a), before, i64(1)));
      },
      () => {
        const before = a.add(1);
        f.return(arithmetic(a, b.wrap(), before.and(a.xor(-1)), before, i64(1)));
      },
    ], () => f.unreachable());
  });

  module.body(mc.readFlags, (f) => {
    const arithmetic = f.call(
      mc.flagsValue,
      S.flagsKind.get(f),
      S.flagsA.get(f),
      S.flagsB.get(f),
    );
    f.return(S.rflags.get(f).or(arithmetic.extendU()));
  });

  module.body(mc.writeFlags, (f, value) => {
    S.flagsKind.set(f, FlagsKind.VALUE);
    S.flagsA.set(f, value.and(Rflags.ARITHMETIC));
    const before = S.rflags.get(f);
    const after = value.and(Rflags.ALL & ~Rflags.ARITHMETIC).or(Rflags.ONE);
    S.rflags.set(f, after);
    const changed = before.xor(after);
    f.if(after.has(Rflags.RF), () => S.events.or(f, Event.RESUME_NEW));
    f.if(changed.has(Rflags.TF | Rflags.VM | Rflags.AC), () => f.call(mc.updateMode));
  });
}
