/**
 * Entries of page tables (APM vol. 2, 5.3 and 5.4), and protection keys.
 *
 * @module
 */
import { Cr0, Cr4, Efer } from "../microcode/registers.ts";
import { S } from "../state/cpu_state.ts";
import type { FunctionBuilder, I32, I64 } from "../wasm/mod.ts";

/** The entry leads somewhere. */
export const PRESENT = 0x1;
/** Writes are allowed. */
export const WRITABLE = 0x2;
/** Accesses of CPL 3 are allowed. */
export const USER = 0x4;
/** It has been used. */
export const ACCESSED = 0x20;
/** The page has been written. */
export const DIRTY = 0x40;
/** In a directory: it leads to a page and not to a table. */
export const LARGE = 0x80;
/** The page is the same in all address spaces. */
export const GLOBAL = 0x100;
/** Address of the table or page, 51:12. */
export const ADDRESS = 0x000f_ffff_ffff_f000n;
/** Fetches are forbidden. */
export const NO_EXECUTE: bigint = 1n << 63n;
/** Bits 62:52, reserved in PAE paging, ignored or software's in long mode. */
export const PAE_HIGH = 0x7ff0_0000_0000_0000n;

/** Place of the protection key in the last entry: 62:59. */
const KEY_SHIFT = 59;

/** What decides on an access besides the entries: 1 or 0 each. */
export interface DataAccess {
  /** Every level allows accesses of CPL 3. */
  readonly userPage: I32;
  /** It is a fetch. */
  readonly isFetch: I32;
  /** It is a write. */
  readonly isWrite: I32;
  /** It is one of CPL 3. */
  readonly isUser: I32;
}

/**
 * 1 if the protection key of a page forbids a data access: PKRU those of user pages where CR4.PKE is set,
 * PKRS those of supervisor pages where CR4.PKS is (SDM vol. 3A, 4.6.2). Keys are of long mode. Of the two
 * bits of a key the lower one forbids all accesses, the upper one writes, of CPL 0–2 only with CR0.WP.
 */
export function keyForbids(f: FunctionBuilder, entry: I64, access: DataAccess): I32 {
  const { userPage, isFetch, isWrite, isUser } = access;
  const cr4 = S.cr4.get(f);
  const inForce = userPage.select(cr4.has(Cr4.PKE), cr4.has(Cr4.PKS));
  const rights = userPage.select(S.pkru.get(f), S.pkrs.get(f)).wrap();
  const two = rights.shrU(entry.shrU(KEY_SHIFT).wrap().and(15).shl(1));
  const writes = isWrite.and(isUser.or(S.cr0.has(f, Cr0.WP))).and(two.shrU(1));
  return inForce.and(S.efer.has(f, Efer.LMA)).and(isFetch.eqz()).and(two.or(writes).and(1));
}
