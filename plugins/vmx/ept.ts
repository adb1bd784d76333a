/**
 * Extended page tables (SDM vol. 3, 29.3).
 *
 * @module
 */
import { type HostMemory, SecondLevelTables } from "../../core/mod.ts";

const READ = 1;
const WRITE = 2;
const EXECUTE = 4;
/** Memory type 6, write-back, in bits 5:3 of an entry that maps a page. */
const WRITE_BACK = 0x30;
const LARGE = 0x80;
const LEVELS = 4;
/** EPT pointer: tables are write-back (2:0), levels less 1 (5:3) (25.6.11). */
const POINTER = 6 | ((LEVELS - 1) << 3);

/** The tables of one VM. Four levels, 2 MiB pages where a memslot allows them. */
export class ExtendedPageTables extends SecondLevelTables {
  /** Empty tables. */
  constructor(memory: HostMemory) {
    super(memory, {
      present: READ | WRITE | EXECUTE,
      table: READ | WRITE | EXECUTE,
      page: READ | EXECUTE | WRITE_BACK,
      writable: WRITE,
      large: LARGE,
    }, LEVELS);
  }

  /** The EPT pointer. */
  get pointer(): number {
    return this.root + POINTER;
  }
}
