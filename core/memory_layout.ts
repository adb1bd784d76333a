/**
 * Where RAM goes in guest physical memory.
 *
 * @module
 */

import { ArgumentError } from "./errors.ts";
import { PAGE_SIZE } from "./memory.ts";

/** A range of guest physical addresses. */
export interface MemoryRange {
  /** First address. */
  readonly gpa: number;
  /** Size in bytes. */
  readonly size: number;
}

const LOW_END = 3 * 2 ** 30;
const HIGH_START = 2 ** 32;

/**
 * The ranges that RAM of `bytes` has on a PC: below 3 GiB, and what does not fit there from 4 GiB on.
 * The gigabyte between is for devices.
 *
 * @throws {ArgumentError} If `bytes` is not a positive multiple of {@linkcode PAGE_SIZE}.
 */
export function pcMemoryLayout(bytes: number): MemoryRange[] {
  if (!Number.isSafeInteger(bytes) || bytes <= 0 || bytes % PAGE_SIZE !== 0) {
    throw new ArgumentError(`memory of ${bytes} bytes is not a positive multiple of ${PAGE_SIZE}`);
  }
  const low = Math.min(bytes, LOW_END);
  const ranges = [{ gpa: 0, size: low }];
  if (bytes > low) ranges.push({ gpa: HIGH_START, size: bytes - low });
  return ranges;
}

/**
 * What is left of `ranges` when the pages that `holes` touch are taken out: a device's window hides
 * the RAM beneath it.
 */
export function withoutHoles(
  ranges: readonly MemoryRange[],
  holes: readonly MemoryRange[],
): MemoryRange[] {
  let left = [...ranges];
  for (const { gpa, size } of holes) {
    const start = Math.floor(gpa / PAGE_SIZE) * PAGE_SIZE;
    const end = Math.ceil((gpa + size) / PAGE_SIZE) * PAGE_SIZE;
    left = left.flatMap((range) => [
      { gpa: range.gpa, size: Math.min(range.gpa + range.size, start) - range.gpa },
      { gpa: Math.max(range.gpa, end), size: range.gpa + range.size - Math.max(range.gpa, end) },
    ]).filter((piece) => piece.size > 0);
  }
  return left;
}
