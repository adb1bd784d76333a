/**
 * Guest physical memory: memslots that map it onto host physical memory.
 *
 * @module
 */

import { ArgumentError, MemoryError } from "./errors.ts";
import type { HostMemory } from "./host_memory.ts";
import { PHYSICAL_ADDRESS_LIMIT } from "./mmio.ts";
import { type Range, RangeMap } from "./range_map.ts";
import type { Binding } from "./registration.ts";
import type { SlotRef } from "./slot.ts";

/** Size of a page, the unit of memslots, in bytes. */
export const PAGE_SIZE = 4096;

/** A piece of guest physical memory and where in host physical memory it lies. */
export interface MemslotOptions {
  /** What it is, for messages: "ram", "bios". */
  readonly name: string;
  /** First guest physical address, a multiple of 4096. */
  readonly gpa: number;
  /** Size in bytes, a multiple of 4096. */
  readonly size: number;
  /** First host physical address, a multiple of 4096. */
  readonly hpa: number;
  /** Whether writes by the guest are device accesses (ROM) and writes by devices are errors. */
  readonly readonly?: boolean;
}

/** A memslot that is in force. */
export class Memslot implements Range {
  /** What it is. */
  readonly name: string;
  /** The plugin that added it, `"core"` for RAM. */
  readonly owner: string;
  /** First guest physical address. */
  readonly gpa: number;
  /** Size in bytes. */
  readonly size: number;
  /** First host physical address. */
  readonly hpa: number;
  /** Whether it is read-only to guest and devices. */
  readonly readonly: boolean;

  /**
   * `owner` is the plugin's name.
   *
   * @throws {ArgumentError} If an address or the size is not a multiple of {@linkcode PAGE_SIZE}.
   */
  constructor(options: MemslotOptions, owner: string) {
    const { name, gpa, size, hpa } = options;
    for (const [what, value] of [["gpa", gpa], ["size", size], ["hpa", hpa]] as const) {
      if (!Number.isSafeInteger(value) || value < 0 || value % PAGE_SIZE !== 0) {
        throw new ArgumentError(
          `memslot "${name}": ${what} ${hex(value)} is not a multiple of ${PAGE_SIZE}`,
        );
      }
    }
    this.name = name;
    this.owner = owner;
    this.gpa = gpa;
    this.size = size;
    this.hpa = hpa;
    this.readonly = options.readonly ?? false;
  }

  /** As {@linkcode Memslot.gpa}. */
  get base(): number {
    return this.gpa;
  }

  /** As {@linkcode Memslot.size}. */
  get length(): number {
    return this.size;
  }
}

/** Hears of memslots that come and go. See `memslotHook`. */
export type MemslotChanged = (slot: Memslot, added: boolean) => void;

/**
 * Guest physical memory of a VM, as `vm.memory`.
 *
 * The methods are for devices, loaders and tools. Multi-byte values are little-endian. Accesses may
 * cross memslots; those to addresses without one, and writes to read-only memslots, throw
 * `MemoryError` and may have transferred what lies before.
 */
export class GuestMemory {
  readonly #host: SlotRef<HostMemory>;
  readonly #changed: MemslotChanged;
  readonly #map: RangeMap<Memslot> = new RangeMap("memslot", PHYSICAL_ADDRESS_LIMIT);
  readonly #small: Uint8Array = new Uint8Array(8);
  readonly #smallView: DataView = new DataView(this.#small.buffer);

  /** The core's own. */
  constructor(host: SlotRef<HostMemory>, changed: MemslotChanged) {
    this.#host = host;
    this.#changed = changed;
  }

  /** Memslots by ascending guest physical address. */
  get slots(): readonly Memslot[] {
    return this.#map.ranges;
  }

  /** The memslot that holds `gpa`, if any. */
  lookup(gpa: number): Memslot | undefined {
    return this.#map.find(gpa);
  }

  /** The first memslot that has an address in `gpa` to `gpa + size - 1`, if any. */
  firstIn(gpa: number, size: number): Memslot | undefined {
    return this.#map.firstIn(gpa, size);
  }

  /** Host physical address of `gpa`, `undefined` where no memslot is. */
  translate(gpa: number): number | undefined {
    const slot = this.#map.find(gpa);
    return slot === undefined ? undefined : slot.hpa + (gpa - slot.gpa);
  }

  /**
   * A memslot that is not yet in force; attaching throws `OverlapError` naming both owners.
   *
   * @param check Called before it is attached; throws if something else is there.
   */
  bind(slot: Memslot, check?: (slot: Memslot) => void): Binding {
    return {
      attach: () => {
        check?.(slot);
        this.#map.add(slot);
        this.#changed(slot, true);
      },
      detach: () => {
        this.#map.remove(slot);
        this.#changed(slot, false);
      },
    };
  }

