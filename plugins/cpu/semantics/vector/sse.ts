/**
 * SSE instructions made of the operations of this folder: the destination is the first source.
 *
 * @module
 */
import { MXCSR_BITS } from "../../microcode/extended_state.ts";
import { Vector } from "../../microcode/raise.ts";
import { Rflags } from "../../microcode/registers.ts";
import { S } from "../../state/cpu_state.ts";
import { type I32, i32, type I64, type V128 } from "../../wasm/mod.ts";
import type { Semantics } from "../instruction.ts";
import { CryptoUnit } from "./crypto.ts";
import { SSE_FLOAT } from "./float.ts";
import {
  type Binary,
  EXTENSIONS,
  FLOAT_LOGIC,
  LANE_MOVING,
  LANEWISE,
  UNARY,
  type Unary,
} from "./integer.ts";
import { constant, MOVES } from "./move.ts";
import { readVector, sse, sseAvailable, writeVector } from "./operands.ts";
import { BYTE_SHIFT, SHIFT, type Shift } from "./shift.ts";
import { sumsOfDifferences } from "./sums.ts";
import { compareText } from "./text.ts";
import { BY_CONSTANT, BY_MASK, type ByConstant, UNARY_BY_CONSTANT } from "./shuffle.ts";

function all<T>(
  operations: Readonly<Record<string, T>>,
  make: (operation: T) => Semantics,
): Record<string, Semantics> {
  return Object.fromEntries(
    Object.entries(operations).map(([name, operation]) => [name, make(operation)]),
  );
}

const binary = (operation: Binary): Semantics =>
  sse((i) => {
    const b = readVector(i, 1);
    writeVector(i, 0, operation(readVector(i, 0), b));
  });

const unary = (operation: Unary): Semantics =>
  sse((i) => writeVector(i, 0, operation(readVector(i, 1))));

/** The count is a constant, or the low quadword of a vector. */
const shift = (operation: Shift): Semantics =>
  sse((i) => {
    const byConstant = i.form.operands[1]!.kind === "I";
    const count = byConstant ? i.immediate() : readVector(i, 1).lane64(0);
    writeVector(i, 0, operation(readVector(i, 0), count));
  });

const byConstant = (operation: ByConstant): Semantics =>
  sse((i) => {
    const b = readVector(i, 1);
    writeVector(i, 0, operation(readVector(i, 0), b, constant(i)));
  });

/** XMM0 is the mask. */
const byMask = (operation: typeof BY_MASK[string]): Semantics =>
  sse((i) => {
    const b = readVector(i, 1);
    const mask = i.f.load128(0, S.vectors);
    writeVector(i, 0, operation(readVector(i, 0), b, mask));
  });

/** ZF if b has no bit of a, CF if it has none that a has not; the other flags are cleared. */
const ptest: Semantics = sse((i) => {
  const b = readVector(i, 1);
  const a = readVector(i, 0);
  const zero = b.and(a).test("v128.any_true").eqz();
  const carry = b.andNot(a).test("v128.any_true").eqz();
  i.flagsValue(zero.select(i32(Rflags.ZF), i32(0)).or(carry.select(i32(Rflags.CF), i32(0))));
});

const ldmxcsr: Semantics = {
  emit: (i) => {
    sseAvailable(i);
    const value = i.unsigned(0).wrap();
    i.faultIf(value.and(~MXCSR_BITS), Vector.GP, 0);
    S.mxcsr.set(i.f, value);
  },
};

const stmxcsr: Semantics = sse((i) => i.write(0, S.mxcsr.get(i.f).extendU()));

/** A function of two vectors. */
const called = (unit: typeof CryptoUnit.encrypt): Semantics =>
  sse((i) => {
    const b = readVector(i, 1);
    writeVector(i, 0, i.f.call(unit, readVector(i, 0), b));
  });

/** The quadword of each source that a bit of the constant names. */
export function carrylessOperand(a: V128, number: I32): I64 {
  return number.select(a.lane64(1), a.lane64(0));
}

/** The comparisons of strings: the result goes to ECX or, as a mask, to XMM0. */
const text = (explicit: boolean, index: boolean): Semantics =>
  sse((i) => {
    const b = readVector(i, 1, "any");
    const write = index ? undefined : (mask: V128) => i.f.store128(0, mask, S.vectors);
    compareText(i, readVector(i, 0), b, explicit, write);
  }, { operandSize: true });

/** AES, PCLMULQDQ and SHA. */
const CRYPTO: Readonly<Record<string, Semantics>> = {
  AESENC: called(CryptoUnit.encrypt),
  AESENCLAST: called(CryptoUnit.encryptLast),
  AESDEC: called(CryptoUnit.decrypt),
  AESDECLAST: called(CryptoUnit.decryptLast),
  AESIMC: sse((i) => writeVector(i, 0, i.f.call(CryptoUnit.inverseMix, readVector(i, 1)))),
  AESKEYGENASSIST: sse((i) =>
    writeVector(i, 0, i.f.call(CryptoUnit.keyAssist, readVector(i, 1), constant(i)))
  ),
  PCLMULQDQ: sse((i) => {
    const b = carrylessOperand(readVector(i, 1), constant(i).and(0x10));
    const a = carrylessOperand(readVector(i, 0), constant(i).and(1));
    writeVector(i, 0, i.f.call(CryptoUnit.carryless, a, b));
  }),
  SHA1NEXTE: called(CryptoUnit.sha1Next),
  SHA1MSG1: called(CryptoUnit.sha1Message1),
  SHA1MSG2: called(CryptoUnit.sha1Message2),
  SHA256MSG1: called(CryptoUnit.sha256Message1),
  SHA256MSG2: called(CryptoUnit.sha256Message2),
  SHA1RNDS4: sse((i) => {
    const words = readVector(i, 1);
    writeVector(i, 0, i.f.call(CryptoUnit.sha1Rounds, readVector(i, 0), words, constant(i)));
  }),
  SHA256RNDS2: sse((i) => {
    const abef = readVector(i, 1);
    const words = i.f.load128(0, S.vectors);
    writeVector(i, 0, i.f.call(CryptoUnit.sha256Rounds, readVector(i, 0), abef, words));
  }),
};

/** Instructions by mnemonic. */
export const SSE: Readonly<Record<string, Semantics>> = {
  ...MOVES,
  ...SSE_FLOAT,
  ...all(LANEWISE, binary),
  ...all(LANE_MOVING, binary),
  ...all(FLOAT_LOGIC, binary),
  ...all(UNARY, unary),
  ...all(EXTENSIONS, unary),
  ...all(SHIFT, shift),
  ...all(BYTE_SHIFT, shift),
  ...all(BY_CONSTANT, byConstant),
  ...all(
    UNARY_BY_CONSTANT,
    (operation) => sse((i) => writeVector(i, 0, operation(readVector(i, 1), constant(i)))),
  ),
  ...all(BY_MASK, byMask),
  ...CRYPTO,
  MPSADBW: byConstant(sumsOfDifferences),
  PCMPESTRI: text(true, true),
  PCMPESTRM: text(true, false),
  PCMPISTRI: text(false, true),
  PCMPISTRM: text(false, false),
  PTEST: ptest,
  LDMXCSR: ldmxcsr,
  STMXCSR: stmxcsr,
};
