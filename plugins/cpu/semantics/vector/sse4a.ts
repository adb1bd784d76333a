/**
 * SSE4A, which only AMD's processors have: fields of bits, and scalar stores past the caches (APM vol. 4).
 *
 * A field is a length and an index, six bits each; a length of 0 means 64. What the manual leaves undefined,
 * the upper halves of the results, stays as it was, and a field that does not fit wraps as shifts do.
 *
 * @module
 */
import { type I32, i32, type I64, i64 } from "../../wasm/mod.ts";
import type { Instruction, Semantics } from "../instruction.ts";
import { readVector, sse, writeVector } from "./operands.ts";

interface Field {
  readonly length: I32;
  readonly index: I32;
}

/** Length in bits 5:0, index in 13:8. */
function fieldOf(value: I32): Field {
  return { length: value.and(0x3f), index: value.shrU(8).and(0x3f) };
}

/** As many ones as the field is long. */
function ones({ length }: Field): I64 {
  return i64(-1).shrU(i32(64).sub(length).and(0x3f).extendU());
}

/** Whether the field is in the instruction: then there is no third operand, or no second. */
function hasConstant(i: Instruction): boolean {
  return i.form.operands.at(-1)!.kind === "I";
}

const extrq: Semantics = sse((i) => {
  const value = readVector(i, 0);
  const field = fieldOf(hasConstant(i) ? i.immediate().wrap() : readVector(i, 1).lane64(0).wrap());
  const result = value.lane64(0).shrU(field.index.extendU()).and(ones(field));
  writeVector(i, 0, value.withLane64(0, result));
});

const insertq: Semantics = sse((i) => {
  const value = readVector(i, 0);
  const source = readVector(i, 1);
  const field = fieldOf(hasConstant(i) ? i.immediate().wrap() : source.lane64(1).wrap());
  const place = field.index.extendU();
  const mask = ones(field).shl(place);
  const kept = value.lane64(0).and(mask.xor(-1));
  writeVector(i, 0, value.withLane64(0, kept.or(source.lane64(0).shl(place).and(mask))));
});

/** MOVNTSS and MOVNTSD. */
const store: Semantics = sse((i) => i.write(0, readVector(i, 1).lane64(0)));

/** SSE4A by mnemonic. */
export const SSE4A: Readonly<Record<string, Semantics>> = {
  EXTRQ: extrq,
  INSERTQ: insertq,
  MOVNTSS: store,
  MOVNTSD: store,
};
