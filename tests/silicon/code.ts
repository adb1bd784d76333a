/**
 * Machine code for tests, as hexadecimal text and little-endian values.
 *
 * @module
 */

/** Bytes of hexadecimal text; anything that is no digit separates. */
export function hex(text: string): number[] {
  return Array.from(text.matchAll(/[0-9a-f]{2}/gi), ([byte]) => parseInt(byte, 16));
}

/** `bytes` bytes of `value`, least significant first. */
export function little(value: number | bigint, bytes: number): number[] {
  const wide = BigInt.asUintN(64, BigInt(value));
  return Array.from({ length: bytes }, (_, k) => Number((wide >> BigInt(8 * k)) & 0xffn));
}

/** One after the other: text is hexadecimal, lists are bytes. */
export function code(...parts: readonly (string | readonly number[])[]): number[] {
  return parts.flatMap((part) => typeof part === "string" ? hex(part) : [...part]);
}

/** Two bytes. */
export const word = (value: number): number[] => little(value, 2);
/** Four bytes. */
export const dword = (value: number): number[] => little(value, 4);
/** Eight bytes. */
export const qword = (value: number | bigint): number[] => little(value, 8);
