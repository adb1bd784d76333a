/**
 * An evaluator for APX programs: what each instruction does, in plain arithmetic on unbounded integers.
 * Written from the manuals' operation sections; it shares nothing with the processor.
 *
 * @module
 */
import { parse, type Parsed } from "./parse.ts";

/** Bits of RFLAGS. */
export const CF = 1, PF = 4, AF = 0x10, ZF = 0x40, SF = 0x80, OF = 0x800;
const ALL = CF | PF | AF | ZF | SF | OF;

/** What a program works on. */
export interface ReferenceState {
  /** R0–R31. */
  readonly registers: bigint[];
  /** The six arithmetic flags in their places. */
  flags: number;
  rip: bigint;
  readonly load: (address: bigint, bytes: number) => bigint;
  readonly store: (address: bigint, bytes: number, value: bigint) => void;
}

/** How an instruction ended: flags that it leaves undefined, or the exception. */
export interface Verdict {
  readonly fault?: string;
  readonly undefinedFlags: number;
}

const RAX = 0, RCX = 1, RDX = 2, RBX = 3, RSP = 4;

const mask = (bits: number): bigint => (1n << BigInt(bits)) - 1n;
const cut = (value: bigint, bits: number): bigint => BigInt.asUintN(bits, value);
const wide = (value: bigint, bits: number): bigint => BigInt.asIntN(bits, value);

function parity(value: bigint): boolean {
  let ones = 0;
  for (let k = 0n; k < 8n; k++) ones += Number((value >> k) & 1n);
  return ones % 2 === 0;
}

/** The truth of condition `code` (low four bits of Jcc). */
export function holds(code: number, flags: number): boolean {
  const has = (flag: number): boolean => (flags & flag) !== 0;
  const less = has(SF) !== has(OF);
  const base = [has(OF), has(CF), has(ZF), has(CF) || has(ZF), has(SF), has(PF), less][code >> 1] ??
    (less || has(ZF));
  return base !== ((code & 1) === 1);
}

class Fault extends Error {}

/** One instruction on its way. */
class Step {
  readonly state: ReferenceState;
  readonly p: Parsed;
  undefinedFlags = 0;

  constructor(state: ReferenceState, p: Parsed) {
    this.state = state;
    this.p = p;
  }

  get(n: number, bits: number): bigint {
    return cut(this.state.registers[n]!, bits);
  }

  /** As legacy instructions write: 8 and 16 bits keep the rest, 32 clear it. */
  set(n: number, bits: number, value: bigint): void {
    const { registers } = this.state;
    registers[n] = bits >= 32
      ? cut(value, bits)
      : (registers[n]! & ~mask(bits) & mask(64)) | cut(value, bits);
  }

  get address(): bigint {
    const { base, index, scale, displacement, ripRelative } = this.p.memory!;
    const { registers, rip } = this.state;
    const start = ripRelative ? rip + BigInt(this.p.length) : base < 0 ? 0n : registers[base]!;
    const offset = index < 0 ? 0n : registers[index]! * BigInt(scale);
    return cut(start + offset + displacement, 64);
  }

  getRm(bits: number): bigint {
    return this.p.memory === undefined
      ? this.get(this.p.rm, bits)
      : this.state.load(this.address, bits / 8);
  }

  setRm(bits: number, value: bigint): void {
    if (this.p.memory === undefined) this.set(this.p.rm, bits, value);
    else this.state.store(this.address, bits / 8, cut(value, bits));
  }

  /** Writes the result: to V, cleared above, with ND; else to the destination as usual. */
  put(bits: number, value: bigint, usual: (bits: number, value: bigint) => void): void {
    if (this.p.kind === "evex" && this.p.map === 4 && this.p.nd) {
      this.state.registers[this.p.v] = cut(value, bits);
    } else usual(bits, value);
  }

  flags(changed: number, values: number, undefinedFlags = 0): void {
    if (this.p.kind === "evex" && this.p.nf) return;
    this.state.flags = (this.state.flags & ~changed) | (values & changed);
    this.undefinedFlags = undefinedFlags;
  }

  resultFlags(result: bigint, bits: number): number {
    const value = cut(result, bits);
    return (value === 0n ? ZF : 0) | (value >> BigInt(bits - 1) ? SF : 0) |
      (parity(value) ? PF : 0);
  }

