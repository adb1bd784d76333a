/**
 * Values of a function under construction: the nodes that {@linkcode FunctionBuilder} records.
 *
 * A value is immutable. Operators are methods, so that semantics read as expressions
 * (`a.xor(b).and(mask)`), and each operator appends one node to the function the operands belong to.
 * Constants belong to no function and are repeated wherever they are used.
 *
 * @module
 */
import { foldI32, foldI64 } from "./fold.ts";
import type { FunctionBuilder } from "./function.ts";
import { compareNarrow, lowHalf, withoutSign } from "./narrow.ts";
import {
  I32_TYPE,
  I32_WRAP_I64,
  I64_EXTEND_I32_S,
  I64_EXTEND_I32_U,
  I64_TYPE,
  INTEGER_OPS,
  type IntegerOp,
  type ValueType,
} from "./opcodes.ts";

/** What a node of a function body is. */
export const NodeKind = {
  /** A constant; never recorded, emitted at each use. */
  CONST: 0,
  /** An operator without side effect whose result depends on its operands alone. */
  PURE: 1,
  /** A memory read: has no effect but may not move past one. */
  LOAD: 2,
  /** A snapshot of a variable: may not move past an assignment to it. */
  GET: 3,
  /** A statement or a call, whatever has an effect. */
  EFFECT: 4,
  /** Structure: block, loop, if, else, end, try. */
  CONTROL: 5,
} as const;
/** One of {@linkcode NodeKind}. */
export type NodeKind = typeof NodeKind[keyof typeof NodeKind];

/** A node of a function body; most produce a value. */
export class Node {
  /** What the node is. */
  readonly kind: NodeKind;
  /** WebAssembly opcode. */
  readonly opcode: number;
  /** Operands in evaluation order. */
  readonly args: readonly Node[];
  /** Immediates: memory offset, local, function or label, by opcode. */
  readonly imm: number;
  /** Second immediate (type index of an indirect call, lane, block type). */
  readonly imm2: number;
  /** Type of the result; `undefined` for none. */
  readonly type: ValueType | undefined;
  /** How many nodes use the result. */
  uses = 0;
  /** Position in the function's list of nodes. */
  index = -1;
  /** Innermost loop the node stands in (0 = none), to keep loop-invariant values out of loops. */
  loop = 0;
  /**
   * Position of the statement in which an inlined node will be evaluated; -1 if it is not inlined, -2 if it
   * is evaluated at each use.
   */
  root = -1;
  /** Local that holds the result once it has been evaluated; -1 if none. */
  local = -1;
  /** What a call calls, a branch targets, a throw throws. */
  readonly ref: object | undefined;

  constructor(
    kind: NodeKind,
    opcode: number,
    args: readonly Node[],
    imm = 0,
    imm2 = 0,
    type?: ValueType,
    ref?: object,
  ) {
    this.kind = kind;
    this.opcode = opcode;
    this.args = args;
    this.imm = imm;
    this.imm2 = imm2;
    this.type = type;
    this.ref = ref;
  }
}

/** A value that belongs to a function (or is a constant). */
export abstract class Value extends Node {
  /** The function the value belongs to; `undefined` for a constant. */
  readonly fn: FunctionBuilder | undefined;

  constructor(
    fn: FunctionBuilder | undefined,
    kind: NodeKind,
    opcode: number,
    args: readonly Node[],
    imm: number,
    imm2: number,
    type: ValueType,
    ref?: object,
  ) {
    super(kind, opcode, args, imm, imm2, type, ref);
    this.fn = fn;
  }
}

/** The function that an operator on these values belongs to. */
export function owner(a: Value, b?: Value, c?: Value): FunctionBuilder {
  const fn = a.fn ?? b?.fn ?? c?.fn;
  if (fn === undefined) throw new Error("an operator on constants alone was not folded");
  return fn;
}

/** A 32-bit integer or an i32 truth value. Numbers are accepted wherever an operand is an `I32`. */
export class I32 extends Value {
  /** The value of a constant, as a signed 32-bit number; `undefined` if not constant. */
  readonly constant: number | undefined;

