/**
 * Host memory in one array, for tests.
 *
 * @module
 */

import { type HostMemory, hostMemorySlot, MemoryError, PAGE_SIZE, type Plugin } from "../mod.ts";

/** Host memory that is one `Uint8Array`. Pages are taken first fit. */
export class FlatMemory implements HostMemory {
  /** Size in bytes. */
  readonly size: number;
  /** Ranges that were reported by `changed` or written, as `[hpa, length]`. */
  readonly changes: [hpa: number, length: number][] = [];
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #taken: Map<number, number> = new Map();

  /** Memory of `size` bytes. */
  constructor(size: number) {
    this.size = size;
    this.#bytes = new Uint8Array(size);
    this.#view = new DataView(this.#bytes.buffer);
  }

  /** Bytes that are allocated. */
  get used(): number {
    return [...this.#taken.values()].reduce((sum, bytes) => sum + bytes, 0);
  }

  /** See `HostMemory.alloc`. */
  alloc(bytes: number, align: number = PAGE_SIZE): number {
    const length = Math.ceil(bytes / PAGE_SIZE) * PAGE_SIZE;
    const taken = [...this.#taken].sort((a, b) => a[0] - b[0]);
    let hpa = 0;
    for (const [start, size] of [...taken, [this.size, 0] as const]) {
      if (hpa + length <= start) {
        this.#taken.set(hpa, length);
        this.#bytes.fill(0, hpa, hpa + length);
        return hpa;
      }
      hpa = Math.ceil((start + size) / align) * align;
    }
    throw new MemoryError(0, `no ${bytes} bytes of host memory are left`);
  }

  /** See `HostMemory.free`. */
  free(hpa: number): void {
    if (!this.#taken.delete(hpa)) throw new MemoryError(hpa, `${hpa} was not allocated`);
  }

  /** See `HostMemory.view`. */
  view(hpa: number, length: number): Uint8Array {
    this.#check(hpa, length);
    return this.#bytes.subarray(hpa, hpa + length);
  }

  /** See `HostMemory.changed`. */
  changed(hpa: number, length: number): void {
    this.changes.push([hpa, length]);
  }

  /** See `HostMemory.read`. */
  read(hpa: number, target: Uint8Array): void {
    target.set(this.view(hpa, target.length));
  }

  /** See `HostMemory.write`. */
  write(hpa: number, source: Uint8Array): void {
    this.view(hpa, source.length).set(source);
    this.changed(hpa, source.length);
  }

  /** See `HostMemory.fill`. */
  fill(hpa: number, length: number, value: number): void {
    this.view(hpa, length).fill(value);
    this.changed(hpa, length);
  }

  /** See `HostMemory.readU8`. */
  readU8(hpa: number): number {
    this.#check(hpa, 1);
    return this.#view.getUint8(hpa);
  }

  /** See `HostMemory.readU16`. */
  readU16(hpa: number): number {
    this.#check(hpa, 2);
    return this.#view.getUint16(hpa, true);
  }

  /** See `HostMemory.readU32`. */
  readU32(hpa: number): number {
    this.#check(hpa, 4);
    return this.#view.getUint32(hpa, true);
  }

  /** See `HostMemory.readU64`. */
  readU64(hpa: number): bigint {
    this.#check(hpa, 8);
    return this.#view.getBigUint64(hpa, true);
  }

  /** See `HostMemory.writeU8`. */
  writeU8(hpa: number, value: number): void {
    this.#check(hpa, 1);
    this.#view.setUint8(hpa, value);
    this.changed(hpa, 1);
  }

  /** See `HostMemory.writeU16`. */
  writeU16(hpa: number, value: number): void {
    this.#check(hpa, 2);
    this.#view.setUint16(hpa, value, true);
    this.changed(hpa, 2);
  }

  /** See `HostMemory.writeU32`. */
  writeU32(hpa: number, value: number): void {
    this.#check(hpa, 4);
    this.#view.setUint32(hpa, value, true);
    this.changed(hpa, 4);
  }

  /** See `HostMemory.writeU64`. */
  writeU64(hpa: number, value: bigint): void {
    this.#check(hpa, 8);
    this.#view.setBigUint64(hpa, value, true);
    this.changed(hpa, 8);
  }

  #check(hpa: number, length: number): void {
    if (!Number.isInteger(hpa) || hpa < 0 || hpa + length > this.size) {
      throw new MemoryError(hpa, `host memory ends at ${this.size}; access of ${length} at ${hpa}`);
    }
  }
}

/** A plugin that provides host memory of `size` bytes in one array. */
export function flatMemory(size: number = 2 ** 24): Plugin {
  return {
    name: "flat-memory",
    version: "1.0.0",
    provides: [hostMemorySlot],
    setup: (ctx) => ctx.provide(hostMemorySlot, new FlatMemory(size)),
  };
}
