/**
 * Ranges of addresses that do not overlap, and who has them.
 *
 * @module
 */

import { ArgumentError, OverlapError } from "./errors.ts";

/** A range of addresses with a name and an owner. */
export interface Range {
  /** What it is, for messages. */
  readonly name: string;
  /** The plugin that has it. */
  readonly owner: string;
  /** First address. */
  readonly base: number;
  /** Number of addresses, at least 1. */
  readonly length: number;
}

/** Sorted ranges with a look-up that costs little when the same range is hit again. */
export class RangeMap<T extends Range> {
  readonly #space: string;
  readonly #limit: number;
  #ranges: T[] = [];
  #last: T | undefined = undefined;
  /** Where nothing was found last: from an address up to another. */
  #gapStart = 0;
  #gapEnd = 0;

  /** `space` names the kind of address in messages; addresses run from 0 to `limit - 1`. */
  constructor(space: string, limit: number) {
    this.#space = space;
    this.#limit = limit;
  }

  /** The ranges by ascending address. */
  get ranges(): readonly T[] {
    return this.#ranges;
  }

  /** The range that holds `address`, if any. */
  find(address: number): T | undefined {
    const last = this.#last;
    if (last !== undefined && address >= last.base && address - last.base < last.length) {
      return last;
    }
    if (address >= this.#gapStart && address < this.#gapEnd) return undefined;
    const ranges = this.#ranges;
    let low = 0;
    let high = ranges.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((ranges[middle] as T).base <= address) low = middle + 1;
      else high = middle;
    }
    const range = low === 0 ? undefined : ranges[low - 1];
    if (range !== undefined && address - range.base < range.length) {
      this.#last = range;
      return range;
    }
    this.#gapStart = range === undefined ? 0 : range.base + range.length;
    this.#gapEnd = ranges[low]?.base ?? this.#limit;
    return undefined;
  }

  /** The first range that has an address in `base` to `base + length - 1`, if any. */
  firstIn(base: number, length: number): T | undefined {
    return this.#ranges.find((range) =>
      range.base < base + length && base < range.base + range.length
    );
  }

  /**
   * Adds a range.
   *
   * @throws {ArgumentError} If the range is empty or leaves the address space.
   * @throws {OverlapError} If it overlaps another, naming both.
   */
  add(range: T): void {
    const { base, length } = range;
    const end = base + length;
    if (!Number.isInteger(base) || !Number.isInteger(length) || base < 0 || length < 1) {
      throw new ArgumentError(`${this.#space}: "${range.name}" has base ${base}, length ${length}`);
    }
    if (end > this.#limit) {
      throw new ArgumentError(
        `${this.#space}: ${describeRange(range)} goes beyond ${hex(this.#limit - 1)}`,
      );
    }
    const other = this.firstIn(base, length);
    if (other !== undefined) {
      throw new OverlapError(this.#space, describeRange(range), describeRange(other));
    }
    this.#ranges = [...this.#ranges, range].sort((a, b) => a.base - b.base);
    this.#gapEnd = this.#gapStart;
  }

  /** Removes a range; one that is not there is ignored. */
  remove(range: T): void {
    this.#ranges = this.#ranges.filter((other) => other !== range);
    if (this.#last === range) this.#last = undefined;
    this.#gapEnd = this.#gapStart;
  }
}

function hex(address: number): string {
  return `${address.toString(16)}h`;
}

/** A range in words: name, owner and addresses. */
export function describeRange(range: Range): string {
  const last = range.base + range.length - 1;
  const addresses = range.length === 1 ? hex(range.base) : `${hex(range.base)} to ${hex(last)}`;
  return `"${range.name}" of plugin "${range.owner}" (${addresses})`;
}
