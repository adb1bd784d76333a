/**
 * The MSR bitmap (SDM vol. 3, 25.6.9).
 *
 * @module
 */
import type { HostMemory } from "../../core/mod.ts";
import { Msr } from "../cpu/mod.ts";

const BYTES = 0x1000;
/** Byte offset of the bits for writes. */
const WRITES = 0x800;

/** MSRs that the guest may read and write by itself: the VMCS switches them, or they are its alone. */
const DIRECT: readonly number[] = [
  Msr.STAR,
  Msr.LSTAR,
  Msr.CSTAR,
  Msr.SFMASK,
  Msr.FS_BASE,
  Msr.GS_BASE,
  Msr.KERNEL_GS_BASE,
  Msr.SYSENTER_CS,
  Msr.SYSENTER_ESP,
  Msr.SYSENTER_EIP,
];

/** Bit number of an MSR's read exit in the bitmap; −1 if it has none, and always exits. */
export function msrBitmapBit(index: number): number {
  if (index >= 0 && index < 0x2000) return index;
  if (index >= 0xc000_0000 && index < 0xc000_2000) return 0x400 * 8 + (index - 0xc000_0000);
  return -1;
}

/** The MSR bitmap of one vCPU. */
export class MsrBitmap {
  /** Host physical address. */
  readonly hpa: number;
  readonly #memory: HostMemory;

  /** A bitmap in memory of its own: all MSRs exit but those that hardware switches. */
  constructor(memory: HostMemory) {
    this.#memory = memory;
    this.hpa = memory.alloc(BYTES);
    memory.fill(this.hpa, BYTES, 0xff);
    for (const index of DIRECT) this.set(index, false, false);
  }

  /** Whether reads, or with `write` writes, of an MSR exit. */
  intercepts(index: number, write: boolean): boolean {
    const bit = msrBitmapBit(index);
    if (bit < 0) return true;
    const at = this.hpa + (write ? WRITES : 0) + (bit >> 3);
    return (this.#memory.readU8(at) & (1 << (bit & 7))) !== 0;
  }

  /** Says whether reads and writes of an MSR exit. One that the bitmap has no place for always does. */
  set(index: number, read: boolean, write: boolean): void {
    const bit = msrBitmapBit(index);
    if (bit < 0) return;
    this.#put(this.hpa + (bit >> 3), bit & 7, read);
    this.#put(this.hpa + WRITES + (bit >> 3), bit & 7, write);
  }

  #put(at: number, bit: number, value: boolean): void {
    const old = this.#memory.readU8(at);
    this.#memory.writeU8(at, value ? old | (1 << bit) : old & ~(1 << bit));
  }

  /** Gives the memory back. */
  free(): void {
    this.#memory.free(this.hpa);
  }
}
