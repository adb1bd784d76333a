/**
 * Vector operators of WebAssembly by the names of its text format (WebAssembly Core Specification 3.0,
 * chapter 5.4.9), by what they take.
 *
 * @module
 */

/** Two vectors to one. */
export const VECTOR_BINARY = {
  "i8x16.swizzle": 0xfd0e,
  "i8x16.eq": 0xfd23,
  "i8x16.gt_s": 0xfd27,
  "i8x16.gt_u": 0xfd28,
  "i16x8.eq": 0xfd2d,
  "i16x8.gt_s": 0xfd31,
  "i16x8.gt_u": 0xfd32,
  "i32x4.eq": 0xfd37,
  "i32x4.lt_u": 0xfd3a,
  "i32x4.gt_s": 0xfd3b,
  "i32x4.gt_u": 0xfd3c,
  "f32x4.eq": 0xfd41,
  "f32x4.ne": 0xfd42,
  "f32x4.lt": 0xfd43,
  "f32x4.gt": 0xfd44,
  "f32x4.le": 0xfd45,
  "f32x4.ge": 0xfd46,
  "f64x2.eq": 0xfd47,
  "f64x2.ne": 0xfd48,
  "f64x2.lt": 0xfd49,
  "f64x2.gt": 0xfd4a,
  "f64x2.le": 0xfd4b,
  "f64x2.ge": 0xfd4c,
  "v128.and": 0xfd4e,
  "v128.andnot": 0xfd4f,
  "v128.or": 0xfd50,
  "v128.xor": 0xfd51,
  "i8x16.narrow_i16x8_s": 0xfd65,
  "i8x16.narrow_i16x8_u": 0xfd66,
  "i8x16.add": 0xfd6e,
  "i8x16.add_sat_s": 0xfd6f,
  "i8x16.add_sat_u": 0xfd70,
  "i8x16.sub": 0xfd71,
  "i8x16.sub_sat_s": 0xfd72,
  "i8x16.sub_sat_u": 0xfd73,
  "i8x16.min_s": 0xfd76,
  "i8x16.min_u": 0xfd77,
  "i8x16.max_s": 0xfd78,
  "i8x16.max_u": 0xfd79,
  "i8x16.avgr_u": 0xfd7b,
  "i16x8.q15mulr_sat_s": 0xfd82,
  "i16x8.narrow_i32x4_s": 0xfd85,
  "i16x8.narrow_i32x4_u": 0xfd86,
  "i16x8.add": 0xfd8e,
  "i16x8.add_sat_s": 0xfd8f,
  "i16x8.add_sat_u": 0xfd90,
  "i16x8.sub": 0xfd91,
  "i16x8.sub_sat_s": 0xfd92,
  "i16x8.sub_sat_u": 0xfd93,
  "i16x8.mul": 0xfd95,
  "i16x8.min_s": 0xfd96,
  "i16x8.min_u": 0xfd97,
  "i16x8.max_s": 0xfd98,
  "i16x8.max_u": 0xfd99,
  "i16x8.avgr_u": 0xfd9b,
  "i32x4.add": 0xfdae,
  "i32x4.sub": 0xfdb1,
  "i32x4.mul": 0xfdb5,
  "i32x4.min_s": 0xfdb6,
  "i32x4.min_u": 0xfdb7,
  "i32x4.max_s": 0xfdb8,
  "i32x4.max_u": 0xfdb9,
  "i32x4.dot_i16x8_s": 0xfdba,
  "i32x4.extmul_low_i16x8_s": 0xfdbc,
  "i32x4.extmul_high_i16x8_s": 0xfdbd,
  "i32x4.extmul_low_i16x8_u": 0xfdbe,
  "i32x4.extmul_high_i16x8_u": 0xfdbf,
  "i64x2.add": 0xfdce,
  "i64x2.sub": 0xfdd1,
  "i64x2.mul": 0xfdd5,
  "i64x2.eq": 0xfdd6,
  "i64x2.lt_s": 0xfdd8,
  "i64x2.gt_s": 0xfdd9,
  "i64x2.extmul_low_i32x4_s": 0xfddc,
  "i64x2.extmul_low_i32x4_u": 0xfdde,
  "f32x4.add": 0xfde4,
  "f32x4.sub": 0xfde5,
  "f32x4.mul": 0xfde6,
  "f32x4.div": 0xfde7,
  "f64x2.add": 0xfdf0,
  "f64x2.sub": 0xfdf1,
  "f64x2.mul": 0xfdf2,
  "f64x2.div": 0xfdf3,
} as const;
/** Name of an operator of two vectors. */
export type VectorBinary = keyof typeof VECTOR_BINARY;

