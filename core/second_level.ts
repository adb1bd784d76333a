/**
 * Second-level page tables: guest physical to host physical, built on demand from the memslots.
 *
 * What hypervisors' tables have in common is here: 512 entries of 8 bytes a table, 4 KiB tables, pages
 * of 2 MiB where a memslot allows them, permissions in the last level alone. What the bits of an entry
 * mean is the vendor's ({@linkcode EntryFormat}).
 *
 * @module
 */
import type { HostMemory } from "./host_memory.ts";
import type { Memslot } from "./memory.ts";

const PAGE = 0x1000;
const LARGE_PAGE = 0x20_0000;
const TWO_32 = 0x1_0000_0000;

/** Bits of an entry, all of them in its low 12. */
export interface EntryFormat {
  /** Any of these set: the entry is there. */
  readonly present: number;
  /** Of an entry that leads to a table. */
  readonly table: number;
  /** Of an entry that maps a page, besides those below. */
  readonly page: number;
  /** Of a page that may be written. */
  readonly writable: number;
  /** Of a page of 2 MiB. */
  readonly large: number;
}

/** The tables of one VM. */
export class SecondLevelTables {
  readonly #memory: HostMemory;
  readonly #format: EntryFormat;
  readonly #levels: number;
  readonly #pages: number[] = [];
  /** Host physical address of the root. */
  readonly root: number;

  /** Empty tables of `levels` levels (4 or 5). */
  constructor(memory: HostMemory, format: EntryFormat, levels = 4) {
    this.#memory = memory;
    this.#format = format;
    this.#levels = levels;
    this.root = this.#table();
  }

  /** Tables in use, the root included. */
  get tables(): number {
    return this.#pages.length;
  }

  #table(): number {
    const page = this.#memory.alloc(PAGE);
    this.#pages.push(page);
    return page;
  }

  /** Address of the entry for `gpa` in a table of `level`. */
  #slot(table: number, level: number, gpa: number): number {
    return table + (Math.floor(gpa / 2 ** (12 + 9 * (level - 1))) % 512) * 8;
  }

  /** The table that the entry at `at` leads to; 0 if none. */
  #next(at: number): number {
    const low = this.#memory.readU32(at);
    if ((low & this.#format.present) === 0) return 0;
    return this.#memory.readU32(at + 4) * TWO_32 + ((low & ~(PAGE - 1)) >>> 0);
  }

  /** Maps the page that `gpa` is in, which must lie in `slot`. */
  map(slot: Memslot, gpa: number): void {
    const large = fitsLarge(slot, gpa);
    const size = large ? LARGE_PAGE : PAGE;
    const hpa = slot.hpa + (Math.floor(gpa / size) * size - slot.gpa);
    this.#map(gpa, hpa, large, !slot.readonly);
  }

  /** Maps the page that `gpa` is in to the one at `hpa`, which is the hypervisor's own. */
  mapPage(gpa: number, hpa: number, writable: boolean): void {
    this.#map(gpa, hpa, false, writable);
  }

  /** Takes such a mapping away, if it is there. The TLB has to be flushed. */
  unmapPage(gpa: number): void {
    let table = this.root;
    for (let level = this.#levels; level > 1; level--) {
      const at = this.#slot(table, level, gpa);
      if (level === 2 && (this.#memory.readU32(at) & this.#format.large) !== 0) return;
      table = this.#next(at);
      if (table === 0) return;
    }
    this.#write(this.#slot(table, 1, gpa), 0, 0);
  }

  #map(gpa: number, hpa: number, large: boolean, writable: boolean): void {
    const { table: tableFlags, page, writable: write, large: largeFlag } = this.#format;
    const last = large ? 2 : 1;
    let table = this.root;
    for (let level = this.#levels; level > last; level--) {
      const at = this.#slot(table, level, gpa);
      let next = this.#next(at);
      if (next === 0) {
        next = this.#table();
        this.#write(at, next, tableFlags);
      }
      table = next;
    }
    const flags = page | (large ? largeFlag : 0) | (writable ? write : 0);
    this.#write(this.#slot(table, last, gpa), hpa, flags);
  }

  #write(at: number, address: number, flags: number): void {
    this.#memory.writeU32(at, (address % TWO_32) + flags);
    this.#memory.writeU32(at + 4, Math.floor(address / TWO_32));
  }

  /** Drops all translations. The TLB has to be flushed. */
  clear(): void {
    for (const page of this.#pages.splice(1)) this.#memory.free(page);
    this.#memory.fill(this.root, PAGE, 0);
  }

  /** Gives all memory back. */
  free(): void {
    for (const page of this.#pages.splice(0)) this.#memory.free(page);
  }
}

/** Whether the 2 MiB around `gpa` lie in the slot, aligned alike in guest and host. */
function fitsLarge({ gpa: start, size, hpa }: Memslot, gpa: number): boolean {
  const page = Math.floor(gpa / LARGE_PAGE) * LARGE_PAGE;
  return page >= start && page + LARGE_PAGE <= start + size && (hpa - start) % LARGE_PAGE === 0;
}
