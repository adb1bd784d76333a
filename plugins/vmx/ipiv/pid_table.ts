/**
 * The PID-pointer table (SDM vol. 3, 30.1.6): posted-interrupt descriptors by the APIC IDs of their vCPUs.
 *
 * @module
 */
import type { HostMemory } from "../../../core/mod.ts";

const ENTRY_BYTES = 8;
const VALID = 1;
const TWO_32 = 0x1_0000_0000;

/** The table of one VM. It is whole pages, so that every reading of its alignment holds. */
export class PidPointerTable {
  /** Host physical address. */
  readonly hpa: number;
  /** The highest ID it has an entry for. */
  readonly lastIndex: number;
  readonly #memory: HostMemory;

  /** Without a valid entry, for IDs up to `lastIndex`, at most 65535. */
  constructor(memory: HostMemory, lastIndex: number) {
    this.#memory = memory;
    this.lastIndex = lastIndex;
    const bytes = Math.ceil((lastIndex + 1) * ENTRY_BYTES / 0x1000) * 0x1000;
    this.hpa = memory.alloc(bytes);
    memory.fill(this.hpa, bytes, 0);
  }

  /** Points the entry of an ID at a descriptor. */
  set(id: number, descriptor: number): void {
    const at = this.hpa + ENTRY_BYTES * id;
    this.#memory.writeU32(at, (descriptor % TWO_32) + VALID);
    this.#memory.writeU32(at + 4, Math.floor(descriptor / TWO_32));
  }

  /** Bits 31:0 of an entry. */
  low(id: number): number {
    return this.#memory.readU32(this.hpa + ENTRY_BYTES * id);
  }

  /** Gives the memory back. */
  free(): void {
    this.#memory.free(this.hpa);
  }
}
