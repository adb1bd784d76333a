/**
 * A page walk for people and tools: no faults, no accessed bits, and every entry it met.
 *
 * @module
 */
import { Cr0, Cr4, Efer } from "./microcode/registers.ts";

/** The registers that say how linear addresses are translated. */
export interface PagingState {
  /** CR0 */
  readonly cr0: bigint;
  /** CR3 */
  readonly cr3: bigint;
  /** CR4 */
  readonly cr4: bigint;
  /** EFER */
  readonly efer: bigint;
}

/** One entry that the walk read. */
export interface PageWalkStep {
  /** The manuals' name of the table: PML5E, PML4E, PDPE, PDE or PTE. */
  readonly name: string;
  /** Physical address of the entry. */
  readonly address: number;
  /** The entry; `undefined` if there is no memory at its address. */
  readonly entry: bigint | undefined;
}

/** Where a walk led. */
export interface PageWalk {
  /** The entries, from the root down. Empty without paging. */
  readonly steps: readonly PageWalkStep[];
  /** Physical address; `undefined` if an entry is not present or not there. */
  readonly address: number | undefined;
  /** Bytes of the page that was found. */
  readonly pageBytes: number;
  /** Every level allows writes. */
  readonly writable: boolean;
  /** Every level allows user accesses. */
  readonly user: boolean;
  /** Some level forbids execution. */
  readonly noExecute: boolean;
}

/** Reads 64 bits of physical memory; `undefined` where there is none. */
export type ReadPhysical = (address: number) => bigint | undefined;

const NAMES = ["PTE", "PDE", "PDPE", "PML4E", "PML5E"] as const;
const ADDRESS = 0x000f_ffff_ffff_f000n;

/** Walks the page tables for linear address `linear` (taken modulo 2^64). */
export function walkPages(state: PagingState, linear: bigint, read: ReadPhysical): PageWalk {
  const on = (register: bigint, bit: number): boolean => (register & BigInt(bit)) !== 0n;
  if (!on(state.cr0, Cr0.PG)) {
    const address = Number(linear & 0xffff_ffffn);
    return {
      steps: [],
      address,
      pageBytes: 4096,
      writable: true,
      user: true,
      noExecute: false,
    };
  }
  const long = on(state.efer, Efer.LMA);
  const wide = on(state.cr4, Cr4.PAE);
  const width = wide ? 9n : 10n;
  const bytes = wide ? 8 : 4;
  let level = long ? (on(state.cr4, Cr4.LA57) ? 5 : 4) : wide ? 3 : 2;
  let table = long || !wide
    ? Number(state.cr3 & ADDRESS & (long ? -1n : 0xffff_ffffn))
    : Number(state.cr3 & 0xffff_ffe0n);
  const steps: PageWalkStep[] = [];
  let writable = true;
  let user = true;
  let noExecute = false;
  for (;; level--) {
    const shift = 12n + width * BigInt(level - 1);
    const index = Number((linear >> shift) & ((1n << width) - 1n));
    const at = table + index * bytes;
    const raw = read(at);
    const entry = raw === undefined || wide ? raw : raw & 0xffff_ffffn;
    steps.push({ name: NAMES[level - 1]!, address: at, entry });
    if (entry === undefined || (entry & 1n) === 0n) {
      return { steps, address: undefined, pageBytes: 0, writable, user, noExecute };
    }
    // The four entries of PAE paging carry no permissions.
    if (long || !wide || level < 3) {
      writable &&= (entry & 2n) !== 0n;
      user &&= (entry & 4n) !== 0n;
      noExecute ||= wide && (entry >> 63n) !== 0n;
    }
    const pse = wide || on(state.cr4, Cr4.PSE);
    const large = (entry & 0x80n) !== 0n && pse && (level === 2 || (level === 3 && long));
    if (level > 1 && !large) {
      table = Number(entry & (wide ? ADDRESS : 0xffff_f000n));
      continue;
    }
    const mask = (1n << shift) - 1n;
    let base = entry & (wide ? ADDRESS : 0xffff_f000n) & ~mask;
    if (!wide && large) base |= ((entry >> 13n) & 0xffn) << 32n;
    const address = Number(base | (linear & mask));
    return { steps, address, pageBytes: Number(mask) + 1, writable, user, noExecute };
  }
}
