/**
 * MPSADBW (SDM vol. 2).
 *
 * @module
 */
import { type I32, splat, type V128, v128Lanes } from "../../wasm/mod.ts";

/** The numbers 0 to 15. */
const INDICES: V128 = v128Lanes(8, Array.from({ length: 16 }, (_, k) => k));
const LOW_FOUR: V128 = v128Lanes(8, [0, 1, 2, 3]);

/** Eight sums of four differences of bytes: of those of a from an offset on, and four bytes of b. */
export function sumsOfDifferences(a: V128, b: V128, constant: I32): V128 {
  const from = splat("i8x16", constant.shrU(2).and(1).shl(2));
  const blockFrom = splat("i8x16", constant.and(3).shl(2));
  const bytes = a.binary("i8x16.swizzle", INDICES.binary("i8x16.add", from));
  const block = b.binary("i8x16.swizzle", LOW_FOUR.binary("i8x16.add", blockFrom));
  return [0, 1, 2, 3].map((k) => {
    const window = bytes.shuffle(bytes, Array.from({ length: 16 }, (_, n) => (n + k) & 15))
      .unary("i16x8.extend_low_i8x16_u");
    const one = splat("i16x8", block.lane("i8x16", k));
    return window.binary("i16x8.sub", one).unary("i16x8.abs");
  }).reduce((x, y) => x.binary("i16x8.add", y));
}
