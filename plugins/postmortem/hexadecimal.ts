/**
 * Numbers the way the manuals write them.
 *
 * @module
 */

/** `1f3h`; negative numbers are taken as 32 bits unsigned. */
export function hex(value: number | bigint): string {
  const unsigned = typeof value === "number" && value < 0 ? value >>> 0 : value;
  return `${unsigned.toString(16)}h`;
}

/** Digits only, with zeros in front up to `width`. */
export function digits(value: number | bigint, width: number): string {
  return value.toString(16).padStart(width, "0");
}

/** The mnemonic of an exception, or its number. */
export function exceptionName(vector: number): string {
  const name = EXCEPTIONS[vector];
  return name === undefined ? `vector ${vector}` : `#${name}`;
}

/** SDM vol. 3A, table 6-1; NMI has no number sign in front but reads well with one. */
const EXCEPTIONS: readonly (string | undefined)[] = [
  ...[
    "DE",
    "DB",
    "NMI",
    "BP",
    "OF",
    "BR",
    "UD",
    "NM",
    "DF",
    undefined,
    "TS",
    "NP",
    "SS",
    "GP",
    "PF",
  ],
  ...[undefined, "MF", "AC", "MC", "XM", "VE", "CP", undefined, undefined, undefined, undefined],
  ...[undefined, undefined, "HV", "VC", "SX"],
];
