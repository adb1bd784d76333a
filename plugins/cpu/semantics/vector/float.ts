/**
 * SSE's floating-point instructions (APM vol. 4; SDM vol. 2).
 *
 * @module
 */
import type { I32, V128 } from "../../wasm/mod.ts";
import { Approximations } from "../float/compare.ts";
import { DoubleDot, SingleDot } from "../float/dot.ts";
import { DOUBLE, type Format, roundingControl, SINGLE } from "../float/format.ts";
import { floats, type Operation } from "../float/references.ts";
import type { Instruction, Semantics } from "../instruction.ts";
import {
  arithmetic,
  comparedFlagBits,
  extreme,
  inSoftware,
  type Lanes,
  related,
  rounded,
} from "./arithmetic.ts";
import {
  doublesToSingles,
  fromInteger,
  integersToSingles,
  singlesToDoubles,
  toInteger,
  toIntegers,
  toOther,
  type Towards,
} from "./convert.ts";
import { laneBytes } from "./integer.ts";
import { constant, mergeLow } from "./move.ts";
import { readVector, sse, writeVector } from "./operands.ts";

/** The four kinds of operands by the end of the mnemonic. */
export const KINDS: Readonly<Record<string, Lanes>> = {
  PS: { format: SINGLE, count: 4 },
  PD: { format: DOUBLE, count: 2 },
  SS: { format: SINGLE, count: 1 },
  SD: { format: DOUBLE, count: 1 },
};

/** What an operation makes of the parts of two operands; lanes above those it computes are of `a`. */
export type FloatBinary = (
  i: Instruction,
  lanes: Lanes,
  a: readonly V128[],
  b: readonly V128[],
) => V128[];

const operation = (name: Operation): FloatBinary => (i, lanes, a, b) =>
  arithmetic(i, lanes, name, a, b);

/** `result`, or of a scalar its lowest lane above the rest of `a`. */
export function merged({ format, count }: Lanes, a: V128, result: V128): V128 {
  return count * format.bits === 128 ? result : mergeLow(format.bits, a, result);
}

const least: FloatBinary = (i, lanes, a, b) => extreme(i, lanes, "min", a, b);
const greatest: FloatBinary = (i, lanes, a, b) => extreme(i, lanes, "max", a, b);

/** Operations of all four kinds by the beginning of the mnemonic. */
export const EVERY_KIND: Readonly<Record<string, FloatBinary>> = {
  ADD: operation("add"),
  SUB: operation("sub"),
  MUL: operation("mul"),
  DIV: operation("div"),
  SQRT: operation("sqrt"),
  MIN: least,
  MAX: greatest,
};

/** ROUNDPS and the like: rounding by the constant, or by MXCSR where its bit 2 says so. */
export function integral(
  i: Instruction,
  lanes: Lanes,
  a: readonly V128[],
  b: readonly V128[],
): V128[] {
  const number = constant(i);
  const rounding = number.and(4).select(roundingControl(i.f), number.and(3));
  const how = rounding.or(number.and(8));
  const software = (): V128[] =>
    inSoftware(i, lanes.count, a.length, (k, part) => {
      const result = i.f.call(floats(lanes.format).integral, b[k]!, how, part);
      return merged(lanes, a[k]!, result);
    });
  const known = number.constant;
  if (known === undefined || (known & 4) !== 0) return software();
  return rounded(i, lanes, known, a, b, software);
}

/** DPPS and DPPD. */
export function dotProduct(
  i: Instruction,
  { format, count }: Lanes,
  a: readonly V128[],
  b: readonly V128[],
): V128[] {
  const dot = format.bits === 32 ? SingleDot : DoubleDot;
  const number = constant(i);
  const products = inSoftware(
    i,
    count,
    a.length,
    (k, part) => i.f.call(dot.products, a[k]!, b[k]!, number, part),
  );
  return inSoftware(i, count, a.length, (k, part) => i.f.call(dot.sum, products[k]!, number, part));
}

/** Comparison by a predicate, all ones or zeros in each lane. */
export function compared(
  i: Instruction,
  lanes: Lanes,
  predicate: I32,
  a: readonly V128[],
  b: readonly V128[],
): V128[] {
  const software = (): V128[] =>
    inSoftware(i, lanes.count, a.length, (k, part) => {
      const result = i.f.call(floats(lanes.format).compare, a[k]!, b[k]!, predicate, part);
      return merged(lanes, a[k]!, result);
    });
  const known = predicate.constant;
  return known === undefined ? software() : related(i, lanes, known, a, b, software);
}

/** Adds or subtracts neighbours; those of `a` come first. */
const horizontal = (name: "add" | "sub"): FloatBinary => (i, lanes, a, b) => {
  const { bits } = lanes.format;
  const every = (first: number): number[] =>
    laneBytes(bits / 8, Array.from({ length: 128 / bits }, (_, k) => 2 * k + first));
  const gather = (first: number): V128[] => a.map((value, k) => value.shuffle(b[k]!, every(first)));
  return arithmetic(i, lanes, name, gather(0), gather(1));
};

/** Operations on packed values by the beginning of the mnemonic. */
export const PACKED: Readonly<Record<string, FloatBinary>> = {
  HADD: horizontal("add"),
  HSUB: horizontal("sub"),
  ADDSUB: operation("addsub"),
};

/** A table of instructions of some kinds. */
export function ofKinds<T, R>(
  kinds: readonly string[],
  table: Readonly<Record<string, T>>,
  make: (lanes: Lanes, entry: T) => R,
): Record<string, R> {
  return Object.fromEntries(
    Object.entries(table).flatMap(([name, entry]) =>
      kinds.map((kind) => [name + kind, make(KINDS[kind]!, entry)])
    ),
  );
}

