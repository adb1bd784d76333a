/**
 * AVX and AVX2 moves, broadcasts, permutations and accesses under a mask (SDM vol. 2; APM vol. 4).
 *
 * @module
 */
import { MicroOp } from "../../engine/block_layout.ts";
import { vectorAddress } from "../../state/cpu_state.ts";
import { type I32, type I64, i64, splat, type V128, v128Of } from "../../wasm/mod.ts";
import type { Semantics } from "../instruction.ts";
import { laneBytes } from "./integer.ts";
import { constant, everywhere, extracted, inserted, maskedStore, mergeLow } from "./move.ts";
import type { Alignment } from "./operands.ts";
import { avx, partCount, readPart, readParts, storeParts, writeParts } from "./parts.ts";
import {
  allBits,
  BY_CONSTANT,
  doublewordIndices,
  insertDoubleword,
  insertSingle,
  UNARY_BY_CONSTANT,
} from "./shuffle.ts";
import { VectorUnit, ZERO } from "./unit.ts";

/** A move of all of a vector. */
const full = (alignment: Alignment): Semantics =>
  avx((i) => {
    if (i.isMemory(0)) storeParts(i, 0, readParts(i, 1), alignment);
    else writeParts(i, 0, readParts(i, 1, alignment));
  });

/** VMOVSS and VMOVSD: between registers the upper part is the first source's. */
const scalar = (bits: 32 | 64): Semantics =>
  avx((i) => {
    if (i.isMemory(0)) i.write(0, readPart(i, 1).lane64(0));
    else if (i.isMemory(1)) writeParts(i, 0, [readPart(i, 1)]);
    else writeParts(i, 0, [mergeLow(bits, readPart(i, 1), readPart(i, 2))]);
  });

/** VMOVLPS and the like: one half of a register and memory. */
const half = (number: 0 | 1): Semantics =>
  avx((i) => {
    if (i.isMemory(0)) i.write(0, readPart(i, 1).lane64(number));
    else {
      const value = readPart(i, 2);
      const lanes = number === 0 ? [2, 1] : [0, 2];
      writeParts(i, 0, [readPart(i, 1).shuffle(value, laneBytes(8, lanes))]);
    }
  });

const halves = (lanes: readonly number[]): Semantics =>
  avx((i) => writeParts(i, 0, [readPart(i, 1).shuffle(readPart(i, 2), laneBytes(8, lanes))]));

const general: Semantics = avx((i) => {
  if (i.form.operands[0]!.kind === "V") {
    writeParts(i, 0, [ZERO.withLane64(0, i.unsigned(1))]);
  } else i.write(0, readPart(i, 1).lane64(0));
});

const low: Semantics = avx((i) => {
  const value = readPart(i, 1).lane64(0);
  if (i.isMemory(0)) i.write(0, value);
  else writeParts(i, 0, [ZERO.withLane64(0, value)]);
});

const signs = (name: "i8x16" | "i32x4" | "i64x2", lanes: number): Semantics =>
  avx((i) => {
    const bits = readParts(i, 1)
      .map((a, k) => a.test(`${name}.bitmask`).shl(lanes * k))
      .reduce((x, y) => x.or(y));
    i.write(0, bits.extendU());
  });

const insert = (bits?: 8 | 16): Semantics =>
  avx((i) => {
    const width = bits ?? (i.width(2) === 64 ? 64 : 32);
    const value = i.unsigned(2);
    writeParts(i, 0, [inserted(width, readPart(i, 1), value, constant(i))]);
  });

const extract = (bits?: 8 | 16): Semantics =>
  avx((i) => i.write(0, extracted(bits ?? i.width(0), readPart(i, 1), constant(i))));

const vinsertps: Semantics = avx((i) => {
  const number = constant(i);
  if (i.isMemory(2)) {
    const value = splat("i32x4", i.unsigned(2).wrap());
    writeParts(i, 0, [insertDoubleword(readPart(i, 1), value, number)]);
  } else writeParts(i, 0, [insertSingle(readPart(i, 1), readPart(i, 2), number)]);
});

