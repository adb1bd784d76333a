/**
 * PCMPESTRI, PCMPESTRM, PCMPISTRI and PCMPISTRM: comparisons of strings (SDM vol. 2, 4.1).
 *
 * @module
 */
import { Rflags } from "../../microcode/registers.ts";
import {
  type FunctionBuilder,
  type I32,
  i32,
  I32T,
  type I64,
  type ModuleBuilder,
  reference,
  splat,
  type TypeToken,
  type V128,
  v128Lanes,
  V128T,
  type VectorBinary,
} from "../../wasm/mod.ts";
import { type Instruction, Reg } from "../instruction.ts";
import type { Fn, Unit } from "../unit.ts";
import { constant } from "./move.ts";
import { alignRight } from "./shift.ts";
import { allBits, laneAt } from "./shuffle.ts";
import { ONES, ZERO } from "./unit.ts";

type I = TypeToken<I32>;
type V = TypeToken<V128>;

/** Fields of the constant. */
const Control = {
  /** Elements are words, not bytes. */
  WORDS: 1,
  /** Elements are signed. */
  SIGNED: 2,
  /** Shift of the aggregation (2 bits). */
  AGGREGATION: 2,
  /** The result is negated, */
  NEGATED: 0x10,
  /** but only where the second operand has elements. */
  MASKED: 0x20,
  /** The most significant index; a mask of bytes or words. */
  HIGH: 0x40,
} as const;

/** Functions of the unit. */
export const TextUnit: {
  /** `(a, b, lengthA, lengthB, control)`: the bits of the manual's IntRes2. */
  readonly compare: Fn<[V, V, I, I, I], I>;
} = {
  compare: reference("text.compare", [V128T, V128T, I32T, I32T, I32T], I32T),
};

interface Shape {
  readonly lanes: "i8x16" | "i16x8";
  readonly bytes: 1 | 2;
  readonly count: number;
}
const BYTES: Shape = { lanes: "i8x16", bytes: 1, count: 16 };
const WORDS: Shape = { lanes: "i16x8", bytes: 2, count: 8 };

const op = ({ lanes }: Shape, name: string, a: V128, b: V128): V128 =>
  a.binary(`${lanes}.${name}` as VectorBinary, b);

/** All ones in the lanes with numbers below `length`. */
function present(shape: Shape, length: I32): V128 {
  const numbers = v128Lanes(8 * shape.bytes, Array.from({ length: shape.count }, (_, k) => k));
  return op(shape, "gt_u", splat(shape.lanes, length), numbers);
}

/** Runs `body` for the elements of `a` from 0 on, `step` at a time, as long as there are `step` of them. */
function elements(
  f: FunctionBuilder,
  shape: Shape,
  a: V128,
  length: I32,
  step: number,
  body: (number: I32, element: (behind: number) => V128) => void,
): void {
  const k = f.variable(I32T, 0);
  f.while(() => k.get().add(step).leU(length), () => {
    const number = k.get();
    body(number, (behind) => splat(shape.lanes, laneAt(shape.lanes, a, number.add(behind))));
    k.set(number.add(step));
  });
}

function aggregate(
  f: FunctionBuilder,
  shape: Shape,
  a: V128,
  b: V128,
  lengthA: I32,
  lengthB: I32,
  control: I32,
): I32 {
  const result = f.variable(V128T, ZERO);
  const inB = present(shape, lengthB);
  const equalAny = (): void => {
    elements(f, shape, a, lengthA, 1, (_, element) => {
      result.set(result.get().or(op(shape, "eq", b, element(0))));
    });
    result.set(result.get().and(inB));
  };
  const ranges = (): void => {
    const outside = (name: "gt_s" | "gt_u"): void =>
      elements(f, shape, a, lengthA, 2, (_, element) => {
        const out = op(shape, name, element(0), b).or(op(shape, name, b, element(1)));
        result.set(result.get().or(out.not()));
      });
    f.if(control.and(Control.SIGNED), () => outside("gt_s"), () => outside("gt_u"));
    result.set(result.get().and(inB));
  };
  const equalEach = (): void => {
    const inA = present(shape, lengthA);
    const both = op(shape, "eq", a, b).and(inA).and(inB);
    result.set(both.or(inA.or(inB).not()));
  };
  const equalOrdered = (): void => {
    result.set(ONES);
    elements(f, shape, a, lengthA, 1, (number, element) => {
      const bytes = number.mul(shape.bytes);
      // Beyond the vector everything counts as equal, beyond the string nothing.
      const equal = op(shape, "eq", b, element(0)).and(inB);
      result.set(result.get().and(alignRight(ONES, equal, bytes)));
    });
  };
  f.switch(
    control.shrU(Control.AGGREGATION).and(3),
    [equalAny, ranges, equalEach],
    equalOrdered,
  );
  const all = (1 << shape.count) - 1;
  const bits = result.get().test(`${shape.lanes}.bitmask`);
  const flipped = control.and(Control.MASKED).ne(0)
    .select(i32(1).shl(lengthB).sub(1), i32(all));
  return control.and(Control.NEGATED).ne(0).select(bits.xor(flipped), bits);
}

