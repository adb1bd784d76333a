/**
 * AVX and AVX2 forms of SSE's instructions: three operands, both lengths, upper parts cleared.
 *
 * @module
 */
import { Rflags } from "../../microcode/registers.ts";
import { MXCSR_BITS } from "../../microcode/extended_state.ts";
import { Vector } from "../../microcode/raise.ts";
import { S } from "../../state/cpu_state.ts";
import { type I32, i32, type V128, v128Of } from "../../wasm/mod.ts";
import { Approximations } from "../float/compare.ts";
import { DOUBLE, type Format, SINGLE } from "../float/format.ts";
import { finish, Part } from "../float/part.ts";
import type { Instruction, Semantics } from "../instruction.ts";
import type { Lanes } from "./arithmetic.ts";
import { fromInteger, toOther } from "./convert.ts";
import { CryptoUnit } from "./crypto.ts";
import {
  ALL_KINDS,
  compared,
  comparedFlags,
  CONVERSIONS,
  dotProduct,
  EVERY_KIND,
  type FloatBinary,
  integral,
  NARROWING,
  ofKinds,
  PACKED,
  PACKED_KINDS,
  SCALAR_KINDS,
  toGeneral,
  WIDENING,
} from "./float.ts";
import {
  type Binary,
  EXTENSIONS,
  FLOAT_LOGIC,
  LANE_MOVING,
  laneBytes,
  LANEWISE,
  UNARY,
  type Unary,
} from "./integer.ts";
import { AVX_MOVES } from "./avx_move.ts";
import { constant, mergeLow } from "./move.ts";
import { avx, partCount, readPart, readParts, writeParts } from "./parts.ts";
import { BYTE_SHIFT, SHIFT, type Shift } from "./shift.ts";
import { BY_CONSTANT, BY_MASK, type ByConstant, UNARY_BY_CONSTANT } from "./shuffle.ts";
import { carrylessOperand } from "./sse.ts";
import { sumsOfDifferences } from "./sums.ts";
import { compareText } from "./text.ts";
import { ZERO } from "./unit.ts";

/** A table's instructions under their names with V in front. */
export function vexed<T>(
  operations: Readonly<Record<string, T>>,
  make: (operation: T, name: string) => Semantics,
): Record<string, Semantics> {
  return Object.fromEntries(
    Object.entries(operations).map(([name, operation]) => [`V${name}`, make(operation, name)]),
  );
}

/** Both sources, each part with its like. */
export function pairs<T>(
  i: Instruction,
  compute: (a: V128, b: V128, part: number) => T,
): T[] {
  const b = readParts(i, 2);
  const a = readParts(i, 1);
  return b.map((value, k) => compute(a[k]!, value, k));
}

const binary = (operation: Binary): Semantics => avx((i) => writeParts(i, 0, pairs(i, operation)));

const unary = (operation: Unary): Semantics =>
  avx((i) => writeParts(i, 0, readParts(i, 1).map(operation)));

/** What 128 bits of source make two parts of: the second out of the upper half. */
export function widened(
  i: Instruction,
  operation: (a: V128, part: number) => V128,
  bytes: number,
): V128[] {
  const a = readPart(i, 1);
  if (partCount(i, 0) === 1) return [operation(a, 0)];
  const upper = a.shuffle(ZERO, Array.from({ length: 16 }, (_, k) => k + bytes));
  return joined(i, [a, upper], operation);
}

/**
 * Parts each of which may be computed in software or not: their exceptions are gathered, and end together.
 */
export function joined(
  i: Instruction,
  source: readonly V128[],
  operation: (a: V128, part: number) => V128,
): V128[] {
  if (source.length === 1) return [operation(source[0]!, 0)];
  const { f } = i;
  S.laneExceptions.set(f, 0);
  const results = source.map((a) => operation(a, Part.CONTINUES | Part.MORE));
  f.if(
    S.laneExceptions.get(f),
    () => {
      i.spill();
      f.call(finish);
    },
    undefined,
    "unlikely",
  );
  return results;
}

/** Bytes of source that a part of PMOVSX and PMOVZX takes, by the letters of both widths. */
const EXTENDED_BYTES: Readonly<Record<string, number>> = {
  BW: 8,
  BD: 4,
  BQ: 2,
  WD: 8,
  WQ: 4,
  DQ: 8,
};

/** The count is a constant, or the low quadword of a vector. */
const shift = (operation: Shift): Semantics =>
  avx((i) => {
    const count = i.form.operands[2]!.kind === "I" ? i.immediate() : readPart(i, 2).lane64(0);
    writeParts(i, 0, readParts(i, 1).map((a) => operation(a, count)));
  });

