/**
 * Host physical memory: what processors, hypervisors and devices share.
 *
 * @module
 */

import { defineSlot, type Slot } from "./slot.ts";

/**
 * Host physical memory. Addresses (hpa) and lengths are plain integers below 2^52, in bytes;
 * multi-byte values are little-endian and need not be aligned.
 *
 * Every method throws `MemoryError` for addresses outside the memory.
 */
export interface HostMemory {
  /** Size in bytes: addresses run from 0 to `size - 1`. */
  readonly size: number;
  /**
   * Reserves `bytes` of zeroed memory in one piece and returns its address.
   *
   * Throws `MemoryError` if there is no such piece left.
   *
   * @param bytes Size, rounded up to pages of 4096 bytes.
   * @param align Alignment of the address, a power of two of at least 4096 (the default).
   */
  alloc(bytes: number, align?: number): number;
  /** Gives back what {@linkcode HostMemory.alloc} returned. */
  free(hpa: number): void;
  /**
   * A window on memory, without a copy. It must lie in one piece of the backing store: within one
   * 4096-byte page is always possible, and so is a whole allocation of up to 2 MiB.
   *
   * Who writes through it calls {@linkcode HostMemory.changed} afterwards.
   */
  view(hpa: number, length: number): Uint8Array;
  /** Tells the processors that memory was written through a view: code there must be decoded anew. */
  changed(hpa: number, length: number): void;
  /** Copies memory into `target`. */
  read(hpa: number, target: Uint8Array): void;
  /** Copies `source` into memory. */
  write(hpa: number, source: Uint8Array): void;
  /** Sets memory to one byte value. */
  fill(hpa: number, length: number, value: number): void;
  /** Reads 8 bits. */
  readU8(hpa: number): number;
  /** Reads 16 bits. */
  readU16(hpa: number): number;
  /** Reads 32 bits. Read a 64-bit value in two halves where no bigint is wanted. */
  readU32(hpa: number): number;
  /** Reads 64 bits. */
  readU64(hpa: number): bigint;
  /** Writes bits 7:0 of `value`. */
  writeU8(hpa: number, value: number): void;
  /** Writes bits 15:0 of `value`. */
  writeU16(hpa: number, value: number): void;
  /** Writes bits 31:0 of `value`. */
  writeU32(hpa: number, value: number): void;
  /** Writes bits 63:0 of `value`. */
  writeU64(hpa: number, value: bigint): void;
}

/** The host's memory; whoever models the host's processors provides it. */
export const hostMemorySlot: Slot<HostMemory> = defineSlot("host-memory");
