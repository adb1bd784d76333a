/**
 * What the semantics of an instruction are written against.
 *
 * An emitter gets an {@linkcode Instruction} and says what the instruction does; where operands,
 * immediates and addresses come from is the tier's business: read from a micro-op record at run time
 * (the interpreter), or constant and in locals (the compiler).
 *
 * Discipline, so that every fault leaves the state of before the instruction: whatever may fault comes
 * before whatever changes state. Memory is written before registers, flags are set last.
 *
 * @module
 */
import type { FormNeeds } from "../decode/form.ts";
import { probe, type TlbProbe } from "../memory/access.ts";
import { Mode, S, Seg } from "../state/cpu_state.ts";
import { type I32, i32, I32T, type I64, i64, I64T } from "../wasm/mod.ts";
import { Emission } from "./emission.ts";

/** Register numbers of the machine encoding. */
export const Reg = {
  RAX: 0,
  RCX: 1,
  RDX: 2,
  RBX: 3,
  RSP: 4,
  RBP: 5,
  RSI: 6,
  RDI: 7,
} as const;

/** Emits the code of one instruction. */
export type Emitter = (i: Instruction) => void;

/** What the decoder and the tiers know about an instruction besides its emitter. */
export interface Semantics extends FormNeeds {
  /** Says what the instruction does. */
  readonly emit: Emitter;
  /** The instruction ends its block: it transfers control or changes what the next one depends on. */
  readonly ends?: boolean;
  /** It ends its block, but goes on with the next one directly where there is nothing else to do. */
  readonly goesOn?: boolean;
  /** The program outside may be asked for it, which may change everything. */
  readonly asks?: boolean;
  /** It is a control transfer for last-branch records, always or if it does not go on behind itself. */
  readonly transfers?: "always" | "if taken";
}

const LOCKED = ".lock";

/** Name of the form of an instruction that locks its access to memory. */
export function lockedName(name: string): string {
  return name + LOCKED;
}

/** An instruction while its code is built: operands, memory, stack. */
export abstract class Instruction extends Emission {
  #memory: { linear: I64; pointer: I32 } | undefined;
  #destination: "same" | "new" | "cleared" = "same";

  // Operands.

  /** Width of operand `k` in bits. */
  width(k: number): number {
    return this.form.operands[k]!.bits;
  }

  /** Number of operands, without a new destination. */
  get operandCount(): number {
    return this.form.operands.length - (this.#destination === "new" ? 1 : 0);
  }

  /** The last operand, a register, is written in place of the first, and its upper bits are cleared. */
  setNewDestination(): void {
    this.#destination = "new";
  }

  /** Whether there is such a destination. */
  get hasNewDestination(): boolean {
    return this.#destination === "new";
  }

  /** The upper bits of the first operand are cleared if it is a register. */
  clearUpper(): void {
    this.#destination = "cleared";
  }

  /** Operand size in bits. */
  get bits(): number {
    return this.form.bits;
  }

  /** Code size of the mode. */
  get code(): 16 | 32 | 64 {
    return this.#needed(this.form.code, "code");
  }

  /** Address size. */
  get addressBits(): 16 | 32 | 64 {
    return this.#needed(this.form.addressBits, "addressSize");
  }

  /** Width of the stack pointer. */
  get stackBits(): 16 | 32 | 64 {
    return this.#needed(this.form.stack, "stack");
  }

  /** A handler serves all values of what its semantics do not name, so they must not look at it. */
  #needed(value: 0 | 16 | 32 | 64, need: string): 16 | 32 | 64 {
    if (value === 0) throw new Error(`the semantics of ${this.form.name} have to need "${need}"`);
    return value;
  }

  /** True if operand `k` is memory. */
  isMemory(k: number): boolean {
    return this.form.operands[k]?.kind === "M";
  }

  /** Operand `k`, zero-extended. */
  unsigned(k: number): I64 {
    return this.#read(k, false);
  }

  /** Operand `k`, sign-extended. */
  signed(k: number): I64 {
    return this.#read(k, true);
  }

