/**
 * Differences between our processor and `/dev/kvm` that are known, and not ours to mend.
 *
 * @module
 */

/** One field that differs behind an instruction. */
export interface Difference {
  /** Register, segment, or kind of memory. */
  readonly field: string;
  /** Values as text, in hexadecimal. */
  readonly ours: string;
  readonly theirs: string;
  /** Mode before the instruction, and behind it. */
  readonly mode: string;
  readonly after: string;
  /** Mnemonic, and the whole instruction. */
  readonly name: string;
  readonly text: string;
}

/** A difference that is known. */
export interface Quirk {
  readonly reason: string;
  readonly applies: (difference: Difference) => boolean;
}

/** Bits that differ between two numbers. */
function changed({ ours, theirs }: Difference): bigint {
  return BigInt(`0x${ours.replace("h", "")}`) ^ BigInt(`0x${theirs.replace("h", "")}`);
}

/** Whether bits 31:0 are the same. */
const sameLow = (difference: Difference): boolean => BigInt.asUintN(32, changed(difference)) === 0n;

/** Whether no other bits than `bits` differ. */
const within = (difference: Difference, bits: number): boolean =>
  (changed(difference) & ~BigInt(bits)) === 0n;

/** A segment with or without its accessed bit. */
const withoutAccessed = (segment: string): string =>
  segment.replace(/([0-9a-f])h$/, (_, digit) => `${(parseInt(digit, 16) & ~1).toString(16)}h`);

/** IOPL, NT, AC and VM. */
const SYSTEM_FLAGS = 0x6_7000;
const TF = 0x100;
/** Accessed and dirty. */
const PAGE_MARKS = 0x60;

/** The known differences; the first that applies is counted. */
export const QUIRKS: readonly Quirk[] = [
  {
    reason: "IOPL, NT, AC and VM are missing where KVM runs the guest's ring 0 without SVM or VMX",
    applies: (d) => d.field === "RFLAGS" && within(d, SYSTEM_FLAGS),
  },
  {
    reason: "RFLAGS is pushed with the TF that KVM steps by, and without those flags",
    applies: (d) => d.field.startsWith("stack") && within(d, SYSTEM_FLAGS | TF),
  },
  {
    reason: "SYSCALL puts the TF that KVM steps by into R11",
    applies: (d) => d.field === "R11" && d.name === "syscall" && within(d, TF),
  },
  {
    reason:
      "IRET to a stack segment of 16 bits leaves ESP 31:16 on processors, KVM's emulator loads them",
    applies: (d) => d.field === "RSP" && d.name.startsWith("iret") && within(d, 0xffff_0000),
  },
  {
    reason:
      "IRET and RETF to an outer ring null data segments on processors, not in KVM's emulator",
    applies: (d) =>
      /^[d-g]s$/.test(d.field) && /^iret|^retf/.test(d.name) && d.ours === "0h (not usable)",
  },
  {
    reason: "descriptors are marked as accessed by processors, not in KVM's emulator",
    applies: (d) =>
      (/^[c-gs]s$/.test(d.field) && d.ours.includes("base") &&
        withoutAccessed(d.ours) === withoutAccessed(d.theirs)) ||
      (d.field.startsWith("descriptor") && within(d, 0x100)),
  },
  {
    reason: "PUSH of a segment register writes 16 of 32 bits on Intel's processors, 32 on AMD's",
    applies: (d) => /^push [c-gs]s/.test(d.text) && d.field.startsWith("stack"),
  },
  {
    reason:
      "CMPXCHG of 32 bits that fails leaves bits 63:32 of the destination, as recorded on Zen 5",
    applies: (d) => d.name === "cmpxchg" && /^R\w+$/.test(d.field) && sameLow(d),
  },
  {
    reason: "SYSRET leaves the hidden part of SS as it was on AMD's processors",
    applies: (d) => d.name === "sysret" && d.field === "ss",
  },
  {
    reason: "SYSRET to compatibility mode goes to 64-bit mode in KVM's emulator",
    applies: (d) => d.name === "sysret" && d.field === "cs",
  },
  {
    reason: "KVM's emulator leaves a null segment not usable when real mode loads it",
    applies: (d) =>
      /^[d-g]s$/.test(d.field) && d.mode === "real" && d.theirs.endsWith("(not usable)"),
  },
  {
    reason: "shadow paging marks pages as accessed and dirty earlier, or later",
    applies: (d) => d.field.startsWith("page table") && within(d, PAGE_MARKS),
  },
];
