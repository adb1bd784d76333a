/**
 * Constant folding: what the operators of WebAssembly compute, at build time.
 *
 * The builder folds because semantics are written once for both tiers: with operands constant, most
 * of what tier 1 computes at run time disappears before V8 sees it.
 *
 * @module
 */
import type { IntegerOp } from "./opcodes.ts";

/** Result of `op` on i32 constants, as a signed 32-bit number; `undefined` where it would trap. */
export function foldI32(op: IntegerOp, a: number, b: number): number | undefined {
  switch (op) {
    case "eqz":
      return Number(a === 0);
    case "eq":
      return Number(a === b);
    case "ne":
      return Number(a !== b);
    case "ltS":
      return Number(a < b);
    case "ltU":
      return Number((a >>> 0) < (b >>> 0));
    case "gtS":
      return Number(a > b);
    case "gtU":
      return Number((a >>> 0) > (b >>> 0));
    case "leS":
      return Number(a <= b);
    case "leU":
      return Number((a >>> 0) <= (b >>> 0));
    case "geS":
      return Number(a >= b);
    case "geU":
      return Number((a >>> 0) >= (b >>> 0));
    case "clz":
      return Math.clz32(a);
    case "ctz":
      return a === 0 ? 32 : 31 - Math.clz32(a & -a);
    case "popcnt":
      return popcnt32(a);
    case "add":
      return (a + b) | 0;
    case "sub":
      return (a - b) | 0;
    case "mul":
      return Math.imul(a, b);
    case "divS":
      return b === 0 || (a === -0x8000_0000 && b === -1) ? undefined : (a / b) | 0;
    case "divU":
      return b === 0 ? undefined : ((a >>> 0) / (b >>> 0)) | 0;
    case "remS":
      return b === 0 ? undefined : b === -1 ? 0 : (a % b) | 0;
    case "remU":
      return b === 0 ? undefined : ((a >>> 0) % (b >>> 0)) | 0;
    case "and":
      return a & b;
    case "or":
      return a | b;
    case "xor":
      return a ^ b;
    case "shl":
      return a << (b & 31);
    case "shrS":
      return a >> (b & 31);
    case "shrU":
      return (a >>> (b & 31)) | 0;
    case "rotl":
      return (a << (b & 31)) | (b & 31 ? a >>> (32 - (b & 31)) : 0);
    case "rotr":
      return (a << (32 - (b & 31) & 31)) | (b & 31 ? a >>> (b & 31) : 0);
    case "extend8S":
      return (a << 24) >> 24;
    case "extend16S":
      return (a << 16) >> 16;
  }
}

function popcnt32(value: number): number {
  let count = 0;
  for (let rest = value >>> 0; rest !== 0; rest &= rest - 1) count++;
  return count;
}

const unsigned = (value: bigint): bigint => BigInt.asUintN(64, value);
const signed = (value: bigint): bigint => BigInt.asIntN(64, value);

/** Result of `op` on i64 constants: a signed bigint (comparisons 0n or 1n); `undefined` where it would trap. */
export function foldI64(op: IntegerOp, a: bigint, b: bigint): bigint | undefined {
  const count = b & 63n;
  switch (op) {
    case "eqz":
      return BigInt(a === 0n);
    case "eq":
      return BigInt(a === b);
    case "ne":
      return BigInt(a !== b);
    case "ltS":
      return BigInt(a < b);
    case "ltU":
      return BigInt(unsigned(a) < unsigned(b));
    case "gtS":
      return BigInt(a > b);
    case "gtU":
      return BigInt(unsigned(a) > unsigned(b));
    case "leS":
      return BigInt(a <= b);
    case "leU":
      return BigInt(unsigned(a) <= unsigned(b));
    case "geS":
      return BigInt(a >= b);
    case "geU":
      return BigInt(unsigned(a) >= unsigned(b));
    case "clz": {
      const high = Number(unsigned(a) >> 32n);
      return BigInt(
        high === 0 ? 32 + Math.clz32(Number(unsigned(a) & 0xffff_ffffn)) : Math.clz32(high),
      );
    }
    case "ctz": {
      if (a === 0n) return 64n;
      let bit = 0n;
      while (((a >> bit) & 1n) === 0n) bit++;
      return bit;
    }
    case "popcnt":
      return BigInt(popcnt32(Number(a & 0xffff_ffffn)) + popcnt32(Number(unsigned(a) >> 32n)));
    case "add":
      return signed(a + b);
    case "sub":
      return signed(a - b);
    case "mul":
      return signed(a * b);
    case "divS":
      return b === 0n || (b === -1n && a === -(1n << 63n)) ? undefined : a / b;
    case "divU":
      return b === 0n ? undefined : signed(unsigned(a) / unsigned(b));
    case "remS":
      return b === 0n ? undefined : b === -1n ? 0n : a % b;
    case "remU":
      return b === 0n ? undefined : signed(unsigned(a) % unsigned(b));
    case "and":
      return a & b;
    case "or":
      return a | b;
    case "xor":
      return a ^ b;
    case "shl":
      return signed(a << count);
    case "shrS":
      return a >> count;
    case "shrU":
      return signed(unsigned(a) >> count);
    case "rotl":
      return signed((a << count) | (unsigned(a) >> ((64n - count) & 63n)));
    case "rotr":
      return signed((unsigned(a) >> count) | (a << ((64n - count) & 63n)));
    case "extend8S":
      return BigInt.asIntN(8, a);
    case "extend16S":
      return BigInt.asIntN(16, a);
  }
}
