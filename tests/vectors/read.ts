/**
 * Reads the recorded vectors: short user-mode integer programs and what a real processor made of
 * each. A reader needs nothing of the generator; what a program starts from follows from its seed
 * ({@linkcode initialState}, {@linkcode initialMemory}), and everything else is in the data.
 *
 * A test maps the three regions of `layout.ts`, puts {@linkcode codeImage} into the code pages and
 * {@linkcode initialMemory} into the data regions, loads the registers, and runs from
 * {@linkcode Vector.start} until an exception. The program has ended as recorded when the exception,
 * RIP, the registers, the flags under {@linkcode Vector.definedFlags} and every byte of memory agree.
 *
 * Limits: integer instructions of user mode only, one processor, flat segments, no privileged
 * state. Vectors with {@linkcode Vector.amd} set show what AMD processors do where Intel's manual
 * leaves the result undefined or says otherwise.
 *
 * @example
 * ```ts no-assert
 * import { initialMemory, initialState, loadVectors } from "./read.ts";
 *
 * const { vectors } = await loadVectors("base");
 * for (const vector of vectors) {
 *   const { gpr, rflags } = initialState(vector.seed, vector.mode);
 *   const { low, scratch } = initialMemory(vector.seed);
 * }
 * ```
 *
 * @module
 */

import { initialState } from "./initial.ts";
import { CODE_BASE, CODE_SIZE, type Mode } from "./layout.ts";

export {
  CODE_BASE,
  CODE_SIZE,
  LOW_BASE,
  LOW_SIZE,
  type Mode,
  SCRATCH_BASE,
  SCRATCH_SIZE,
} from "./layout.ts";
export { initialMemory, type InitialState, initialState, type MemoryImage } from "./initial.ts";

/** Version of the file format this reader understands. */
export const FORMAT_VERSION = 1;

/** First bytes of a vector file, uncompressed. */
export const MAGIC = "trapvec\0";

/** The processor that a file was recorded on, from CPUID leaves 0, 1 and 8000_0002h–8000_0004h. */
export interface Processor {
  /** Vendor string. */
  readonly vendor: string;
  /** Processor name string, trimmed. */
  readonly name: string;
  /** Display family. */
  readonly family: number;
  /** Display model. */
  readonly model: number;
  /** Stepping. */
  readonly stepping: number;
}

/** The exception that ended a program early. */
export interface Exception {
  /** Vector: 0 #DE, 4 #OF, 5 #BR, 6 #UD, 12 #SS, 13 #GP, 14 #PF. */
  readonly vector: number;
  /** Error code, 0 for vectors that push none. Recorded at CPL 3, so #PF has bit 2 (U/S) set. */
  readonly errorCode: number;
  /** Faulting linear address of a #PF; 0 for any other. */
  readonly cr2: number;
}

/** A run of memory that the program changed. */
export interface MemoryRun {
  /** Linear address of the first byte. */
  readonly address: number;
  /** The bytes afterwards; a few in the middle of a run may be as they were. */
  readonly bytes: Uint8Array;
}

/** One program and its outcome. */
export interface Vector {
  /** The seed it was generated from, and that its initial state follows from. */
  readonly seed: number;
  /** 64-bit mode or compatibility (32-bit) mode. */
  readonly mode: Mode;
  /** Features needed beyond the base set: names as in {@linkcode VectorFile.features}. */
  readonly features: readonly string[];
  /** The outcome is AMD's choice where Intel's manual leaves one or makes another. */
  readonly amd: boolean;
  /** Linear address of the first instruction. */
  readonly start: number;
  /** The code from there; the rest of the code pages is INT3. */
  readonly code: Uint8Array;
  /** What stopped it; undefined when it reached the INT3 that is its last byte. */
  readonly exception: Exception | undefined;
  /**
   * RIP as the exception left it: after the final INT3 (and after INTO), at the faulting
   * instruction, or at a branch target that is not mapped.
   */
  readonly rip: number;
  /** Registers in encoding order; in 32-bit mode eight, in bits 31:0. */
  readonly gpr: BigUint64Array;
  /** RFLAGS; RF and TF recorded as 0. */
  readonly rflags: number;
  /** Bits of RFLAGS to compare: those that neither vendor's manual leaves undefined. */
  readonly definedFlags: number;
  /** What changed in memory, by ascending address; all other bytes are as they were. */
  readonly memory: readonly MemoryRun[];
  /**
   * Instructions retired, a repeated string instruction counting once; the final INT3 and a faulting
   * instruction do not count.
   */
  readonly retiredCount: number;
  /** Offsets in `code` of the instructions that retired at least once, ascending. */
  readonly retired: readonly number[];
}

/** A decoded vector file. */
export interface VectorFile {
  /** What it was recorded on. */
  readonly processor: Processor;
  /** Names of features in the order of their bits in the file. */
  readonly features: readonly string[];
  /** The vectors, by ascending seed. */
  readonly vectors: readonly Vector[];
}

/** The bytes are no vector file of this version. */
export class VectorFormatError extends Error {
  /** Says what is wrong, and where in the uncompressed file. */
  constructor(message: string, offset: number) {
    super(`vector file, offset ${offset}: ${message}`);
    this.name = "VectorFormatError";
  }
}

/** Bits of a record's first byte after the seed. */
export const RECORD_32 = 1;
/** The record is marked {@linkcode Vector.amd}. */
export const RECORD_AMD = 2;
/** The record has an {@linkcode Exception}. */
export const RECORD_EXCEPTION = 4;

class ByteReader {
  readonly #bytes: Uint8Array;
  at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  get done(): boolean {
    return this.at >= this.#bytes.length;
  }

