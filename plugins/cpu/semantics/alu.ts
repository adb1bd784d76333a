/**
 * Integer arithmetic and logic (APM vol. 3, ch. 3).
 *
 * @module
 */
import { Vector } from "../microcode/raise.ts";
import { Rflags } from "../microcode/registers.ts";
import { type I32, i32, I32T, type I64, i64, I64T } from "../wasm/mod.ts";
import { type Instruction, Reg, type Semantics } from "./instruction.ts";

function binary(emit: (i: Instruction, a: I64, b: I64) => I64): Semantics {
  return {
    emit: (i) => {
      const b = i.isMemory(1) ? i.signed(1) : undefined;
      const a = i.modifySigned(0);
      i.write(0, emit(i, a, b ?? i.signed(1)));
    },
  };
}

const add = binary((i, a, b) => {
  const sum = a.add(b);
  i.flagsAdd(i.bits, sum, b);
  return sum;
});

const sub = binary((i, a, b) => {
  i.flagsSub(i.bits, a, b);
  return a.sub(b);
});

const adc = binary((i, a, b) => {
  const carry = i.carry();
  const sum = a.add(b).add(carry.extendU());
  i.flagsAdc(i.bits, sum, b, carry);
  return sum;
});

const sbb = binary((i, a, b) => {
  const borrow = i.carry();
  i.flagsSbb(i.bits, a, b, borrow);
  return a.sub(b).sub(borrow.extendU());
});

const logic = (operator: "and" | "or" | "xor"): Semantics =>
  binary((i, a, b) => {
    const result = a[operator](b);
    i.flagsLogic(i.bits, result);
    return result;
  });

const cmp: Semantics = {
  emit: (i) => i.flagsSub(i.bits, i.signed(0), i.signed(1)),
};

const test: Semantics = {
  emit: (i) => i.flagsLogic(i.bits, i.signed(0).and(i.signed(1))),
};

const incDec = (decrement: boolean): Semantics => ({
  emit: (i) => {
    const a = i.modifySigned(0);
    const result = decrement ? a.sub(1) : a.add(1);
    i.write(0, result);
    i.flagsIncDec(i.bits, result, decrement);
  },
});

const neg: Semantics = {
  emit: (i) => {
    const a = i.modifySigned(0);
    i.write(0, i64(0).sub(a));
    i.flagsSub(i.bits, i64(0), a);
  },
};

const not: Semantics = {
  emit: (i) => {
    const a = i.modifyUnsigned(0);
    i.write(0, a.xor(-1));
  },
};

/** CF and OF in their places, both equal to `overflow`. */
const carryOverflow = (overflow: I32): I32 => overflow.select(i32(Rflags.CF | Rflags.OF), i32(0));

/** High 64 bits of the unsigned product, from four 32-bit products. */
export function multiplyHigh(a: I64, b: I64): I64 {
  const al = a.and(0xffff_ffff);
  const ah = a.shrU(32);
  const bl = b.and(0xffff_ffff);
  const bh = b.shrU(32);
  const low = al.mul(bl);
  const middle = ah.mul(bl).add(low.shrU(32));
  const cross = al.mul(bh).add(middle.and(0xffff_ffff));
  return ah.mul(bh).add(middle.shrU(32)).add(cross.shrU(32));
}

/** High 64 bits of the signed product. */
function multiplyHighSigned(a: I64, b: I64): I64 {
  return multiplyHigh(a, b).sub(a.shrS(63).and(b)).sub(b.shrS(63).and(a));
}

