/**
 * Floating-point arithmetic of vectors: WebAssembly's where it is certain to give result and exceptions,
 * software for the rest.
 *
 * It is certain where rounding is to nearest, PE is set already and masked, no operand is denormal,
 * infinite or a NaN, and the result is normal or a zero that no underflow has made: then no exception but
 * PE can have been met. The least normal number may be what rounding made of a tiny one.
 *
 * @module
 */
import { Rflags } from "../../microcode/registers.ts";
import { S } from "../../state/cpu_state.ts";
import { type I32, I32T, type V128, V128T, type Variable } from "../../wasm/mod.ts";
import type { VectorBinary, VectorUnary } from "../../wasm/mod.ts";
import type { Format } from "../float/format.ts";
import { Mxcsr } from "../float/format.ts";
import { allOf, normal, plain, positive, zeros } from "../float/lanes.ts";
import { Part } from "../float/part.ts";
import { floats, type Operation } from "../float/references.ts";
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

const wasmShape = ({ bits }: Format): "f32x4" | "f64x2" => bits === 32 ? "f32x4" : "f64x2";

/** WebAssembly's result, and the lanes in which it is certain. */
interface Attempt {
  readonly result: V128;
  readonly certain: V128;
}

function attempt({ format }: Lanes, operation: Operation, a: V128, b: V128): Attempt {
  const shape = wasmShape(format);
  const compute = (name: string): V128 => a.binary(`${shape}.${name}` as VectorBinary, b);
  switch (operation) {
    case "add":
    case "sub": {
      const result = compute(operation);
      const certain = plain(format, a).and(plain(format, b));
      return { result, certain: certain.and(normal(format, result).or(zeros(format, result))) };
    }
    case "mul": {
      const result = compute(operation);
      const zero = zeros(format, a).or(zeros(format, b));
      const certain = plain(format, a).and(plain(format, b));
      return { result, certain: certain.and(normal(format, result).or(zero)) };
    }
    case "div": {
      const result = compute(operation);
      const certain = plain(format, a).and(normal(format, b));
      return { result, certain: certain.and(normal(format, result).or(zeros(format, a))) };
    }
    case "sqrt": {
      const result = b.unary(`${shape}.sqrt` as VectorUnary);
      return { result, certain: normal(format, b).and(positive(format, b)) };
    }
    default:
      throw new Error(`${operation} is not attempted`);
  }
}

/** 1 where MXCSR has nothing against WebAssembly's arithmetic. */
export function mxcsrAllows(i: Instruction): I32 {
  const { f } = i;
  return S.mxcsr.get(f).and((3 << Mxcsr.RC) | Mxcsr.PM | Mxcsr.PE).eq(Mxcsr.PM | Mxcsr.PE);
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
  const attempts = a.map((_, k) => attempt(lanes, operation, a[k]!, b[k]!));
  const certain = attempts.map(({ certain }) => allOf(format, certain, count))
    .reduce((x, y) => x.and(y));
  const whole = count * format.bits === 128;
  return either(
    i,
    mxcsrAllows(i).and(certain),
    () => attempts.map(({ result }, k) => whole ? result : mergeLow(format.bits, a[k]!, result)),
    software,
  );
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
  return f.choose(
    I32T,
    allPlain(format, 1, [a, b]),
    () => lowest("lt").and(Rflags.CF).or(lowest("eq").and(Rflags.ZF)),
    () => {
      i.spill();
      return f.call(floats(format).flags, a, b, Number(all));
    },
    "likely",
  );
}
