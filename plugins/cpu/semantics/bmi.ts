/**
 * BMI1 and BMI2: bit manipulation with three operands (APM vol. 3, ch. 3).
 *
 * The maps give the operands as destination, register in V, register or memory, or with the last two
 * exchanged where the manual has the register in V last.
 *
 * @module
 */
import { Rflags } from "../microcode/registers.ts";
import { type I32, i32, type I64, i64, I64T } from "../wasm/mod.ts";
import { multiplyHigh } from "./alu.ts";
import { type Instruction, Reg, type Semantics } from "./instruction.ts";

const carryIf = (condition: I32): I32 => condition.select(i32(Rflags.CF), i32(0));

const andn: Semantics = {
  emit: (i) => {
    const result = i.unsigned(1).xor(-1).and(i.unsigned(2));
    i.write(0, result);
    i.flagsLogic(i.bits, result);
  },
};

/** BLSR, BLSMSK, BLSI: what they make of the source, and whether a zero source sets or clears CF. */
const lowestBit = (operation: (source: I64) => I64, carryOfZero: boolean): Semantics => ({
  emit: (i) => {
    const source = i.unsigned(1);
    const result = operation(source);
    i.write(0, result);
    i.flagsResult(i.bits, result, carryIf(carryOfZero ? source.eqz() : source.ne(0)));
  },
});

const bzhi: Semantics = {
  emit: (i) => {
    const { bits } = i;
    const source = i.unsigned(1);
    const index = i.unsigned(2).and(0xff);
    const beyond = index.gtU(bits - 1);
    // A shift by 64 is one by 0 to WebAssembly, but then all bits are kept anyway.
    const result = beyond.select(source, source.and(i64(1).shl(index).sub(1)));
    i.write(0, result);
    i.flagsResult(bits, result, carryIf(beyond));
  },
};

const bextr: Semantics = {
  emit: (i) => {
    const { bits } = i;
    const source = i.unsigned(1);
    const control = i.unsigned(2);
    const start = control.and(0xff);
    const length = control.shrU(8).and(0xff);
    const shifted = start.gtU(bits - 1).select(i64(0), source.shrU(start));
    const masked = shifted.and(i64(1).shl(length).sub(1));
    const result = length.gtU(63).select(shifted, masked);
    i.write(0, result);
    i.flagsResult(bits, result, i32(0));
  },
};

/** PDEP and PEXT, a bit of the mask a round. */
const scatter = (deposit: boolean): Semantics => ({
  emit: (i) => {
    const { f } = i;
    const source = f.variable(I64T, i.unsigned(1));
    const mask = f.variable(I64T, i.unsigned(2));
    const result = f.variable(I64T, 0);
    const place = f.variable(I64T, 1);
    f.while(() => mask.get().ne(0), () => {
      const lowest = mask.get().and(i64(0).sub(mask.get()));
      const [from, to] = deposit ? [place.get(), lowest] : [lowest, place.get()];
      const set = source.get().and(from).ne(0);
      result.set(set.select(result.get().or(to), result.get()));
      mask.set(mask.get().and(mask.get().sub(1)));
      place.set(place.get().shl(1));
    });
    i.write(0, result.get());
  },
});

/** MULX: the high half goes to the first operand, which wins if both are one register. */
const mulx: Semantics = {
  emit: (i) => {
    const { bits } = i;
    const a = i.reg(Reg.RDX, bits);
    const b = i.unsigned(2);
    const low = a.mul(b);
    const high = bits === 64 ? multiplyHigh(a, b) : low.shrU(32);
    i.write(1, low);
    i.write(0, high);
  },
};

const count = (i: Instruction): I64 => i.unsigned(2).and(i.bits - 1);

const shiftWithoutFlags = (emit: (i: Instruction) => I64): Semantics => ({
  emit: (i) => i.write(0, emit(i)),
});

const rorx = shiftWithoutFlags((i) => {
  const value = i.unsigned(1);
  const turn = count(i);
  const back = i64(i.bits).sub(turn).and(i.bits - 1);
  return value.shrU(turn).or(value.shl(back));
});

/** BMI1 and BMI2 by mnemonic. */
export const BMI: Readonly<Record<string, Semantics>> = {
  ANDN: andn,
  BLSR: lowestBit((source) => source.and(source.sub(1)), true),
  BLSMSK: lowestBit((source) => source.xor(source.sub(1)), true),
  BLSI: lowestBit((source) => source.and(i64(0).sub(source)), false),
  BZHI: bzhi,
  BEXTR: bextr,
  PDEP: scatter(true),
  PEXT: scatter(false),
  MULX: mulx,
  RORX: rorx,
  SHLX: shiftWithoutFlags((i) => i.unsigned(1).shl(count(i))),
  SHRX: shiftWithoutFlags((i) => i.unsigned(1).shrU(count(i))),
  SARX: shiftWithoutFlags((i) => i.signed(1).shrS(count(i))),
};
