/**
 * Split virtqueues (Virtual I/O Device Version 1.2, section 2.7).
 *
 * @module
 */

import { type GuestMemory, TraplineError } from "../../core/mod.ts";

/** The driver has made a queue that makes no sense; the device needs a reset. */
export class QueueError extends TraplineError {}

/** Descriptor flags. */
const Flag = { NEXT: 1, WRITE: 2, INDIRECT: 4 } as const;
const DESCRIPTOR = 16;
const USED_ENTRY = 8;
/** Available ring: the driver wants no interrupt. */
const NO_INTERRUPT = 1;
const WRAP = 0x1_0000;
/** Bits of an address that physical memory can have, above the lower 32. */
const HIGH_LIMIT = 0x10_0000;

/** A piece of a buffer in guest memory. */
export interface Piece {
  /** First guest physical address. */
  readonly gpa: number;
  /** Length in bytes. */
  readonly length: number;
}

/** A buffer that the driver has made available. */
export interface Chain {
  /** The descriptor it begins with, by which the driver knows it. */
  readonly head: number;
  /** What the device reads. */
  readonly readable: readonly Piece[];
  /** What the device writes. */
  readonly writable: readonly Piece[];
}

/** A queue's state, as plain data. */
export type QueueSaved = {
  /** Number of descriptors. */
  readonly size: number;
  /** Whether it is enabled. */
  readonly enabled: boolean;
  /** Addresses of descriptor table, available ring and used ring. */
  readonly addresses: readonly number[];
  /** The next entry of the available ring, and of the used ring. */
  readonly next: readonly [available: number, used: number];
};

/** Addresses of the parts of a queue, as indexes of {@linkcode Queue.addresses}. */
export const Part = { DESCRIPTORS: 0, AVAILABLE: 1, USED: 2 } as const;

/** One queue of a device. */
export class Queue {
  /** Number of descriptors, a power of two. */
  size: number;
  /** Whether the driver has enabled it. */
  enabled = false;
  /** Addresses by {@linkcode Part}, in halves of 32 bits: low, high, low, high… */
  readonly addresses: Uint32Array = new Uint32Array(6);
  readonly #memory: GuestMemory;
  readonly #most: number;
  #nextAvailable = 0;
  #nextUsed = 0;

  /** A queue of up to `most` descriptors. */
  constructor(memory: GuestMemory, most: number) {
    this.#memory = memory;
    this.#most = most;
    this.size = most;
  }

  /** As after a reset of the device. */
  reset(): void {
    this.size = this.#most;
    this.enabled = false;
    this.addresses.fill(0);
    this.#nextAvailable = this.#nextUsed = 0;
  }