  #read(k: number, signed: boolean): I64 {
    const { kind, bits } = this.form.operands[k]!;
    switch (kind) {
      case "R":
        return this.readRegister(k, bits, signed);
      case "I": {
        const value = this.#constant(k);
        return signed ? value : value.zeroExtend(bits);
      }
      case "K":
        return this.smallConstant(k).extendU();
      case "M": {
        const value = this.load(bits, this.operandAddress(bits / 8, 0));
        return signed ? value.signExtend(bits) : value;
      }
      default:
        throw new Error(`operand ${k} of ${this.form.name} cannot be read`);
    }
  }

  #constant(k: number): I64 {
    const isSecond = k > 0 && this.form.operands[k - 1]!.kind === "I";
    return isSecond ? this.second() : this.immediate();
  }

  /** Operand `k`, zero-extended, to be written afterwards with {@linkcode write}. */
  modifyUnsigned(k: number): I64 {
    const { kind, bits } = this.form.operands[k]!;
    if (this.#destination === "new") return this.unsigned(k);
    if (kind === "R") return this.readRegister(k, bits, false);
    return this.#loadForWrite(bits);
  }

  /** Operand `k`, sign-extended, to be written afterwards with {@linkcode write}. */
  modifySigned(k: number): I64 {
    const { kind, bits } = this.form.operands[k]!;
    if (this.#destination === "new") return this.signed(k);
    if (kind === "R") return this.readRegister(k, bits, true);
    return this.#loadForWrite(bits).signExtend(bits);
  }

  /** Loads the memory operand so that storing it back cannot fault. */
  #loadForWrite(bits: number, linear: I64 = this.operandAddress(bits / 8, 1)): I64 {
    const { f } = this;
    if (this.form.name.endsWith(LOCKED)) this.#checkBusLock(bits, linear);
    const pointer = this.pointerForWrite(bits, linear);
    this.#memory = { linear, pointer };
    return f.choose(I64T, pointer, () => f.loadZ(bits, pointer), () => {
      this.spill();
      const value = f.call(this.mc.tryLoadForWrite, linear, bits, S.mmu.get(f));
      this.leaveIfFaulted();
      return value;
    }, "likely").bounded(bits);
  }

  /** Looks up where `bits` at `linear` stand in memory, to be read or written at once. */
  lookUp(bits: number, linear: I64, write: boolean): TlbProbe {
    return probe(this.f, linear, bits / 8, write);
  }

  /** Where in memory `bits` at `linear` stand, or 0 if that is not known to be written at once. */
  protected pointerForWrite(bits: number, linear: I64): I32 {
    const { hit, address } = this.lookUp(bits, linear, true);
    return this.f.choose(I32T, hit, address, () => 0, "likely");
  }

  /** Counts a bus lock, in a guest whose bus locks are counted. */
  #checkBusLock(bits: number, linear: I64): void {
    const { f } = this;
    f.if(
      S.busLocks.get(f),
      () => {
        this.spill();
        f.call(this.mc.busLock, linear, bits / 8);
      },
      undefined,
      "unlikely",
    );
  }

  /** Loads `bits` at `linear` so that {@linkcode storeBack} cannot fault. */
  loadForWrite(bits: number, linear: I64): I64 {
    return this.#loadForWrite(bits, linear);
  }

  /** Stores where {@linkcode loadForWrite} loaded. */
  storeBack(bits: number, value: I64): void {
    const { f } = this;
    if (this.#memory === undefined) throw new Error("nothing was loaded to be written back");
    const { linear, pointer } = this.#memory;
    f.if(pointer, () => f.storeLow(bits, pointer, value), () => {
      this.spill();
      f.call(this.mc.tryStore, linear, bits, value, S.mmu.get(f));
      this.leaveIfFaulted();
    }, "likely");
  }

  /** Writes operand `k`. */
  write(k: number, value: I64): void {
    const { kind, bits } = this.form.operands[k]!;
    if (k === 0 && this.#destination === "new") {
      this.writeRegister(this.operandCount, 64, value.zeroExtend(bits));
    } else if (k === 0 && this.#destination === "cleared" && kind === "R") {
      this.writeRegister(k, 64, value.zeroExtend(bits));
    } else if (kind === "R") this.writeRegister(k, bits, value);
    else if (this.#memory !== undefined) this.storeBack(bits, value);
    else this.store(bits, this.operandAddress(bits / 8, 1), value);
  }

  /** Linear address of the memory operand. */
  address(bytes: number, access: 0 | 1): I64 {
    return this.operandAddress(bytes, access);
  }

  /**
   * Linear address of the memory operand moved by `delta` bytes; the semantics must need `addressSize`.
   */
  addressAt(delta: I64, bytes: number, access: 0 | 1): I64 {
    const moved = this.offset().add(delta);
    if (this.form.address === "gen") {
      this.spill();
      const offset = moved.zeroExtend(this.addressBits);
      return this.f.call(this.mc.segmentAddress, this.segment(), offset, bytes, access);
    }
    return this.code === 64 && this.addressBits === 64 ? moved : moved.zeroExtend(32);
  }

  /** Linear address of `offset`, already cut to the address size, in the memory operand's segment. */
  addressOf(offset: I64, bytes: number, access: 0 | 1): I64 {
    if (this.form.address !== "gen") return offset;
    this.spill();
    return this.f.call(this.mc.segmentAddress, this.segment(), offset, bytes, access);
  }

  /** Register `n`, zero-extended from `bits`. */
  reg(n: number, bits = 64): I64 {
    return this.readFixed(n, bits, false);
  }

  /** Register `n`, sign-extended from `bits`. */
  regSigned(n: number, bits: number): I64 {
    return this.readFixed(n, bits, true);
  }

  /** Writes `bits` of register `n`. */
  setReg(n: number, bits: number, value: I64 | number): void {
    this.writeFixed(n, bits, i64(value));
  }

  /** Says that a loop built next changes register `n`: its rounds may find it changed from the first on. */
  loopChanges(_n: number): void {}

  // Memory.

  /**
   * Returns to the dispatcher if an access by `tryLoad` or `tryStore` met a page fault. For all that the
   * dispatcher can see it was thrown: everything had been stored. But page faults are frequent, and an exception
   * of WebAssembly's takes a microsecond.
   */
  leaveIfFaulted(): void {
    const { f } = this;
    f.if(S.faulted.get(f), () => f.return(), undefined, "unlikely");
  }

  /** Zero-extended load of `bits` at a linear address; `stack` if the stack is accessed implicitly. */
  load(bits: number, linear: I64, stack = false): I64 {
    const { f } = this;
    const { hit, address } = probe(f, linear, bits / 8, false);
    return f.choose(I64T, hit, () => f.loadZ(bits, address()), () => {
      this.spill();
      if (stack) S.stackAccess.set(f, 1);
      const value = f.call(this.mc.tryLoad, linear, bits, S.mmu.get(f));
      this.leaveIfFaulted();
      if (stack) S.stackAccess.set(f, 0);
      return value;
    }, "likely").bounded(bits);
  }

  /** Store of the low `bits` at a linear address; `stack` if the stack is accessed implicitly. */
  store(bits: number, linear: I64, value: I64, stack = false): void {
    const { f } = this;
    const { hit, address } = probe(f, linear, bits / 8, true);
    f.if(hit, () => f.storeLow(bits, address(), value), () => {
      this.spill();
      if (stack) S.stackAccess.set(f, 1);
      f.call(this.mc.tryStore, linear, bits, value, S.mmu.get(f));
      this.leaveIfFaulted();
      if (stack) S.stackAccess.set(f, 0);
    }, "likely");
  }

  /** Load at stack offset `offset`. */
  loadStack(bits: number, offset: I64): I64 {
    return this.load(bits, this.stackAddress(offset, bits / 8, 0), true);
  }

  /** Store at stack offset `offset`. */
  storeStack(bits: number, offset: I64, value: I64): void {
    this.store(bits, this.stackAddress(offset, bits / 8, 1), value, true);
  }

  // Stack.

  /** The stack pointer, cut to its width. */
  stackPointer(): I64 {
    return this.reg(Reg.RSP, this.stackBits);
  }

  /** Sets the stack pointer within its width. */
  setStackPointer(value: I64): void {
    this.setReg(Reg.RSP, this.stackBits, value);
  }

  /** Linear address of stack offset `offset`. */
  stackAddress(offset: I64, bytes: number, access: 0 | 1): I64 {
    if (this.stackBits === 64) return offset;
    const { f } = this;
    // A flat 32-bit stack needs no limit check; which it is, only the mode word knows.
    return f.choose(
      I64T,
      this.stackBits === 32 ? this.hasMode(Mode.FLAT_SS) : i32(0),
      () => offset,
      () => {
        this.spill();
        return f.call(this.mc.segmentAddress, Seg.SS, offset, bytes, access);
      },
      "likely",
    );
  }

  /** `value` cut to the width of the stack pointer. */
  wrapStack(value: I64): I64 {
    return value.zeroExtend(this.stackBits);
  }

  /** Pushes the low `bits`. */
  push(bits: number, value: I64): void {
    const top = this.wrapStack(this.stackPointer().sub(bits / 8));
    this.storeStack(bits, top, value);
    this.setStackPointer(top);
  }

  /** Value at the top of the stack; the pointer is moved by {@linkcode dropStack} afterwards. */
  top(bits: number): I64 {
    return this.loadStack(bits, this.stackPointer());
  }

  /** Moves the stack pointer up. */
  dropStack(bytes: I64 | number): void {
    this.setStackPointer(this.wrapStack(this.stackPointer().add(bytes)));
  }
}
