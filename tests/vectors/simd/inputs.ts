/**
 * What a form's operands are filled with, case by case: a function of the form's name and the number of
 * the case, so that none of it is in the file.
 *
 * @module
 */
import { Prng } from "../prng.ts";
import type { InputClass, SimdForm } from "./forms.ts";

/** Registers and memory that an instruction finds or leaves. */
export interface SimdState {
  /** YMM0–YMM2, 32 bytes each. */
  readonly vectors: Uint8Array;
  /** RAX, RCX, RDX. */
  readonly registers: readonly bigint[];
  /** The six arithmetic flags in their RFLAGS positions. */
  readonly flags: number;
  readonly mxcsr: number;
  /** 64 bytes at RDI, which is a multiple of 64. */
  readonly memory: Uint8Array;
}

/** Bytes of YMM0–YMM2. */
export const VECTOR_BYTES = 96;
/** Bytes of memory. */
export const MEMORY_BYTES = 64;
/** OF, SF, ZF, AF, PF and CF. */
export const ARITHMETIC = 0x8d5;

/**
 * Cases of a form in registers and in memory: memory differs in how the operand is found alone. VEX forms
 * compute what the legacy ones do.
 */
const CASES = { reg: 32, mem: 8, vex: 12, vexMem: 3 } as const;
const ROUNDING_CASES = { reg: 192, mem: 16, vex: 72, vexMem: 4 } as const;

/** How many cases a form has. */
export function caseCount({ name, rounds, constants }: SimdForm): number {
  const cases = rounds ? ROUNDING_CASES : CASES;
  const vex = name.startsWith("v");
  if (name.includes(" mem")) return vex ? cases.vexMem : cases.mem;
  return vex ? cases.vex + constants.length : cases.reg + 2 * constants.length;
}

/** MXCSR: all roundings, with and without DAZ and FTZ, sometimes with an exception unmasked. */
const CONTROLS: readonly number[] = [
  ...[0x1f80, 0x3f80, 0x5f80, 0x7f80],
  ...[0x1fc0, 0x9f80, 0x9fc0, 0xbfc0, 0xdf80, 0x7fc0],
  ...[0x1fbf, 0x1fa0, 0x1f80, 0x1f9f],
  ...[0x1f00, 0x1e80, 0x1d80, 0x1b80, 0x1780, 0x0f80, 0x0000, 0x8000, 0x7780, 0x9780],
];

/** Sign, exponent and fraction fields of a format. */
interface Format {
  readonly bits: number;
  readonly fraction: number;
}
const FORMATS: Readonly<Record<"half" | "f32" | "f64", Format>> = {
  half: { bits: 16, fraction: 10 },
  f32: { bits: 32, fraction: 23 },
  f64: { bits: 64, fraction: 52 },
};

/** A floating-point value: an edge of the format, near another value, or any. */
function floatBits(rng: Prng, { bits, fraction }: Format): bigint {
  const exponentBits = BigInt(bits - fraction - 1);
  const width = BigInt(fraction);
  const most = (1n << exponentBits) - 1n;
  const bias = most >> 1n;
  const all = (1n << width) - 1n;
  const compose = (sign: bigint, exponent: bigint, low: bigint): bigint =>
    (sign << BigInt(bits - 1)) | (exponent << width) | (low & all);
  const sign = BigInt(rng.below(2));
  const random = rng.next64();
  switch (rng.below(16)) {
    case 0:
      return compose(sign, 0n, 0n);
    case 1:
      return compose(sign, most, 0n);
    case 2:
      // A quiet NaN or a signalling one.
      return compose(sign, most, random | 1n);
    case 3:
      return compose(sign, 0n, random >> BigInt(rng.below(64)));
    case 4:
      return compose(sign, rng.chance(1, 2) ? 1n : most - 1n, rng.pick([0n, 1n, all, random]));
    case 5:
      return compose(sign, bias + BigInt(rng.below(4)), rng.pick([0n, 1n, all, all - 1n]));
    case 6:
      // An integer or a half.
      return compose(sign, bias + BigInt(rng.below(70)), random << BigInt(rng.below(fraction)));
    case 7:
      return compose(sign, bias, random & 7n);
    case 8:
    case 9:
      // Near the least and the greatest values, whose products and quotients leave the range.
      return compose(sign, rng.chance(1, 2) ? random % 64n + 1n : most - 1n - random % 64n, random);
    case 10:
      return compose(sign, (bias >> 1n) + random % 40n, random);
    case 11:
      return compose(sign, bias + (bias >> 1n) - random % 40n, random);
    default:
      return compose(
        sign,
        bias + BigInt(rng.below(60)) - 30n,
        rng.next64() >> BigInt(rng.below(52)),
      );
  }
}