/** One-operand MUL and IMUL: rDX:rAX := rAX × operand. SF, ZF, PF follow the low half, AF is clear. */
const multiply = (signed: boolean): Semantics => ({
  emit: (i) => {
    const { bits } = i;
    const b = signed ? i.signed(0) : i.unsigned(0);
    const a = signed ? i.regSigned(Reg.RAX, bits) : i.reg(Reg.RAX, bits);
    const product = a.mul(b);
    if (bits === 8) {
      i.setReg(Reg.RAX, 16, product);
      const overflow = signed ? product.extend8S().ne(product) : product.shrU(8).ne(0);
      i.flagsResult(8, product, carryOverflow(overflow));
      return;
    }
    const high = bits === 64
      ? (signed ? multiplyHighSigned(a, b) : multiplyHigh(a, b))
      : product.shrU(bits);
    const overflow = () =>
      bits === 64
        ? (signed ? high.ne(product.shrS(63)) : high.ne(0))
        : (signed ? product.signExtend(bits).ne(product) : high.ne(0));
    i.setReg(Reg.RAX, bits, product);
    i.setReg(Reg.RDX, bits, high);
    i.flagsResult(bits, product, () => carryOverflow(overflow()));
  },
});

/** IMUL: the two- and three-operand forms as well. */
const imul: Semantics = {
  emit: (i) => {
    if (i.operandCount === 1) {
      multiply(true).emit(i);
      return;
    }
    const { bits } = i;
    const three = i.operandCount === 3;
    const a = three ? i.signed(1) : i.signed(0);
    const b = three ? i.signed(2) : i.signed(1);
    const product = a.mul(b);
    const overflow = () =>
      bits === 64
        ? multiplyHighSigned(a, b).ne(product.shrS(63))
        : product.signExtend(bits).ne(product);
    i.write(0, product);
    i.flagsResult(bits, product, () => carryOverflow(overflow()));
  },
};

/** Long division of a 128-bit dividend by a 64-bit divisor; the quotient must fit. */
function divide128(i: Instruction, high: I64, low: I64, divisor: I64): [I64, I64] {
  const { f } = i;
  const quotient = f.variable(I64T, low);
  const remainder = f.variable(I64T, high);
  f.if(high.eqz(), () => {
    quotient.set(low.divU(divisor));
    remainder.set(low.remU(divisor));
  }, () => {
    // Restoring division, a bit a round; the carry out of the shift is a 65th bit.
    const round = f.variable(I32T, 64);
    f.loop((again) => {
      const top = remainder.get().shrU(63).wrap();
      const shifted = remainder.get().shl(1).or(quotient.get().shrU(63));
      const fits = top.or(shifted.geU(divisor));
      quotient.set(quotient.get().shl(1).or(fits.extendU()));
      remainder.set(fits.select(shifted.sub(divisor), shifted));
      round.set(round.get().sub(1));
      f.branchIf(round.get().ne(0), again);
    });
  });
  return [quotient.get(), remainder.get()];
}

/** DIV: #DE on zero and on a quotient that does not fit. Flags, undefined, stay. */
const div: Semantics = {
  emit: (i) => {
    const { bits } = i;
    const divisor = i.unsigned(0);
    i.faultIf(divisor.eqz(), Vector.DE);
    if (bits === 64) {
      const high = i.reg(Reg.RDX);
      i.faultIf(high.geU(divisor), Vector.DE);
      const [quotient, remainder] = divide128(i, high, i.reg(Reg.RAX), divisor);
      i.setReg(Reg.RAX, 64, quotient);
      i.setReg(Reg.RDX, 64, remainder);
      return;
    }
    const dividend = bits === 8
      ? i.reg(Reg.RAX, 16)
      : i.reg(Reg.RDX, bits).shl(bits).or(i.reg(Reg.RAX, bits));
    const quotient = dividend.divU(divisor);
    const remainder = dividend.remU(divisor);
    i.faultIf(quotient.shrU(bits).ne(0), Vector.DE);
    if (bits === 8) i.setReg(Reg.RAX, 16, quotient.or(remainder.shl(8)));
    else {
      i.setReg(Reg.RAX, bits, quotient);
      i.setReg(Reg.RDX, bits, remainder);
    }
  },
};

const absolute = (value: I64): I64 => value.ltS(0).select(i64(0).sub(value), value);

