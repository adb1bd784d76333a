/**
 * One linear address, the page-table entries on its path, and what the manual says of an access to it.
 *
 * @module
 */
import type { Bench } from "./bench.ts";

/** Bits of a page-table entry (APM vol. 2, 5.4). */
export const Pte = {
  P: 1n,
  RW: 2n,
  US: 4n,
  A: 0x20n,
  D: 0x40n,
  PS: 0x80n,
  G: 0x100n,
  NX: 0x8000_0000_0000_0000n,
} as const;

/** Bits of a page-fault error code (APM vol. 2, 8.4.2). */
export const Pf = { P: 1, RW: 2, US: 4, RSV: 8, ID: 0x10 } as const;

/** Bits of physical addresses. */
export const PHYSICAL_BITS = 48;

/** How paging works. */
export type PagingMode = "legacy" | "pae" | "long";

/** Shape of the tables of a mode, from the root down. */
interface Shape {
  /** log2 of what one entry of each level maps. */
  readonly shifts: readonly number[];
  /** log2 of the number of entries of each level. */
  readonly widths: readonly number[];
  /** Bytes of an entry. */
  readonly bytes: 4 | 8;
  /** Levels whose PS bit makes a page. */
  readonly large: readonly number[];
}

const SHAPES: Readonly<Record<PagingMode, Shape>> = {
  legacy: { shifts: [22, 12], widths: [10, 10], bytes: 4, large: [0] },
  pae: { shifts: [30, 21, 12], widths: [2, 9, 9], bytes: 8, large: [1] },
  long: { shifts: [39, 30, 21, 12], widths: [9, 9, 9, 9], bytes: 8, large: [1, 2] },
};

const ADDRESS = 0x000f_ffff_ffff_f000n;

/** Bits that must be 0 in the entry of `level` (0 is the root's) when it is `leaf` or not. */
export function reservedBits(mode: PagingMode, level: number, leaf: boolean, nxe: boolean): bigint {
  if (mode === "legacy") return leaf && level === 0 ? 1n << 21n : 0n;
  const { shifts, large } = SHAPES[mode];
  let bits = (1n << 52n) - (1n << BigInt(PHYSICAL_BITS));
  const root = level === 0;
  if (mode === "pae") {
    bits |= 0x7ff0_0000_0000_0000n;
    if (root) return bits | Pte.NX | 0x1e6n;
  } else if (root) bits |= 0x180n;
  if (!nxe) bits |= Pte.NX;
  // A large page is aligned; bit 12 is its PAT bit.
  if (leaf && large.includes(level)) bits |= ((1n << BigInt(shifts[level]!)) - 1n) & ~0x1fffn;
  return bits;
}

/** What an access is made with. */
export interface AccessConditions {
  readonly kind: "read" | "write" | "fetch";
  readonly user: boolean;
  readonly wp: boolean;
  readonly smep: boolean;
  readonly smap: boolean;
  readonly ac: boolean;
  readonly nxe: boolean;
}

/** What becomes of it. */
export interface WalkResult {
  /** Error code of the page fault, if there is one. */
  readonly fault: number | undefined;
  /** The entries afterwards, accessed and dirty bits included. */
  readonly entries: readonly bigint[];
}

/**
 * What the manual says (APM vol. 2, 5.3–5.6). Accessed bits of upper levels are set as the walk uses the
 * entries, those of the last level and the dirty bit when the access is allowed.
 */
