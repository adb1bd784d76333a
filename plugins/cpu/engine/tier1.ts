/**
 * Tier 1, the interpreter: one WebAssembly function for each form, operands read from micro-op records.
 *
 * Handlers pass the micro-op, the budget and the lazy flags on as parameters and call each other in
 * tail position; the dispatcher is only returned to when the next block is not known.
 *
 * @module
 */
import { type Form, hasLinks, registerPlace } from "../decode/form.ts";
import type { Microcode } from "../microcode/microcode.ts";
import { ripOf } from "../microcode/raise.ts";
import { type FlagState, settleFlags } from "../semantics/flags.ts";
import { Instruction } from "../semantics/instruction.ts";
import { registerAddress, S } from "../state/cpu_state.ts";
import {
  type FunctionBuilder,
  type FunctionRef,
  type I32,
  i32,
  type I64,
  type ModuleBuilder,
} from "../wasm/mod.ts";
import { MICRO_OP_BYTES, MicroOp } from "./block_layout.ts";
import { INDIRECT } from "./jump_edges.ts";
import { type Flow, followJump, followLink, HANDLER, HANDLER_PARAMS } from "./links.ts";

/** A handler function. */
export type HandlerRef = FunctionRef<typeof HANDLER_PARAMS, undefined>;

const REGISTER_FIELDS = [MicroOp.REG0, MicroOp.REG1, MicroOp.BASE] as const;

/** An instruction whose operands are read from the micro-op record at run time. */
export class InterpretedInstruction extends Instruction {
  readonly #uop: I32;
  readonly #budget: I32;

  constructor(
    mc: Microcode,
    f: FunctionBuilder,
    form: Form,
    uop: I32,
    budget: I32,
    flags: FlagState,
  ) {
    super(mc, f, form, flags);
    this.#uop = uop;
    this.#budget = budget;
  }

  protected readRegister(k: number, bits: number, signed: boolean): I64 {
    const address = this.#registerWord(k);
    return signed ? this.f.loadS(bits, address) : this.f.loadZ(bits, address);
  }

  protected writeRegister(k: number, bits: number, value: I64): void {
    this.#writeAt(this.#registerWord(k), bits, value);
  }

  /** What the record holds for register operand `k`. */
  #registerWord(k: number): I32 {
    return this.f.load16(this.#uop, REGISTER_FIELDS[registerPlace(this.form.operands, k)]);
  }

  vectorAddress(k: number): I32 {
    return this.#registerWord(k);
  }

  protected smallConstant(k: number): I32 {
    return this.#registerWord(k);
  }

  protected readFixed(n: number, bits: number, signed: boolean): I64 {
    const address = registerAddress(n);
    return signed ? this.f.loadS(bits, address) : this.f.loadZ(bits, address);
  }

  protected writeFixed(n: number, bits: number, value: I64): void {
    this.#writeAt(i32(registerAddress(n)), bits, value);
  }

