/**
 * The I/O and MSR permission maps (APM vol. 2, 15.10 and 15.11).
 *
 * @module
 */
import type { HostMemory } from "../../core/mod.ts";
import { Msr } from "../cpu/mod.ts";

const IOPM_BYTES = 0x3000;
const MSRPM_BYTES = 0x2000;

/** MSRs that the guest may read and write by itself: they are in the VMCB, or VMLOAD and VMSAVE move them. */
const DIRECT: readonly number[] = [
  Msr.STAR,
  Msr.LSTAR,
  Msr.CSTAR,
  Msr.SFMASK,
  Msr.FS_BASE,
  Msr.GS_BASE,
  Msr.KERNEL_GS_BASE,
  Msr.SYSENTER_CS,
];

/** First byte of the map for each range of MSRs. */
const RANGES: readonly (readonly [number, number])[] = [
  [0, 0],
  [0xc000_0000, 0x800],
  [0xc001_0000, 0x1000],
];

/** Bit number of an MSR's read intercept; −1 if the map has none. */
export function msrpmBit(index: number): number {
  for (const [base, byte] of RANGES) {
    if (index >= base && index < base + 0x2000) return byte * 8 + 2 * (index - base);
  }
  return -1;
}

/** The maps of one VM: all ports are intercepted, and all MSRs but the direct ones. */
export class PermissionMaps {
  /** Host physical address of the I/O permission map. */
  readonly iopm: number;
  /** Host physical address of the MSR permission map. */
  readonly msrpm: number;
  readonly #memory: HostMemory;

  constructor(memory: HostMemory) {
    this.#memory = memory;
    this.iopm = memory.alloc(IOPM_BYTES);
    this.msrpm = memory.alloc(MSRPM_BYTES);
    memory.fill(this.iopm, IOPM_BYTES, 0xff);
    memory.fill(this.msrpm, MSRPM_BYTES, 0xff);
    for (const index of DIRECT) this.setMsr(index, false, false);
  }

  /** Says whether reads and writes of an MSR are intercepted. */
  setMsr(index: number, read: boolean, write: boolean): void {
    const bit = msrpmBit(index);
    const at = this.msrpm + (bit >> 3);
    const mask = 3 << (bit & 7);
    const value = (Number(read) | (Number(write) << 1)) << (bit & 7);
    this.#memory.writeU8(at, (this.#memory.readU8(at) & ~mask) | value);
  }

  /** Gives the memory back. */
  free(): void {
    this.#memory.free(this.iopm);
    this.#memory.free(this.msrpm);
  }
}
