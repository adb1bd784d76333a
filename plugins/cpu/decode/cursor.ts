/**
 * The bytes of an instruction, read one after the other.
 *
 * @module
 */

/** Reads bytes up to an end; what is not there reads as −1 or `undefined`. */
export class Cursor {
  /** The bytes. */
  bytes: Uint8Array = new Uint8Array(0);
  /** Where the next one stands. */
  at = 0;
  /** The first position that is not there. */
  end = 0;

  /** The next byte, or −1. */
  byte(): number {
    return this.at < this.end ? this.bytes[this.at++]! : -1;
  }

  /** The next byte without reading it, or −1. */
  peek(): number {
    return this.at < this.end ? this.bytes[this.at]! : -1;
  }

  /** The byte read last. */
  get last(): number {
    return this.bytes[this.at - 1]!;
  }

  /** Whether `count` more bytes are there. */
  has(count: number): boolean {
    return this.at + count <= this.end;
  }

  /** A sign-extended little-endian value. */
  signed(bits: 8 | 16 | 32): number | undefined {
    const bytes = bits / 8;
    if (!this.has(bytes)) {
      this.at = this.end;
      return undefined;
    }
    let value = 0;
    for (let i = 0; i < bytes; i++) value |= this.bytes[this.at++]! << (8 * i);
    return (value << (32 - bits)) >> (32 - bits);
  }
}