/** The low element in all lanes. */
const broadcast = (bits: 8 | 16 | 32 | 64): Semantics =>
  avx((i) => {
    const value = everywhere(bits, readPart(i, 1).lane64(0));
    writeParts(i, 0, Array.from({ length: partCount(i, 0) }, () => value));
  });

const broadcast128: Semantics = avx((i) => {
  const value = readPart(i, 1);
  writeParts(i, 0, [value, value]);
});

/** VPERMILPS: doublewords by two bits each, of a vector or the constant. */
const permuteSingles: Semantics = avx((i) => {
  const byConstant = i.form.operands[2]!.kind === "I";
  const source = readParts(i, byConstant ? 1 : 2);
  if (byConstant) {
    writeParts(i, 0, source.map((a) => UNARY_BY_CONSTANT.PSHUFD!(a, constant(i))));
    return;
  }
  const values = readParts(i, 1);
  writeParts(
    i,
    0,
    source.map((indices, k) =>
      values[k]!.binary("i8x16.swizzle", doublewordIndices(indices.and(v128Of(32, 3))))
    ),
  );
});

/** VPERMILPD: quadwords by bit 1 of each quadword, or by a bit of the constant for each. */
const permuteDoubles: Semantics = avx((i) => {
  const byConstant = i.form.operands[2]!.kind === "I";
  const source = readParts(i, byConstant ? 1 : 2);
  if (byConstant) {
    const number = constant(i);
    writeParts(i, 0, source.map((a, k) => BY_CONSTANT.SHUFPD!(a, a, number.shrU(2 * k))));
    return;
  }
  const values = readParts(i, 1);
  writeParts(
    i,
    0,
    source.map((indices, k) => {
      const bit = v128Of(64, 2);
      const high = indices.and(bit).binary("i64x2.eq", bit);
      const a = values[k]!;
      return a.shuffle(a, laneBytes(8, [1, 1])).select(a.shuffle(a, laneBytes(8, [0, 0])), high);
    }),
  );
});

/** One of four by two bits of `number`. */
function oneOf(values: readonly V128[], number: I32): V128 {
  const odd = allBits(number.and(1));
  const high = allBits(number.and(2));
  return values[3]!.select(values[2]!, odd).select(values[1]!.select(values[0]!, odd), high);
}

/** VPERM2F128 and VPERM2I128: halves of both sources, or zeros. */
const permuteHalves: Semantics = avx((i) => {
  const b = readParts(i, 2);
  const values = [...readParts(i, 1), ...b];
  const number = constant(i);
  writeParts(
    i,
    0,
    [0, 4].map((at) => {
      const field = number.shrU(at);
      return oneOf(values, field).andNot(allBits(field.and(8)));
    }),
  );
});

const insertHalf: Semantics = avx((i) => {
  const value = readPart(i, 2);
  const [first, second] = readParts(i, 1) as [V128, V128];
  const high = allBits(constant(i).and(1));
  writeParts(i, 0, [first.select(value, high), value.select(second, high)]);
});

const extractHalf: Semantics = avx((i) => {
  const [first, second] = readParts(i, 1) as [V128, V128];
  const value = second.select(first, allBits(constant(i).and(1)));
  if (i.isMemory(0)) storeParts(i, 0, [value]);
  else writeParts(i, 0, [value]);
});

/** VPERMQ and VPERMPD: quadwords of 256 bits by two bits of the constant each. */
const permuteQuadwords: Semantics = avx((i) => {
  const quads = readParts(i, 1).flatMap((a) => [a.lane64(0), a.lane64(1)]);
  const number = constant(i);
  const chosen = [0, 1, 2, 3].map((k): I64 => {
    const field = number.shrU(2 * k);
    const odd = field.and(1);
    return field.and(2).select(odd.select(quads[3]!, quads[2]!), odd.select(quads[1]!, quads[0]!));
  });
  writeParts(
    i,
    0,
    [0, 2].map((k) => ZERO.withLane64(0, chosen[k]!).withLane64(1, chosen[k + 1]!)),
  );
});

