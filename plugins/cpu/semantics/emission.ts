/**
 * What an instruction is made of while its code is built: what a tier supplies, flags, faults.
 *
 * @module
 */
import type { Form } from "../decode/form.ts";
import type { Microcode } from "../microcode/microcode.ts";
import { S } from "../state/cpu_state.ts";
import { type FunctionBuilder, type I32, i32, type I64, i64 } from "../wasm/mod.ts";
import {
  deferFlags,
  emitCarry,
  emitCondition,
  emitFlagsValue,
  FlagsKind,
  type FlagState,
  settleFlags,
  sizeLog,
} from "./flags.ts";

/** The code of one instruction while it is built. */
export abstract class Emission {
  /** Microcode that can be called. */
  readonly mc: Microcode;
  /** The function the code goes to. */
  readonly f: FunctionBuilder;
  /** The form. */
  readonly form: Form;
  /** Flags as the instruction finds them. */
  readonly flagsBefore: FlagState;
  /** Flags as it leaves them. */
  flags: FlagState;
  /** Flags that a fault leaves, where they are not those of before the instruction. */
  flagsAtFault: FlagState;
  /** Set once the emitter has ended the block itself. */
  ended = false;
  /** It has been found out before that SSE instructions can be executed here. */
  sseChecked = false;
  #spilled = false;

  constructor(mc: Microcode, f: FunctionBuilder, form: Form, flags: FlagState) {
    this.mc = mc;
    this.f = f;
    this.form = form;
    this.flagsBefore = flags;
    this.flags = flags;
    this.flagsAtFault = flags;
  }

  // What a tier supplies.

  /** Register operand `k`, zero- or sign-extended from its width. */
  protected abstract readRegister(k: number, bits: number, signed: boolean): I64;
  /** The constant of operand `k`, of kind "K". */
  protected abstract smallConstant(k: number): I32;
  /** Address of vector register operand `k` in the state. */
  abstract vectorAddress(k: number): I32;
  /** Writes register operand `k`; 32 bits clear the upper half, 8 and 16 keep the rest. */
  protected abstract writeRegister(k: number, bits: number, value: I64): void;
  /** General-purpose register `n`, zero- or sign-extended from `bits`. */
  protected abstract readFixed(n: number, bits: number, signed: boolean): I64;
  /** Writes general-purpose register `n`. */
  protected abstract writeFixed(n: number, bits: number, value: I64): void;
  /** The first constant. */
  abstract immediate(): I64;
  /** The second constant, or the selector of a far pointer. */
  abstract second(): I64;
  /** Linear address of the memory operand for an access of `bytes`; 0 read, 1 write. */
  protected abstract operandAddress(bytes: number, access: number): I64;
  /** Offset of the memory operand in its segment. */
  abstract offset(): I64;
  /** The segment the memory operand (or a string source) is in. */
  abstract segment(): I32;
  /** Number of the general-purpose register that is operand `k`. */
  abstract registerNumber(k: number): I32;
  /** Address of the instruction's micro-op record, for the program outside. */
  abstract recordAddress(): I32;
  /** RIP of this instruction. */
  abstract rip(): I64;
  /** RIP of the next instruction. */
  abstract nextRip(): I64;
  /** How many instructions may still be retired, those of the block at hand charged. */
  abstract budget(): I32;
  /** Stores what microcode needs: which instruction, the budget, the flags as they were before. */
  protected abstract emitSpill(): void;
  /** Takes general-purpose registers from the state again, where they are kept elsewhere. */
  protected abstract takeRegisters(): void;
  /** Goes on at the target of a direct branch. */
  abstract branchTaken(): void;
  /** Goes on at the next instruction, leaving the block. */
  abstract branchNotTaken(): void;
  /** Goes on at `target`. */
  abstract jumpTo(target: I64): void;
  /** Stores everything and returns to the dispatcher, which goes on at `rip`. */
  abstract leaveAt(rip: I64): void;
  /** Returns to the dispatcher; microcode has set RIP and flags in the state. */
  abstract leaveAsIs(): void;

  /** 1 if the mode has `bit` (one of `Mode` that code cannot change and go on). */
  hasMode(bit: number): I32 {
    return S.mode.has(this.f, bit);
  }

  // Flags.

