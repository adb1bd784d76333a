/**
 * Nested page tables, built on demand from the memslots (APM vol. 2, 15.25).
 *
 * @module
 */
import type { HostMemory, Memslot } from "../../core/mod.ts";

const PAGE = 0x1000;
const LARGE_PAGE = 0x20_0000;
const LEVELS = 4;

/** Bits of an entry's low half. */
const Entry = { PRESENT: 1, WRITABLE: 2, USER: 4, LARGE: 0x80 } as const;

/** The tables of one VM. Four levels, 2 MiB pages where a memslot allows them. */
export class NestedPageTables {
  readonly #memory: HostMemory;
  readonly #pages: number[] = [];
  /** Host physical address of the root: N_CR3. */
  readonly root: number;
  /** Tables in use, the root included. */
  get tables(): number {
    return this.#pages.length;
  }

  constructor(memory: HostMemory) {
    this.#memory = memory;
    this.root = this.#table();
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

  /** Maps the page that `gpa` is in, which must lie in `slot`. */
  map(slot: Memslot, gpa: number): void {
    const large = this.#fitsLarge(slot, gpa);
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
    for (let level = LEVELS; level > 1; level--) {
      const at = this.#slot(table, level, gpa);
      const low = this.#memory.readU32(at);
      if ((low & Entry.PRESENT) === 0 || (low & Entry.LARGE) !== 0) return;
      table = this.#memory.readU32(at + 4) * 0x1_0000_0000 + ((low & ~(PAGE - 1)) >>> 0);
    }
    this.#write(this.#slot(table, 1, gpa), 0, 0);
  }

  #map(gpa: number, hpa: number, large: boolean, writable: boolean): void {
    const last = large ? 2 : 1;
    let table = this.root;
    for (let level = LEVELS; level > last; level--) {
      const at = this.#slot(table, level, gpa);
      const low = this.#memory.readU32(at);
      if ((low & Entry.PRESENT) !== 0) {
        const high = this.#memory.readU32(at + 4);
        table = high * 0x1_0000_0000 + ((low & ~(PAGE - 1)) >>> 0);
        continue;
      }
      const next = this.#table();
      // Permissions are those of the last level.
      this.#write(at, next, Entry.PRESENT | Entry.WRITABLE | Entry.USER);
      table = next;
    }
    const flags = Entry.PRESENT | Entry.USER | (large ? Entry.LARGE : 0) |
      (writable ? Entry.WRITABLE : 0);
    this.#write(this.#slot(table, last, gpa), hpa, flags);
  }

  #write(at: number, address: number, flags: number): void {
    this.#memory.writeU32(at, (address % 0x1_0000_0000) + flags);
    this.#memory.writeU32(at + 4, Math.floor(address / 0x1_0000_0000));
  }

  /** Whether the 2 MiB around `gpa` lie in the slot, aligned alike in guest and host. */
  #fitsLarge({ gpa: start, size, hpa }: Memslot, gpa: number): boolean {
    const page = Math.floor(gpa / LARGE_PAGE) * LARGE_PAGE;
    return page >= start && page + LARGE_PAGE <= start + size &&
      (hpa - start) % LARGE_PAGE === 0;
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
