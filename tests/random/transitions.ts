/**
 * Ways from one section of a random program to the next: far jumps, calls and returns, IRET, gates,
 * software interrupts, SYSCALL, SYSENTER and their returns, and faults.
 *
 * @module
 */
import type { Random } from "../silicon/programs.ts";
import type { Assembler } from "./assembler.ts";
import type { Context } from "./context.ts";
import { At, Data, FIRST_VECTOR, GATES, type Machine, Sel, VECTORS } from "./machine.ts";

/** The end that a transition leads to. */
export interface Target {
  readonly context: Context;
  /** Address of the frame that IRET enters it with. */
  readonly frame: number;
  /** RFLAGS of that frame. */
  readonly flags: number;
  /** Calls back with the linear address of its first instruction, once it is known. */
  located(use: (entry: number) => void): void;
}

/** Emits them, and fills in the gates that they go through. */
export class Transitions {
  readonly #random: Random;
  readonly #out: Assembler;
  readonly #machine: Machine;
  readonly #neutral: boolean;
  #vectors = 0;
  #gates = 0;

  /** `neutral` programs do the same on AMD's and on Intel's processors. */
  constructor(random: Random, out: Assembler, machine: Machine, neutral: boolean) {
    this.#random = random;
    this.#out = out;
    this.#machine = machine;
    this.#neutral = neutral;
  }

  /** Emits one of the ways from `from` to `to`; whichever cannot be gone faults, and leads there too. */
  emit(from: Context, to: Target): void {
    const ways = this.#ways(from, to);
    this.#random.pick(ways)();
  }