  #setFlags(kind: number | I32, a: I64, b: I64): void {
    this.flags = { kind: i32(kind), a, b };
  }

  #deferFlags(make: () => readonly [kind: number | I32, a: I64, b: I64]): void {
    this.flags = deferFlags(() => {
      const [kind, a, b] = make();
      return { kind: i32(kind), a, b };
    });
  }

  /** Flags of a − b; operands sign-extended. */
  flagsSub(bits: number, a: I64, b: I64): void {
    this.#setFlags(FlagsKind.SUB + sizeLog(bits), a, b);
  }

  /** Flags of a sum, given the sum and one summand (sign-extended). */
  flagsAdd(bits: number, sum: I64, b: I64): void {
    this.#deferFlags(() => [FlagsKind.ADD + sizeLog(bits), sum.signExtend(bits), b]);
  }

  /** Flags of a + b + carry. */
  flagsAdc(bits: number, sum: I64, b: I64, carry: I32): void {
    this.#deferFlags(() => {
      const kind = carry.mul(FlagsKind.ADC - FlagsKind.ADD).add(FlagsKind.ADD + sizeLog(bits));
      return [kind, sum.signExtend(bits), b];
    });
  }

  /** Flags of a − b − borrow. */
  flagsSbb(bits: number, a: I64, b: I64, borrow: I32): void {
    this.#deferFlags(() => {
      const kind = borrow.mul(FlagsKind.SBB - FlagsKind.SUB).add(FlagsKind.SUB + sizeLog(bits));
      return [kind, a, b];
    });
  }

  /** Flags of a logic operation: CF and OF clear, the rest from the result. AF, undefined, is clear. */
  flagsLogic(bits: number, result: I64): void {
    this.#deferFlags(() => [FlagsKind.SUB + 3, result.signExtend(bits), i64(0)]);
  }

  /** Flags of INC or DEC: all but CF. */
  flagsIncDec(bits: number, result: I64, decrement: boolean): void {
    const kind = (decrement ? FlagsKind.DEC : FlagsKind.INC) + sizeLog(bits);
    this.#deferFlags(() => [kind, result.signExtend(bits), this.carry().extendU()]);
  }

  /** ZF, SF and PF of a result, with CF, AF and OF given in their RFLAGS positions. */
  flagsResult(bits: number, result: I64, others: I32 | (() => I32)): void {
    this.#deferFlags(() => [
      FlagsKind.RESULT,
      result.signExtend(bits),
      (typeof others === "function" ? others() : others).extendU(),
    ]);
  }

  /** All six flags in their RFLAGS positions. */
  flagsValue(value: I32 | (() => I32)): void {
    this.#deferFlags(() => [
      FlagsKind.VALUE,
      (typeof value === "function" ? value() : value).extendU(),
      i64(0),
    ]);
  }

  /** Takes `then` if `condition` is non-zero, else `otherwise`: if not given, the flags as they were. */
  flagsIf(condition: I32, then: FlagState, otherwise: FlagState = this.flagsBefore): void {
    if (condition.constant !== undefined) {
      this.flags = condition.constant !== 0 ? then : otherwise;
      return;
    }
    this.flags = deferFlags(() => {
      const [x, y] = [settleFlags(then), settleFlags(otherwise)];
      return {
        kind: condition.select(x.kind, y.kind),
        a: condition.select(x.a, y.a),
        b: condition.select(x.b, y.b),
      };
    });
  }

  /** Leaves the flags as they were before. */
  keepFlags(): void {
    this.flags = this.flagsBefore;
  }

  /** 1 if condition `code` holds before the instruction. */
  condition(code: number): I32 {
    return emitCondition(this.mc, this.f, code, this.flagsBefore);
  }

  /** CF before the instruction, 0 or 1. */
  carry(): I32 {
    return emitCarry(this.mc, this.f, this.flagsBefore);
  }

  /** The six flags before the instruction, in their RFLAGS positions. */
  flagBits(): I32 {
    return emitFlagsValue(this.mc, this.f, this.flagsBefore);
  }

  // Faults and the rest of the machine.

  /** Makes the state complete, for microcode. */
  spill(): void {
    this.emitSpill();
  }

  /** Makes the state complete once; emits nothing the second time. Only outside conditional code. */
  spillOnce(): void {
    if (this.#spilled) return;
    this.emitSpill();
    this.#spilled = true;
  }

  /** Raises an exception without error code. */
  raise(vector: number): void {
    this.spill();
    this.f.call(this.mc.raise, vector);
    this.f.unreachable();
  }

  /** Raises an exception with an error code. */
  raiseError(vector: number, error: I32 | number): void {
    this.spill();
    this.f.call(this.mc.raiseError, vector, error);
    this.f.unreachable();
  }

  /** Raises #GP(0) if `condition` is non-zero. */
  faultIf(condition: I32, vector: number, error?: I32 | number): void {
    this.f.if(
      condition,
      () => error === undefined ? this.raise(vector) : this.raiseError(vector, error),
      undefined,
      "unlikely",
    );
  }

  /** Calls the program outside, which may look at and change everything. */
  outside<T>(call: () => T): T {
    const { f } = this;
    this.tellOutside();
    const result = call();
    this.hearOutside();
    this.flags = { kind: i32(FlagsKind.VALUE), a: S.flagsA.get(f), b: i64(0) };
    this.takeRegisters();
    return result;
  }

  /** Makes the state what the program outside expects to see. */
  protected tellOutside(): void {
    this.spill();
    this.f.call(this.mc.beforeOutside);
  }

  /** Looks what the program outside has made of the state and of the instruction. */
  protected hearOutside(): void {
    this.f.call(this.mc.afterOutside);
  }

  /** Calls microcode that may ask the program outside; everything has been spilled. */
  mayAsk<T>(call: () => T): T {
    const { f } = this;
    const result = call();
    this.flags = { kind: S.flagsKind.get(f), a: S.flagsA.get(f), b: S.flagsB.get(f) };
    this.takeRegisters();
    return result;
  }

  /** Ends the block behind this instruction: the dispatcher looks at what has changed. */
  leave(): void {
    this.leaveAt(this.nextRip());
  }

  /** Marks an event for the dispatcher. */
  event(bits: number): void {
    S.events.or(this.f, bits);
  }
}