/** VPERMD and VPERMPS: doublewords of 256 bits by the numbers in the first source. */
const permuteDoublewords: Semantics = avx((i) => {
  const [first, second] = readParts(i, 2) as [V128, V128];
  writeParts(
    i,
    0,
    readParts(i, 1).map((numbers) => {
      const indices = doublewordIndices(numbers.and(v128Of(32, 7)));
      const beyond = indices.binary("i8x16.sub", v128Of(8, 16));
      return first.binary("i8x16.swizzle", indices).or(second.binary("i8x16.swizzle", beyond));
    }),
  );
});

/** VPBLENDD. */
const blendDoublewords: Semantics = avx((i) => {
  const b = readParts(i, 2);
  const a = readParts(i, 1);
  const number = constant(i);
  writeParts(i, 0, b.map((value, k) => BY_CONSTANT.BLENDPS!(a[k]!, value, number.shrU(4 * k))));
});

/** VPSLLV, VPSRLV, VPSRAV: each lane by the like lane of the second source. */
const shiftEach = (bits: 32 | 64, name: "shl" | "shrU" | "shrS"): Semantics =>
  avx((i) => {
    const counts = readParts(i, 2);
    const lanes = readParts(i, 1).map((a, part) => {
      let result = a;
      for (let k = 0; k < 128 / bits; k++) {
        const lane = (of: V128): I64 => bits === 64 ? of.lane64(k) : of.lane("i32x4", k).extendU();
        const count = lane(counts[part]!);
        const value = name === "shrS" ? lane(a).signExtend(bits) : lane(a);
        const most = i64(bits - 1);
        const fits = count.leU(most);
        const shifted = name === "shrS"
          ? value.shrS(fits.select(count, most))
          : fits.select(value[name](count), i64(0));
        result = bits === 64
          ? result.withLane64(k, shifted)
          : result.withLane("i32x4", k, shifted.wrap());
      }
      return result;
    });
    writeParts(i, 0, lanes);
  });

/** VMASKMOVPS and the like: elements whose mask is negative; the others are not accessed. */
const masked = (bits: 32 | 64): Semantics =>
  avx((i) => {
    const { f } = i;
    const parts = partCount(i, i.isMemory(0) ? 2 : 0);
    const masks = readParts(i, 1);
    const access = i.isMemory(0) ? 1 : 0;
    const linear = i.address(16 * parts, access);
    i.spill();
    if (access === 0) {
      writeParts(
        i,
        0,
        masks.map((mask, k) => f.call(VectorUnit.loadElements, linear.add(16 * k), mask, bits / 8)),
      );
      return;
    }
    const values = readParts(i, 2);
    // All are checked before the first is stored.
    for (const [k, mask] of masks.entries()) {
      f.call(VectorUnit.probeElements, linear.add(16 * k), mask, bits / 8);
    }
    for (const [k, mask] of masks.entries()) {
      f.call(VectorUnit.storeElements, linear.add(16 * k), values[k]!, mask, bits / 8);
    }
  });

/**
 * Gathers: an element is loaded if its mask is negative, from the base moved by its scaled index. Each
 * one that has been loaded is in the destination and has its mask cleared, so that a fault in the middle
 * leaves what the manual describes.
 */
const gather = (indexBits: 32 | 64, bits: 32 | 64): Semantics => ({
  ...avx((i) => {
    const { f } = i;
    const indices = i.immediate().wrap();
    const destination = i.vectorAddress(0);
    const mask = i.vectorAddress(2);
    const scale = f.load8(i.recordAddress(), MicroOp.ADDRESSING).and(3).extendU();
    const count = i.width(3) / Math.max(indexBits, bits);
    const bytes = bits / 8;
    for (let k = 0; k < count; k++) {
      const at = k * bytes;
      f.if(f.loadS(bits, mask, at).ltS(0), () => {
        const index = f.loadS(indexBits, indices, k * indexBits / 8).shl(scale);
        const value = i.load(bits, i.addressAt(index, bytes, 0));
        f.storeLow(bits, destination, value, at);
        f.storeLow(bits, mask, i64(0), at);
      });
    }
    f.fill(mask, 0, 32);
    const used = count * bytes;
    if (used < 32) f.fill(destination.add(used), 0, 32 - used);
  }),
  addressSize: true,
  code: true,
});

