/**
 * Names of the bits of flags, control registers, page-table entries and segment attributes.
 *
 * @module
 */

import type { Segment } from "../../core/mod.ts";
import { digits, hex } from "./hexadecimal.ts";

/** Names by bit number; bits without a name are shown by number when set. */
type BitNames = { readonly [bit: number]: string };

/** RFLAGS (SDM vol. 1, figure 3-8), less IOPL, which has two bits, and bit 1, which is always set. */
export const RFLAGS_BITS: BitNames = {
  0: "CF",
  2: "PF",
  4: "AF",
  6: "ZF",
  7: "SF",
  8: "TF",
  9: "IF",
  10: "DF",
  11: "OF",
  14: "NT",
  16: "RF",
  17: "VM",
  18: "AC",
  19: "VIF",
  20: "VIP",
  21: "ID",
};

/** CR0 (APM vol. 2, 3.1.1). */
export const CR0_BITS: BitNames = {
  0: "PE",
  1: "MP",
  2: "EM",
  3: "TS",
  4: "ET",
  5: "NE",
  16: "WP",
  18: "AM",
  29: "NW",
  30: "CD",
  31: "PG",
};

/** CR4 (SDM vol. 3A, 2.5; APM vol. 2, 3.1.3). */
export const CR4_BITS: BitNames = {
  0: "VME",
  1: "PVI",
  2: "TSD",
  3: "DE",
  4: "PSE",
  5: "PAE",
  6: "MCE",
  7: "PGE",
  8: "PCE",
  9: "OSFXSR",
  10: "OSXMMEXCPT",
  11: "UMIP",
  12: "LA57",
  13: "VMXE",
  14: "SMXE",
  16: "FSGSBASE",
  17: "PCIDE",
  18: "OSXSAVE",
  19: "KL",
  20: "SMEP",
  21: "SMAP",
  22: "PKE",
  23: "CET",
  24: "PKS",
  25: "UINTR",
  28: "LAM_SUP",
};

/** EFER (APM vol. 2, 3.1.7). */
export const EFER_BITS: BitNames = {
  0: "SCE",
  8: "LME",
  10: "LMA",
  11: "NXE",
  12: "SVME",
  13: "LMSLE",
  14: "FFXSR",
  15: "TCE",
  17: "MCOMMIT",
  18: "INTWB",
  20: "UAIE",
  21: "AIBRSE",
};

/** XCR0 (SDM vol. 1, 13.3; bit 19 is that of APX). */
export const XCR0_BITS: BitNames = {
  0: "x87",
  1: "SSE",
  2: "AVX",
  3: "BNDREGS",
  4: "BNDCSR",
  5: "opmask",
  6: "ZMM_Hi256",
  7: "Hi16_ZMM",
  9: "PKRU",
  17: "TILECFG",
  18: "TILEDATA",
  19: "APX",
};

/** What page-table entries of all levels have in common (APM vol. 2, 5.3 and 5.4). */
const ENTRY_BITS: BitNames = {
  0: "P",
  1: "W",
  2: "U",
  3: "PWT",
  4: "PCD",
  5: "A",
  6: "D",
  8: "G",
  63: "NX",
};

/** Names of the bits set in `value`, separated by spaces. */
export function bitNames(value: bigint, names: BitNames): string {
  const found: string[] = [];
  for (let bit = 0; value >> BigInt(bit) !== 0n; bit++) {
    if ((value >> BigInt(bit) & 1n) === 0n) continue;
    found.push(names[bit] ?? `bit${bit}`);
  }
  return found.join(" ");
}

/** RFLAGS in words. */
export function flagNames(rflags: bigint): string {
  const iopl = rflags >> 12n & 3n;
  const names = bitNames(rflags & ~0x3002n, RFLAGS_BITS);
  return [names, ...(iopl === 0n ? [] : [`IOPL=${iopl}`])].filter((part) => part !== "").join(" ");
}

