/**
 * The WebAssembly opcodes the processor emits (WebAssembly Core Specification 3.0, chapter 5.4).
 *
 * @module
 */

/** A WebAssembly value type by its binary encoding. */
export type ValueType = 0x7f | 0x7e | 0x7d | 0x7c | 0x7b;

/** 32-bit integer. */
export const I32_TYPE = 0x7f;
/** 64-bit integer. */
export const I64_TYPE = 0x7e;
/** 32-bit float. */
export const F32_TYPE = 0x7d;
/** 64-bit float. */
export const F64_TYPE = 0x7c;
/** 128-bit vector. */
export const V128_TYPE = 0x7b;

/** Control, variable, table and memory instructions. Prefixed opcodes are 0xFCnn and 0xFDnn. */
export const Op = {
  UNREACHABLE: 0x00,
  BLOCK: 0x02,
  LOOP: 0x03,
  IF: 0x04,
  ELSE: 0x05,
  THROW: 0x08,
  END: 0x0b,
  BR: 0x0c,
  BR_IF: 0x0d,
  BR_TABLE: 0x0e,
  RETURN: 0x0f,
  CALL: 0x10,
  CALL_INDIRECT: 0x11,
  RETURN_CALL: 0x12,
  RETURN_CALL_INDIRECT: 0x13,
  DROP: 0x1a,
  SELECT: 0x1b,
  TRY_TABLE: 0x1f,
  LOCAL_GET: 0x20,
  LOCAL_SET: 0x21,
  LOCAL_TEE: 0x22,
  I32_LOAD: 0x28,
  I64_LOAD: 0x29,
  I32_LOAD8_S: 0x2c,
  I32_LOAD8_U: 0x2d,
  I32_LOAD16_S: 0x2e,
  I32_LOAD16_U: 0x2f,
  I64_LOAD8_S: 0x30,
  I64_LOAD8_U: 0x31,
  I64_LOAD16_S: 0x32,
  I64_LOAD16_U: 0x33,
  I64_LOAD32_S: 0x34,
  I64_LOAD32_U: 0x35,
  I32_STORE: 0x36,
  I64_STORE: 0x37,
  I32_STORE8: 0x3a,
  I32_STORE16: 0x3b,
  I64_STORE8: 0x3c,
  I64_STORE16: 0x3d,
  I64_STORE32: 0x3e,
  I32_CONST: 0x41,
  I64_CONST: 0x42,
  MEMORY_COPY: 0xfc0a,
  MEMORY_FILL: 0xfc0b,
  V128_LOAD: 0xfd00,
  V128_STORE: 0xfd0b,
  V128_CONST: 0xfd0c,
  I8X16_SHUFFLE: 0xfd0d,
  V128_BITSELECT: 0xfd52,
  V128_LOAD32_ZERO: 0xfd5c,
  V128_LOAD64_ZERO: 0xfd5d,
} as const;

/** Integer operators that exist in both widths: [i32 opcode, i64 opcode]. */
export const INTEGER_OPS = {
  eqz: [0x45, 0x50],
  eq: [0x46, 0x51],
  ne: [0x47, 0x52],
  ltS: [0x48, 0x53],
  ltU: [0x49, 0x54],
  gtS: [0x4a, 0x55],
  gtU: [0x4b, 0x56],
  leS: [0x4c, 0x57],
  leU: [0x4d, 0x58],
  geS: [0x4e, 0x59],
  geU: [0x4f, 0x5a],
  clz: [0x67, 0x79],
  ctz: [0x68, 0x7a],
  popcnt: [0x69, 0x7b],
  add: [0x6a, 0x7c],
  sub: [0x6b, 0x7d],
  mul: [0x6c, 0x7e],
  divS: [0x6d, 0x7f],
  divU: [0x6e, 0x80],
  remS: [0x6f, 0x81],
  remU: [0x70, 0x82],
  and: [0x71, 0x83],
  or: [0x72, 0x84],
  xor: [0x73, 0x85],
  shl: [0x74, 0x86],
  shrS: [0x75, 0x87],
  shrU: [0x76, 0x88],
  rotl: [0x77, 0x89],
  rotr: [0x78, 0x8a],
  extend8S: [0xc0, 0xc2],
  extend16S: [0xc1, 0xc3],
} as const;

/** Name of an integer operator that exists in both widths. */
export type IntegerOp = keyof typeof INTEGER_OPS;

/** i32.wrap_i64 */
export const I32_WRAP_I64 = 0xa7;
/** i64.extend_i32_s */
export const I64_EXTEND_I32_S = 0xac;
/** i64.extend_i32_u */
export const I64_EXTEND_I32_U = 0xad;
