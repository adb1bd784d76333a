/**
 * Numbers and sizes on the command line.
 *
 * @module
 */

import { usageError } from "./errors.ts";

const UNITS: { readonly [unit: string]: number } = {
  "": 1,
  K: 2 ** 10,
  M: 2 ** 20,
  G: 2 ** 30,
  T: 2 ** 40,
};

const PAGE = 4096;

/**
 * A size in bytes: digits, or hexadecimal after `0x`, and K, M, G or T for powers of 1024, which may
 * be written KiB, MB and so on. `128M`, `1.5G` and `0x8000000` are sizes. A decimal fraction is rounded
 * down to whole pages.
 *
 * @param option For the message.
 * @throws {CliError} If it is none, or 2^53 or more.
 */
export function parseSize(option: string, text: string): number {
  const [, number = "", unit = ""] =
    /^(0x[0-9a-f_]+|[0-9][0-9_]*(?:\.[0-9]+)?)([KMGT]?)(?:i?B)?$/i.exec(text.trim()) ?? [];
  const exact = Number(number.replaceAll("_", "")) * (UNITS[unit.toUpperCase()] ?? NaN);
  const value = number.includes(".") ? Math.floor(exact / PAGE) * PAGE : exact;
  if (number === "" || !Number.isSafeInteger(value)) {
    throw usageError(`${option} ${text}: not a size; sizes are like 128M, 1G or 0x8000000`);
  }
  return value;
}

/**
 * A whole number from `least` to `most`: `1000`, `1_000`, `1e9`, `1.5e9`, `0x10`.
 *
 * @param option For the message.
 * @throws {CliError} If it is none, or out of range.
 */
export function parseCount(option: string, text: string, least: number, most: number): number {
  const plain = text.trim().replaceAll("_", "");
  const value = /^(?:0x[0-9a-f]+|[0-9]+(?:(?:\.[0-9]+)?e[0-9]{1,2})?)$/i.test(plain)
    ? Number(plain)
    : NaN;
  if (!Number.isSafeInteger(value) || value < least || value > most) {
    const range = most === Number.MAX_SAFE_INTEGER
      ? `of at least ${least}`
      : `from ${least} to ${most}`;
    throw usageError(`${option} ${text}: not a whole number ${range}`);
  }
  return value;
}

/**
 * A size of memory: whole pages, at least one.
 *
 * @param option For the message.
 * @throws {CliError} If it is none.
 */
export function parseMemory(option: string, text: string): number {
  const size = parseSize(option, text);
  if (size === 0 || size % PAGE !== 0) {
    throw usageError(`${option} ${text}: memory comes in whole pages of ${PAGE} bytes`);
  }
  return size;
}