  /** Copies guest memory at `gpa` into `target`. */
  read(gpa: number, target: Uint8Array): void {
    for (let done = 0; done < target.length;) {
      const slot = this.#slotAt(gpa + done);
      const offset = gpa + done - slot.gpa;
      const length = Math.min(target.length - done, slot.size - offset);
      this.#host.current.read(slot.hpa + offset, target.subarray(done, done + length));
      done += length;
    }
  }

  /** Copies `source` into guest memory at `gpa`. */
  write(gpa: number, source: Uint8Array): void {
    for (let done = 0; done < source.length;) {
      const slot = this.#writableAt(gpa + done);
      const offset = gpa + done - slot.gpa;
      const length = Math.min(source.length - done, slot.size - offset);
      this.#host.current.write(slot.hpa + offset, source.subarray(done, done + length));
      done += length;
    }
  }

  /** Sets guest memory to one byte value. */
  fill(gpa: number, length: number, value: number): void {
    for (let done = 0; done < length;) {
      const slot = this.#writableAt(gpa + done);
      const offset = gpa + done - slot.gpa;
      const piece = Math.min(length - done, slot.size - offset);
      this.#host.current.fill(slot.hpa + offset, piece, value);
      done += piece;
    }
  }

  /** Reads 8 bits. */
  readU8(gpa: number): number {
    const slot = this.#slotAt(gpa);
    return this.#host.current.readU8(slot.hpa + (gpa - slot.gpa));
  }

  /** Reads 16 bits. */
  readU16(gpa: number): number {
    const hpa = this.#within(this.#slotAt(gpa), gpa, 2);
    if (hpa >= 0) return this.#host.current.readU16(hpa);
    this.read(gpa, this.#small.subarray(0, 2));
    return this.#smallView.getUint16(0, true);
  }

  /** Reads 32 bits. */
  readU32(gpa: number): number {
    const hpa = this.#within(this.#slotAt(gpa), gpa, 4);
    if (hpa >= 0) return this.#host.current.readU32(hpa);
    this.read(gpa, this.#small.subarray(0, 4));
    return this.#smallView.getUint32(0, true);
  }

  /** Reads 64 bits. */
  readU64(gpa: number): bigint {
    this.read(gpa, this.#small);
    return this.#smallView.getBigUint64(0, true);
  }

  /** Writes bits 7:0 of `value`. */
  writeU8(gpa: number, value: number): void {
    const slot = this.#writableAt(gpa);
    this.#host.current.writeU8(slot.hpa + (gpa - slot.gpa), value);
  }

  /** Writes bits 15:0 of `value`. */
  writeU16(gpa: number, value: number): void {
    const hpa = this.#within(this.#writableAt(gpa), gpa, 2);
    if (hpa >= 0) return this.#host.current.writeU16(hpa, value);
    this.#smallView.setUint16(0, value, true);
    this.write(gpa, this.#small.subarray(0, 2));
  }

  /** Writes bits 31:0 of `value`. */
  writeU32(gpa: number, value: number): void {
    const hpa = this.#within(this.#writableAt(gpa), gpa, 4);
    if (hpa >= 0) return this.#host.current.writeU32(hpa, value);
    this.#smallView.setUint32(0, value, true);
    this.write(gpa, this.#small.subarray(0, 4));
  }

  /** Writes bits 63:0 of `value`. */
  writeU64(gpa: number, value: bigint): void {
    this.#smallView.setBigUint64(0, value, true);
    this.write(gpa, this.#small);
  }

  /** Host physical address of an access inside one memslot; -1 if it crosses into another. */
  #within(slot: Memslot, gpa: number, size: number): number {
    const offset = gpa - slot.gpa;
    return offset + size <= slot.size ? slot.hpa + offset : -1;
  }

  #slotAt(gpa: number): Memslot {
    const slot = this.#map.find(gpa);
    if (slot === undefined) throw new MemoryError(gpa, `no guest memory at gpa ${hex(gpa)}`);
    return slot;
  }

  #writableAt(gpa: number): Memslot {
    const slot = this.#slotAt(gpa);
    if (slot.readonly) {
      throw new MemoryError(gpa, `guest memory at gpa ${hex(gpa)} is read-only ("${slot.name}")`);
    }
    return slot;
  }
}

function hex(address: number): string {
  return `${address.toString(16)}h`;
}