/** All four. */
export const ALL_KINDS: readonly string[] = Object.keys(KINDS);
/** Packed ones. */
export const PACKED_KINDS: readonly string[] = ["PS", "PD"];
/** Scalars. */
export const SCALAR_KINDS: readonly string[] = ["SS", "SD"];

const two = (compute: (i: Instruction, a: V128, b: V128) => V128): Semantics =>
  sse((i) => {
    const b = readVector(i, 1);
    writeVector(i, 0, compute(i, readVector(i, 0), b));
  });

const binary = (lanes: Lanes, compute: FloatBinary): Semantics =>
  two((i, a, b) => compute(i, lanes, [a], [b])[0]!);

/** SSE knows predicates 0 to 7. */
const compare = (lanes: Lanes): Semantics =>
  two((i, a, b) => compared(i, lanes, constant(i).and(7), [a], [b])[0]!);

/** COMISS and the like: ZF, PF and CF; the other flags are cleared. */
export function comparedFlags(
  i: Instruction,
  format: Format,
  quietToo: boolean,
  read: (k: number) => V128,
): void {
  const b = read(1);
  const a = read(0);
  i.flagsValue(comparedFlagBits(i, format, a, b, quietToo));
}

const approximate = (which: keyof typeof Approximations, scalar: boolean): Semantics =>
  two((i, a, b) => {
    const result = i.f.call(Approximations[which], b);
    return scalar ? mergeLow(32, a, result) : result;
  });

const one = (compute: (i: Instruction, a: V128) => V128): Semantics =>
  sse((i) => writeVector(i, 0, compute(i, readVector(i, 1))));

/** CVTSI2SS and CVTSI2SD. */
const fromGeneral = (format: Format): Semantics =>
  sse((i) => {
    const value = fromInteger(i, format, i.width(1), i.signed(1));
    writeVector(i, 0, mergeLow(format.bits, readVector(i, 0), value));
  });

/** CVTSS2SI and the like. */
export function toGeneral(i: Instruction, format: Format, towards: Towards, a: V128): void {
  i.write(0, toInteger(i, format, towards, i.width(0), a));
}

const scalarToOther = (from: Format): Semantics =>
  sse((i) => {
    const value = toOther(i, from, readVector(i, 1));
    writeVector(i, 0, mergeLow(96 - from.bits, readVector(i, 0), value));
  });

/** Conversions of one vector to one, each part of which takes 128 bits. */
export const CONVERSIONS: Readonly<
  Record<string, (i: Instruction, a: V128, part: number) => V128>
> = {
  CVTPS2DQ: (i, a, part) => toIntegers(i, SINGLE, "mxcsr", a, part),
  CVTTPS2DQ: (i, a, part) => toIntegers(i, SINGLE, "zero", a, part),
  CVTDQ2PS: integersToSingles,
};

/** Conversions from two doubles to half a vector. */
export const NARROWING: typeof CONVERSIONS = {
  CVTPD2DQ: (i, a, part) => toIntegers(i, DOUBLE, "mxcsr", a, part),
  CVTTPD2DQ: (i, a, part) => toIntegers(i, DOUBLE, "zero", a, part),
  CVTPD2PS: doublesToSingles,
};

/** Conversions from half a vector to two doubles. */
export const WIDENING: typeof CONVERSIONS = {
  CVTPS2PD: singlesToDoubles,
  CVTDQ2PD: (_, a) => a.unary("f64x2.convert_low_i32x4_s"),
};

/** Instructions by mnemonic. */
export const SSE_FLOAT: Readonly<Record<string, Semantics>> = {
  ...ofKinds(ALL_KINDS, EVERY_KIND, binary),
  ...ofKinds(PACKED_KINDS, PACKED, binary),
  ...ofKinds(ALL_KINDS, { ROUND: integral }, binary),
  ...ofKinds(["PS", "PD"], { DP: dotProduct }, binary),
  ...ofKinds(ALL_KINDS, { CMP: undefined }, compare),
  ...ofKinds(
    SCALAR_KINDS,
    { COMI: true, UCOMI: false },
    ({ format }, quietToo) =>
      sse((i) => comparedFlags(i, format, quietToo, (k) => readVector(i, k))),
  ),
  RCPPS: approximate("reciprocal", false),
  RCPSS: approximate("reciprocal", true),
  RSQRTPS: approximate("reciprocalRoot", false),
  RSQRTSS: approximate("reciprocalRoot", true),
  ...Object.fromEntries(
    Object.entries({ ...CONVERSIONS, ...NARROWING, ...WIDENING }).map(([name, convert]) => [
      name,
      one((i, a) => convert(i, a, 0)),
    ]),
  ),
  CVTSI2SS: fromGeneral(SINGLE),
  CVTSI2SD: fromGeneral(DOUBLE),
  CVTSS2SI: sse((i) => toGeneral(i, SINGLE, "mxcsr", readVector(i, 1))),
  CVTSD2SI: sse((i) => toGeneral(i, DOUBLE, "mxcsr", readVector(i, 1))),
  CVTTSS2SI: sse((i) => toGeneral(i, SINGLE, "zero", readVector(i, 1))),
  CVTTSD2SI: sse((i) => toGeneral(i, DOUBLE, "zero", readVector(i, 1))),
  CVTSS2SD: scalarToOther(SINGLE),
  CVTSD2SS: scalarToOther(DOUBLE),
};