  constructor(
    fn: FunctionBuilder | undefined,
    kind: NodeKind,
    opcode: number,
    args: readonly Node[] = [],
    imm = 0,
    imm2 = 0,
    constant?: number,
    ref?: object,
  ) {
    super(fn, kind, opcode, args, imm, imm2, I32_TYPE, ref);
    this.constant = constant;
  }

  #op(name: IntegerOp, other?: I32 | number): I32 {
    const b = other === undefined ? undefined : i32(other);
    if (this.constant !== undefined && (b === undefined || b.constant !== undefined)) {
      const folded = foldI32(name, this.constant, b?.constant ?? 0);
      if (folded !== undefined) return i32(folded);
    }
    const simple = simplify(name, this, b);
    if (simple !== undefined) return simple === "zero" ? i32(0) : simple as I32;
    const args = b === undefined ? [this] : [this, b];
    const fn = owner(this, b);
    return fn.record(new I32(fn, NodeKind.PURE, INTEGER_OPS[name][0], args));
  }

  /** i32.eqz: 1 if zero. */
  eqz(): I32 {
    return this.#op("eqz");
  }
  /** i32.eq */
  eq(other: I32 | number): I32 {
    return this.#op("eq", other);
  }
  /** i32.ne */
  ne(other: I32 | number): I32 {
    return this.#op("ne", other);
  }
  /** i32.lt_s */
  ltS(other: I32 | number): I32 {
    return this.#op("ltS", other);
  }
  /** i32.lt_u */
  ltU(other: I32 | number): I32 {
    return this.#op("ltU", other);
  }
  /** i32.gt_s */
  gtS(other: I32 | number): I32 {
    return this.#op("gtS", other);
  }
  /** i32.gt_u */
  gtU(other: I32 | number): I32 {
    return this.#op("gtU", other);
  }
  /** i32.le_s */
  leS(other: I32 | number): I32 {
    return this.#op("leS", other);
  }
  /** i32.le_u */
  leU(other: I32 | number): I32 {
    return this.#op("leU", other);
  }
  /** i32.ge_s */
  geS(other: I32 | number): I32 {
    return this.#op("geS", other);
  }
  /** i32.ge_u */
  geU(other: I32 | number): I32 {
    return this.#op("geU", other);
  }
  /** i32.clz */
  clz(): I32 {
    return this.#op("clz");
  }
  /** i32.ctz */
  ctz(): I32 {
    return this.#op("ctz");
  }
  /** i32.popcnt */
  popcnt(): I32 {
    return this.#op("popcnt");
  }
  /** i32.add */
  add(other: I32 | number): I32 {
    return this.#op("add", other);
  }
  /** i32.sub */
  sub(other: I32 | number): I32 {
    return this.#op("sub", other);
  }
  /** i32.mul */
  mul(other: I32 | number): I32 {
    return this.#op("mul", other);
  }
  /** i32.div_s */
  divS(other: I32 | number): I32 {
    return this.#op("divS", other);
  }
  /** i32.div_u */
  divU(other: I32 | number): I32 {
    return this.#op("divU", other);
  }
  /** i32.rem_u */
  remU(other: I32 | number): I32 {
    return this.#op("remU", other);
  }
  /** i32.rem_s */
  remS(other: I32 | number): I32 {
    return this.#op("remS", other);
  }
  /** i32.and */
  and(other: I32 | number): I32 {
    return this.#op("and", other);
  }
  /** i32.or */
  or(other: I32 | number): I32 {
    return this.#op("or", other);
  }
  /** i32.xor */
  xor(other: I32 | number): I32 {
    return this.#op("xor", other);
  }
  /** i32.shl (count modulo 32) */
  shl(other: I32 | number): I32 {
    return this.#op("shl", other);
  }
  /** i32.shr_s (count modulo 32) */
  shrS(other: I32 | number): I32 {
    return this.#op("shrS", other);
  }
  /** i32.shr_u (count modulo 32) */
  shrU(other: I32 | number): I32 {
    return this.#op("shrU", other);
  }
  /** i32.rotl */
  rotl(other: I32 | number): I32 {
    return this.#op("rotl", other);
  }
  /** i32.rotr */
  rotr(other: I32 | number): I32 {
    return this.#op("rotr", other);
  }
  /** i32.extend8_s */
  extend8S(): I32 {
    return this.#op("extend8S");
  }
  /** i32.extend16_s */
  extend16S(): I32 {
    return this.#op("extend16S");
  }
  /** i64.extend_i32_s */
  extendS(): I64 {
    if (this.constant !== undefined) return i64(BigInt(this.constant));
    const fn = owner(this);
    return fn.record(new I64(fn, NodeKind.PURE, I64_EXTEND_I32_S, [this]));
  }
  /** i64.extend_i32_u */
  extendU(): I64 {
    if (this.constant !== undefined) return i64(BigInt(this.constant >>> 0));
    const fn = owner(this);
    return fn.record(new I64(fn, NodeKind.PURE, I64_EXTEND_I32_U, [this])).bounded(32);
  }
  /** `select`: `then` if this is non-zero, else `otherwise`; both are evaluated. */
  select<T extends I32 | I64>(then: T, otherwise: T): T {
    if (this.constant !== undefined) return this.constant !== 0 ? then : otherwise;
    const fn = owner(this);
    return fn.recordSelect(this, then, otherwise);
  }
}

