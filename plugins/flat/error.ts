/**
 * What is wrong with an image, and reading one without leaving it.
 *
 * @module
 */

import { TraplineError } from "../../core/mod.ts";

/** An image that cannot be loaded: it is broken, not of the kind, or does not fit into the VM. */
export class ImageError extends TraplineError {
  /** Name of the image. */
  readonly image: string;
  /** What of it is at fault: a field of a header, a segment, a module. */
  readonly field: string;
  /** Where in the file the field is, in bytes; `undefined` if it is in no file. */
  readonly offset: number | undefined;

  /** `message` says what is wrong with the field. */
  constructor(image: string, field: string, offset: number | undefined, message: string) {
    const where = offset === undefined ? "" : ` (at ${hex(offset)} in the file)`;
    super(`image "${image}": ${field}${where}: ${message}`);
    this.image = image;
    this.field = field;
    this.offset = offset;
  }
}

/** A number as the messages write it: hexadecimal with an `h`. */
export function hex(value: number): string {
  return `${value.toString(16).toUpperCase()}h`;
}

/**
 * The fields of an image, little-endian. A field that lies beyond the file's end throws `ImageError`
 * naming it.
 */
export class ImageReader {
  /** Name of the image, for messages. */
  readonly name: string;
  /** The file. */
  readonly bytes: Uint8Array;
  readonly #view: DataView;

  /** `name` is for messages. */
  constructor(name: string, bytes: Uint8Array) {
    this.name = name;
    this.bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /** Size of the file in bytes. */
  get size(): number {
    return this.bytes.length;
  }

  /** Reads 8 bits at `offset`. */
  u8(offset: number, field: string): number {
    this.#check(offset, 1, field);
    return this.#view.getUint8(offset);
  }

  /** Reads 16 bits at `offset`. */
  u16(offset: number, field: string): number {
    this.#check(offset, 2, field);
    return this.#view.getUint16(offset, true);
  }

  /** Reads 32 bits at `offset`. */
  u32(offset: number, field: string): number {
    this.#check(offset, 4, field);
    return this.#view.getUint32(offset, true);
  }

  /** Reads 64 bits at `offset`. */
  u64(offset: number, field: string): bigint {
    this.#check(offset, 8, field);
    return this.#view.getBigUint64(offset, true);
  }

  /** Reads 64 bits at `offset`, which must come to less than 2^53. */
  size64(offset: number, field: string): number {
    const value = this.u64(offset, field);
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) {
      throw this.error(field, offset, `${value.toString(16).toUpperCase()}h is too large`);
    }
    return Number(value);
  }

  /** An error about a field of this image. */
  error(field: string, offset: number | undefined, message: string): ImageError {
    return new ImageError(this.name, field, offset, message);
  }

  #check(offset: number, size: number, field: string): void {
    if (offset + size <= this.size) return;
    throw this.error(field, offset, `the file ends at ${hex(this.size)}`);
  }
}
