/**
 * MMX (APM vol. 5; SDM vol. 1, ch. 9): the operations of SSE on 64 bits, in the low halves of the x87
 * registers.
 *
 * Every instruction makes TOP 0 and all registers valid, or with EMMS empty, and a register that is
 * written gets ones in bits 79:64 (SDM vol. 3A, table 12-3). The pointers to the last x87 instruction stay.
 *
 * @module
 */
import { Vector } from "../../microcode/raise.ts";
import { Cr0 } from "../../microcode/registers.ts";
import { S } from "../../state/cpu_state.ts";
import { type I32, type V128, v128Of } from "../../wasm/mod.ts";
import { Status } from "../../x87/format.ts";
import { X87Unit } from "../../x87/header.ts";
import { DOUBLE, type Format, SINGLE } from "../float/format.ts";
import { type Instruction, Reg, type Semantics } from "../instruction.ts";
import { pendingException } from "../x87_available.ts";
import { integersToSingles, toIntegers, type Towards } from "./convert.ts";
import { type Binary, LANE_MOVING, laneBytes, LANEWISE, UNARY } from "./integer.ts";
import { constant, extracted, inserted } from "./move.ts";
import { readVector, sseAvailable } from "./operands.ts";
import { alignRight, SHIFT, type Shift } from "./shift.ts";
import { UNARY_BY_CONSTANT } from "./shuffle.ts";
import { ZERO } from "./unit.ts";

/** Bits 79:64 of a register that was written. */
const ABOVE = 0xffff;
/** All registers empty. */
const EMPTY_TAGS = 0xffff;

/** #UD with CR0.EM, #NM with CR0.TS, #MF for what is pending. */
function mmxAvailable(i: Instruction): void {
  i.faultIf(S.cr0.has(i.f, Cr0.EM), Vector.UD);
  i.faultIf(S.cr0.has(i.f, Cr0.TS), Vector.NM);
  pendingException(i);
}

/** Makes the x87 registers those of MMX, once nothing can fault any more. */
function enter({ f }: Instruction): void {
  S.fpuStatus.clear(f, Status.TOP);
  S.fpuTag.set(f, 0);
}

/** Operand `k` with zeros above. */
function read(i: Instruction, k: number): V128 {
  if (i.form.operands[k]!.kind === "V") return i.f.loadVector(64, i.vectorAddress(k));
  return ZERO.withLane64(0, i.unsigned(k));
}

function write(i: Instruction, k: number, value: V128): void {
  const at = i.vectorAddress(k);
  i.f.store64(at, value.lane64(0));
  i.f.store64(at, ABOVE, 8);
}

/** An instruction whose first operand is its destination, made of what `compute` yields. */
const into = (compute: (i: Instruction) => V128): Semantics => ({
  emit: (i) => {
    mmxAvailable(i);
    const value = compute(i);
    enter(i);
    write(i, 0, value);
  },
});

/** An instruction that writes elsewhere. */
const outOf = (emit: (i: Instruction) => void): Semantics => ({
  emit: (i) => {
    mmxAvailable(i);
    emit(i);
    enter(i);
  },
});

/** Both operands in one vector, the first below. */
const joined: Binary = (a, b) => a.shuffle(b, laneBytes(8, [0, 2]));
/** The upper half of a vector below. */
const upper = (a: V128): V128 => a.shuffle(ZERO, laneBytes(8, [1, 2]));

/** Operations of 128 bits whose operands are the halves of a vector: packs and horizontal ones. */
const ofJoined = (name: string): Binary => (a, b) => {
  const both = joined(a, b);
  return LANE_MOVING[name]!(both, both);
};

/** Operations in which lanes move. */
const MOVING: Readonly<Record<string, Binary>> = {
  ...Object.fromEntries(
    ["PACKSSWB", "PACKUSWB", "PACKSSDW", "PHADDW", "PHADDD", "PHADDSW", "PHSUBW", "PHSUBD"]
      .concat("PHSUBSW").map((name) => [name, ofJoined(name)]),
  ),
  ...Object.fromEntries(
    ["BW", "WD", "DQ"].flatMap((lanes): [string, Binary][] => {
      const low = LANE_MOVING[`PUNPCKL${lanes}`]!;
      return [[`PUNPCKL${lanes}`, low], [`PUNPCKH${lanes}`, (a, b) => upper(low(a, b))]];
    }),
  ),
  // Three bits of an index count, besides that which makes a zero.
  PSHUFB: (a, b) => LANE_MOVING.PSHUFB!(a, b.and(v128Of(8, 0x87))),
};

/** What of LANEWISE there is for MMX. */
const LANES: readonly string[] = [
  ..."PADDB PADDW PADDD PADDQ PADDSB PADDSW PADDUSB PADDUSW".split(" "),
  ..."PSUBB PSUBW PSUBD PSUBQ PSUBSB PSUBSW PSUBUSB PSUBUSW".split(" "),
  ..."PMULLW PMULHW PMULHUW PMULHRSW PMADDWD PMADDUBSW PMULUDQ PSADBW PAVGB PAVGW".split(" "),
  ..."PMINUB PMINSW PMAXUB PMAXSW PCMPEQB PCMPEQW PCMPEQD PCMPGTB PCMPGTW PCMPGTD".split(" "),
  ..."PAND PANDN POR PXOR PSIGNB PSIGNW PSIGND".split(" "),
];

const binary = (operation: Binary): Semantics =>
  into((i) => {
    const b = read(i, 1);
    return operation(read(i, 0), b);
  });

