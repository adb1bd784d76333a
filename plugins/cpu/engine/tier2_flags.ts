/**
 * The lazy flags of a region where ways meet: in locals.
 *
 * @module
 */
import type { Microcode } from "../microcode/microcode.ts";
import {
  deferFlags,
  emitFlagsValue,
  FlagsKind,
  type FlagState,
  settleFlags,
} from "../semantics/flags.ts";
import {
  type FunctionBuilder,
  type I32,
  i32,
  I32T,
  type I64,
  i64,
  I64T,
  type Variable,
} from "../wasm/mod.ts";
import type { RegionBlock } from "./region_graph.ts";

/** One operand of the flags. */
interface Operand {
  set(value: I64): void;
  get(): I64;
}

/** An operand that is the sign-extension of 32 bits, so that it is extended where it is looked at. */
class NarrowOperand implements Operand {
  readonly #low: Variable<I32>;

  constructor(low: Variable<I32>) {
    this.#low = low;
  }

  set(value: I64): void {
    this.#low.set(value.wrap());
  }

  get(): I64 {
    return this.#low.get().extendS();
  }
}

/** Flags that are assigned on several ways and looked at behind these. */
export class FlagLocals {
  readonly #kind: Variable<I32>;
  readonly #a: Operand;
  readonly #b: Operand;

  /** Flags for `f`; code that is not `long` has operands of 32 bits at most. */
  constructor(f: FunctionBuilder, long: boolean) {
    const operand = (): Operand => long ? f.zeroed(I64T) : new NarrowOperand(f.zeroed(I32T));
    this.#kind = f.zeroed(I32T);
    this.#a = operand();
    this.#b = operand();
  }

  /** Assigns them. */
  set(flags: FlagState): void {
    const { kind, a, b } = settleFlags(flags);
    this.#kind.set(kind);
    this.#a.set(a);
    this.#b.set(b);
  }

  /** Them as they are at this place. */
  get(): FlagState {
    return { kind: this.#kind.get(), a: this.#a.get(), b: this.#b.get() };
  }
}

/**
 * The flags that code which is not `long` is entered with, in operands of 32 bits: they may be those of an
 * instruction of 64-bit code, which is left by a far jump that sets none.
 */
export function narrowFlags(mc: Microcode, f: FunctionBuilder, flags: FlagState): FlagState {
  const { kind, a, b } = flags;
  const wide = a.wrap().extendS().ne(a).or(b.wrap().extendS().ne(b));
  const narrow = { kind: f.variable(I32T, kind), a: f.variable(I64T, a), b: f.variable(I64T, b) };
  f.if(
    wide,
    () => {
      narrow.a.set(emitFlagsValue(mc, f, flags).extendU());
      narrow.b.set(i64(0));
      narrow.kind.set(i32(FlagsKind.VALUE));
    },
    undefined,
    "unlikely",
  );
  return { kind: narrow.kind.get(), a: narrow.a.get(), b: narrow.b.get() };
}

/** What writes all six flags, and neither faults nor looks at them, with registers and constants as operands. */
const WRITERS: ReadonlySet<string> = new Set([
  ...["ADD", "SUB", "CMP", "AND", "OR", "XOR", "TEST", "NEG"],
]);

/** What has nothing to do with flags, and does not fault with registers and constants as operands. */
const OTHERS: ReadonlySet<string> = new Set([
  ...["MOV", "MOVZX", "MOVSX", "MOVSXD", "LEA", "NOT", "BSWAP", "CBW", "CWD", "NOP"],
]);

/** Whether flags that `block` is come to with are overwritten there before anyone can look at them. */
export function overwritesFlags(block: RegionBlock): boolean {
  for (const { form } of block.ops) {
    const { name, operands } = form;
    if (name !== "LEA" && operands.some(({ kind }) => kind === "M")) return false;
    if (WRITERS.has(name)) return true;
    if (!OTHERS.has(name)) return false;
  }
  return false;
}

/** Flags that nobody looks at. */
export const OVERWRITTEN: FlagState = deferFlags(() => {
  throw new Error("a region looks at flags that were left out");
});
