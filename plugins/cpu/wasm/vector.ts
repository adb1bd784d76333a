/**
 * 128-bit vectors of a function under construction.
 *
 * Operators are named as in WebAssembly's text format (`a.binary("i8x16.add", b)`), for there are too
 * many of them for a method each; what is misspelt or of another kind does not type-check.
 *
 * @module
 */
import { ALL_ONES, foldSelect, foldShuffle, foldVectors, foldVectorShift } from "./fold_vector.ts";
import type { FunctionBuilder } from "./function.ts";
import { Op, V128_TYPE } from "./opcodes.ts";
import {
  type NarrowShape,
  VECTOR_BINARY,
  VECTOR_LANES,
  VECTOR_SHIFT,
  VECTOR_TEST,
  VECTOR_UNARY,
  type VectorBinary,
  type VectorShift,
  type VectorTest,
  type VectorUnary,
} from "./simd_opcodes.ts";
import { I32, i32, I64, i64, type Node, NodeKind, owner, Value } from "./value.ts";

/** A 128-bit vector. */
export class V128 extends Value {
  /** The value of a constant, not negative; `undefined` if not constant. */
  readonly constant: bigint | undefined;

  constructor(
    fn: FunctionBuilder | undefined,
    kind: NodeKind,
    opcode: number,
    args: readonly Node[] = [],
    imm = 0,
    imm2 = 0,
    ref?: object,
    constant?: bigint,
  ) {
    super(fn, kind, opcode, args, imm, imm2, V128_TYPE, ref);
    this.constant = constant;
  }

  #vector(opcode: number, args: readonly Value[], lane = -1, ref?: object): V128 {
    const fn = owner(this, args[1], args[2]);
    return fn.record(new V128(fn, NodeKind.PURE, opcode, args, lane, 0, ref));
  }

  #scalar(opcode: number, lane = -1): I32 {
    const fn = owner(this);
    return fn.record(new I32(fn, NodeKind.PURE, opcode, [this], lane));
  }

  /** An operator of two vectors. */
  binary(name: VectorBinary, other: V128): V128 {
    if (other.constant !== undefined) {
      const folded = this.constant === undefined
        ? undefined
        : foldVectors(name, this.constant, other.constant);
      const simple = folded === undefined ? simplify(name, this, other.constant) : exactly(folded);
      if (simple !== undefined) return simple;
    }
    return this.#vector(VECTOR_BINARY[name], [this, other]);
  }
  /** An operator of one vector. */
  unary(name: VectorUnary): V128 {
    if (this.constant !== undefined && name === "v128.not") {
      return exactly(ALL_ONES ^ this.constant);
    }
    return this.#vector(VECTOR_UNARY[name], [this]);
  }
  /** A shift of each lane; the count is taken modulo the lane's width. */
  shift(name: VectorShift, count: I32 | number): V128 {
    const by = i32(count);
    if (this.constant !== undefined && by.constant !== undefined) {
      const folded = foldVectorShift(name, this.constant, by.constant);
      if (folded !== undefined) return exactly(folded);
    }
    return this.#vector(VECTOR_SHIFT[name], [this, by]);
  }
  /** A test, or the mask of the lanes' sign bits. */
  test(name: VectorTest): I32 {
    return this.#scalar(VECTOR_TEST[name]);
  }
  /** v128.and */
  and(other: V128): V128 {
    return this.binary("v128.and", other);
  }
  /** v128.or */
  or(other: V128): V128 {
    return this.binary("v128.or", other);
  }
  /** v128.xor */
  xor(other: V128): V128 {
    return this.binary("v128.xor", other);
  }
  /** `this & ~other` */
  andNot(other: V128): V128 {
    return this.binary("v128.andnot", other);
  }
  /** v128.not */
  not(): V128 {
    return this.unary("v128.not");
  }
  /** Bits of `this` where `mask` has ones, bits of `other` where it has zeros. */
  select(other: V128, mask: V128): V128 {
    if (mask.constant === ALL_ONES) return this;
    if (mask.constant === 0n) return other;
    if (
      this.constant !== undefined && other.constant !== undefined && mask.constant !== undefined
    ) return exactly(foldSelect(this.constant, other.constant, mask.constant));
    return this.#vector(Op.V128_BITSELECT, [this, other, mask]);
  }
  /** Sixteen bytes out of `this` (0–15) and `other` (16–31). */
  shuffle(other: V128, lanes: readonly number[]): V128 {
    if (lanes.length !== 16) throw new Error("a shuffle takes sixteen lanes");
    if (this.constant !== undefined && other.constant !== undefined) {
      return exactly(foldShuffle(this.constant, other.constant, lanes));
    }
    return this.#vector(Op.I8X16_SHUFFLE, [this, other], -1, lanes);
  }
  /** Lane `k`, zero-extended. */
  lane(shape: NarrowShape, k: number): I32 {
    return this.#scalar(VECTOR_LANES[shape].extract, k);
  }
  /** Lane `k` of 64 bits. */
  lane64(k: number): I64 {
    const fn = owner(this);
    return fn.record(new I64(fn, NodeKind.PURE, VECTOR_LANES.i64x2.extract, [this], k));
  }
  /** The vector with another lane `k`. */
  withLane(shape: NarrowShape, k: number, value: I32 | number): V128 {
    return this.#vector(VECTOR_LANES[shape].replace, [this, i32(value)], k);
  }
  /** The vector with another lane `k` of 64 bits. */
  withLane64(k: number, value: I64 | number | bigint): V128 {
    return this.#vector(VECTOR_LANES.i64x2.replace, [this, i64(value)], k);
  }
}

