/**
 * Floating-point arithmetic of vectors: WebAssembly's where it is certain to give result and exceptions
 * (`float/attempt.ts`), software for the rest.
 *
 * @module
 */
import { Rflags } from "../../microcode/registers.ts";
import { type I32, I32T, type V128, V128T, type Variable } from "../../wasm/mod.ts";
import type { VectorBinary, VectorUnary } from "../../wasm/mod.ts";
import {
  attempt,
  computed,
  isNormal,
  mxcsrAllows,
  scalarConditions,
  wasmShape,
} from "../float/attempt.ts";
import type { Format } from "../float/format.ts";
import { allOf, plain } from "../float/lanes.ts";
import { Part } from "../float/part.ts";
import { floats, type Operation, type ScalarOperation } from "../float/references.ts";
import type { Instruction } from "../instruction.ts";
import { mergeLow } from "./move.ts";
import { ZERO } from "./unit.ts";

/** Values of a vector instruction: their format, and how many of them there are in 128 bits. */
export interface Lanes {
  /** Format of the values. */
  readonly format: Format;
  /** How many are computed in each part; 1 for scalars. */
  readonly count: number;
}

/** The parts of a result, computed one after the other in software. */
export function inSoftware(
  i: Instruction,
  count: number,
  parts: number,
  compute: (part: number, flags: number) => V128,
): V128[] {
  i.spill();
  return Array.from({ length: parts }, (_, k) => {
    const flags = (k > 0 ? Part.CONTINUES : 0) | (k < parts - 1 ? Part.MORE : 0);
    return compute(k, count | flags);
  });
}

/**
 * The lowest lanes of each part computed; what is above them is of `a`. Nothing may have been written
 * before.
 */
export function arithmetic(
  i: Instruction,
  lanes: Lanes,
  operation: Operation,
  a: readonly V128[],
  b: readonly V128[],
): V128[] {
  const { f } = i;
  const { format, count } = lanes;
  const software = (): V128[] =>
    inSoftware(
      i,
      count,
      a.length,
      (k, flags) => f.call(floats(format).vector[operation], a[k]!, b[k]!, flags),
    );
  if (operation === "addsub") return software();
  if (count === 1 && a.length === 1) return [scalar(i, format, operation, a[0]!, b[0]!)];
  const attempts = a.map((_, k) => attempt(format, operation, a[k]!, b[k]!));
  const certain = attempts.map(({ certain }) => allOf(format, certain, count))
    .reduce((x, y) => x.and(y));
  const whole = count * format.bits === 128;
  return either(
    i,
    mxcsrAllows(i.f).and(certain),
    () => attempts.map(({ result }, k) => whole ? result : mergeLow(format.bits, a[k]!, result)),
    software,
  );
}

/** The lowest lane computed; what is above it is of `a`. */
function scalar(
  i: Instruction,
  format: Format,
  operation: ScalarOperation,
  a: V128,
  b: V128,
): V128 {
  const { f } = i;
  const result = f.zeroed(V128T);
  f.block((done) => {
    f.block((uncertain) => {
      f.branchIf(mxcsrAllows(f).eqz(), uncertain, "unlikely");
      const value = computed(format, operation, a, b);
      for (const holds of scalarConditions(format, operation, a, b, value)) {
        f.branchIf(holds.eqz(), uncertain, "unlikely");
      }
      result.set(mergeLow(format.bits, a, value));
      f.branch(done);
    });
    i.spill();
    result.set(f.call(floats(format).scalar[operation], a, b));
  });
  return result.get();
}

/** The parts that `certain` computes if the condition is non-zero, else those of `software`. */
function either(
  i: Instruction,
  condition: I32,
  certain: () => readonly V128[],
  software: () => readonly V128[],
): V128[] {
  const { f } = i;
  let results: readonly Variable<V128>[] = [];
  const take = (parts: readonly V128[]): void => {
    if (results.length === 0) results = parts.map(() => f.variable(V128T, ZERO));
    for (const [k, value] of parts.entries()) results[k]!.set(value);
  };
  f.if(condition, () => take(certain()), () => take(software()), "likely");
  return results.map((result) => result.get());
}

