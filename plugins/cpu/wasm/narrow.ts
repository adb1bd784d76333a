/**
 * The low halves of 64-bit values, computed as 32-bit values where that gives the same.
 *
 * Semantics are written in 64 bits for all operand sizes. What a 32-bit instruction keeps of a sum depends
 * on the low halves of the summands alone, and in 32 bits it needs no extensions before and behind it.
 *
 * @module
 */
import {
  I32_WRAP_I64,
  I64_EXTEND_I32_S,
  I64_EXTEND_I32_U,
  INTEGER_OPS,
  type IntegerOp,
} from "./opcodes.ts";
import { I32, i32, type I64, NodeKind, owner } from "./value.ts";

const [ADD, SUB, MUL, AND, OR, XOR, SHL, SHR_S, SHR_U] = ([
  "add",
  "sub",
  "mul",
  "and",
  "or",
  "xor",
  "shl",
  "shrS",
  "shrU",
] as const).map((name) => INTEGER_OPS[name][1]);

/** The 32-bit value that `value` is a sign-extension of, if it is known to be one. */
export function signExtended(value: I64): I32 | undefined {
  if (value.opcode === I64_EXTEND_I32_S) return value.args[0] as I32;
  const { constant } = value;
  return constant !== undefined && BigInt.asIntN(32, constant) === constant
    ? i32(Number(constant))
    : undefined;
}

/** The 32-bit value that `value` is a zero-extension of, if it is known to be one. */
export function zeroExtended(value: I64): I32 | undefined {
  if (value.opcode === I64_EXTEND_I32_U) return value.args[0] as I32;
  const { constant } = value;
  return constant !== undefined && BigInt.asUintN(32, constant) === constant
    ? i32(Number(constant))
    : undefined;
}

/** A count that 32-bit shifts understand as 64-bit ones do: one known to be below 32. */
function count(value: I64): I32 | undefined {
  const { constant } = value;
  if (constant !== undefined) {
    return constant >= 0n && constant < 32n ? i32(Number(constant)) : undefined;
  }
  const mask = value.opcode === AND ? (value.args[1] as I64).constant : undefined;
  return mask !== undefined && mask >= 0n && mask < 32n ? lowHalf(value) : undefined;
}

/** The low half of `value`, computed once. */
export function lowHalf(value: I64): I32 {
  const { low, fn } = value;
  if (fn === undefined) return value.wrap();
  if (low !== undefined && fn.within(low.scope)) return low.value;
  const half = narrowed(value) ?? wrapped(value);
  value.low = { value: half, scope: fn.scope };
  return half;
}

/** `i32.wrap_i64` as it stands. */
function wrapped(value: I64): I32 {
  const fn = owner(value);
  return fn.record(new I32(fn, NodeKind.PURE, I32_WRAP_I64, [value]));
}

/** The low half of `value` without computing the rest, where that is possible. */
function narrowed(value: I64): I32 | undefined {
  const { opcode, kind } = value;
  if (kind !== NodeKind.PURE) return undefined;
  const [a, b] = value.args as [I64, I64];
  switch (opcode) {
    case I64_EXTEND_I32_S:
    case I64_EXTEND_I32_U:
      return value.args[0] as I32;
    case ADD:
      return lowHalf(a).add(lowHalf(b));
    case SUB:
      return lowHalf(a).sub(lowHalf(b));
    case MUL:
      return lowHalf(a).mul(lowHalf(b));
    case AND:
      return lowHalf(a).and(lowHalf(b));
    case OR:
      return lowHalf(a).or(lowHalf(b));
    case XOR:
      return lowHalf(a).xor(lowHalf(b));
  }
  const shift = opcode === SHL || opcode === SHR_S || opcode === SHR_U ? count(b) : undefined;
  if (shift === undefined) return undefined;
  if (opcode === SHL) return lowHalf(a).shl(shift);
  if (opcode === SHR_U) return zeroExtended(a)?.shrU(shift);
  return signExtended(a)?.shrS(shift);
}

/** What `value` is the sign-extension of, if nothing of the sign is left under `mask`. */
export function withoutSign(value: I64, mask: bigint): I64 | undefined {
  switch (value.opcode) {
    case INTEGER_OPS.extend8S[1]:
      return mask <= 0xffn ? value.args[0] as I64 : undefined;
    case INTEGER_OPS.extend16S[1]:
      return mask <= 0xffffn ? value.args[0] as I64 : undefined;
    case I64_EXTEND_I32_S:
      return mask <= 0xffff_ffffn ? (value.args[0] as I32).extendU() : undefined;
    default:
      return undefined;
  }
}

const SAME_UNSIGNED: ReadonlySet<IntegerOp> = new Set([
  "eqz",
  "eq",
  "ne",
  "ltU",
  "gtU",
  "leU",
  "geU",
]);

/** A comparison of two extensions of the same kind, as one of what they extend. */
export function compareNarrow(name: IntegerOp, a: I64, b: I64 | undefined): I32 | undefined {
  const both = (extended: (value: I64) => I32 | undefined): readonly [I32, I32] | undefined => {
    const [x, y] = [extended(a), b === undefined ? i32(0) : extended(b)];
    return x === undefined || y === undefined ? undefined : [x, y];
  };
  // Extending with the sign keeps the order of unsigned numbers as well.
  const pair = both(signExtended) ?? (SAME_UNSIGNED.has(name) ? both(zeroExtended) : undefined);
  if (pair === undefined) return undefined;
  const [x, y] = pair;
  const fn = owner(a, b);
  const args = b === undefined ? [x] : [x, y];
  return fn.record(new I32(fn, NodeKind.PURE, INTEGER_OPS[name][0], args));
}