/**
 * The flags of a page-table entry in words.
 *
 * @param name PTE, PDE and so on.
 */
export function entryFlags(name: string, entry: bigint): string {
  if ((entry & 1n) === 0n) return entry === 0n ? "0: not present" : "not present";
  const known = Object.keys(ENTRY_BITS).reduce((mask, bit) => mask | 1n << BigInt(bit), 0n);
  const flags = bitNames(entry & known, ENTRY_BITS);
  // Bit 7 is PAT in a PTE.
  return (entry & 0x80n) !== 0n && name !== "PTE" ? `${flags} PS` : flags;
}

/** Types of system descriptors (APM vol. 2, tables 4-5 and 4-6). */
const SYSTEM_TYPES: { readonly [type: number]: string } = {
  1: "16-bit TSS, available",
  2: "LDT",
  3: "16-bit TSS, busy",
  4: "16-bit call gate",
  5: "task gate",
  6: "16-bit interrupt gate",
  7: "16-bit trap gate",
  9: "TSS, available",
  11: "TSS, busy",
  12: "call gate",
  14: "interrupt gate",
  15: "trap gate",
};

/** The name of a system descriptor's type. */
export function systemTypeName(type: number): string {
  return SYSTEM_TYPES[type] ?? `reserved type ${type}`;
}

/** A segment's attributes, as `Segment.attributes` has them, in words. */
export function attributeNames(attributes: number): string {
  if ((attributes & 0x80) === 0) return "not present";
  const type = attributes & 0xf;
  const parts: string[] = [];
  if ((attributes & 0x10) === 0) {
    parts.push(systemTypeName(type));
  } else if ((type & 8) !== 0) {
    const size = (attributes & 0x200) !== 0
      ? "64-bit"
      : (attributes & 0x400) !== 0
      ? "32-bit"
      : "16-bit";
    parts.push(`${size} code`);
    if ((type & 4) !== 0) parts.push("conforming");
    parts.push((type & 2) !== 0 ? "readable" : "execute-only");
  } else {
    parts.push((attributes & 0x400) !== 0 ? "32-bit data" : "16-bit data");
    if ((type & 4) !== 0) parts.push("expand-down");
    parts.push((type & 2) !== 0 ? "writable" : "read-only");
  }
  parts.push(`DPL ${(attributes >> 5) & 3}`);
  return parts.join(", ");
}

/** A segment register in one line. */
export function describeSegment({ selector, base, limit, attributes }: Segment): string {
  return `${digits(selector, 4)}  base ${digits(base, 16)}  limit ${digits(limit, 8)}  ` +
    attributeNames(attributes);
}

/** The error code of an exception that names a selector (SDM vol. 3A, 6.13). */
export function describeSelectorError(errorCode: number): string {
  if (errorCode === 0) return "0";
  const index = errorCode >> 3 & 0x1fff;
  const table = (errorCode & 2) !== 0
    ? `IDT vector ${index}`
    : `${(errorCode & 4) !== 0 ? "LDT" : "GDT"} selector ${hex(errorCode & 0xfffc)}`;
  return `${hex(errorCode)}: ${table}${(errorCode & 1) !== 0 ? ", external" : ""}`;
}

/**
 * The error code of a page fault (APM vol. 2, 8.4.2).
 *
 * @param fetch Whether it was an instruction fetch, which the code only tells with NX or SMEP on.
 */
export function describePageFaultError(errorCode: number, fetch: boolean): string {
  const bit = (mask: number) => (errorCode & mask) !== 0;
  const access = fetch ? "instruction fetch" : bit(2) ? "write" : "read";
  const why = bit(8)
    ? "reserved bit set in an entry"
    : bit(0x20)
    ? "protection key"
    : bit(1)
    ? "not permitted"
    : "not present";
  return `${bit(4) ? "user" : "supervisor"} ${access}, ${why}`;
}