  #ways(from: Context, to: Target): (() => void)[] {
    const { long } = this.#machine;
    const { context } = to;
    const ways: (() => void)[] = [() => this.#out.put(0x0f, 0x0b)];
    if (from.virtual) {
      ways.push(() => this.#interrupt(to), () => this.#interrupt(to));
      return ways;
    }
    if (from.ring === 0 || context.ring === 3) ways.push(() => this.#iret(from, to));
    if (context.virtual) return ways;
    if (from.ring === 0 || context.ring === 3) ways.push(() => this.#farReturn(from, to));
    if (from.ring === context.ring) {
      ways.push(() => this.#farJump(from, to, false), () => this.#farJump(from, to, true));
    }
    const gate = context.ring === 0 && (long ? context.width === 64 : true);
    if (gate) {
      ways.push(() => this.#interrupt(to), () => this.#callGate(from, to));
      if (from.ring === 3 && context.width !== 16) {
        const native = long ? from.width === 64 : false;
        if (native || !this.#neutral) ways.push(() => this.#systemCall(to, [0x0f, 0x05]));
        if (!long || !this.#neutral) ways.push(() => this.#systemCall(to, [0x0f, 0x34]));
      }
    }
    if (from.ring === 0 && context.ring === 3 && context.width !== 16) {
      if (from.width === 64) ways.push(() => this.#sysret(to));
      if ((!long && from.width === 32) || (from.width === 64 && !this.#neutral)) {
        ways.push(() => this.#sysexit(to));
      }
    }
    return ways;
  }

  /** PUSH of an immediate, as wide as pushes of that size in this code are. */
  #push(value: number, size: 16 | 32): void {
    const out = this.#out;
    if (out.width !== 64) out.operandSize(size);
    out.put(0x68);
    if (size === 16) out.put16(value);
    else out.put32(value);
  }

  /** PUSH of the offset of the target. */
  #pushEntry({ context, located }: Target, size: 16 | 32): void {
    const out = this.#out;
    this.#push(0, size);
    const at = out.at - (size === 16 ? 2 : 4);
    located((entry) => {
      if (size === 16) out.set16(at, entry - context.codeBase);
      else out.set32(at, entry - context.codeBase);
    });
  }

  /** Operand sizes that an offset in the target can have. */
  #size({ width }: Context, to: Target): 16 | 32 {
    if (width === 64 || to.context.width !== 16 || to.context.virtual) return 32;
    return this.#random.pick([16, 32]);
  }

  #iret(from: Context, to: Target): void {
    const out = this.#out;
    const { context } = to;
    if (from.width === 64) {
      // From the frame itself.
      out.load(4, to.frame);
      return out.put(0x48, 0xcf);
    }
    const size = this.#size(from, to);
    if (context.virtual) {
      for (let k = 0; k < 2; k++) this.#push(0, 32);
      for (let k = 0; k < 2; k++) this.#push(At.DATA >> 4, 32);
    }
    if (context.ring !== from.ring) {
      this.#push(context.ss, size);
      this.#push(context.stack, size);
    }
    this.#push(to.flags, size);
    this.#push(context.cs, size);
    this.#pushEntry(to, size);
    out.operandSize(size);
    out.put(0xcf);
  }

  #farReturn(from: Context, to: Target): void {
    const out = this.#out;
    const { context } = to;
    const size = this.#size(from, to);
    if (context.ring !== from.ring) {
      this.#push(context.ss, size);
      this.#push(context.stack, size);
    }
    this.#push(context.cs, size);
    this.#pushEntry(to, size);
    if (from.width === 64) out.put(0x48);
    else out.operandSize(size);
    out.put(0xcb);
  }

  #farJump(from: Context, to: Target, call: boolean): void {
    const out = this.#out;
    const { context } = to;
    if (from.width !== 64 && this.#random.below(2) === 0) {
      const size = this.#size(from, to);
      out.operandSize(size);
      out.put(call ? 0x9a : 0xea);
      const { at } = out;
      if (size === 16) out.put16(0);
      else out.put32(0);
      out.put16(context.cs);
      return to.located((entry) => {
        if (size === 16) out.set16(at, entry - context.codeBase);
        else out.set32(at, entry - context.codeBase);
      });
    }
    out.store(Data.POINTER, 0);
    const at = out.at - 4;
    to.located((entry) => out.set32(at, entry - context.codeBase));
    out.store(Data.POINTER + 4, context.cs);
    out.op({ size: 32, opcode: [0xff], reg: call ? 3 : 5, rm: { disp: Data.POINTER } });
  }

  #interrupt(to: Target): void {
    const out = this.#out;
    const { long } = this.#machine;
    const { context } = to;
    if (this.#vectors === VECTORS || context.ring !== 0) return out.put(0x0f, 0x0b);
    const vector = FIRST_VECTOR + this.#vectors++;
    const at = long ? At.LONG_IDT + 16 * vector : At.IDT + 8 * vector;
    // Interrupt and trap gates; those of a 286 reach 16-bit code too.
    const type = (!long && context.width === 16 ? 6 : 14) + this.#random.below(2);
    to.located((entry) => {
      const offset = entry - context.codeBase;
      this.#machine.setGate(at, context.cs, offset, 0xe000 | type << 8, long);
    });
    out.put(0xcd, vector);
  }

  #callGate(from: Context, to: Target): void {
    const out = this.#out;
    const { long } = this.#machine;
    const { context } = to;
    if (this.#gates === GATES) return out.put(0x0f, 0x0b);
    const selector = Sel.GATES + 16 * this.#gates++;
    const parameters = long ? 0 : this.#random.below(4);
    const type = !long && context.width === 16 ? 4 : 12;
    to.located((entry) => {
      const offset = entry - context.codeBase;
      const attributes = 0xe000 | type << 8 | parameters;
      this.#machine.setGate(At.GDT + selector, context.cs, offset, attributes, long);
    });
    if (from.width !== 64) {
      out.operandSize(32);
      out.put(0x9a);
      out.put32(0);
      return out.put16(selector | 3);
    }
    out.store(Data.POINTER + 4, selector | 3);
    out.op({ size: 32, opcode: [0xff], reg: 3, rm: { disp: Data.POINTER } });
  }

  #systemCall(to: Target, opcode: readonly number[]): void {
    const out = this.#out;
    out.store(Data.DISPATCH, 0);
    const at = out.at - 4;
    to.located((entry) => out.set32(at, entry));
    out.put(...opcode);
  }

  #sysret(to: Target): void {
    const out = this.#out;
    out.load(1, 0);
    const at = out.at - 4;
    to.located((entry) => out.set32(at, entry));
    out.load(11, to.flags);
    if (to.context.width === 64) out.put(0x48);
    out.put(0x0f, 0x07);
  }

  #sysexit(to: Target): void {
    const out = this.#out;
    out.load(1, to.context.stack);
    out.load(2, 0);
    const at = out.at - 4;
    to.located((entry) => out.set32(at, entry));
    if (to.context.width === 64) out.put(0x48);
    out.put(0x0f, 0x35);
  }
}
