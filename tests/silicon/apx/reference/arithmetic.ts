/**
 * Operations of the evaluator that several opcode maps have.
 *
 * @module
 */
import {
  AF,
  ALL,
  CF,
  cut,
  Fault,
  holds,
  mask,
  OF,
  PF,
  RAX,
  RDX,
  SF,
  type Step,
  wide,
  ZF,
} from "./step.ts";

/** ADD OR ADC SBB AND SUB XOR CMP by number: the result, with the flags set. */
export function arithmetic(
  step: Step,
  operation: number,
  a: bigint,
  b: bigint,
  bits: number,
): bigint {
  const carry = BigInt(step.state.flags & CF);
  switch (operation) {
    case 0:
    case 2: {
      const c = operation === 2 ? carry : 0n;
      step.flags(ALL, step.sumFlags(a, b, c, bits, false));
      return a + b + c;
    }
    case 3:
    case 5:
    case 7: {
      const c = operation === 3 ? carry : 0n;
      step.flags(ALL, step.sumFlags(a, b, c, bits, true));
      return a - b - c;
    }
    default: {
      const result = operation === 1 ? a | b : operation === 4 ? a & b : a ^ b;
      step.flags(ALL, step.resultFlags(result, bits), AF);
      return result;
    }
  }
}

/** ROL ROR RCL RCR SHL SHR SAL SAR by number. */
export function rotate(
  step: Step,
  operation: number,
  value: bigint,
  raw: bigint,
  bits: number,
): bigint {
  const count = Number(raw & (bits === 64 ? 63n : 31n));
  if (count === 0) return value;
  const size = BigInt(bits);
  const top = (x: bigint): number => Number((x >> (size - 1n)) & 1n);
  const overflow = count === 1 ? 0 : OF;
  if (operation < 2) {
    const turn = BigInt(count % bits);
    const left = operation === 0 ? turn : (size - turn) % size;
    const result = cut((value << left) | (value >> (size - left)), bits);
    const carry = operation === 0 ? Number(result & 1n) : top(result);
    const second = Number((result >> (size - 2n)) & 1n);
    const over = operation === 0 ? top(result) ^ carry : top(result) ^ second;
    step.flags(CF | OF, carry | (over ? OF : 0), overflow);
    return result;
  }
  if (operation < 4) {
    let result = value;
    let carry = step.state.flags & CF;
    for (let k = 0; k < count; k++) {
      if (operation === 2) {
        const out = top(result);
        result = cut((result << 1n) | BigInt(carry), bits);
        carry = out;
      } else {
        const out = Number(result & 1n);
        result = (result >> 1n) | (BigInt(carry) << (size - 1n));
        carry = out;
      }
    }
    const second = Number((result >> (size - 2n)) & 1n);
    const over = operation === 2 ? top(result) ^ carry : top(result) ^ second;
    step.flags(CF | OF, carry | (over ? OF : 0), overflow);
    return result;
  }
  const n = BigInt(count);
  let result: bigint, carry: bigint, over: number;
  if (operation === 4 || operation === 6) {
    result = cut(value << n, bits);
    carry = (value << n) >> size & 1n;
    over = top(result) ^ Number(carry);
  } else if (operation === 5) {
    result = value >> n;
    carry = (value >> (n - 1n)) & 1n;
    over = top(value);
  } else {
    result = cut(wide(value, bits) >> n, bits);
    carry = (wide(value, bits) >> (n - 1n)) & 1n;
    over = 0;
  }
  const unknown = overflow | AF | (count >= bits ? CF : 0);
  step.flags(ALL, step.resultFlags(result, bits) | Number(carry) | (over ? OF : 0), unknown);
  return result;
}

/** SHLD and SHRD; a count beyond a 16-bit operand is undefined and not to be asked for. */
export function doubleShift(
  step: Step,
  left: boolean,
  value: bigint,
  other: bigint,
  raw: bigint,
  bits: number,
): bigint {
  const count = raw & (bits === 64 ? 63n : 31n);
  if (count === 0n) return value;
  const size = BigInt(bits);
  const result = left
    ? cut((value << count) | (other >> (size - count)), bits)
    : cut((value >> count) | (other << (size - count)), bits);
  const carry = left ? (value >> (size - count)) & 1n : (value >> (count - 1n)) & 1n;
  const changed = ((value ^ result) >> (size - 1n)) & 1n;
  step.flags(
    ALL,
    step.resultFlags(result, bits) | Number(carry) | (changed ? OF : 0),
    AF | (count === 1n ? 0 : OF),
  );
  return result;
}

