/**
 * Writes vector files: the counterpart of `read.ts`, whose module comment and `README.md` describe
 * what is in them.
 *
 * @module
 */

import { initialState } from "./initial.ts";
import { CODE_BASE } from "./layout.ts";
import {
  FORMAT_VERSION,
  MAGIC,
  type Processor,
  RECORD_32,
  RECORD_AMD,
  RECORD_EXCEPTION,
  type Vector,
} from "./read.ts";

class ByteWriter {
  readonly #bytes: number[] = [];

  raw(bytes: Iterable<number>): void {
    for (const byte of bytes) this.#bytes.push(byte);
  }

  u8(value: number): void {
    this.#bytes.push(value);
  }

  varint(value: number): void {
    let rest = value;
    while (rest >= 128) {
      this.#bytes.push(rest % 128 + 128);
      rest = Math.floor(rest / 128);
    }
    this.#bytes.push(rest);
  }

  bigint(value: bigint, bytes: number): void {
    for (let i = 0; i < bytes; i++) this.#bytes.push(Number((value >> BigInt(8 * i)) & 0xffn));
  }

  finish(): Uint8Array<ArrayBuffer> {
    return Uint8Array.from(this.#bytes);
  }
}

function writeVector(writer: ByteWriter, vector: Vector, features: readonly string[]): void {
  const { mode, exception } = vector;
  writer.varint(vector.seed);
  writer.u8(
    (mode === 32 ? RECORD_32 : 0) | (vector.amd ? RECORD_AMD : 0) |
      (exception === undefined ? 0 : RECORD_EXCEPTION),
  );
  writer.varint(vector.features.reduce((mask, name) => mask | 1 << features.indexOf(name), 0));
  writer.varint(vector.start - CODE_BASE);
  writer.varint(vector.code.length);
  writer.raw(vector.code);
  if (exception !== undefined) {
    writer.u8(exception.vector);
    writer.varint(exception.errorCode);
    writer.varint(exception.cr2);
  }
  writer.varint(vector.rip);
  writer.varint(vector.rflags);
  writer.varint(vector.definedFlags);
  const initial = initialState(vector.seed, mode).gpr;
  let changed = 0;
  vector.gpr.forEach((value, r) => changed |= value === initial[r] ? 0 : 1 << r);
  writer.varint(changed);
  vector.gpr.forEach((value, r) => {
    if ((changed >> r & 1) !== 0) writer.bigint(value, mode / 8);
  });
  writer.varint(vector.retiredCount);
  writer.varint(vector.retired.length);
  let before = 0;
  for (const offset of vector.retired) {
    writer.varint(offset - before);
    before = offset;
  }
  writer.varint(vector.memory.length);
  let address = 0;
  for (const run of vector.memory) {
    writer.varint(run.address - address);
    writer.varint(run.bytes.length);
    writer.raw(run.bytes);
    address = run.address + run.bytes.length;
  }
}

/** Encodes a vector file, uncompressed. */
export function encodeVectors(
  processor: Processor,
  features: readonly string[],
  vectors: readonly Vector[],
): Uint8Array<ArrayBuffer> {
  const writer = new ByteWriter();
  const encoder = new TextEncoder();
  const header = { format: FORMAT_VERSION, processor, features, count: vectors.length };
  const text = encoder.encode(JSON.stringify(header));
  writer.raw(encoder.encode(MAGIC));
  writer.varint(text.length);
  writer.raw(text);
  for (const vector of vectors) writeVector(writer, vector, features);
  return writer.finish();
}

/** Compresses a file's bytes with gzip. */
export async function compress(bytes: Uint8Array<ArrayBuffer>): Promise<Uint8Array> {
  const stream = new Blob([bytes]).stream().pipeThrough(new CompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}