/** How the constant of the upper part follows from the instruction's. */
const UPPER_CONSTANT: Readonly<Record<string, (constant: I32) => I32>> = {
  SHUFPD: (constant) => constant.shrU(2),
  BLENDPS: (constant) => constant.shrU(4),
  BLENDPD: (constant) => constant.shrU(2),
  MPSADBW: (constant) => constant.shrU(3),
};

const byConstant = (operation: ByConstant, name: string): Semantics =>
  avx((i) => {
    const number = constant(i);
    const upper = UPPER_CONSTANT[name]?.(number) ?? number;
    writeParts(i, 0, pairs(i, (a, b, k) => operation(a, b, k === 0 ? number : upper)));
  });

/** The mask is in the register that the last byte names. */
const byMask = (operation: typeof BY_MASK[string]): Semantics =>
  avx((i) => {
    const address = i.immediate().wrap();
    writeParts(
      i,
      0,
      pairs(i, (a, b, k) => operation(a, b, i.f.load128(address, 16 * k))),
    );
  });

/** A scalar's lanes above the lowest are of the first source; packed square roots have one source. */
const float = (lanes: Lanes, compute: FloatBinary): Semantics =>
  avx((i) => {
    const last = i.operandCount - 1;
    const source = i.form.operands[last]!.kind === "I" ? last - 1 : last;
    const b = readParts(i, source);
    const a = source === 1 ? b : readParts(i, 1);
    writeParts(i, 0, compute(i, lanes, a, b));
  });

/** AVX knows predicates 0 to 31. */
const compare = (lanes: Lanes): Semantics =>
  avx((i) => {
    const b = readParts(i, 2);
    writeParts(i, 0, compared(i, lanes, constant(i).and(31), readParts(i, 1), b));
  });

const approximate = (which: keyof typeof Approximations, scalar: boolean): Semantics =>
  avx((i) => {
    if (scalar) {
      const b = i.f.call(Approximations[which], readPart(i, 2));
      writeParts(i, 0, [mergeLow(32, readPart(i, 1), b)]);
    } else writeParts(i, 0, readParts(i, 1).map((a) => i.f.call(Approximations[which], a)));
  });

/** Conversions to as many bits. */
const convert = (operation: typeof CONVERSIONS[string]): Semantics =>
  avx((i) => {
    const source = readParts(i, 1);
    writeParts(i, 0, joined(i, source, (a, part) => operation(i, a, part)));
  });

/** Conversions to half as many: the parts stand side by side. */
const narrow = (operation: typeof CONVERSIONS[string]): Semantics =>
  avx((i) => {
    const source = readParts(i, 1);
    const [low, high] = joined(i, source, (a, part) => operation(i, a, part));
    writeParts(i, 0, [high === undefined ? low! : low!.shuffle(high, laneBytes(8, [0, 2]))]);
  });

const fromGeneral = (format: Format): Semantics =>
  avx((i) => {
    const value = fromInteger(i, format, i.width(2), i.signed(2));
    writeParts(i, 0, [mergeLow(format.bits, readPart(i, 1), value)]);
  });

const scalarToOther = (from: Format): Semantics =>
  avx((i) => {
    const value = toOther(i, from, readPart(i, 2));
    writeParts(i, 0, [mergeLow(96 - from.bits, readPart(i, 1), value)]);
  });

/** VPTEST, VTESTPS and VTESTPD: ZF if no bit of b is one of a, CF if none is one that a has not. */
const test = (mask?: V128): Semantics =>
  avx((i) => {
    const b = readParts(i, 1);
    const a = readParts(i, 0);
    const none = (bits: (x: V128, y: V128) => V128): I32 =>
      b.map((value, k) => bits(value, a[k]!))
        .map((value) => mask === undefined ? value : value.and(mask))
        .reduce((x, y) => x.or(y)).test("v128.any_true").eqz();
    const zero = none((x, y) => x.and(y));
    const carry = none((x, y) => x.andNot(y));
    i.flagsValue(
      zero.select(i32(Rflags.ZF), i32(0)).or(carry.select(i32(Rflags.CF), i32(0))),
    );
  });

const called = (unit: typeof CryptoUnit.encrypt): Semantics =>
  avx((i) => {
    const b = readPart(i, 2);
    writeParts(i, 0, [i.f.call(unit, readPart(i, 1), b)]);
  });

const text = (explicit: boolean, index: boolean): Semantics =>
  avx((i) => {
    const b = readPart(i, 1);
    const write = index ? undefined : (mask: V128) => {
      i.f.store128(0, mask, S.vectors);
      i.f.store128(0, ZERO, S.vectors + 16);
    };
    compareText(i, readPart(i, 0), b, explicit, write);
  }, { operandSize: true });