  #writeAt(address: I32, bits: number, value: I64): void {
    if (bits === 32) this.f.store64(address, value.zeroExtend(32));
    else this.f.storeLow(bits, address, value);
  }

  immediate(): I64 {
    return this.f.load64(this.#uop, MicroOp.IMMEDIATE);
  }

  second(): I64 {
    return this.f.load64(this.#uop, MicroOp.DISPLACEMENT);
  }

  #flat(indexed: boolean, narrow: boolean): I64 {
    const { f } = this;
    const uop = this.#uop;
    let address = f.load64(f.load16(uop, MicroOp.BASE)).add(f.load64(uop, MicroOp.DISPLACEMENT));
    if (indexed) {
      const scale = f.load8(uop, MicroOp.ADDRESSING).and(3).extendU();
      address = address.add(f.load64(f.load16(uop, MicroOp.INDEX_REG)).shl(scale));
    }
    return narrow ? address.zeroExtend(32) : address;
  }

  protected operandAddress(bytes: number, access: number): I64 {
    switch (this.form.address) {
      case "b64":
        return this.#flat(false, false);
      case "x64":
        return this.#flat(true, false);
      case "b32":
        return this.#flat(false, true);
      case "x32":
        return this.#flat(true, true);
      default:
        this.spill();
        return this.f.call(this.mc.effectiveAddress, this.#uop, bytes, access);
    }
  }

  offset(): I64 {
    return this.form.address === "gen"
      ? this.f.call(this.mc.effectiveOffset, this.#uop)
      : this.operandAddress(1, 0);
  }

  segment(): I32 {
    return this.f.load8(this.#uop, MicroOp.ADDRESSING).shrU(4).and(7);
  }

  rip(): I64 {
    return ripOf(this.f, this.#uop);
  }

  nextRip(): I64 {
    return this.rip().add(this.f.load8(this.#uop, MicroOp.LENGTH).extendU());
  }

  budget(): I32 {
    return this.#budget;
  }

  recordAddress(): I32 {
    return this.#uop;
  }

  registerNumber(k: number): I32 {
    return this.#registerWord(k).sub(S.registers).shrU(3);
  }

  protected emitSpill(): void {
    const { f } = this;
    S.uop.set(f, this.#uop);
    S.budget.set(f, this.#budget);
    this.#storeFlags(this.flagsAtFault);
  }

  protected takeRegisters(): void {}

  #storeFlags(flags: FlagState): void {
    const { kind, a, b } = settleFlags(flags);
    S.flagsKind.set(this.f, kind);
    S.flagsA.set(this.f, a);
    S.flagsB.set(this.f, b);
  }

  #flow(): Flow {
    return { mc: this.mc, f: this.f, budget: this.#budget, flags: this.flags };
  }

  branchTaken(): void {
    const target = (): I64 => this.f.load64(this.#uop, MicroOp.DISPLACEMENT);
    followLink(this.#flow(), this.#uop, MicroOp.TAKEN_LINK, target);
    this.leaveAt(target());
  }

  branchNotTaken(): void {
    if (!hasLinks(this.form.operands)) return this.jumpTo(this.nextRip());
    followLink(this.#flow(), this.#uop, MicroOp.NEXT_LINK, () => this.nextRip());
    this.leaveAt(this.nextRip());
  }

  jumpTo(target: I64): void {
    followJump(this.#flow(), target, INDIRECT.has(this.form.name) ? this.#uop : undefined);
    this.leaveAt(target);
  }

  leaveAt(rip: I64): void {
    const { f } = this;
    S.rip.set(f, rip);
    S.budget.set(f, this.#budget);
    this.#storeFlags(this.flags);
    this.ended = true;
    f.return();
  }

  leaveAsIs(): void {
    this.ended = true;
    this.f.return();
  }

  /** Goes on with the next micro-op. */
  goOn(): void {
    const { f } = this;
    const next = this.#uop.add(MICRO_OP_BYTES);
    const { kind, a, b } = settleFlags(this.flags);
    f.returnCallIndirect(HANDLER, f.load16(next, MicroOp.HANDLER), [
      next,
      this.#budget,
      kind,
      a,
      b,
    ]);
  }
}

/**
 * Builds the handler of one form, or of several that follow each other: the flags of one then reach
 * the next without being stored, which is what makes a comparison and its branch one operation.
 */
export function buildHandler(
  module: ModuleBuilder,
  mc: Microcode,
  name: string,
  parts: readonly { readonly form: Form; readonly emit: (i: Instruction) => void }[],
): HandlerRef {
  return module.define(name, HANDLER_PARAMS, undefined, (f, uop, budget, kind, a, b) => {
    let flags: FlagState = { kind, a, b };
    for (const [k, { form, emit }] of parts.entries()) {
      const record = uop.add(k * MICRO_OP_BYTES);
      const i = new InterpretedInstruction(mc, f, form, record, budget, flags);
      emit(i);
      flags = i.flags;
      if (k === parts.length - 1 && !i.ended) i.goOn();
    }
  });
}