/** F6 and F7: NOT NEG MUL IMUL DIV IDIV by number 2–7. */
export function unary(step: Step, operation: number, bits: number): void {
  const { p } = step;
  const usual = (b: number, value: bigint): void => step.setRm(b, value);
  const value = step.getRm(bits);
  if (operation === 2) {
    step.put(bits, ~value, usual);
    return;
  }
  if (operation === 3) {
    step.put(bits, -value, usual);
    step.flags(ALL, step.sumFlags(0n, value, 0n, bits, true));
    return;
  }
  const low = step.get(RAX, bits);
  const size = BigInt(bits);
  if (operation < 6) {
    const product = operation === 4 ? low * value : wide(low, bits) * wide(value, bits);
    const fits = operation === 4
      ? product <= mask(bits)
      : wide(cut(product, bits), bits) === product;
    if (bits === 8) step.set(RAX, 16, product);
    else {
      step.set(RAX, bits, product);
      step.set(RDX, bits, product >> size);
    }
    step.flags(ALL, fits ? 0 : CF | OF, SF | ZF | AF | PF);
    return;
  }
  const whole = bits === 8 ? step.get(RAX, 16) : (step.get(RDX, bits) << size) | low;
  const isSigned = operation === 7;
  const dividend = isSigned ? wide(whole, 2 * bits) : whole;
  const divisor = isSigned ? wide(value, bits) : value;
  if (divisor === 0n) throw new Fault("#0");
  const quotient = dividend / divisor;
  const remainder = dividend % divisor;
  const inRange = isSigned ? wide(quotient, bits) === quotient : quotient <= mask(bits);
  if (!inRange) throw new Fault("#0");
  if (bits === 8) step.set(RAX, 16, cut(quotient, 8) | (cut(remainder, 8) << 8n));
  else {
    step.set(RAX, bits, quotient);
    step.set(RDX, bits, remainder);
  }
  // DIV leaves all flags undefined; with NF none changes.
  if (!(p.kind === "evex" && p.nf)) step.undefinedFlags = ALL;
}

export function multiply(step: Step, a: bigint, b: bigint, bits: number): bigint {
  const product = wide(a, bits) * wide(b, bits);
  const fits = wide(cut(product, bits), bits) === product;
  step.flags(ALL, fits ? 0 : CF | OF, SF | ZF | AF | PF);
  return product;
}

export function countBits(step: Step, opcode: number, bits: number): void {
  const source = step.getRm(bits);
  const { reg } = step.p;
  const text = source.toString(2).padStart(bits, "0");
  if (opcode === 0x88 || opcode === 0xb8) {
    step.set(reg, bits, BigInt([...text].filter((digit) => digit === "1").length));
    step.flags(ALL, source === 0n ? ZF : 0);
    return;
  }
  const trailing = opcode === 0xf4 || opcode === 0xbc;
  const digits = trailing ? [...text].reverse().join("") : text;
  const first = digits.indexOf("1");
  const result = first < 0 ? bits : first;
  step.set(reg, bits, BigInt(result));
  const values = (first < 0 ? CF : 0) | (result === 0 ? ZF : 0);
  step.flags(ALL, values, OF | SF | PF | AF);
}

export function incDec(step: Step, decrement: boolean, bits: number): void {
  const value = step.getRm(bits);
  const flags = step.sumFlags(value, 1n, 0n, bits, decrement);
  step.put(bits, decrement ? value - 1n : value + 1n, (b, v) => step.setRm(b, v));
  step.flags(ALL & ~CF, flags);
}

/** CCMP and CTEST: flags by the condition. */
export function conditionally(step: Step, compare: () => void): void {
  const { p, state } = step;
  const before = state.flags;
  const truth = p.condition === 10 || (p.condition !== 11 && holds(p.condition, before));
  compare();
  if (truth) return;
  const d = p.defaults;
  state.flags = (d & 8 ? OF : 0) | (d & 4 ? SF : 0) | (d & 2 ? ZF : 0) | (d & 1 ? CF | PF : 0);
  step.undefinedFlags = 0;
}

/** Flags of CMP or TEST, which have no NF form. */
export function compareFlags(step: Step, test: boolean, a: bigint, b: bigint, bits: number): void {
  const { state } = step;
  state.flags = test ? step.resultFlags(a & b, bits) : step.sumFlags(a, b, 0n, bits, true);
  step.undefinedFlags = test ? AF : 0;
}

export function crc32(crc: bigint, value: bigint, bits: number): bigint {
  let register = cut(crc, 32) ^ 0n;
  let rest = value;
  for (let k = 0; k < bits; k++) {
    const bit = (register ^ rest) & 1n;
    register = (register >> 1n) ^ (bit ? 0x82f63b78n : 0n);
    rest >>= 1n;
  }
  return register;
}

export function swap(value: bigint, bits: number): bigint {
  let result = 0n;
  for (let k = 0; k < bits; k += 8) result = (result << 8n) | ((value >> BigInt(k)) & 0xffn);
  return result;
}
