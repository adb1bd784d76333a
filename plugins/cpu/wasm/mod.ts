/**
 * A small typed WebAssembly assembler: what the processor's semantics are written in.
 *
 * Functions are written in TypeScript as straight code over values (`I32`, `I64`, `V128`), variables
 * and structured control flow, and encoded to a module that V8 compiles. Values are recorded in
 * program order and lowered so that unused ones cost nothing, which is what lets one text serve an
 * interpreter (operands read at run time) and a compiler (operands constant).
 *
 * Limits: one memory and one table, both imported and of fixed size; block types without results;
 * no multi-value results; floating point only through vectors.
 *
 * @module
 */
export * from "./function.ts";
export { finish, type Steps } from "./lower.ts";
export * from "./module.ts";
export { I32, i32, I64, i64, Value } from "./value.ts";
export * from "./vector.ts";
export type {
  NarrowShape,
  VectorBinary,
  VectorShift,
  VectorTest,
  VectorUnary,
} from "./simd_opcodes.ts";
export { Op } from "./opcodes.ts";