/** The count is a constant, or all of an operand. */
const shift = (operation: Shift): Semantics =>
  into((i) => {
    const byConstant = i.form.operands[1]!.kind === "I";
    const count = byConstant ? i.immediate() : read(i, 1).lane64(0);
    return operation(read(i, 0), count);
  });

/** Number of a word. */
const wordNumber = (i: Instruction): I32 => constant(i).and(3);

/** Names of forms that there are of SSE as well. */
const ofMmx = (forms: Readonly<Record<string, Semantics>>): Record<string, Semantics> =>
  Object.fromEntries(Object.entries(forms).map(([name, form]) => [`${name}.mm`, form]));

/**
 * CVTPI2PS and CVTPI2PD: two integers to the lower singles, above which the rest stays, or to doubles. From
 * memory they leave the x87 state alone. Intel's manual has that of CVTPI2PD only; AMD's processors do so
 * with both.
 */
const fromIntegers = (compute: (i: Instruction, integers: V128) => V128): Semantics => ({
  emit: (i) => {
    sseAvailable(i);
    const memory = i.isMemory(1);
    if (!memory) mmxAvailable(i);
    const value = compute(i, read(i, 1));
    if (!memory) enter(i);
    i.f.store128(i.vectorAddress(0), value);
  },
});

const toSingles = fromIntegers((i, integers) => {
  const kept = i.f.load128(i.vectorAddress(0));
  return integersToSingles(i, integers, 0).shuffle(kept, laneBytes(8, [0, 3]));
});

const toDoubles = fromIntegers((_, integers) => integers.unary("f64x2.convert_low_i32x4_s"));

/** CVTPS2PI, CVTPD2PI and those that truncate: two values to integers. */
const fromFloat = (format: Format, towards: Towards): Semantics =>
  into((i) => {
    sseAvailable(i);
    const value = readVector(i, 1, "aligned");
    // Only the lower two count; zeros raise nothing.
    const two = format.bits === 32 ? value.shuffle(ZERO, laneBytes(8, [0, 2])) : value;
    return toIntegers(i, format, towards, two, 0);
  });

/** MOVD, and MOVQ with a general-purpose register. */
const general: Semantics = {
  emit: (i) => {
    mmxAvailable(i);
    if (i.form.operands[0]!.kind === "V") {
      const value = ZERO.withLane64(0, i.unsigned(1));
      enter(i);
      write(i, 0, value);
    } else {
      i.write(0, read(i, 1).lane64(0));
      enter(i);
    }
  },
};

/** MOVQ. */
const quadword: Semantics = {
  emit: (i) => {
    mmxAvailable(i);
    const value = read(i, 1);
    if (i.isMemory(0)) i.write(0, value.lane64(0));
    enter(i);
    if (!i.isMemory(0)) write(i, 0, value);
  },
};

/** Instructions by mnemonic; `.mm` marks those that SSE has as well. */
export const MMX: Readonly<Record<string, Semantics>> = {
  ...ofMmx(Object.fromEntries(LANES.map((name) => [name, binary(LANEWISE[name]!)]))),
  ...ofMmx(
    Object.fromEntries(Object.entries(MOVING).map(([name, of]) => [name, binary(of)])),
  ),
  ...ofMmx(
    Object.fromEntries(Object.entries(SHIFT).map(([name, of]) => [name, shift(of)])),
  ),
  ...ofMmx(
    Object.fromEntries(
      ["PABSB", "PABSW", "PABSD"].map((name) => [name, into((i) => UNARY[name]!(read(i, 1)))]),
    ),
  ),
  ...ofMmx({
    PALIGNR: into((i) => {
      const b = read(i, 1);
      return alignRight(ZERO, joined(b, read(i, 0)), constant(i));
    }),
    PSHUFW: into((i) => UNARY_BY_CONSTANT.PSHUFLW!(read(i, 1), constant(i))),
    PINSRW: into((i) => {
      const value = i.unsigned(1);
      return inserted(16, read(i, 0), value, wordNumber(i));
    }),
    PEXTRW: outOf((i) => i.write(0, extracted(16, read(i, 1), wordNumber(i)))),
    PMOVMSKB: outOf((i) => i.write(0, read(i, 1).test("i8x16.bitmask").extendU())),
    MOVD: general,
    MOVQ: quadword,
  }),
  CVTPI2PS: toSingles,
  CVTPI2PD: toDoubles,
  CVTPS2PI: fromFloat(SINGLE, "mxcsr"),
  CVTPD2PI: fromFloat(DOUBLE, "mxcsr"),
  CVTTPS2PI: fromFloat(SINGLE, "zero"),
  CVTTPD2PI: fromFloat(DOUBLE, "zero"),
  MOVNTQ: quadword,
  MASKMOVQ: {
    addressSize: true,
    emit: (i) => {
      const { f } = i;
      mmxAvailable(i);
      const value = read(i, 0).lane64(0);
      const mask = read(i, 1).test("i8x16.bitmask");
      const offset = i.reg(Reg.RDI, i.addressBits);
      i.spill();
      f.if(mask, () => {
        const at = f.call(i.mc.segmentAddress, i.segment(), offset, 8, 1);
        f.call(X87Unit.maskedStore, at, value, mask);
      });
      enter(i);
    },
  },
  MOVQ2DQ: outOf((i) => {
    sseAvailable(i);
    i.f.store128(i.vectorAddress(0), read(i, 1));
  }),
  MOVDQ2Q: into((i) => {
    sseAvailable(i);
    return i.f.load128(i.vectorAddress(1));
  }),
  EMMS: {
    emit: (i) => {
      mmxAvailable(i);
      enter(i);
      S.fpuTag.set(i.f, EMPTY_TAGS);
    },
  },
};
