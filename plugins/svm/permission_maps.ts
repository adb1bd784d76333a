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

/** The I/O permission map of one VM: all ports are intercepted. */
export class IoPermissionMap {
  /** Host physical address. */
  readonly hpa: number;
  readonly #memory: HostMemory;

  constructor(memory: HostMemory) {
    this.#memory = memory;
    this.hpa = memory.alloc(IOPM_BYTES);
    memory.fill(this.hpa, IOPM_BYTES, 0xff);
  }

  /** Gives the memory back. */
  free(): void {
    this.#memory.free(this.hpa);
  }
}

/**
 * The MSR permission map of one vCPU: all MSRs are intercepted but those that VMRUN, VMLOAD and VMSAVE
 * switch. It is a vCPU's own, for which x2APIC MSRs pass depends on the mode of its APIC.
 */
export class MsrPermissionMap {
  /** Host physical address. */
  readonly hpa: number;
  readonly #memory: HostMemory;

  /** A map in memory of its own. */
  constructor(memory: HostMemory) {
    this.#memory = memory;
    this.hpa = memory.alloc(MSRPM_BYTES);
    memory.fill(this.hpa, MSRPM_BYTES, 0xff);
    for (const index of DIRECT) this.set(index, false, false);
  }

  /** Whether reads, or with `write` writes, of an MSR are intercepted. */
  intercepts(index: number, write: boolean): boolean {
    const bit = msrpmBit(index);
    if (bit < 0) return true;
    return (this.#memory.readU8(this.hpa + (bit >> 3)) & (1 << ((bit & 7) + Number(write)))) !== 0;
  }

  /**
   * Says whether reads and writes of an MSR are intercepted. The caller marks the VMCB's permission
   * maps as changed. An MSR that the map has no place for stays intercepted.
   */
  set(index: number, read: boolean, write: boolean): void {
    const bit = msrpmBit(index);
    if (bit < 0) return;
    const at = this.hpa + (bit >> 3);
    const mask = 3 << (bit & 7);
    const value = (Number(read) | (Number(write) << 1)) << (bit & 7);
    this.#memory.writeU8(at, (this.#memory.readU8(at) & ~mask) | value);
  }

  /** Gives the memory back. */
  free(): void {
    this.#memory.free(this.hpa);
  }
}