/** IDIV: as DIV, with the remainder taking the dividend's sign. */
const idiv: Semantics = {
  emit: (i) => {
    const { f, bits } = i;
    const divisor = i.signed(0);
    i.faultIf(divisor.eqz(), Vector.DE);
    if (bits === 64) {
      const high = i.reg(Reg.RDX);
      const low = i.reg(Reg.RAX);
      const negative = high.ltS(0);
      const lowMagnitude = negative.select(i64(0).sub(low), low);
      const borrow = low.ne(0).extendU();
      const highMagnitude = negative.select(i64(0).sub(high).sub(borrow), high);
      const divisorMagnitude = absolute(divisor);
      i.faultIf(highMagnitude.geU(divisorMagnitude), Vector.DE);
      const [quotient, remainder] = divide128(i, highMagnitude, lowMagnitude, divisorMagnitude);
      const negate = negative.ne(divisor.ltS(0));
      const result = negate.select(i64(0).sub(quotient), quotient);
      // A magnitude of 2^63 fits only if the quotient is negative.
      i.faultIf(quotient.ne(0).and(result.ltS(0).ne(negate)), Vector.DE);
      i.setReg(Reg.RAX, 64, result);
      i.setReg(Reg.RDX, 64, negative.select(i64(0).sub(remainder), remainder));
      return;
    }
    const dividend = bits === 8
      ? i.regSigned(Reg.RAX, 16)
      : i.regSigned(Reg.RDX, bits).shl(bits).or(i.reg(Reg.RAX, bits));
    // The one quotient that does not even fit in 64 bits would trap WebAssembly.
    if (bits === 32) {
      i.faultIf(divisor.eq(-1).and(dividend.eq(-(1n << 63n))), Vector.DE);
    }
    const quotient = f.variable(I64T, dividend.divS(divisor)).get();
    const remainder = dividend.remS(divisor);
    i.faultIf(quotient.signExtend(bits).ne(quotient), Vector.DE);
    if (bits === 8) {
      i.setReg(Reg.RAX, 16, quotient.and(0xff).or(remainder.shl(8)));
    } else {
      i.setReg(Reg.RAX, bits, quotient);
      i.setReg(Reg.RDX, bits, remainder);
    }
  },
};

const xadd: Semantics = {
  emit: (i) => {
    const b = i.signed(1);
    const a = i.modifySigned(0);
    const sum = a.add(b);
    // Where both operands are one register, the sum is what remains.
    if (!i.isMemory(0)) i.write(1, a);
    i.write(0, sum);
    if (i.isMemory(0)) i.write(1, a);
    i.flagsAdd(i.bits, sum, b);
  },
};

const cmpxchg: Semantics = {
  emit: (i) => {
    const { f, bits } = i;
    const destination = i.modifySigned(0);
    const accumulator = i.regSigned(Reg.RAX, bits);
    const source = i.signed(1);
    const equal = accumulator.eq(destination);
    // Memory is written in any case, with what it held if the comparison fails.
    if (i.isMemory(0)) i.write(0, equal.select(source, destination));
    else f.if(equal, () => i.write(0, source));
    f.if(equal.eqz(), () => i.setReg(Reg.RAX, bits, destination));
    i.flagsSub(bits, accumulator, destination);
  },
};

/** CMPXCHG8B, and CMPXCHG16B with REX.W: only ZF changes. */
const cmpxchg8b: Semantics = {
  operandSize: true,
  emit: (i) => {
    const { f } = i;
    const wide = i.bits === 64;
    const half = wide ? 64 : 32;
    const linear = i.address(half / 4, 1);
    if (wide) {
      // The 16-byte form must be aligned (APM vol. 3).
      i.faultIf(linear.and(15).ne(0), Vector.GP, 0);
    }
    const setFlags = (equal: I32): void => {
      const others = i.flagBits().and(~Rflags.ZF);
      i.flagsValue(others.or(equal.select(i32(Rflags.ZF), i32(0))));
    };
    if (!wide) {
      const value = i.loadForWrite(64, linear);
      const expected = i.reg(Reg.RDX, 32).shl(32).or(i.reg(Reg.RAX, 32));
      const equal = value.eq(expected);
      const replacement = i.reg(Reg.RCX, 32).shl(32).or(i.reg(Reg.RBX, 32));
      i.storeBack(64, equal.select(replacement, value));
      f.if(equal.eqz(), () => {
        i.setReg(Reg.RAX, 32, value);
        i.setReg(Reg.RDX, 32, value.shrU(32));
      });
      setFlags(equal);
      return;
    }
    const low = i.loadForWrite(64, linear);
    const high = i.load(64, linear.add(8));
    const equal = low.eq(i.reg(Reg.RAX)).and(high.eq(i.reg(Reg.RDX)));
    i.storeBack(64, equal.select(i.reg(Reg.RBX), low));
    i.store(64, linear.add(8), equal.select(i.reg(Reg.RCX), high));
    f.if(equal.eqz(), () => {
      i.setReg(Reg.RAX, 64, low);
      i.setReg(Reg.RDX, 64, high);
    });
    setFlags(equal);
  },
};

