/**
 * The state a program starts from, as a function of its seed. A reader of the vectors needs this
 * file, `prng.ts` and `layout.ts`, and nothing of the generator.
 *
 * @module
 */

import { DF, IF, STATUS } from "./flags.ts";
import { DATA_SIZE, LOW_SIZE, type Mode, SCRATCH_BASE, SCRATCH_SIZE } from "./layout.ts";
import { Prng } from "./prng.ts";

/** Stream numbers of {@linkcode Prng}: what each of a seed's sequences is for. */
export const STREAM_REGISTERS = 1;
/** The stream that fills a memory image; its seed is the image number. */
export const STREAM_MEMORY = 2;
/** The stream that makes the program. */
export const STREAM_PROGRAM = 3;

/** There are this many memory images; a program starts with number `seed % IMAGES`. */
export const IMAGES = 16;

/** Index of RSP in a general-purpose register file. */
export const RSP = 4;

/** Registers as a program begins. */
export interface InitialState {
  /** RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8–R15; in 32-bit mode bits 63:32 and R8–R15 are 0. */
  readonly gpr: BigUint64Array;
  /** RFLAGS: reserved bit 1 and IF set, status flags and DF as drawn, the rest clear. */
  readonly rflags: number;
}

/** Contents of the two data regions as a program begins. */
export interface MemoryImage {
  /** The low window, {@linkcode LOW_SIZE} bytes. */
  readonly low: Uint8Array;
  /** The scratch area, {@linkcode SCRATCH_SIZE} bytes. */
  readonly scratch: Uint8Array;
}

const EDGES: readonly bigint[] = [
  0n,
  1n,
  0x7fn,
  0x80n,
  0xffn,
  0x7fffn,
  0x8000n,
  0xffffn,
  0x7fff_ffffn,
  0x8000_0000n,
  0xffff_ffffn,
  0x1_0000_0000n,
  0x7fff_ffff_ffff_ffffn,
  0x8000_0000_0000_0000n,
  0xffff_ffff_ffff_fffen,
  0xffff_ffff_ffff_ffffn,
];

/**
 * A 64-bit value of one of the kinds that instructions treat differently. One draw chooses among
 * sixteen: 0–4 any 64 bits, 5–6 an address in the data part of the scratch area, 7 the same with
 * random bits 63:32, 8 a number below 256, 9 the negative of one, 10 an edge (powers of two and
 * their neighbours), 11 any 32 bits, 12 any 32 bits sign-extended, 13 packed decimal digits, 14 a
 * single bit, 15 a run of low bits.
 */
export function drawValue(rng: Prng): bigint {
  switch (rng.below(16)) {
    case 5:
    case 6:
      return BigInt(SCRATCH_BASE + rng.below(DATA_SIZE));
    case 7: {
      const address = BigInt(SCRATCH_BASE + rng.below(DATA_SIZE));
      return (BigInt(rng.next()) << 32n) | address;
    }
    case 8:
      return BigInt(rng.below(256));
    case 9:
      return BigInt.asUintN(64, -BigInt(rng.below(256)));
    case 10:
      return rng.pick(EDGES);
    case 11:
      return BigInt(rng.next());
    case 12:
      return BigInt.asUintN(64, BigInt(rng.next() | 0));
    case 13: {
      let digits = 0n;
      for (let i = 0; i < 8; i++) {
        digits = (digits << 8n) | BigInt(rng.below(10) * 16 + rng.below(10));
      }
      return digits;
    }
    case 14:
      return 1n << BigInt(rng.below(64));
    case 15:
      return (1n << BigInt(rng.below(64))) - 1n;
    default:
      return rng.next64();
  }
}

/**
 * The registers that program `seed` begins with. Sixteen values are drawn from stream 1 in register
 * order ({@linkcode drawValue}), then the stack pointer, then the flags. RSP is
 * 0x4E000 + 8 × (0…63), and one time in four a few bytes more, so that stack accesses are not
 * always aligned. In 32-bit mode the same values are cut to 32 bits.
 */
export function initialState(seed: number, mode: Mode): InitialState {
  const rng = new Prng(seed, STREAM_REGISTERS);
  const gpr = new BigUint64Array(16);
  for (let i = 0; i < 16; i++) gpr[i] = drawValue(rng);
  const aligned = SCRATCH_BASE + 0xe000 + 8 * rng.below(64);
  gpr[RSP] = BigInt(aligned + (rng.chance(1, 4) ? rng.below(8) : 0));
  if (mode === 32) {
    for (let i = 0; i < 16; i++) gpr[i] = i < 8 ? (gpr[i] ?? 0n) & 0xffff_ffffn : 0n;
  }
  const status = rng.next() & STATUS;
  return { gpr, rflags: 0x2 | IF | status | (rng.chance(1, 4) ? DF : 0) };
}

function fillPage(page: Uint8Array, kind: number, rng: Prng): void {
  if (kind === 0) {
    for (let i = 0; i < page.length; i++) page[i] = rng.next() >>> 24;
  } else if (kind === 1) {
    const view = new DataView(page.buffer, page.byteOffset, page.byteLength);
    for (let i = 0; i < page.length; i += 8) view.setBigUint64(i, drawValue(rng), true);
  } else if (kind === 2) {
    for (let i = 0; i < page.length;) {
      const byte = rng.pick([0x00, 0xff, 0x55, 0x80, 0x41]);
      for (let run = 1 + rng.below(48); run > 0 && i < page.length; run--) page[i++] = byte;
    }
  } else {
    for (let i = 0; i < page.length; i++) {
      const digits = rng.below(256);
      page[i] = rng.chance(1, 2) ? 0x30 + digits % 10 : rng.chance(1, 3) ? 0 : digits;
    }
  }
}

const images: MemoryImage[] = [];

/**
 * The memory that program `seed` begins with: image `seed % 16`. An image is filled page by page
 * from stream 2 of its number, the low window before the scratch area; page n of a region holds, by
 * n modulo 4, random bytes, quadwords of {@linkcode drawValue}, runs of 1 to 48 equal bytes (so that
 * REPE and REPNE have something to run over), or decimal digits and zeros. The arrays are shared
 * between calls: copy before writing.
 */
export function initialMemory(seed: number): MemoryImage {
  const number = seed % IMAGES;
  const known = images[number];
  if (known !== undefined) return known;
  const rng = new Prng(number, STREAM_MEMORY);
  const image = { low: new Uint8Array(LOW_SIZE), scratch: new Uint8Array(SCRATCH_SIZE) };
  for (const region of [image.low, image.scratch]) {
    for (let at = 0; at < region.length; at += 4096) {
      fillPage(region.subarray(at, at + 4096), (at >> 12) & 3, rng);
    }
  }
  images[number] = image;
  return image;
}
