/**
 * Nested page tables (APM vol. 2, 15.25): ordinary long-mode tables, in which every page is the user's.
 *
 * @module
 */
import { type HostMemory, SecondLevelTables } from "../../core/mod.ts";

const PRESENT = 1;
const WRITABLE = 2;
const USER = 4;
const LARGE = 0x80;

/** The tables of one VM. Four levels, 2 MiB pages where a memslot allows them; the root is N_CR3. */
export class NestedPageTables extends SecondLevelTables {
  /** Empty tables. */
  constructor(memory: HostMemory) {
    super(memory, {
      present: PRESENT,
      table: PRESENT | WRITABLE | USER,
      page: PRESENT | USER,
      writable: WRITABLE,
      large: LARGE,
    });
  }
}