/** A 64-bit integer. Numbers and bigints are accepted wherever an operand is an `I64`. */
export class I64 extends Value {
  /** The value of a constant, as a signed bigint; `undefined` if not constant. */
  readonly constant: bigint | undefined;
  /** How many of the low bits may be set, as far as is known. */
  unsignedBits = 64;
  /** The low half, where it has been computed. */
  low: { readonly value: I32; readonly scope: object } | undefined;

  constructor(
    fn: FunctionBuilder | undefined,
    kind: NodeKind,
    opcode: number,
    args: readonly Node[] = [],
    imm = 0,
    imm2 = 0,
    constant?: bigint,
    ref?: object,
  ) {
    super(fn, kind, opcode, args, imm, imm2, I64_TYPE, ref);
    this.constant = constant;
  }

  /** Notes that no more than the low `bits` bits are set. */
  bounded(bits: number): this {
    this.unsignedBits = bits;
    return this;
  }

  #op(name: IntegerOp, other?: I64 | number | bigint): I64 {
    const b = other === undefined ? undefined : i64(other);
    if (this.constant !== undefined && (b === undefined || b.constant !== undefined)) {
      const folded = foldI64(name, this.constant, b?.constant ?? 0n);
      if (folded !== undefined) return i64(folded);
    }
    const simple = simplify(name, this, b);
    if (simple !== undefined) return simple === "zero" ? i64(0n) : simple as I64;
    if (name === "and" && b?.constant !== undefined && b.constant >= 0n) {
      const mask = b.constant;
      // The sign is cut off again.
      const inner = withoutSign(this, mask);
      if (inner !== undefined) return inner.and(mask);
      const fn = owner(this, b);
      return fn.record(new I64(fn, NodeKind.PURE, INTEGER_OPS.and[1], [this, b]))
        .bounded(mask.toString(2).length);
    }
    const args = b === undefined ? [this] : [this, b];
    const fn = owner(this, b);
    return fn.record(new I64(fn, NodeKind.PURE, INTEGER_OPS[name][1], args));
  }

  #test(name: IntegerOp, other?: I64 | number | bigint): I32 {
    const b = other === undefined ? undefined : i64(other);
    if (this.constant !== undefined && (b === undefined || b.constant !== undefined)) {
      return i32(Number(foldI64(name, this.constant, b?.constant ?? 0n)));
    }
    const narrow = compareNarrow(name, this, b);
    if (narrow !== undefined) return narrow;
    const args = b === undefined ? [this] : [this, b];
    const fn = owner(this, b);
    return fn.record(new I32(fn, NodeKind.PURE, INTEGER_OPS[name][1], args));
  }

  /** i64.eqz */
  eqz(): I32 {
    return this.#test("eqz");
  }
  /** i64.eq */
  eq(other: I64 | number | bigint): I32 {
    return this.#test("eq", other);
  }
  /** i64.ne */
  ne(other: I64 | number | bigint): I32 {
    return this.#test("ne", other);
  }
  /** i64.lt_s */
  ltS(other: I64 | number | bigint): I32 {
    return this.#test("ltS", other);
  }
  /** i64.lt_u */
  ltU(other: I64 | number | bigint): I32 {
    return this.#test("ltU", other);
  }
  /** i64.gt_s */
  gtS(other: I64 | number | bigint): I32 {
    return this.#test("gtS", other);
  }
  /** i64.gt_u */
  gtU(other: I64 | number | bigint): I32 {
    return this.#test("gtU", other);
  }
  /** i64.le_s */
  leS(other: I64 | number | bigint): I32 {
    return this.#test("leS", other);
  }
  /** i64.le_u */
  leU(other: I64 | number | bigint): I32 {
    return this.#test("leU", other);
  }
  /** i64.ge_s */
  geS(other: I64 | number | bigint): I32 {
    return this.#test("geS", other);
  }
  /** i64.ge_u */
  geU(other: I64 | number | bigint): I32 {
    return this.#test("geU", other);
  }
  /** i64.clz */
  clz(): I64 {
    return this.#op("clz");
  }
  /** i64.ctz */
  ctz(): I64 {
    return this.#op("ctz");
  }
  /** i64.popcnt */
  popcnt(): I64 {
    return this.#op("popcnt");
  }
  /** i64.add */
  add(other: I64 | number | bigint): I64 {
    return this.#op("add", other);
  }
  /** i64.sub */
  sub(other: I64 | number | bigint): I64 {
    return this.#op("sub", other);
  }
  /** i64.mul */
  mul(other: I64 | number | bigint): I64 {
    return this.#op("mul", other);
  }
  /** i64.div_s (traps on 0 and on overflow: guard first) */
  divS(other: I64 | number | bigint): I64 {
    return this.#op("divS", other);
  }
  /** i64.div_u (traps on 0: guard first) */
  divU(other: I64 | number | bigint): I64 {
    return this.#op("divU", other);
  }
  /** i64.rem_s (traps on 0: guard first) */
  remS(other: I64 | number | bigint): I64 {
    return this.#op("remS", other);
  }
  /** i64.rem_u (traps on 0: guard first) */
  remU(other: I64 | number | bigint): I64 {
    return this.#op("remU", other);
  }
  /** i64.and */
  and(other: I64 | number | bigint): I64 {
    return this.#op("and", other);
  }
  /** i64.or */
  or(other: I64 | number | bigint): I64 {
    return this.#op("or", other);
  }
  /** i64.xor */
  xor(other: I64 | number | bigint): I64 {
    return this.#op("xor", other);
  }
  /** i64.shl (count modulo 64) */
  shl(other: I64 | number | bigint): I64 {
    return this.#op("shl", other);
  }
  /** i64.shr_s (count modulo 64) */
  shrS(other: I64 | number | bigint): I64 {
    return this.#op("shrS", other);
  }
  /** i64.shr_u (count modulo 64) */
  shrU(other: I64 | number | bigint): I64 {
    return this.#op("shrU", other);
  }
  /** i64.rotl */
  rotl(other: I64 | number | bigint): I64 {
    return this.#op("rotl", other);
  }
  /** i64.rotr */
  rotr(other: I64 | number | bigint): I64 {
    return this.#op("rotr", other);
  }
  /** i64.extend8_s */
  extend8S(): I64 {
    return this.#op("extend8S");
  }
  /** i64.extend16_s */
  extend16S(): I64 {
    return this.#op("extend16S");
  }
  /** The low half, sign-extended. */
  extend32S(): I64 {
    return lowHalf(this).extendS();
  }
  /** i32.wrap_i64 */
  wrap(): I32 {
    if (this.constant !== undefined) return i32(Number(BigInt.asIntN(32, this.constant)));
    // Widening only to narrow again is common where 32-bit code shares text with 64-bit code.
    if (this.opcode === I64_EXTEND_I32_U || this.opcode === I64_EXTEND_I32_S) {
      return this.args[0] as I32;
    }
    if (this.low !== undefined && owner(this).within(this.low.scope)) return this.low.value;
    const fn = owner(this);
    return fn.record(new I32(fn, NodeKind.PURE, I32_WRAP_I64, [this]));
  }
  /** 1 if any bit of `mask` is set. */
  has(mask: I64 | number | bigint): I32 {
    return this.and(mask).ne(0);
  }
  /** Zero-extends the low `bits` (8, 16, 32 or 64) bits. */
  zeroExtend(bits: number): I64 {
    switch (bits) {
      case 8:
        return this.unsignedBits <= 8 ? this : this.and(0xff);
      case 16:
        return this.unsignedBits <= 16 ? this : this.and(0xffff);
      case 32:
        return this.unsignedBits <= 32 ? this : lowHalf(this).extendU();
      default:
        return this;
    }
  }
  /** Sign-extends the low `bits` (8, 16, 32 or 64) bits. */
  signExtend(bits: number): I64 {
    if (this.unsignedBits < bits) return this;
    switch (bits) {
      case 8:
        return this.extend8S();
      case 16:
        return this.extend16S();
      case 32:
        return this.extend32S();
      default:
        return this;
    }
  }
}