/** MIN and MAX: the first if the relation holds, else the second; plain numbers meet no exception. */
export function extreme(
  i: Instruction,
  lanes: Lanes,
  operation: "min" | "max",
  a: readonly V128[],
  b: readonly V128[],
): V128[] {
  const { format, count } = lanes;
  const merged = (k: number, result: V128): V128 =>
    count * format.bits === 128 ? result : mergeLow(format.bits, a[k]!, result);
  const relation = `${wasmShape(format)}.${operation === "min" ? "lt" : "gt"}` as VectorBinary;
  return either(
    i,
    allPlain(format, count, [...a, ...b]),
    () => a.map((x, k) => merged(k, x.select(b[k]!, x.binary(relation, b[k]!)))),
    () =>
      inSoftware(
        i,
        count,
        a.length,
        (k, part) => merged(k, i.f.call(floats(format)[operation], a[k]!, b[k]!, part)),
      ),
  );
}

/** What predicates 0 to 7 of a comparison say of plain numbers; so do those eight, sixteen, … above each. */
const RELATIONS = ["eq", "lt", "le", "false", "ne", "ge", "gt", "true"] as const;

/**
 * A comparison by a predicate that is known, all ones or zeros in each lane, with `software` for what is not
 * plain: infinities, denormals and NaNs.
 */
export function related(
  i: Instruction,
  { format, count }: Lanes,
  predicate: number,
  a: readonly V128[],
  b: readonly V128[],
  software: () => readonly V128[],
): V128[] {
  const relation = RELATIONS[predicate & 7]!;
  const result = (x: V128, y: V128): V128 => {
    if (relation === "false") return ZERO;
    if (relation === "true") return ZERO.not();
    return x.binary(`${wasmShape(format)}.${relation}` as VectorBinary, y);
  };
  const whole = count * format.bits === 128;
  return either(
    i,
    allPlain(format, count, [...a, ...b]),
    () => a.map((x, k) => whole ? result(x, b[k]!) : mergeLow(format.bits, x, result(x, b[k]!))),
    software,
  );
}

/** Ways to round to an integer by bits 1:0 of the constant. */
const ROUNDINGS = ["nearest", "floor", "ceil", "trunc"] as const;

/**
 * Values rounded to integers as the constant `number` says, which has bit 2, MXCSR's rounding, clear: where it
 * has bit 3 clear, too, an inexact result is for `software`, as whatever is not plain is.
 */
export function rounded(
  i: Instruction,
  { format, count }: Lanes,
  number: number,
  a: readonly V128[],
  b: readonly V128[],
  software: () => readonly V128[],
): V128[] {
  const shape = wasmShape(format);
  const whole = count * format.bits === 128;
  const results = b.map((y) => y.unary(`${shape}.${ROUNDINGS[number & 3]!}` as VectorUnary));
  const exact = results.map((result, k) =>
    allOf(format, result.binary(`${shape}.eq` as VectorBinary, b[k]!), count)
  );
  const silent = (number & 8) !== 0 ? [] : exact;
  return either(
    i,
    silent.reduce((x, y) => x.and(y), allPlain(format, count, b)),
    () => results.map((result, k) => whole ? result : mergeLow(format.bits, a[k]!, result)),
    software,
  );
}

/** 1 if the lowest lanes of all values are normal numbers or zeros. */
function allPlain(format: Format, count: number, values: readonly V128[]): I32 {
  const mask = values.map((value) => plain(format, value)).reduce((x, y) => x.and(y));
  return allOf(format, mask, count);
}

/** ZF, PF and CF of a comparison of the lowest lanes; `all`: quiet NaNs are invalid, too. */
export function comparedFlagBits(
  i: Instruction,
  format: Format,
  a: V128,
  b: V128,
  all: boolean,
): I32 {
  const { f } = i;
  const lowest = (name: "lt" | "eq"): I32 =>
    a.binary(`${wasmShape(format)}.${name}` as VectorBinary, b).lane("i32x4", 0);
  const compared = (): I32 => lowest("lt").and(Rflags.CF).or(lowest("eq").and(Rflags.ZF));
  return f.choose(
    I32T,
    isNormal(format, a).and(isNormal(format, b)),
    compared,
    () =>
      f.choose(I32T, allPlain(format, 1, [a, b]), compared, () => {
        i.spill();
        return f.call(floats(format).flags, a, b, Number(all));
      }),
    "likely",
  );
}
