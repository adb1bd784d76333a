/**
 * Shifts and rotates (APM vol. 3, ch. 3).
 *
 * Where the manual leaves OF undefined (counts other than 1) it is computed as for 1; AF is clear.
 *
 * @module
 */
import { Rflags } from "../microcode/registers.ts";
import { type I32, type I64, i64 } from "../wasm/mod.ts";
import { type Instruction, Reg, type Semantics } from "./instruction.ts";

const place = (bit: I64, mask: number): I32 => bit.wrap().and(1).mul(mask);

/** The count operand, masked as the processor masks it. */
function maskedCount(i: Instruction, k: number): I64 {
  const raw = k < i.operandCount ? i.unsigned(k) : i.reg(Reg.RCX, 8);
  return raw.and(i.bits === 64 ? 63 : 31);
}

/** What comes out, and what the flags would be, emitted where they are looked at. */
interface Shifted {
  readonly result: I64;
  readonly carry: () => I64;
  readonly overflow: () => I64;
}

type Shifter = (i: Instruction, value: I64, count: I64) => Shifted;

/** CF and OF in their places. */
const others = (carry: I64, overflow: I64): I32 =>
  place(carry, Rflags.CF).or(place(overflow, Rflags.OF));

/** A shift: all flags from the result, if the count is not 0. */
const shift = (signed: boolean, shifter: Shifter): Semantics => ({
  emit: (i) => {
    const { bits } = i;
    const value = signed ? i.modifySigned(0) : i.modifyUnsigned(0);
    const count = maskedCount(i, 1);
    const { result, carry, overflow } = shifter(i, value, count);
    i.write(0, result);
    i.flagsResult(bits, result, () => others(carry(), overflow()));
    i.flagsIf(count.ne(0), i.flags);
  },
});

const shl = shift(false, ({ bits }, value, count) => {
  const result = value.shl(count);
  const carry = () => bits === 64 ? value.shrU(i64(64).sub(count)) : result.shrU(bits);
  return { result, carry, overflow: () => result.shrU(bits - 1).xor(carry()) };
});

const shr = shift(false, ({ bits }, value, count) => ({
  result: value.shrU(count),
  carry: () => value.shrU(count.sub(1)),
  overflow: () => value.shrU(bits - 1),
}));

const sar = shift(true, (_, value, count) => ({
  result: value.shrS(count),
  carry: () => value.shrS(count.sub(1)),
  overflow: () => i64(0),
}));

/** A rotate: only CF and OF, if the count is not 0. */
function setRotateFlags(
  i: Instruction,
  count: I64,
  carry: () => I64,
  overflow: () => I64,
): void {
  i.flagsValue(() => i.flagBits().and(~(Rflags.CF | Rflags.OF)).or(others(carry(), overflow())));
  i.flagsIf(count.ne(0), i.flags);
}

const rotate = (left: boolean): Semantics => ({
  emit: (i) => {
    const { bits } = i;
    const value = i.modifyUnsigned(0);
    const count = maskedCount(i, 1);
    const turn = count.and(bits - 1);
    const back = i64(bits).sub(turn).and(bits - 1);
    const result = left
      ? value.shl(turn).or(value.shrU(back)).zeroExtend(bits)
      : value.shrU(turn).or(value.shl(back)).zeroExtend(bits);
    i.write(0, result);
    const top = () => result.shrU(bits - 1);
    setRotateFlags(
      i,
      count,
      () => left ? result : top(),
      () => top().xor(left ? result : result.shrU(bits - 2)),
    );
  },
});

/** RCL and RCR: a rotate of bits + 1 bits. */
const rotateCarry = (left: boolean): Semantics => ({
  emit: (i) => {
    const { bits } = i;
    const value = i.modifyUnsigned(0);
    const count = maskedCount(i, 1);
    const carryIn = i.carry().extendU();
    let result: I64;
    let carry: I64;
    if (bits === 64) {
      // Shifts by 64 are shifts by 0 to WebAssembly, so the last step is a shift by one more.
      const isZero = count.eqz();
      const rest = i64(64).sub(count);
      const turned = left
        ? value.shl(count).or(carryIn.shl(count.sub(1))).or(value.shrU(1).shrU(rest))
        : value.shrU(count).or(carryIn.shl(rest)).or(value.shl(1).shl(rest));
      result = isZero.select(value, turned);
      carry = left ? value.shrU(rest) : value.shrU(count.sub(1));
    } else {
      const width = bits + 1;
      const turn = bits === 32 ? count : count.remU(width);
      const wide = value.or(carryIn.shl(bits));
      const back = i64(width).sub(turn);
      const turned = left ? wide.shl(turn).or(wide.shrU(back)) : wide.shrU(turn).or(wide.shl(back));
      result = turned.zeroExtend(bits);
      carry = turned.shrU(bits);
    }
    i.write(0, result);
    const top = () => result.shrU(bits - 1);
    setRotateFlags(
      i,
      count,
      () => carry,
      () => top().xor(left ? carry : result.shrU(bits - 2)),
    );
  },
});

/** SHLD and SHRD; counts beyond a 16-bit operand, undefined, rotate in the destination itself. */
const doubleShift = (left: boolean): Semantics => ({
  emit: (i) => {
    const { bits } = i;
    const value = i.modifyUnsigned(0);
    const other = i.unsigned(1);
    const count = maskedCount(i, 2);
    const isZero = count.eqz();
    const rest = i64(bits).sub(count);
    let result: I64;
    let carry: I64;
    if (bits === 16) {
      // Three words in a row, so that counts up to 31 have something to shift in.
      const row = value.shl(32).or(other.shl(16)).or(value);
      result = left ? row.shl(count).shrU(32) : row.shrU(count);
      carry = left ? row.shl(count).shrU(48) : row.shrU(count.sub(1));
    } else {
      const shifted = left
        ? value.shl(count).or(other.shrU(rest))
        : value.shrU(count).or(other.shl(rest));
      result = isZero.select(value, shifted);
      carry = left ? value.shrU(rest) : value.shrU(count.sub(1));
    }
    const clean = result.zeroExtend(bits);
    i.write(0, clean);
    i.flagsResult(bits, clean, () => others(carry, clean.xor(value).shrU(bits - 1)));
    i.flagsIf(count.ne(0), i.flags);
  },
});

/** Shifts by mnemonic. */
export const SHIFTS: Readonly<Record<string, Semantics>> = {
  SHL: shl,
  SHR: shr,
  SAR: sar,
  ROL: rotate(true),
  ROR: rotate(false),
  RCL: rotateCarry(true),
  RCR: rotateCarry(false),
  SHLD: doubleShift(true),
  SHRD: doubleShift(false),
};
