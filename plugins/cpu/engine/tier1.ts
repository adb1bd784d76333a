/**
 * Tier 1, the interpreter: one WebAssembly function for each form, operands read from micro-op records.
 *
 * Handlers pass the micro-op, the budget and the lazy flags on as parameters and call each other in
 * tail position; the dispatcher is only returned to when the next block is not known.
 *
 * @module
 */
import { type Form, registerPlace } from "../decode/form.ts";
import type { Microcode } from "../microcode/microcode.ts";
import { ripOf } from "../microcode/raise.ts";
import type { FlagState } from "../semantics/flags.ts";
import { Instruction } from "../semantics/instruction.ts";
import { registerAddress, S } from "../state/cpu_state.ts";
import {
  type FunctionBuilder,
  type FunctionRef,
  type I32,
  i32,
  I32T,
  type I64,
  I64T,
  type ModuleBuilder,
  type TypeToken,
} from "../wasm/mod.ts";
import { BlockHeader, MICRO_OP_BYTES, MicroOp, NEVER_LINK, UNLINKED } from "./block_layout.ts";

/** Parameters of a handler: micro-op, budget, flag kind and operands. */
export const HANDLER_PARAMS: readonly [
  TypeToken<I32>,
  TypeToken<I32>,
  TypeToken<I32>,
  TypeToken<I64>,
  TypeToken<I64>,
] = [I32T, I32T, I32T, I64T, I64T];

/** Signature of a handler. */
export const HANDLER: { readonly params: typeof HANDLER_PARAMS; readonly result: undefined } = {
  params: HANDLER_PARAMS,
  result: undefined,
};

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

  #storeFlags({ kind, a, b }: FlagState): void {
    S.flagsKind.set(this.f, kind);
    S.flagsA.set(this.f, a);
    S.flagsB.set(this.f, b);
  }

  /** Goes on with `block` if the budget allows all of it. */
  #chain(block: I32): void {
    const { f } = this;
    const left = this.#budget.sub(f.load16(block, BlockHeader.COUNT));
    f.if(
      left.geS(0),
      () => {
        const first = block.add(BlockHeader.BYTES);
        const { kind, a, b } = this.flags;
        f.returnCallIndirect(HANDLER, f.load16(first, MicroOp.HANDLER), [first, left, kind, a, b]);
      },
      undefined,
      "likely",
    );
  }

  #followLink(field: number, target: () => I64): void {
    const { f } = this;
    const link = f.load32(this.#uop, field);
    f.if(link.gtU(NEVER_LINK), () => this.#chain(link), undefined, "likely");
    f.if(link.eq(UNLINKED), () => S.link.set(f, this.#uop.add(field)), () => {
      const block = f.call(this.mc.findJump, target());
      f.if(block.ne(0), () => this.#chain(block));
    });
    this.leaveAt(target());
  }

  branchTaken(): void {
    this.#followLink(
      MicroOp.TAKEN_LINK,
      () => this.f.load64(this.#uop, MicroOp.DISPLACEMENT),
    );
  }

  branchNotTaken(): void {
    this.#followLink(MicroOp.NEXT_LINK, () => this.nextRip());
  }

  jumpTo(target: I64): void {
    const { f } = this;
    const block = f.call(this.mc.findJump, target);
    f.if(block.ne(0), () => this.#chain(block), undefined, "likely");
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
    const { kind, a, b } = this.flags;
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