/** Integers that are all ones, all zeros, the greatest and the least as often as any others. */
function integerBytes(rng: Prng, into: Uint8Array): void {
  const bytes = rng.pick([1, 2, 4, 8]);
  for (let at = 0; at < into.length; at += bytes) {
    const edge = rng.below(12);
    const sign = [0x00, 0xff, 0x7f, 0x80][edge];
    const rest = [0x00, 0xff, 0xff, 0x00][edge];
    for (let k = 0; k < bytes; k++) {
      into[at + k] = (k === bytes - 1 ? sign : rest) ?? rng.below(256);
    }
  }
}

const TEXT = "aabbccddABz\0\x7f\x80\xff";

function fill(rng: Prng, inputs: InputClass, into: Uint8Array): void {
  switch (inputs) {
    case "half":
    case "f32":
    case "f64": {
      const view = new DataView(into.buffer, into.byteOffset);
      const format = FORMATS[inputs];
      const previous: bigint[] = [];
      for (let at = 0; at < into.length; at += format.bits / 8) {
        // Equal and almost equal values cancel.
        const again = previous.length > 0 && rng.chance(1, 6);
        const value = again
          ? rng.pick(previous) ^ BigInt(rng.pick([0, 1, 2])) ^
            (BigInt(rng.below(2)) << BigInt(format.bits - 1))
          : floatBits(rng, format);
        previous.push(value);
        if (format.bits === 16) view.setUint16(at, Number(value & 0xffffn), true);
        else if (format.bits === 32) view.setUint32(at, Number(value), true);
        else view.setBigUint64(at, value, true);
      }
      break;
    }
    case "text":
      for (let k = 0; k < into.length; k++) into[k] = TEXT.charCodeAt(rng.below(TEXT.length));
      break;
    default:
      integerBytes(rng, into);
  }
}

function seedOf(name: string): number {
  let hash = 0x811c_9dc5;
  for (let k = 0; k < name.length; k++) {
    hash = Math.imul(hash ^ name.charCodeAt(k), 0x0100_0193);
  }
  return hash >>> 0;
}

/** The general registers of a case: integers near the limits of both widths, or lengths of strings. */
function general(rng: Prng, inputs: InputClass): bigint {
  if (inputs === "text") return BigInt.asUintN(64, BigInt(rng.below(40) - 20));
  const value = rng.next64() >> BigInt(rng.below(64));
  return rng.chance(1, 2) ? value : BigInt.asUintN(64, -value);
}

/** What case `k` of a form begins with. */
export function initialState(form: SimdForm, k: number): SimdState {
  const rng = new Prng(seedOf(form.name), k);
  const vectors = new Uint8Array(VECTOR_BYTES);
  const memory = new Uint8Array(MEMORY_BYTES);
  fill(rng, form.inputs, vectors);
  fill(rng, form.inputs, memory);
  if (form.inputs === "count") {
    for (const bytes of [vectors.subarray(64), memory]) {
      const count = rng.pick([rng.below(70), rng.below(16), 255, 256 + rng.below(4)]);
      new DataView(bytes.buffer, bytes.byteOffset).setBigUint64(0, BigInt(count), true);
    }
  }
  const registers = [0, 1, 2].map(() => general(rng, form.inputs));
  return {
    vectors,
    registers,
    flags: rng.chance(1, 2) ? ARITHMETIC : 0,
    mxcsr: form.rounds ? CONTROLS[k % CONTROLS.length]! : 0x1f80,
    memory,
  };
}

/** The bytes of case `k`. */
export function caseCode({ code, constants }: SimdForm, k: number): number[] {
  return constants.length === 0 ? [...code] : [...code, constants[k % constants.length]!];
}
