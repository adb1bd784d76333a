/**
 * The loaded processor's state as TypeScript sees it.
 *
 * @module
 */
import { registerAddress, S, segmentAddress, SegmentField } from "./cpu_state.ts";
import type { Field32, Field64 } from "./field.ts";

/** A segment register. */
export interface SegmentState {
  /** 16-bit selector. */
  readonly selector: number;
  /** Attributes in VMCB format, see `Attr`. */
  readonly attributes: number;
  /** Limit in bytes. */
  readonly limit: number;
  /** Base. */
  readonly base: bigint;
}

/** Reads and writes fields of the state. 64-bit fields come as halves on hot paths, as bigint on others. */
export class StateView {
  readonly #words: Int32Array;
  readonly #longs: BigUint64Array;

  /** A view of the processor's memory, given as 32-bit words and as 64-bit words. */
  constructor(words: Int32Array, longs: BigUint64Array) {
    this.#words = words;
    this.#longs = longs;
  }

  /** A 32-bit field, unsigned. */
  get32(field: Field32): number {
    return this.#words[field.address >> 2]! >>> 0;
  }

  /** Writes a 32-bit field. */
  set32(field: Field32, value: number): void {
    this.#words[field.address >> 2] = value;
  }

  /** Low half of a 64-bit field, unsigned. */
  low(field: Field64): number {
    return this.#words[field.address >> 2]! >>> 0;
  }

  /** High half of a 64-bit field, unsigned. */
  high(field: Field64): number {
    return this.#words[(field.address + 4) >> 2]! >>> 0;
  }

  /** Writes a 64-bit field by halves. */
  setHalves(field: Field64, low: number, high: number): void {
    this.#words[field.address >> 2] = low;
    this.#words[(field.address + 4) >> 2] = high;
  }

  /** A 64-bit field. */
  get(field: Field64): bigint {
    return this.#longs[field.address >> 3]!;
  }

  /** Writes a 64-bit field. */
  set(field: Field64, value: bigint): void {
    this.#longs[field.address >> 3] = value;
  }

  /** General-purpose register `n` (0–31). */
  register(n: number): bigint {
    return this.#longs[registerAddress(n) >> 3]!;
  }

  /** Writes general-purpose register `n`. */
  setRegister(n: number, value: bigint): void {
    this.#longs[registerAddress(n) >> 3] = value;
  }

  /** The 64 bits at a constant address of the state. */
  at(address: number): bigint {
    return this.#longs[address >> 3]!;
  }

  /** Writes the 64 bits at a constant address of the state. */
  setAt(address: number, value: bigint): void {
    this.#longs[address >> 3] = value;
  }

  /** Segment register `n` (`Seg`). */
  segment(n: number): SegmentState {
    const at = segmentAddress(n);
    return {
      selector: this.#words[(at + SegmentField.SELECTOR) >> 2]! & 0xffff,
      attributes: this.#words[(at + SegmentField.ATTRIBUTES) >> 2]! & 0xfff,
      limit: this.#words[(at + SegmentField.LIMIT) >> 2]! >>> 0,
      base: this.#longs[(at + SegmentField.BASE) >> 3]!,
    };
  }

  /** Writes segment register `n`; what it may be used for has to be worked out afterwards. */
  setSegment(n: number, { selector, attributes, limit, base }: SegmentState): void {
    const at = segmentAddress(n);
    this.#words[(at + SegmentField.SELECTOR) >> 2] = selector;
    this.#words[(at + SegmentField.ATTRIBUTES) >> 2] = attributes;
    this.#words[(at + SegmentField.LIMIT) >> 2] = limit;
    this.#longs[(at + SegmentField.BASE) >> 3] = base;
  }

  /** RIP. */
  get rip(): bigint {
    return this.get(S.rip);
  }
}
