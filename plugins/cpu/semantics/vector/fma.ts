/**
 * FMA: fused multiply-add in its three orders of operands, and F16C (SDM vol. 2; APM vol. 4).
 *
 * WebAssembly has no fused multiply-add whose result is certain, so that all of it is software.
 *
 * @module
 */
import { roundingControl } from "../float/format.ts";
import { Negated } from "../float/fused.ts";
import { Halves } from "../float/half.ts";
import { floats } from "../float/references.ts";
import type { Semantics } from "../instruction.ts";
import { inSoftware, type Lanes } from "./arithmetic.ts";
import { joined, widened } from "./avx.ts";
import { ALL_KINDS, ofKinds, PACKED_KINDS } from "./float.ts";
import { laneBytes } from "./integer.ts";
import { constant } from "./move.ts";
import { avx, readParts, storeParts, writeParts } from "./parts.ts";

const { PRODUCT, ADDEND, ODD } = Negated;
/** The same in even and odd lanes. */
const both = (negated: number): number => negated | (negated << ODD);

/** What is negated, by mnemonic. */
const OPERATIONS: Readonly<Record<string, number>> = {
  VFMADD: 0,
  VFMSUB: both(ADDEND),
  VFNMADD: both(PRODUCT),
  VFNMSUB: both(PRODUCT | ADDEND),
};
/** Those that alternate: even lanes, odd lanes. */
const ALTERNATING: Readonly<Record<string, number>> = {
  VFMADDSUB: ADDEND,
  VFMSUBADD: ADDEND << ODD,
};
/** Which operands are multiplied with each other, and which one is added. */
const ORDERS: Readonly<Record<string, readonly [number, number, number]>> = {
  "132": [0, 2, 1],
  "213": [1, 0, 2],
  "231": [1, 2, 0],
};

const fused = (
  { format, count }: Lanes,
  negated: number,
  [first, second, third]: readonly [number, number, number],
): Semantics =>
  avx((i) => {
    const sources = [2, 1, 0].map((k) => readParts(i, k)).reverse();
    const base = sources[0]!;
    const results = inSoftware(i, count, sources[2]!.length, (k, part) => {
      const [a, b, c] = [first, second, third].map((n) => sources[n]![k]!);
      return i.f.call(floats(format).fusedVector, base[k]!, a!, b!, c!, negated, part);
    });
    writeParts(i, 0, results);
  });

function orders(kinds: readonly string[], table: typeof OPERATIONS): Record<string, Semantics> {
  return Object.fromEntries(
    Object.entries(ORDERS).flatMap(([order, operands]) =>
      Object.entries(ofKinds(
        kinds,
        Object.fromEntries(Object.entries(table).map(([name, value]) => [name + order, value])),
        (lanes, negated) => fused(lanes, negated, operands),
      ))
    ),
  );
}

const toSingles: Semantics = avx((i) => {
  i.spill();
  writeParts(i, 0, widened(i, (a, part) => i.f.call(Halves.toSingles, a, part), 8));
});

/** Bit 2 of the constant takes MXCSR's rounding, else bits 1:0 are it. */
const fromSingles: Semantics = avx((i) => {
  const number = constant(i);
  const rounding = number.and(4).select(roundingControl(i.f), number.and(3));
  const source = readParts(i, 1);
  i.spill();
  const [low, high] = joined(
    i,
    source,
    (a, part) => i.f.call(Halves.fromSingles, a, rounding, part),
  );
  if (i.isMemory(0)) {
    if (high === undefined) i.write(0, low!.lane64(0));
    else storeParts(i, 0, [low!.shuffle(high, laneBytes(8, [0, 2]))]);
  } else {
    writeParts(i, 0, [high === undefined ? low! : low!.shuffle(high, laneBytes(8, [0, 2]))]);
  }
});

/** FMA and F16C by mnemonic. */
export const FMA: Readonly<Record<string, Semantics>> = {
  ...orders(ALL_KINDS, OPERATIONS),
  ...orders(PACKED_KINDS, ALTERNATING),
  VCVTPH2PS: toSingles,
  VCVTPS2PH: fromSingles,
};