  take(count: number): Uint8Array {
    if (this.at + count > this.#bytes.length) {
      throw new VectorFormatError(`${count} bytes wanted, the file ends`, this.at);
    }
    this.at += count;
    return this.#bytes.subarray(this.at - count, this.at);
  }

  u8(): number {
    return this.take(1)[0] as number;
  }

  /** Unsigned LEB128 below 2^53. */
  varint(): number {
    let value = 0;
    for (let scale = 1;; scale *= 128) {
      const byte = this.u8();
      value += (byte & 127) * scale;
      if (byte < 128) return value;
      if (scale > 2 ** 42) throw new VectorFormatError("number too long", this.at);
    }
  }

  bigint(bytes: number): bigint {
    let value = 0n;
    this.take(bytes).forEach((byte, i) => value |= BigInt(byte) << BigInt(8 * i));
    return value;
  }
}

interface Header {
  readonly format: number;
  readonly processor: Processor;
  readonly features: readonly string[];
  readonly count: number;
}

function readHeader(reader: ByteReader): Header {
  const decoder = new TextDecoder();
  if (decoder.decode(reader.take(MAGIC.length)) !== MAGIC) {
    throw new VectorFormatError("not a vector file", 0);
  }
  const length = reader.varint();
  const at = reader.at;
  const text = decoder.decode(reader.take(length));
  let header: Header;
  try {
    header = JSON.parse(text);
  } catch (error) {
    throw new VectorFormatError(`header is not JSON: ${error}`, at);
  }
  if (header.format !== FORMAT_VERSION) {
    throw new VectorFormatError(`format ${header.format}, this reader has ${FORMAT_VERSION}`, at);
  }
  if (!Array.isArray(header.features) || typeof header.processor?.vendor !== "string") {
    throw new VectorFormatError("header names no features or no processor", at);
  }
  return header;
}

function readRetired(reader: ByteReader): number[] {
  const offsets: number[] = [];
  let at = 0;
  for (let n = reader.varint(); n > 0; n--) {
    at += reader.varint();
    offsets.push(at);
  }
  return offsets;
}

function readMemory(reader: ByteReader): MemoryRun[] {
  const runs: MemoryRun[] = [];
  let address = 0;
  for (let n = reader.varint(); n > 0; n--) {
    address += reader.varint();
    const bytes = reader.take(reader.varint());
    runs.push({ address, bytes });
    address += bytes.length;
  }
  return runs;
}

function readVector(reader: ByteReader, features: readonly string[]): Vector {
  const seed = reader.varint();
  const bits = reader.u8();
  const mode: Mode = (bits & RECORD_32) !== 0 ? 32 : 64;
  const mask = reader.varint();
  const start = CODE_BASE + reader.varint();
  const code = reader.take(reader.varint());
  if (start + code.length > CODE_BASE + CODE_SIZE) {
    throw new VectorFormatError(`the code of seed ${seed} does not fit its pages`, reader.at);
  }
  let exception: Exception | undefined;
  if ((bits & RECORD_EXCEPTION) !== 0) {
    const vector = reader.u8();
    exception = { vector, errorCode: reader.varint(), cr2: reader.varint() };
  }
  const rip = reader.varint();
  const rflags = reader.varint();
  const definedFlags = reader.varint();
  const changed = reader.varint();
  const registers = mode === 64 ? 16 : 8;
  const gpr = initialState(seed, mode).gpr.slice(0, registers);
  for (let r = 0; r < registers; r++) {
    if ((changed >> r & 1) !== 0) gpr[r] = reader.bigint(mode / 8);
  }
  const retiredCount = reader.varint();
  const retired = readRetired(reader);
  const memory = readMemory(reader);
  return {
    seed,
    mode,
    features: features.filter((_, i) => (mask >> i & 1) !== 0),
    amd: (bits & RECORD_AMD) !== 0,
    start,
    code,
    exception,
    rip,
    gpr,
    rflags,
    definedFlags,
    memory,
    retiredCount,
    retired,
  };
}

/**
 * Decodes an uncompressed vector file.
 *
 * @throws {VectorFormatError} when it is not one, is of another version, or ends early.
 */
export function decodeVectors(bytes: Uint8Array): VectorFile {
  const reader = new ByteReader(bytes);
  const { processor, features, count } = readHeader(reader);
  const vectors: Vector[] = [];
  while (!reader.done) vectors.push(readVector(reader, features));
  if (vectors.length !== count) {
    throw new VectorFormatError(`${vectors.length} vectors, header says ${count}`, reader.at);
  }
  return { processor, features, vectors };
}

/** The committed files: seeds of base features, and those that also use the extended group. */
export type VectorSet = "base" | "extended";

/** Where a committed file is. */
export function vectorFile(set: VectorSet): URL {
  return new URL(`./data/${set}.bin.gz`, import.meta.url);
}

/** Undoes the gzip compression of a file's bytes. */
export async function decompress(bytes: Uint8Array<ArrayBuffer>): Promise<Uint8Array> {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/**
 * Reads a committed file.
 *
 * @throws {VectorFormatError} as {@linkcode decodeVectors}.
 */
export async function loadVectors(set: VectorSet): Promise<VectorFile> {
  return decodeVectors(await decompress(await Deno.readFile(vectorFile(set))));
}

/** The two code pages of a vector: its code where it belongs, and INT3 (CCh) everywhere else. */
export function codeImage(vector: Vector): Uint8Array {
  const image = new Uint8Array(CODE_SIZE).fill(0xcc);
  image.set(vector.code, vector.start - CODE_BASE);
  return image;
}