/** Identities that remove an operator: x+0, x&-1, x<<0 and so on. */
function simplify(
  name: IntegerOp,
  a: I32 | I64,
  b: I32 | I64 | undefined,
): Value | "zero" | undefined {
  const right = b?.constant;
  if (b === undefined) return undefined;
  if (right !== undefined) {
    const zero = right === 0 || right === 0n;
    const ones = right === -1 || right === -1n;
    switch (name) {
      case "add":
      case "sub":
      case "or":
      case "xor":
      case "shl":
      case "shrS":
      case "shrU":
      case "rotl":
      case "rotr":
        return zero ? a : undefined;
      case "and":
        return zero ? "zero" : ones ? a : undefined;
      case "mul":
        return zero ? "zero" : right === 1 || right === 1n ? a : undefined;
      default:
        return undefined;
    }
  }
  const left = a.constant;
  if (left !== undefined) {
    const zero = left === 0 || left === 0n;
    const ones = left === -1 || left === -1n;
    switch (name) {
      case "add":
      case "or":
      case "xor":
        return zero ? b : undefined;
      case "and":
        return zero ? "zero" : ones ? b : undefined;
      case "shl":
      case "shrS":
      case "shrU":
        return zero ? "zero" : undefined;
      default:
        return undefined;
    }
  }
  return undefined;
}