/** The constant `value`, of 128 bits. */
const exactly = (value: bigint): V128 =>
  new V128(undefined, NodeKind.CONST, Op.V128_CONST, [], -1, 0, undefined, value);

/** What needs no operator, or a better one, as one side of it is the constant `right`. */
function simplify(name: VectorBinary, a: V128, right: bigint): V128 | undefined {
  switch (name) {
    case "v128.and":
      return right === ALL_ONES ? a : right === 0n ? exactly(0n) : undefined;
    case "v128.andnot":
      return right === 0n ? a : right === ALL_ONES ? exactly(0n) : undefined;
    case "v128.or":
    case "v128.xor":
      return right === 0n ? a : undefined;
    case "i8x16.swizzle": {
      // V8 knows shuffles that are an instruction of the host, and has to guard a swizzle's indices.
      const lanes = Array.from({ length: 16 }, (_, k) => Number((right >> BigInt(8 * k)) & 0xffn));
      return lanes.every((lane) => lane < 16) ? a.shuffle(a, lanes) : undefined;
    }
    default:
      return undefined;
  }
}

/** The constant of which `high` and `low` are the halves (each taken modulo 2^64). */
export function v128(high: bigint, low: bigint): V128 {
  return exactly((BigInt.asUintN(64, high) << 64n) | BigInt.asUintN(64, low));
}

/** `value` in all lanes of `bits` (8, 16, 32, 64), as a constant. */
export function v128Of(bits: number, value: number | bigint): V128 {
  let half = 0n;
  for (let at = 0; at < 64; at += bits) {
    half |= BigInt.asUintN(bits, BigInt(value)) << BigInt(at);
  }
  return v128(half, half);
}

/** The constant whose lanes of `bits` are `values`, the first one lowest. */
export function v128Lanes(bits: number, values: readonly (number | bigint)[]): V128 {
  let all = 0n;
  for (const [k, value] of values.entries()) {
    all |= BigInt.asUintN(bits, BigInt(value)) << BigInt(bits * k);
  }
  return v128(all >> 64n, all);
}

/** `value` in all lanes of the shape. */
export function splat(shape: NarrowShape, value: I32): V128 {
  if (value.constant !== undefined) return v128Of(VECTOR_LANES[shape].bits, value.constant);
  const fn = owner(value);
  return fn.record(new V128(fn, NodeKind.PURE, VECTOR_LANES[shape].splat, [value], -1));
}

/** `value` in both lanes of 64 bits. */
export function splat64(value: I64): V128 {
  if (value.constant !== undefined) return v128(value.constant, value.constant);
  const fn = owner(value);
  return fn.record(new V128(fn, NodeKind.PURE, VECTOR_LANES.i64x2.splat, [value], -1));
}