/** VZEROUPPER and VZEROALL: of the registers that the mode has. */
const zero = (whole: boolean): Semantics => ({
  ...avx((i) => {
    const count = i.code === 64 ? 16 : 8;
    for (let n = 0; n < count; n++) {
      if (whole) i.f.store128(0, ZERO, vectorAddress(n));
      i.f.store128(0, ZERO, vectorAddress(n) + 16);
    }
  }),
  code: true,
});

/** Instructions by mnemonic. */
export const AVX_MOVES: Readonly<Record<string, Semantics>> = {
  VMOVAPS: full("aligned"),
  VMOVAPD: full("aligned"),
  VMOVDQA: full("aligned"),
  VMOVNTPS: full("aligned"),
  VMOVNTPD: full("aligned"),
  VMOVNTDQ: full("aligned"),
  VMOVNTDQA: full("aligned"),
  VMOVUPS: full("any"),
  VMOVUPD: full("any"),
  VMOVDQU: full("any"),
  VLDDQU: full("any"),
  VMOVSS: scalar(32),
  VMOVSD: scalar(64),
  VMOVLPS: half(0),
  VMOVLPD: half(0),
  VMOVHPS: half(1),
  VMOVHPD: half(1),
  VMOVHLPS: halves([3, 1]),
  VMOVLHPS: halves([0, 2]),
  VMOVD: general,
  VMOVQ: low,
  VMOVMSKPS: signs("i32x4", 4),
  VMOVMSKPD: signs("i64x2", 2),
  VPMOVMSKB: signs("i8x16", 16),
  VPINSRB: insert(8),
  VPINSRW: insert(16),
  VPINSRD: insert(),
  VPEXTRB: extract(8),
  VPEXTRW: extract(16),
  VPEXTRD: extract(),
  VEXTRACTPS: extract(),
  VINSERTPS: vinsertps,
  VMASKMOVDQU: {
    ...avx((i) => maskedStore(i, readPart(i, 0), readPart(i, 1))),
    addressSize: true,
  },
  VBROADCASTSS: broadcast(32),
  VBROADCASTSD: broadcast(64),
  VPBROADCASTB: broadcast(8),
  VPBROADCASTW: broadcast(16),
  VPBROADCASTD: broadcast(32),
  VPBROADCASTQ: broadcast(64),
  VBROADCASTF128: broadcast128,
  VBROADCASTI128: broadcast128,
  VPERMILPS: permuteSingles,
  VPERMILPD: permuteDoubles,
  VPERM2F128: permuteHalves,
  VPERM2I128: permuteHalves,
  VINSERTF128: insertHalf,
  VINSERTI128: insertHalf,
  VEXTRACTF128: extractHalf,
  VEXTRACTI128: extractHalf,
  VPERMQ: permuteQuadwords,
  VPERMPD: permuteQuadwords,
  VPERMD: permuteDoublewords,
  VPERMPS: permuteDoublewords,
  VPBLENDD: blendDoublewords,
  VPSLLVD: shiftEach(32, "shl"),
  VPSLLVQ: shiftEach(64, "shl"),
  VPSRLVD: shiftEach(32, "shrU"),
  VPSRLVQ: shiftEach(64, "shrU"),
  VPSRAVD: shiftEach(32, "shrS"),
  VMASKMOVPS: masked(32),
  VMASKMOVPD: masked(64),
  VPMASKMOVD: masked(32),
  VPMASKMOVQ: masked(64),
  VPGATHERDD: gather(32, 32),
  VPGATHERDQ: gather(32, 64),
  VPGATHERQD: gather(64, 32),
  VPGATHERQQ: gather(64, 64),
  VGATHERDPS: gather(32, 32),
  VGATHERDPD: gather(32, 64),
  VGATHERQPS: gather(64, 32),
  VGATHERQPD: gather(64, 64),
  VZEROUPPER: zero(false),
  VZEROALL: zero(true),
};
