/**
 * A growable byte buffer with the encodings that WebAssembly's binary format uses.
 *
 * @module
 */

/** Bytes being appended to; grows by doubling. */
export class ByteSink {
  #bytes: Uint8Array<ArrayBuffer> = new Uint8Array(256);
  #length = 0;

  /** Number of bytes appended so far. */
  get length(): number {
    return this.#length;
  }

  #room(count: number): void {
    if (this.#length + count <= this.#bytes.length) return;
    let size = this.#bytes.length * 2;
    while (size < this.#length + count) size *= 2;
    const grown = new Uint8Array(size);
    grown.set(this.#bytes.subarray(0, this.#length));
    this.#bytes = grown;
  }

  /** Appends one byte (the low 8 bits of `value`). */
  u8(value: number): void {
    this.#room(1);
    this.#bytes[this.#length++] = value;
  }

  /** Appends raw bytes. */
  raw(bytes: ArrayLike<number>): void {
    this.#room(bytes.length);
    this.#bytes.set(bytes, this.#length);
    this.#length += bytes.length;
  }

  /** Appends an unsigned LEB128 of a number below 2^32. */
  uleb(value: number): void {
    this.#room(5);
    let rest = value >>> 0;
    while (rest >= 0x80) {
      this.#bytes[this.#length++] = (rest & 0x7f) | 0x80;
      rest >>>= 7;
    }
    this.#bytes[this.#length++] = rest;
  }

  /** Appends a signed LEB128 of a 32-bit number. */
  sleb32(value: number): void {
    this.#room(5);
    let rest = value | 0;
    for (;;) {
      const low = rest & 0x7f;
      rest >>= 7;
      if ((rest === 0 && (low & 0x40) === 0) || (rest === -1 && (low & 0x40) !== 0)) {
        this.#bytes[this.#length++] = low;
        return;
      }
      this.#bytes[this.#length++] = low | 0x80;
    }
  }

  /** Appends a signed LEB128 of a 64-bit integer (taken modulo 2^64). */
  sleb64(value: bigint): void {
    let rest = BigInt.asIntN(64, value);
    if (rest >= -0x8000_0000n && rest <= 0x7fff_ffffn) {
      this.sleb32(Number(rest));
      return;
    }
    this.#room(10);
    for (;;) {
      const low = Number(rest & 0x7fn);
      rest >>= 7n;
      if ((rest === 0n && (low & 0x40) === 0) || (rest === -1n && (low & 0x40) !== 0)) {
        this.#bytes[this.#length++] = low;
        return;
      }
      this.#bytes[this.#length++] = low | 0x80;
    }
  }

  /** Appends a vector of UTF-8 bytes preceded by its length. */
  name(text: string): void {
    const bytes = new TextEncoder().encode(text);
    this.uleb(bytes.length);
    this.raw(bytes);
  }

  /** Appends a section: id, byte length, contents. */
  section(id: number, contents: ByteSink): void {
    this.u8(id);
    this.uleb(contents.length);
    this.raw(contents.bytes());
  }

  /** The bytes appended so far (a view, valid until the next append). */
  bytes(): Uint8Array<ArrayBuffer> {
    return this.#bytes.subarray(0, this.#length);
  }
}