/** DAA and DAS (APM vol. 3): OF, undefined, is clear. */
const decimalAdjust = (subtract: boolean): Semantics => ({
  emit: (i) => {
    const flags = i.flagBits();
    const al = i.reg(Reg.RAX, 8).wrap();
    const low = al.and(15).gtU(9).or(flags.and(Rflags.AF).ne(0));
    const high = al.gtU(0x99).or(flags.and(Rflags.CF).ne(0));
    const step = low.select(i32(6), i32(0)).add(high.select(i32(0x60), i32(0)));
    const result = subtract ? al.sub(step) : al.add(step);
    // Borrowing in the low digit alone also sets CF for DAS.
    const carry = subtract ? high.or(low.and(al.ltU(6))) : high;
    i.setReg(Reg.RAX, 8, result.extendU());
    i.flagsResult(
      8,
      result.extendU(),
      carry.or(low.select(i32(Rflags.AF), i32(0))),
    );
  },
});

/** AAA and AAS: SF, ZF, PF, OF are undefined; they follow AL, OF is clear. */
const asciiAdjust = (subtract: boolean): Semantics => ({
  emit: (i) => {
    const ax = i.reg(Reg.RAX, 16).wrap();
    const adjust = ax.and(15).gtU(9).or(i.flagBits().and(Rflags.AF).ne(0));
    const step = adjust.select(i32(0x106), i32(0));
    const result = (subtract ? ax.sub(step) : ax.add(step)).and(0xff0f);
    i.setReg(Reg.RAX, 16, result.extendU());
    i.flagsResult(
      8,
      result.extendU(),
      adjust.select(i32(Rflags.CF | Rflags.AF), i32(0)),
    );
  },
});

const aam: Semantics = {
  emit: (i) => {
    const base = i.immediate().and(0xff);
    i.faultIf(base.eqz(), Vector.DE);
    const al = i.reg(Reg.RAX, 8);
    const result = al.remU(base);
    i.setReg(Reg.RAX, 16, al.divU(base).shl(8).or(result));
    i.flagsResult(8, result, i32(0));
  },
};

const aad: Semantics = {
  emit: (i) => {
    const ax = i.reg(Reg.RAX, 16);
    const result = ax.shrU(8).mul(i.immediate().and(0xff)).add(ax).and(0xff);
    i.setReg(Reg.RAX, 16, result);
    i.flagsResult(8, result, i32(0));
  },
};

/** Arithmetic and logic by mnemonic. */
export const ALU: Readonly<Record<string, Semantics>> = {
  ADD: add,
  OR: logic("or"),
  ADC: adc,
  SBB: sbb,
  AND: logic("and"),
  SUB: sub,
  XOR: logic("xor"),
  CMP: cmp,
  TEST: test,
  INC: incDec(false),
  DEC: incDec(true),
  NEG: neg,
  NOT: not,
  MUL: multiply(false),
  IMUL: imul,
  DIV: div,
  IDIV: idiv,
  XADD: xadd,
  CMPXCHG: cmpxchg,
  CMPXCHG8B: cmpxchg8b,
  DAA: decimalAdjust(false),
  DAS: decimalAdjust(true),
  AAA: asciiAdjust(false),
  AAS: asciiAdjust(true),
  AAM: aam,
  AAD: aad,
};