const NO_ARGUMENTS: readonly Node[] = [];

const constant32 = (value: number): I32 =>
  new I32(undefined, NodeKind.CONST, 0x41, NO_ARGUMENTS, 0, 0, value);
const constant64 = (value: bigint): I64 =>
  new I64(undefined, NodeKind.CONST, 0x42, NO_ARGUMENTS, 0, 0, value);

/**
 * Constants from 0 on that are there once: most of those of a region are among them, and what is garbage later
 * is collected while a guest stands still.
 */
const SHARED = 257;
const SHARED_32: readonly I32[] = Array.from({ length: SHARED }, (_, k) => constant32(k));
const SHARED_64: readonly I64[] = Array.from({ length: SHARED }, (_, k) => constant64(BigInt(k)));

/** The i32 constant `value` (taken modulo 2^32), or the value itself if it is one already. */
export function i32(value: I32 | number): I32 {
  if (typeof value !== "number") return value;
  const low = value | 0;
  return SHARED_32[low] ?? constant32(low);
}

/** The i64 constant `value` (taken modulo 2^64), or the value itself if it is one already. */
export function i64(value: I64 | number | bigint): I64 {
  if (value instanceof I64) return value;
  if (typeof value === "number" && value >= 0 && value < SHARED) return SHARED_64[value]!;
  const wide = BigInt.asIntN(64, BigInt(value));
  return (wide >= 0n && wide < SHARED ? SHARED_64[Number(wide)] : undefined) ?? constant64(wide);
}