const vldmxcsr: Semantics = avx((i) => {
  const value = i.unsigned(0).wrap();
  i.faultIf(value.and(~MXCSR_BITS), Vector.GP, 0);
  S.mxcsr.set(i.f, value);
});

/** Instructions by mnemonic. */
export const AVX: Readonly<Record<string, Semantics>> = {
  ...vexed(LANEWISE, binary),
  ...vexed(LANE_MOVING, binary),
  ...vexed(FLOAT_LOGIC, binary),
  ...vexed(UNARY, unary),
  ...vexed(
    EXTENSIONS,
    (operation, name) =>
      avx((i) => writeParts(i, 0, widened(i, operation, EXTENDED_BYTES[name.slice(-2)]!))),
  ),
  ...vexed({ ...SHIFT, ...BYTE_SHIFT }, shift),
  ...vexed({ ...BY_CONSTANT, MPSADBW: sumsOfDifferences }, byConstant),
  ...vexed(
    UNARY_BY_CONSTANT,
    (operation) =>
      avx((i) => writeParts(i, 0, readParts(i, 1).map((a) => operation(a, constant(i))))),
  ),
  ...vexed(BY_MASK, byMask),
  ...vexed(ofKinds(ALL_KINDS, EVERY_KIND, (lanes, compute) => float(lanes, compute)), (x) => x),
  ...vexed(ofKinds(PACKED_KINDS, PACKED, float), (x) => x),
  ...vexed(ofKinds(ALL_KINDS, { ROUND: integral }, float), (x) => x),
  ...vexed(ofKinds(PACKED_KINDS, { DP: dotProduct }, float), (x) => x),
  ...vexed(ofKinds(ALL_KINDS, { CMP: undefined }, compare), (x) => x),
  ...vexed(
    ofKinds(
      SCALAR_KINDS,
      { COMI: true, UCOMI: false },
      ({ format }, quietToo) =>
        avx((i) => comparedFlags(i, format, quietToo, (k) => readPart(i, k))),
    ),
    (x) => x,
  ),
  ...vexed(CONVERSIONS, convert),
  ...vexed(NARROWING, narrow),
  ...vexed(
    WIDENING,
    (operation) => avx((i) => writeParts(i, 0, widened(i, (a, part) => operation(i, a, part), 8))),
  ),
  VRCPPS: approximate("reciprocal", false),
  VRCPSS: approximate("reciprocal", true),
  VRSQRTPS: approximate("reciprocalRoot", false),
  VRSQRTSS: approximate("reciprocalRoot", true),
  VCVTSI2SS: fromGeneral(SINGLE),
  VCVTSI2SD: fromGeneral(DOUBLE),
  VCVTSS2SI: avx((i) => toGeneral(i, SINGLE, "mxcsr", readPart(i, 1))),
  VCVTSD2SI: avx((i) => toGeneral(i, DOUBLE, "mxcsr", readPart(i, 1))),
  VCVTTSS2SI: avx((i) => toGeneral(i, SINGLE, "zero", readPart(i, 1))),
  VCVTTSD2SI: avx((i) => toGeneral(i, DOUBLE, "zero", readPart(i, 1))),
  VCVTSS2SD: scalarToOther(SINGLE),
  VCVTSD2SS: scalarToOther(DOUBLE),
  VPTEST: test(),
  VTESTPS: test(v128Of(32, 0x8000_0000)),
  VTESTPD: test(v128Of(64, 1n << 63n)),
  VAESENC: called(CryptoUnit.encrypt),
  VAESENCLAST: called(CryptoUnit.encryptLast),
  VAESDEC: called(CryptoUnit.decrypt),
  VAESDECLAST: called(CryptoUnit.decryptLast),
  VAESIMC: avx((i) => writeParts(i, 0, [i.f.call(CryptoUnit.inverseMix, readPart(i, 1))])),
  VAESKEYGENASSIST: avx((i) =>
    writeParts(i, 0, [i.f.call(CryptoUnit.keyAssist, readPart(i, 1), constant(i))])
  ),
  VPCLMULQDQ: avx((i) => {
    const b = carrylessOperand(readPart(i, 2), constant(i).and(0x10));
    const a = carrylessOperand(readPart(i, 1), constant(i).and(1));
    writeParts(i, 0, [i.f.call(CryptoUnit.carryless, a, b)]);
  }),
  VPCMPESTRI: text(true, true),
  VPCMPESTRM: text(true, false),
  VPCMPISTRI: text(false, true),
  VPCMPISTRM: text(false, false),
  VLDMXCSR: vldmxcsr,
  VSTMXCSR: avx((i) => i.write(0, S.mxcsr.get(i.f).extendU())),
  ...AVX_MOVES,
};
