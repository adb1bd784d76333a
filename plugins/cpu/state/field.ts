/**
 * Named places in the WebAssembly memory at constant addresses.
 *
 * V8 carries no bounds check for an access at a small constant address, so the state of the
 * processor that is running stands there.
 *
 * @module
 */
import type { FunctionBuilder, I32, I64 } from "../wasm/mod.ts";

/** A 32-bit place. */
export class Field32 {
  /** Byte address. */
  readonly address: number;

  /** The field at `address`, a byte address in the processor's memory. */
  constructor(address: number) {
    this.address = address;
  }

  /**
   * Emits a read.
   *
   * @internal
   */
  get(f: FunctionBuilder): I32 {
    return f.load32(0, this.address);
  }

  /**
   * Emits a write.
   *
   * @internal
   */
  set(f: FunctionBuilder, value: I32 | number): void {
    f.store32(0, value, this.address);
  }

  /**
   * Emits `place |= bits`.
   *
   * @internal
   */
  or(f: FunctionBuilder, bits: I32 | number): void {
    this.set(f, this.get(f).or(bits));
  }

  /**
   * Emits `place &= ~bits`.
   *
   * @internal
   */
  clear(f: FunctionBuilder, bits: number): void {
    this.set(f, this.get(f).and(~bits));
  }

  /**
   * Emits a test whether any of `bits` is set.
   *
   * @internal
   */
  has(f: FunctionBuilder, bits: number): I32 {
    return this.get(f).and(bits).ne(0);
  }
}

/** A 64-bit place. */
export class Field64 {
  /** Byte address, a multiple of 8. */
  readonly address: number;

  /** The field at `address`, a byte address in the processor's memory. */
  constructor(address: number) {
    this.address = address;
  }

  /**
   * Emits a read.
   *
   * @internal
   */
  get(f: FunctionBuilder): I64 {
    return f.load64(0, this.address);
  }

  /**
   * Emits a read of the low 32 bits.
   *
   * @internal
   */
  low(f: FunctionBuilder): I32 {
    return f.load32(0, this.address);
  }

  /**
   * Emits a write.
   *
   * @internal
   */
  set(f: FunctionBuilder, value: I64 | number | bigint): void {
    f.store64(0, value, this.address);
  }

  /**
   * Emits a test whether any of `bits` is set.
   *
   * @internal
   */
  has(f: FunctionBuilder, bits: number | bigint): I32 {
    return this.get(f).has(bits);
  }
}

/** Hands out addresses, each aligned to its size. */
export class Allocator {
  #next: number;

  constructor(start: number) {
    this.#next = start;
  }

  /** First address not handed out yet. */
  get next(): number {
    return this.#next;
  }

  /** `size` bytes aligned to `align`. */
  bytes(size: number, align = 8): number {
    const address = Math.ceil(this.#next / align) * align;
    this.#next = address + size;
    return address;
  }

  /** A 32-bit place. */
  i32(): Field32 {
    return new Field32(this.bytes(4, 4));
  }

  /** A 64-bit place. */
  i64(): Field64 {
    return new Field64(this.bytes(8, 8));
  }
}
