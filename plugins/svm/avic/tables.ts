/**
 * The tables in host memory by which hardware finds the targets of an IPI (APM vol. 2, 15.29.4).
 *
 * Entries are written as halves of 32 bits, since they change whenever a vCPU is scheduled.
 *
 * @module
 */
import type { HostMemory } from "../../../core/mod.ts";

const PAGE = 0x1000;

/** An entry of the physical APIC ID table, 8 bytes. */
export const PhysicalEntry = {
  /** Low half, 11:0: host physical APIC ID. */
  HOST_ID: 0xfff,
  /** High half: a host processor is assigned. */
  IS_RUNNING_HIGH: 0x4000_0000,
  /** High half: the entry is in use. */
  VALID_HIGH: 0x8000_0000,
} as const;

/** An entry of the logical APIC ID table, 4 bytes. */
export const LogicalEntry = {
  /** Guest physical APIC ID. */
  ID: 0xff,
  /** The entry is in use. */
  VALID: 0x8000_0000,
} as const;

/** The physical APIC ID table: one of a VM, indexed by guest physical APIC ID. */
export class PhysicalIdTable {
  /** Host physical address; pages are consecutive. */
  readonly hpa: number;
  /** The highest ID it has an entry for. */
  readonly maxId: number;
  readonly #memory: HostMemory;

  /** Room for IDs up to `maxId`, whole pages: 512 entries each. */
  constructor(memory: HostMemory, maxId: number) {
    const pages = (maxId >>> 9) + 1;
    this.#memory = memory;
    this.maxId = maxId;
    this.hpa = memory.alloc(pages * PAGE);
  }

  /** Writes an entry: bits 31:0 and 63:32. */
  set(id: number, low: number, high: number): void {
    this.#memory.writeU32(this.hpa + 8 * id, low);
    this.#memory.writeU32(this.hpa + 8 * id + 4, high);
  }

  /** Bits 31:0 of an entry. */
  low(id: number): number {
    return this.#memory.readU32(this.hpa + 8 * id);
  }

  /** Bits 63:32 of an entry. */
  high(id: number): number {
    return this.#memory.readU32(this.hpa + 8 * id + 4);
  }

  /** Gives the memory back. */
  free(): void {
    this.#memory.free(this.hpa);
  }
}

/** Highest cluster that logical IDs have; 15 is reserved. */
const MAX_CLUSTER = 14;

/**
 * Index in the logical APIC ID table of a logical destination register's value, −1 where the table has
 * no place for it: no bit or several bits of the ID set, or the reserved cluster.
 *
 * @param ldr The register, all 32 bits; the logical ID is 31:24.
 * @param dfr The destination format register: 31:28 are 15 in the flat model, 0 in the cluster model.
 */
export function logicalIndex(ldr: number, dfr: number): number {
  const id = ldr >>> 24;
  const flat = dfr >>> 28 === 0xf;
  const member = flat ? id : id & 0xf;
  if (member === 0 || (member & (member - 1)) !== 0) return -1;
  const bit = 31 - Math.clz32(member);
  if (flat) return bit;
  const cluster = id >>> 4;
  return cluster > MAX_CLUSTER ? -1 : 4 * cluster + bit;
}

/** The logical APIC ID table: one page of a VM, which xAVIC uses alone. */
export class LogicalIdTable {
  /** Host physical address. */
  readonly hpa: number;
  readonly #memory: HostMemory;

  /** An empty table. */
  constructor(memory: HostMemory) {
    this.#memory = memory;
    this.hpa = memory.alloc(PAGE);
  }

  /** Lets `index` mean the guest physical APIC ID `id`. */
  set(index: number, id: number): void {
    this.#memory.writeU32(this.hpa + 4 * index, LogicalEntry.VALID | (id & LogicalEntry.ID));
  }

  /** Lets `index` mean nobody. */
  clear(index: number): void {
    this.#memory.writeU32(this.hpa + 4 * index, 0);
  }

  /** The entry at `index`, 32 bits. */
  get(index: number): number {
    return this.#memory.readU32(this.hpa + 4 * index);
  }

  /** Gives the memory back. */
  free(): void {
    this.#memory.free(this.hpa);
  }
}