  /** Sets the size, which the driver may lower. */
  resize(size: number): void {
    if (size > 0 && size <= this.#most && (size & (size - 1)) === 0) this.size = size;
  }

  #part(part: number): number {
    return this.#address(
      this.addresses[2 * part] as number,
      this.addresses[2 * part + 1] as number,
    );
  }

  #address(low: number, high: number): number {
    if (high >= HIGH_LIMIT) throw new QueueError("virtqueue: an address of more than 52 bits");
    return high * 2 ** 32 + low;
  }

  /** Takes the next buffer; `undefined` if there is none. Throws `QueueError` or `MemoryError`. */
  take(): Chain | undefined {
    if (!this.enabled) return undefined;
    const ring = this.#part(Part.AVAILABLE);
    const index = this.#memory.readU16(ring + 2);
    if (index === this.#nextAvailable) return undefined;
    if ((index - this.#nextAvailable + WRAP) % WRAP > this.size) {
      throw new QueueError("virtqueue: more buffers are available than it has descriptors");
    }
    const head = this.#memory.readU16(ring + 4 + 2 * (this.#nextAvailable % this.size));
    const chain = this.#follow(head);
    this.#nextAvailable = (this.#nextAvailable + 1) % WRAP;
    return chain;
  }

  #follow(head: number): Chain {
    const memory = this.#memory;
    const readable: Piece[] = [];
    const writable: Piece[] = [];
    let [table, count] = [this.#part(Part.DESCRIPTORS), this.size];
    let index = head;
    let indirect = false;
    for (let steps = 0;; steps++) {
      if (index >= count) throw new QueueError(`virtqueue: there is no descriptor ${index}`);
      if (steps >= this.size) throw new QueueError("virtqueue: a chain of descriptors has no end");
      const at = table + DESCRIPTOR * index;
      const gpa = this.#address(memory.readU32(at), memory.readU32(at + 4));
      const length = memory.readU32(at + 8);
      const flags = memory.readU16(at + 12);
      if ((flags & Flag.INDIRECT) !== 0) {
        if (indirect || (flags & Flag.NEXT) !== 0 || length % DESCRIPTOR !== 0) {
          throw new QueueError("virtqueue: an indirect table where none can be");
        }
        indirect = true;
        [table, count, index] = [gpa, length / DESCRIPTOR, 0];
        continue;
      }
      if ((flags & Flag.WRITE) !== 0) writable.push({ gpa, length });
      else if (writable.length === 0) readable.push({ gpa, length });
      else throw new QueueError("virtqueue: a readable part behind a writable one");
      if ((flags & Flag.NEXT) === 0) return { head, readable, writable };
      index = memory.readU16(at + 14);
    }
  }

  /** Hands a buffer back, of which the device has written so many bytes. */
  give(chain: Chain, written: number): void {
    const memory = this.#memory;
    const ring = this.#part(Part.USED);
    const at = ring + 4 + USED_ENTRY * (this.#nextUsed % this.size);
    memory.writeU32(at, chain.head);
    memory.writeU32(at + 4, written);
    this.#nextUsed = (this.#nextUsed + 1) % WRAP;
    memory.writeU16(ring + 2, this.#nextUsed);
  }

  /** Whether the driver wants to be interrupted when buffers come back. */
  get wantsInterrupt(): boolean {
    return (this.#memory.readU16(this.#part(Part.AVAILABLE)) & NO_INTERRUPT) === 0;
  }

  /** The state. */
  save(): QueueSaved {
    return {
      size: this.size,
      enabled: this.enabled,
      addresses: [...this.addresses],
      next: [this.#nextAvailable, this.#nextUsed],
    };
  }

  /** Takes what {@linkcode Queue.save} returned. */
  load({ size, enabled, addresses, next }: QueueSaved): void {
    this.size = size;
    this.enabled = enabled;
    this.addresses.set(addresses);
    [this.#nextAvailable, this.#nextUsed] = next;
  }
}

/** Bytes in all pieces together. */
export function totalLength(pieces: readonly Piece[]): number {
  return pieces.reduce((sum, { length }) => sum + length, 0);
}

/** Copies the pieces, one behind the other, from `offset` on. */
export function gather(memory: GuestMemory, pieces: readonly Piece[], offset = 0): Uint8Array {
  const bytes = new Uint8Array(Math.max(0, totalLength(pieces) - offset));
  let at = -offset;
  for (const { gpa, length } of pieces) {
    const skipped = Math.min(length, Math.max(0, -at));
    if (skipped < length) {
      memory.read(gpa + skipped, bytes.subarray(at + skipped, at + length));
    }
    at += length;
  }
  return bytes;
}

/** Spreads bytes over the pieces, from `offset` on; returns how many there was room for. */
export function scatter(
  memory: GuestMemory,
  pieces: readonly Piece[],
  bytes: Uint8Array,
  offset = 0,
): number {
  let done = 0;
  let at = 0;
  for (const { gpa, length } of pieces) {
    const skipped = Math.min(length, Math.max(0, offset - at));
    at += length;
    const part = bytes.subarray(done, done + length - skipped);
    if (part.length === 0) continue;
    memory.write(gpa + skipped, part);
    done += part.length;
  }
  return done;
}