/** One vector to one. */
export const VECTOR_UNARY = {
  "v128.not": 0xfd4d,
  "f32x4.demote_f64x2_zero": 0xfd5e,
  "f64x2.promote_low_f32x4": 0xfd5f,
  "i8x16.abs": 0xfd60,
  "f32x4.ceil": 0xfd67,
  "f32x4.floor": 0xfd68,
  "f32x4.trunc": 0xfd69,
  "f32x4.nearest": 0xfd6a,
  "f64x2.ceil": 0xfd74,
  "f64x2.floor": 0xfd75,
  "f64x2.trunc": 0xfd7a,
  "f64x2.nearest": 0xfd94,
  "i16x8.extadd_pairwise_i8x16_s": 0xfd7c,
  "i16x8.extadd_pairwise_i8x16_u": 0xfd7d,
  "i16x8.abs": 0xfd80,
  "i16x8.extend_low_i8x16_s": 0xfd87,
  "i16x8.extend_high_i8x16_s": 0xfd88,
  "i16x8.extend_low_i8x16_u": 0xfd89,
  "i16x8.extend_high_i8x16_u": 0xfd8a,
  "i32x4.abs": 0xfda0,
  "i32x4.extend_low_i16x8_s": 0xfda7,
  "i32x4.extend_high_i16x8_s": 0xfda8,
  "i32x4.extend_low_i16x8_u": 0xfda9,
  "i32x4.extend_high_i16x8_u": 0xfdaa,
  "i64x2.extend_low_i32x4_s": 0xfdc7,
  "i64x2.extend_high_i32x4_s": 0xfdc8,
  "i64x2.extend_low_i32x4_u": 0xfdc9,
  "i64x2.extend_high_i32x4_u": 0xfdca,
  "f32x4.abs": 0xfde0,
  "f32x4.sqrt": 0xfde3,
  "f64x2.abs": 0xfdec,
  "f64x2.sqrt": 0xfdef,
  "i32x4.trunc_sat_f32x4_s": 0xfdf8,
  "f32x4.convert_i32x4_s": 0xfdfa,
  "i32x4.trunc_sat_f64x2_s_zero": 0xfdfc,
  "f64x2.convert_low_i32x4_s": 0xfdfe,
  "f64x2.convert_low_i32x4_u": 0xfdff,
} as const;
/** Name of an operator of one vector. */
export type VectorUnary = keyof typeof VECTOR_UNARY;

/** A vector and an i32 count, taken modulo the width of a lane. */
export const VECTOR_SHIFT = {
  "i8x16.shr_u": 0xfd6d,
  "i16x8.shl": 0xfd8b,
  "i16x8.shr_s": 0xfd8c,
  "i16x8.shr_u": 0xfd8d,
  "i32x4.shl": 0xfdab,
  "i32x4.shr_s": 0xfdac,
  "i32x4.shr_u": 0xfdad,
  "i64x2.shl": 0xfdcb,
  "i64x2.shr_s": 0xfdcc,
  "i64x2.shr_u": 0xfdcd,
} as const;
/** Name of a shift. */
export type VectorShift = keyof typeof VECTOR_SHIFT;

/** A vector to an i32. */
export const VECTOR_TEST = {
  "v128.any_true": 0xfd53,
  "i8x16.all_true": 0xfd63,
  "i8x16.bitmask": 0xfd64,
  "i16x8.bitmask": 0xfd84,
  "i32x4.bitmask": 0xfda4,
  "i64x2.all_true": 0xfdc3,
  "i64x2.bitmask": 0xfdc4,
} as const;
/** Name of a test. */
export type VectorTest = keyof typeof VECTOR_TEST;

/** Shapes of integer lanes: splat, extract (zero-extended), replace; width of a lane in bits. */
export const VECTOR_LANES = {
  i8x16: { splat: 0xfd0f, extract: 0xfd16, replace: 0xfd17, bits: 8 },
  i16x8: { splat: 0xfd10, extract: 0xfd19, replace: 0xfd1a, bits: 16 },
  i32x4: { splat: 0xfd11, extract: 0xfd1b, replace: 0xfd1c, bits: 32 },
  i64x2: { splat: 0xfd12, extract: 0xfd1d, replace: 0xfd1e, bits: 64 },
} as const;
/** Name of a shape with lanes that are an i32 to WebAssembly. */
export type NarrowShape = "i8x16" | "i16x8" | "i32x4";