  /** Flags of a + b + carry, or of a − b − carry. */
  sumFlags(a: bigint, b: bigint, carry: bigint, bits: number, subtract: boolean): number {
    const x = cut(a, bits), y = cut(b, bits);
    const exact = subtract ? x - y - carry : x + y + carry;
    const exactSigned = subtract
      ? wide(x, bits) - wide(y, bits) - carry
      : wide(x, bits) + wide(y, bits) + carry;
    const low = subtract ? (x & 15n) - (y & 15n) - carry : (x & 15n) + (y & 15n) + carry;
    return this.resultFlags(exact, bits) |
      (exact < 0n || exact > mask(bits) ? CF : 0) |
      (low < 0n || low > 15n ? AF : 0) |
      (wide(cut(exact, bits), bits) !== exactSigned ? OF : 0);
  }
}

/** ADD OR ADC SBB AND SUB XOR CMP by number: the result, with the flags set. */
function arithmetic(step: Step, operation: number, a: bigint, b: bigint, bits: number): bigint {
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
function rotate(step: Step, operation: number, value: bigint, raw: bigint, bits: number): bigint {
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
function doubleShift(
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
function unary(step: Step, operation: number, bits: number): void {
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

function multiply(step: Step, a: bigint, b: bigint, bits: number): bigint {
  const product = wide(a, bits) * wide(b, bits);
  const fits = wide(cut(product, bits), bits) === product;
  step.flags(ALL, fits ? 0 : CF | OF, SF | ZF | AF | PF);
  return product;
}

function countBits(step: Step, opcode: number, bits: number): void {
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

function incDec(step: Step, decrement: boolean, bits: number): void {
  const value = step.getRm(bits);
  const flags = step.sumFlags(value, 1n, 0n, bits, decrement);
  step.put(bits, decrement ? value - 1n : value + 1n, (b, v) => step.setRm(b, v));
  step.flags(ALL & ~CF, flags);
}

/** CCMP and CTEST: flags by the condition. */
function conditionally(step: Step, compare: () => void): void {
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
function compareFlags(step: Step, test: boolean, a: bigint, b: bigint, bits: number): void {
  const { state } = step;
  state.flags = test ? step.resultFlags(a & b, bits) : step.sumFlags(a, b, 0n, bits, true);
  step.undefinedFlags = test ? AF : 0;
}

function crc32(crc: bigint, value: bigint, bits: number): bigint {
  let register = cut(crc, 32) ^ 0n;
  let rest = value;
  for (let k = 0; k < bits; k++) {
    const bit = (register ^ rest) & 1n;
    register = (register >> 1n) ^ (bit ? 0x82f63b78n : 0n);
    rest >>= 1n;
  }
  return register;
}

function swap(value: bigint, bits: number): bigint {
  let result = 0n;
  for (let k = 0; k < bits; k += 8) result = (result << 8n) | ((value >> BigInt(k)) & 0xffn);
  return result;
}

/** Instructions that legacy map 0 and EVEX map 4 have in common; false if it is none of them. */
function common(step: Step): boolean {
  const { p, state } = step;
  const { opcode } = p;
  const bits = (opcode & 1) === 0 ? 8 : p.bits;
  const toRm = (b: number, value: bigint): void => step.setRm(b, value);
  const toReg = (b: number, value: bigint): void => step.set(p.reg, b, value);
  const evex = p.kind === "evex";
  if (opcode < 0x40 && (opcode & 7) < 4) {
    const operation = opcode >> 3;
    const fromRm = (opcode & 2) !== 0;
    const [a, b] = fromRm
      ? [step.get(p.reg, bits), step.getRm(bits)]
      : [step.getRm(bits), step.get(p.reg, bits)];
    if (operation === 7) {
      const compare = (): void => compareFlags(step, false, a, b, bits);
      if (evex) conditionally(step, compare);
      else compare();
    } else step.put(bits, arithmetic(step, operation, a, b, bits), fromRm ? toReg : toRm);
    return true;
  }
  switch (opcode) {
    case 0x69:
    case 0x6b: {
      const product = multiply(step, step.getRm(p.bits), p.immediate, p.bits);
      // ND means that the upper bits of the usual destination are cleared.
      if (evex && p.nd) state.registers[p.reg] = cut(product, p.bits);
      else step.set(p.reg, p.bits, product);
      return true;
    }
    case 0x80:
    case 0x81:
    case 0x83: {
      const a = step.getRm(bits);
      if (p.group === 7) {
        const compare = (): void => compareFlags(step, false, a, p.immediate, bits);
        if (evex) conditionally(step, compare);
        else compare();
      } else step.put(bits, arithmetic(step, p.group, a, p.immediate, bits), toRm);
      return true;
    }
    case 0x84:
    case 0x85: {
      const a = step.getRm(bits);
      const compare = (): void => compareFlags(step, true, a, step.get(p.reg, bits), bits);
      if (evex) conditionally(step, compare);
      else compare();
      return true;
    }
    case 0xc0:
    case 0xc1:
    case 0xd0:
    case 0xd1:
    case 0xd2:
    case 0xd3: {
      const count = opcode < 0xd0 ? p.immediate : opcode < 0xd2 ? 1n : step.get(RCX, 8);
      step.put(bits, rotate(step, p.group, step.getRm(bits), cut(count, 8), bits), toRm);
      return true;
    }
    case 0xf6:
    case 0xf7: {
      if (p.group >= 2) {
        unary(step, p.group, bits);
        return true;
      }
      const a = step.getRm(bits);
      const compare = (): void => compareFlags(step, true, a, cut(p.immediate, bits), bits);
      if (evex) conditionally(step, compare);
      else compare();
      return true;
    }
    case 0xfe:
    case 0xff:
      if (p.group > 1) return false;
      incDec(step, p.group === 1, bits);
      return true;
  }
  return false;
}

/** What only EVEX map 4 has. */
function promoted(step: Step): boolean {
  const { p, state } = step;
  const { opcode, bits } = p;
  const toReg = (b: number, value: bigint): void => step.set(p.reg, b, value);
  const toRm = (b: number, value: bigint): void => step.setRm(b, value);
  if ((opcode & 0xf0) === 0x40) {
    const truth = holds(opcode & 15, state.flags);
    if (p.pp === 0xf2) {
      const value = BigInt(truth);
      if (p.memory !== undefined) step.setRm(8, value);
      else if (p.nd) state.registers[p.rm] = value;
      else step.set(p.rm, 8, value);
    } else if (p.nd && !p.nf) {
      const source = step.getRm(bits);
      state.registers[p.v] = truth ? source : step.get(p.reg, bits);
    } else if (p.nd) state.registers[p.v] = truth ? step.getRm(bits) : step.get(p.reg, bits);
    else if (!p.nf) state.registers[p.reg] = truth ? step.getRm(bits) : 0n;
    else if (p.memory !== undefined) {
      if (truth) step.setRm(bits, step.get(p.reg, bits));
    } else state.registers[p.rm] = truth ? step.get(p.reg, bits) : 0n;
    return true;
  }
  switch (opcode) {
    case 0x24:
    case 0x2c:
    case 0xa5:
    case 0xad: {
      const count = opcode < 0x30 ? cut(p.immediate, 8) : step.get(RCX, 8);
      const left = opcode === 0x24 || opcode === 0xa5;
      const value = step.getRm(bits);
      const other = step.get(p.reg, bits);
      step.put(bits, doubleShift(step, left, value, other, count, bits), toRm);
      return true;
    }
    case 0x60:
      step.set(p.reg, bits, swap(step.getRm(bits), bits));
      return true;
    case 0x61:
      step.setRm(bits, swap(step.get(p.reg, bits), bits));
      return true;
    case 0x66: {
      if (p.pp === 0) return false;
      const size = p.wide ? 64 : 32;
      const flag = p.pp === 0x66 ? CF : OF;
      const carry = (state.flags & flag) !== 0 ? 1n : 0n;
      const sum = step.get(p.reg, size) + step.getRm(size) + carry;
      step.put(size, sum, toReg);
      step.flags(flag, sum > mask(size) ? flag : 0);
      return true;
    }
    case 0x88:
    case 0xf4:
    case 0xf5:
      countBits(step, opcode, bits);
      return true;
    case 0x8a:
      step.set(p.reg, 8, step.getRm(8));
      return true;
    case 0x8b:
      step.set(p.reg, bits, step.getRm(bits));
      return true;
    case 0x8f: {
      const top = state.registers[RSP]!;
      if ((top & 15n) !== 0n) throw new Fault("#13(0)");
      const first = state.load(top, 8);
      const second = state.load(top + 8n, 8);
      state.registers[RSP] = cut(top + 16n, 64);
      state.registers[p.v] = first;
      state.registers[p.rm] = second;
      return true;
    }
    case 0xaf: {
      const product = multiply(step, step.get(p.reg, bits), step.getRm(bits), bits);
      step.put(bits, product, toReg);
      return true;
    }
    case 0xf0:
    case 0xf1: {
      if (p.pp === 0xf3) return false;
      const size = opcode === 0xf0 ? 8 : bits;
      step.set(p.reg, p.wide ? 64 : 32, crc32(state.registers[p.reg]!, step.getRm(size), size));
      return true;
    }
    case 0xf9:
      step.setRm(p.wide ? 64 : 32, step.get(p.reg, p.wide ? 64 : 32));
      return true;
    case 0xfc: {
      const size = p.wide ? 64 : 32;
      const a = step.getRm(size);
      const b = step.get(p.reg, size);
      const result = { 0: a + b, 0x66: a & b, 0xf3: a ^ b, 0xf2: a | b }[p.pp]!;
      step.setRm(size, result);
      return true;
    }
    case 0xff: {
      if (p.group !== 6) return false;
      const top = state.registers[RSP]!;
      if ((top & 15n) !== 0n) throw new Fault("#13(0)");
      const values = [state.registers[p.v]!, state.registers[p.rm]!];
      state.store(cut(top - 8n, 64), 8, values[0]!);
      state.store(cut(top - 16n, 64), 8, values[1]!);
      state.registers[RSP] = cut(top - 16n, 64);
      return true;
    }
  }
  return false;
}

/** Legacy map 0 with REX2. */
function oneByte(step: Step): boolean {
  const { p, state } = step;
  const { opcode, bits } = p;
  const half = (opcode & 1) === 0 ? 8 : bits;
  // Stack instructions are 64 bits wide unless 66 says 16.
  const stack = p.pp === 0x66 && !p.wide ? 16 : 64;
  const push = (value: bigint): void => {
    const top = cut(state.registers[RSP]! - BigInt(stack / 8), 64);
    state.store(top, stack / 8, cut(value, stack));
    state.registers[RSP] = top;
  };
  const pop = (): bigint => {
    const top = state.registers[RSP]!;
    const value = state.load(top, stack / 8);
    state.registers[RSP] = cut(top + BigInt(stack / 8), 64);
    return value;
  };
  if (opcode >= 0x50 && opcode <= 0x57) {
    push(state.registers[p.rm]!);
    return true;
  }
  if (opcode >= 0x58 && opcode <= 0x5f) {
    step.set(p.rm, stack, pop());
    return true;
  }
  if (opcode >= 0x90 && opcode <= 0x97) {
    if (p.rm === 0) return true;
    const [a, b] = [step.get(p.rm, bits), step.get(RAX, bits)];
    step.set(p.rm, bits, b);
    step.set(RAX, bits, a);
    return true;
  }
  if (opcode >= 0xb0 && opcode <= 0xbf) {
    step.set(p.rm, opcode < 0xb8 ? 8 : bits, p.immediate);
    return true;
  }
  switch (opcode) {
    case 0x63:
      step.set(p.reg, bits, wide(step.getRm(32), 32));
      return true;
    case 0x86:
    case 0x87: {
      const [a, b] = [step.getRm(half), step.get(p.reg, half)];
      step.setRm(half, b);
      step.set(p.reg, half, a);
      return true;
    }
    case 0x88:
    case 0x89:
      step.setRm(half, step.get(p.reg, half));
      return true;
    case 0x8a:
    case 0x8b:
      step.set(p.reg, half, step.getRm(half));
      return true;
    case 0x8d:
      step.set(p.reg, bits, step.address);
      return true;
    case 0x8f: {
      const value = pop();
      step.setRm(stack, value);
      return true;
    }
    case 0xa1:
      state.rip = cut(p.immediate, 64);
      if (wide(state.rip, 48) !== wide(state.rip, 64)) throw new Fault("#13(0)");
      return true;
    case 0xc6:
    case 0xc7:
      step.setRm(half, p.immediate);
      return true;
    case 0xff:
      if (p.group === 6) push(step.getRm(stack));
      else if (p.group === 2 || p.group === 4) {
        const target = step.getRm(64);
        if (wide(target, 48) !== wide(target, 64)) throw new Fault("#13(0)");
        if (p.group === 2) {
          const top = cut(state.registers[RSP]! - 8n, 64);
          state.store(top, 8, state.rip + BigInt(p.length));
          state.registers[RSP] = top;
        }
        state.rip = target;
      } else return false;
      return true;
  }
  return false;
}

/** Legacy map 1 with REX2. */
function twoByte(step: Step): boolean {
  const { p, state } = step;
  const { opcode, bits } = p;
  const half = (opcode & 1) === 0 ? 8 : bits;
  if ((opcode & 0xf0) === 0x40) {
    const source = step.getRm(bits);
    const truth = holds(opcode & 15, state.flags);
    step.set(p.reg, bits, truth ? source : step.get(p.reg, bits));
    return true;
  }
  if ((opcode & 0xf0) === 0x90) {
    step.setRm(8, BigInt(holds(opcode & 15, state.flags)));
    return true;
  }
  if (opcode >= 0xc8 && opcode <= 0xcf) {
    if (bits === 16) return false;
    step.set(p.rm, bits, swap(step.get(p.rm, bits), bits));
    return true;
  }
  switch (opcode) {
    case 0x1f:
      return true;
    case 0xa3:
    case 0xab:
    case 0xb3:
    case 0xbb:
    case 0xba: {
      const operation = opcode === 0xba ? p.group & 3 : (opcode >> 3) & 3;
      const index = opcode === 0xba ? cut(p.immediate, 8) : step.get(p.reg, bits);
      const size = BigInt(bits);
      const bit = index % size;
      // A register as index reaches beyond a memory operand.
      const far = opcode !== 0xba && p.memory !== undefined;
      const units = far ? (wide(index, bits) - bit) / size : 0n;
      const at = far ? cut(step.address + units * (size / 8n), 64) : 0n;
      const value = far ? state.load(at, bits / 8) : step.getRm(bits);
      const one = 1n << bit;
      const result = [value, value | one, value & ~one, value ^ one][operation]!;
      if (operation !== 0) {
        if (far) state.store(at, bits / 8, result);
        else step.setRm(bits, result);
      }
      step.flags(CF, Number((value >> bit) & 1n), OF | SF | AF | PF);
      return true;
    }
    case 0xa4:
    case 0xa5:
    case 0xac:
    case 0xad: {
      const count = (opcode & 1) === 0 ? cut(p.immediate, 8) : step.get(RCX, 8);
      const value = step.getRm(bits);
      const other = step.get(p.reg, bits);
      step.setRm(bits, doubleShift(step, opcode < 0xa8, value, other, count, bits));
      return true;
    }
    case 0xaf:
      step.set(p.reg, bits, multiply(step, step.get(p.reg, bits), step.getRm(bits), bits));
      return true;
    case 0xb0:
    case 0xb1: {
      const [destination, source] = [step.getRm(half), step.get(p.reg, half)];
      const accumulator = step.get(RAX, half);
      step.flags(ALL, step.sumFlags(accumulator, destination, 0n, half, true));
      if (accumulator === destination) step.setRm(half, source);
      else {
        if (p.memory !== undefined) step.setRm(half, destination);
        step.set(RAX, half, destination);
      }
      return true;
    }
    case 0xb6:
      step.set(p.reg, bits, step.getRm(8));
      return true;
    case 0xb7:
      step.set(p.reg, bits, step.getRm(16));
      return true;
    case 0xbe:
      step.set(p.reg, bits, wide(step.getRm(8), 8));
      return true;
    case 0xbf:
      step.set(p.reg, bits, wide(step.getRm(16), 16));
      return true;
    case 0xb8:
      if (p.pp !== 0xf3) return false;
      countBits(step, opcode, bits);
      return true;
    case 0xbc:
    case 0xbd: {
      if (p.pp === 0xf3) {
        countBits(step, opcode, bits);
        return true;
      }
      const source = step.getRm(bits);
      // A zero source leaves the destination alone (APM vol. 3).
      if (source !== 0n) {
        const text = source.toString(2);
        const last = text.length - 1;
        step.set(p.reg, bits, BigInt(opcode === 0xbd ? last : last - text.lastIndexOf("1")));
      }
      step.flags(ALL, source === 0n ? ZF : 0, ALL & ~ZF);
      return true;
    }
    case 0xc0:
    case 0xc1: {
      const [destination, source] = [step.getRm(half), step.get(p.reg, half)];
      step.flags(ALL, step.sumFlags(destination, source, 0n, half, false));
      step.set(p.reg, half, destination);
      step.setRm(half, destination + source);
      return true;
    }
    case 0xc3:
      step.setRm(bits, step.get(p.reg, bits));
      return true;
    case 0xc7: {
      if (p.group !== 1) return false;
      const size = p.wide ? 64 : 32;
      const at = step.address;
      if (p.wide && (at & 15n) !== 0n) throw new Fault("#13(0)");
      const bytes = size / 8;
      const low = state.load(at, bytes);
      const high = state.load(at + BigInt(bytes), bytes);
      const equal = low === step.get(RAX, size) && high === step.get(RDX, size);
      state.store(at, bytes, equal ? step.get(RBX, size) : low);
      state.store(at + BigInt(bytes), bytes, equal ? step.get(RCX, size) : high);
      if (!equal) {
        step.set(RAX, size, low);
        step.set(RDX, size, high);
      }
      step.flags(ZF, equal ? ZF : 0);
      return true;
    }
  }
  return false;
}

/** BMI1, BMI2 and CMPccXADD behind VEX or EVEX. */
function threeOperands(step: Step): boolean {
  const { p, state } = step;
  const bits = p.wide ? 64 : 32;
  const size = BigInt(bits);
  const set = (result: bigint): void => step.set(p.reg, bits, result);
  if (p.map === 3 && p.opcode === 0xf0) {
    const turn = cut(p.immediate, 8) % size;
    const value = step.getRm(bits);
    set((value >> turn) | (value << (size - turn)));
    return true;
  }
  if (p.map !== 2) return false;
  const v = step.get(p.v, bits);
  if ((p.opcode & 0xf0) === 0xe0) {
    const at = step.address;
    if (at % (size / 8n) !== 0n) throw new Fault("#13(0)");
    const [memory, compared] = [step.getRm(bits), step.get(p.reg, bits)];
    state.flags = step.sumFlags(memory, compared, 0n, bits, true);
    step.setRm(bits, holds(p.opcode & 15, state.flags) ? memory + v : memory);
    set(memory);
    return true;
  }
  const source = step.getRm(bits);
  switch (p.opcode) {
    case 0xf2: {
      const result = cut(~v, bits) & source;
      set(result);
      step.flags(ALL, step.resultFlags(result, bits), AF | PF);
      return true;
    }
    case 0xf3: {
      const results: Readonly<Record<number, bigint>> = {
        1: source & (source - 1n),
        2: source ^ (source - 1n),
        3: source & -source,
      };
      const result = results[p.group];
      if (result === undefined) return false;
      step.set(p.v, bits, result);
      const carry = (source === 0n) === (p.group !== 3);
      step.flags(ALL, step.resultFlags(result, bits) & ~PF | (carry ? CF : 0), AF | PF);
      return true;
    }
    case 0xf5: {
      if (p.pp === 0) {
        const index = Number(v & 0xffn);
        const result = index < bits ? source & mask(index) : source;
        set(result);
        const carry = index > bits - 1 ? CF : 0;
        step.flags(ALL, step.resultFlags(result, bits) | carry, AF | PF);
        return true;
      }
      let result = 0n;
      let at = 0n;
      for (let k = 0n; k < size; k++) {
        if (((source >> k) & 1n) === 0n) continue;
        if (p.pp === 0xf2) result |= ((v >> at) & 1n) << k;
        else result |= ((v >> k) & 1n) << at;
        at++;
      }
      set(result);
      return true;
    }
    case 0xf6: {
      const product = step.get(RDX, bits) * source;
      step.set(p.v, bits, product);
      set(product >> size);
      return true;
    }
    case 0xf7: {
      const count = v % size;
      if (p.pp === 0x66) set(source << count);
      else if (p.pp === 0xf2) set(source >> count);
      else if (p.pp === 0xf3) set(wide(source, bits) >> count);
      else {
        const start = v & 0xffn;
        const length = (v >> 8n) & 0xffn;
        const result = (source >> start) & ((1n << length) - 1n);
        set(result);
        step.flags(ALL, result === 0n ? ZF : 0, AF | SF | PF);
      }
      return true;
    }
  }
  return false;
}

/**
 * Carries out the instruction at the start of `bytes`. `undefined` if it is none that this evaluator
 * knows. A fault leaves the state as it was, which the caller has a copy of.
 */
export function evaluate(bytes: readonly number[], state: ReferenceState): Verdict | undefined {
  const p = parse(bytes);
  if (p === undefined) return undefined;
  const step = new Step(state, p);
  const rip = state.rip;
  try {
    let known: boolean;
    if (p.kind === "rex2") {
      known = p.map === 0 ? common(step) || oneByte(step) : twoByte(step);
    } else if (p.kind === "evex" && p.map === 4) known = promoted(step) || common(step);
    else known = threeOperands(step);
    if (!known) return undefined;
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    return { fault: error.message, undefinedFlags: 0 };
  }
  if (state.rip === rip) state.rip = rip + BigInt(p.length);
  return { undefinedFlags: step.undefinedFlags };
}
