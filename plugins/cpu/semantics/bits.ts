/**
 * Bit test, scan, count and byte-order instructions (APM vol. 3, ch. 3).
 *
 * @module
 */
import { Rflags } from "../microcode/registers.ts";
import { type I32, i32, I32T, type I64, i64, I64T } from "../wasm/mod.ts";
import { sizeLog } from "./flags.ts";
import type { Instruction, Semantics } from "./instruction.ts";

/** What BTx does with the bit. */
type BitAction = (value: I64, mask: I64) => I64;

/** BT, BTS, BTR, BTC: a register offset into memory reaches beyond the operand. */
const bitTest = (action?: BitAction): Semantics => ({
  addressSize: true,
  code: true,
  emit: (i) => {
    const { bits } = i;
    const far = i.isMemory(0) && i.form.operands[1]!.kind === "R";
    const offset = far ? i.signed(1) : i.unsigned(1);
    const bit = offset.and(bits - 1);
    let value: I64;
    if (far) {
      const bytes = bits / 8;
      const delta = offset.shrS(sizeLog(bits) + 3).shl(sizeLog(bits));
      const linear = i.addressAt(delta, bytes, action === undefined ? 0 : 1);
      value = action === undefined ? i.load(bits, linear) : i.loadForWrite(bits, linear);
    } else value = action === undefined ? i.unsigned(0) : i.modifyUnsigned(0);
    if (action !== undefined) {
      const result = action(value, i64(1).shl(bit));
      if (far) i.storeBack(bits, result);
      else i.write(0, result);
    }
    // ZF is unchanged; OF, SF, AF and PF, undefined, are too.
    const others = i.flagBits().and(~Rflags.CF);
    i.flagsValue(others.or(value.shrU(bit).wrap().and(1)));
  },
});

/** BSF and BSR: a zero source sets ZF and leaves the destination as it is. */
const bitScan = (reverse: boolean): Semantics => ({
  emit: (i) => {
    const { f } = i;
    const source = i.unsigned(1);
    const index = reverse ? i64(63).sub(source.clz()) : source.ctz();
    f.if(source.ne(0), () => i.write(0, index));
    // The other flags, undefined, follow from comparing the source with zero, in 64 bits, which one of 32 bits
    // is not below. Nor may it be in 32 bits, so that its uppermost bit goes where only zero is told from it.
    const compared = i.bits === 32 ? source.and(0x7fff_ffff).or(source.shrU(31).shl(8)) : source;
    i.flagsLogic(64, compared);
  },
});

const zeroCarry = (i: Instruction, source: I64, result: I64): void => {
  i.flagsValue(
    source.eqz().select(i32(Rflags.CF), i32(0))
      .or(result.eqz().select(i32(Rflags.ZF), i32(0))),
  );
};

const tzcnt: Semantics = {
  emit: (i) => {
    const { bits } = i;
    const source = i.unsigned(1);
    const count = source.eqz().select(i64(bits), source.ctz());
    i.write(0, count);
    zeroCarry(i, source, count);
  },
};

const lzcnt: Semantics = {
  emit: (i) => {
    const source = i.unsigned(1);
    const count = source.clz().sub(64 - i.bits);
    i.write(0, count);
    zeroCarry(i, source, count);
  },
};

const popcnt: Semantics = {
  emit: (i) => {
    const source = i.unsigned(1);
    i.write(0, source.popcnt());
    i.flagsValue(source.eqz().select(i32(Rflags.ZF), i32(0)));
  },
};

/** The bytes of the low `bits` of `value` in reverse. */
export function swapBytes(value: I64, bits: number): I64 {
  const pairs = value.and(0x00ff_00ff_00ff_00ffn).shl(8)
    .or(value.shrU(8).and(0x00ff_00ff_00ff_00ffn));
  const words = pairs.and(0x0000_ffff_0000_ffffn).shl(16)
    .or(pairs.shrU(16).and(0x0000_ffff_0000_ffffn));
  return words.rotl(32).shrU(64 - bits);
}

/** BSWAP; of a 16-bit register, undefined, it clears the word. */
const bswap: Semantics = {
  emit: (i) => {
    i.write(0, i.bits === 16 ? i64(0) : swapBytes(i.unsigned(0), i.bits));
  },
};

const movbe: Semantics = {
  emit: (i) => i.write(0, swapBytes(i.unsigned(1), i.bits)),
};

/** CRC32: the reflected Castagnoli polynomial, a bit a round. */
const crc32: Semantics = {
  emit: (i) => {
    const { f } = i;
    const bits = i.width(1);
    const low = i.unsigned(1);
    const crc = f.variable(I64T, i.unsigned(0).and(0xffff_ffff));
    const rest = f.variable(I64T, low);
    const round = f.variable(I32T, bits);
    f.loop((again) => {
      const bit = crc.get().xor(rest.get()).and(1);
      crc.set(crc.get().shrU(1).xor(i64(0).sub(bit).and(0x82f6_3b78)));
      rest.set(rest.get().shrU(1));
      round.set(round.get().sub(1));
      f.branchIf(round.get().ne(0), again);
    });
    i.write(0, crc.get());
  },
};

/** ADCX and ADOX: an addition that carries in and out of one flag and leaves the rest. */
const addWithFlag = (mask: number, shift: number): Semantics => ({
  emit: (i) => {
    const { bits } = i;
    const a = i.unsigned(0);
    const b = i.unsigned(1);
    const flags = i.flagBits();
    const carry = flags.shrU(shift).and(1).extendU();
    const partial = a.add(b);
    const sum = partial.add(carry);
    const out: I32 = bits === 64
      ? partial.ltU(a).or(sum.ltU(partial))
      : sum.shrU(bits).wrap().and(1);
    i.write(0, sum);
    i.flagsValue(flags.and(~mask).or(out.shl(shift)));
  },
});

/** Bit instructions by mnemonic. */
export const BITS: Readonly<Record<string, Semantics>> = {
  BT: bitTest(),
  BTS: bitTest((value, mask) => value.or(mask)),
  BTR: bitTest((value, mask) => value.and(mask.xor(-1))),
  BTC: bitTest((value, mask) => value.xor(mask)),
  BSF: bitScan(false),
  BSR: bitScan(true),
  TZCNT: tzcnt,
  LZCNT: lzcnt,
  POPCNT: popcnt,
  BSWAP: bswap,
  MOVBE: movbe,
  CRC32: crc32,
  ADCX: addWithFlag(Rflags.CF, 0),
  ADOX: addWithFlag(Rflags.OF, 11),
};