export function expectedWalk(
  mode: PagingMode,
  entries: readonly bigint[],
  conditions: AccessConditions,
): WalkResult {
  const { kind, user, wp, smep, smap, ac, nxe } = conditions;
  const write = kind === "write";
  const fetch = kind === "fetch";
  const fetchShown = fetch && (smep || (nxe && mode !== "legacy"));
  const cause = (write ? Pf.RW : 0) | (user ? Pf.US : 0) | (fetchShown ? Pf.ID : 0);
  const after = [...entries];
  let writable = true;
  let userPage = true;
  let noExecute = false;
  for (const [level, entry] of entries.entries()) {
    const leaf = level === entries.length - 1;
    const pdpte = mode === "pae" && level === 0;
    if ((entry & Pte.P) === 0n) return { fault: cause, entries: after };
    if ((entry & reservedBits(mode, level, leaf, nxe)) !== 0n) {
      return { fault: cause | Pf.P | Pf.RSV, entries: after };
    }
    if (pdpte) continue;
    writable &&= (entry & Pte.RW) !== 0n;
    userPage &&= (entry & Pte.US) !== 0n;
    noExecute ||= mode !== "legacy" && (entry & Pte.NX) !== 0n;
    if (!leaf) after[level] = entry | Pte.A;
  }
  let denied = fetch && noExecute;
  if (user) denied ||= !userPage || (write && !writable);
  else {
    denied ||= write && !writable && wp;
    denied ||= fetch && userPage && smep;
    denied ||= !fetch && userPage && smap && !ac;
  }
  if (denied) return { fault: cause | Pf.P, entries: after };
  const last = after.length - 1;
  after[last] = after[last]! | Pte.A | (write ? Pte.D : 0n);
  return { fault: undefined, entries: after };
}

/** Where the tables of a path begin; each level has a page of its own. */
const TABLES = 0x10_0000;

/** The entries on the way to one linear address. */
export class PagePath {
  readonly mode: PagingMode;
  readonly linear: bigint;
  /** Physical address of the page. */
  readonly page: bigint;
  /** Levels from the root to the page. */
  readonly depth: number;
  readonly #bench: Bench;

  /**
   * @param depth levels to the page: 2 for legacy 4 KiB, 4 for long-mode 4 KiB, less for large pages.
   * @param root physical address of the table that CR3 points to; the path's own if not given.
   */
  constructor(
    bench: Bench,
    mode: PagingMode,
    linear: bigint,
    page: bigint,
    depth: number,
    root: number = TABLES,
  ) {
    this.#bench = bench;
    this.mode = mode;
    this.linear = linear;
    this.page = page;
    this.depth = depth;
    this.root = root;
  }

  /** Physical address of the root table. */
  readonly root: number;

  /** Physical address of the entry of `level`. */
  entryAddress(level: number): number {
    const { shifts, widths, bytes } = SHAPES[this.mode];
    const index = (this.linear >> BigInt(shifts[level]!)) & ((1n << BigInt(widths[level]!)) - 1n);
    const table = level === 0 ? this.root : TABLES + 0x1000 * level;
    return table + Number(index) * bytes;
  }

  /** The entry of `level` with `flags`: its address is the next table's or the page's. */
  entry(level: number, flags: bigint): bigint {
    const leaf = level === this.depth - 1;
    const address = leaf ? this.page : BigInt(TABLES + 0x1000 * (level + 1));
    const large = leaf && SHAPES[this.mode].large.includes(level) ? Pte.PS : 0n;
    return (address & ADDRESS) | large | flags;
  }

  /** Writes all entries. */
  set(entries: readonly bigint[]): void {
    const { bytes } = SHAPES[this.mode];
    for (const [level, entry] of entries.entries()) {
      const at = this.entryAddress(level);
      if (bytes === 8) this.#bench.set64(at, entry);
      else this.#bench.set32(at, Number(entry));
    }
  }

  /** Reads all entries. */
  get(): bigint[] {
    const { bytes } = SHAPES[this.mode];
    return Array.from({ length: this.depth }, (_, level) => {
      const at = this.entryAddress(level);
      return bytes === 8 ? this.#bench.get64(at) : BigInt(this.#bench.get32(at));
    });
  }

  /** Entries with `flags` at each level, present ones of a PAE root without the bits it must not have. */
  entries(flags: readonly bigint[]): bigint[] {
    return flags.map((bits, level) =>
      this.entry(level, this.mode === "pae" && level === 0 ? bits & ~0x1e6n & ~Pte.NX : bits)
    );
  }
}