/** The unit. */
export const TEXT_UNIT: Unit = {
  name: "text",
  functions: Object.values(TextUnit),
  define: (module: ModuleBuilder) => {
    module.body(TextUnit.compare, (f, a, b, lengthA, lengthB, control) => {
      f.if(control.and(Control.WORDS), () => {
        f.return(aggregate(f, WORDS, a, b, lengthA, lengthB, control));
      });
      f.return(aggregate(f, BYTES, a, b, lengthA, lengthB, control));
    });
  },
};

/** Elements before the first that is 0. */
function implicitLength(a: V128, words: I32): I32 {
  const ofBytes = a.binary("i8x16.eq", ZERO).test("i8x16.bitmask").or(1 << 16).ctz();
  const ofWords = a.binary("i16x8.eq", ZERO).test("i16x8.bitmask").or(1 << 8).ctz();
  return words.select(ofWords, ofBytes);
}

/** The magnitude of a signed length, but no more than there can be. */
function explicitLength(value: I64, most: I32): I32 {
  const magnitude = value.ltS(0).select(value.xor(-1).add(1), value);
  return magnitude.gtU(most.extendU()).select(most, magnitude.wrap());
}

/** Compares the strings in a and b; `index` goes to ECX, else a mask to `write`. */
export function compareText(
  i: Instruction,
  a: V128,
  b: V128,
  explicit: boolean,
  write?: (mask: V128) => void,
): void {
  const { f } = i;
  const control = constant(i);
  const words = control.and(Control.WORDS);
  const most = words.select(i32(8), i32(16));
  const { bits } = i;
  const length = (vector: V128, register: number): I32 =>
    explicit
      ? explicitLength(i.regSigned(register, bits === 64 ? 64 : 32), most)
      : implicitLength(vector, words);
  const lengthA = length(a, Reg.RAX);
  const lengthB = length(b, Reg.RDX);
  const result = f.call(TextUnit.compare, a, b, lengthA, lengthB, control);
  const high = control.and(Control.HIGH);
  if (write === undefined) {
    const index = high.select(i32(31).sub(result.clz()), result.ctz());
    i.setReg(Reg.RCX, 32, result.eqz().select(most, index).extendU());
  } else {
    const ofBytes = expanded(result, BYTES);
    const ofWords = expanded(result, WORDS);
    const wide = ofWords.select(ofBytes, allBits(words));
    const narrow = ZERO.withLane("i32x4", 0, result);
    write(wide.select(narrow, allBits(high)));
  }
  i.flagsValue(
    result.ne(0).mul(Rflags.CF)
      .or(lengthB.ltU(most).mul(Rflags.ZF))
      .or(lengthA.ltU(most).mul(Rflags.SF))
      .or(result.and(1).mul(Rflags.OF)),
  );
}

/** Bit k as all bits of lane k. */
function expanded(bits: I32, { lanes, bytes, count }: Shape): V128 {
  const places = Array.from({ length: count }, (_, k) => 1 << (k & 7));
  const masks = v128Lanes(8 * bytes, places);
  const spread = bytes === 2
    ? splat("i16x8", bits)
    : splat("i16x8", bits).binary("i8x16.swizzle", v128Lanes(8, SPREAD));
  return spread.and(masks).binary(`${lanes}.eq`, masks);
}

/** The low byte of a word eight times, then the high one. */
const SPREAD: readonly number[] = Array.from({ length: 16 }, (_, k) => k >> 3);
