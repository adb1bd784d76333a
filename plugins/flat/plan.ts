/**
 * Where everything goes that is to be loaded, decided before any of it is written.
 *
 * @module
 */

import { type MemoryRange, PAGE_SIZE, type Vm, withoutHoles } from "../../core/mod.ts";
import { hex, ImageError } from "./error.ts";

/** Something that is to be written to guest memory. */
export interface Piece {
  /** What it is, for messages: "segment 1", "module 0". */
  readonly what: string;
  /** Where in the file it is said that it goes there, in bytes, if it is said in the file. */
  readonly offset?: number | undefined;
  /** First guest physical address. */
  readonly gpa: number;
  /** What to write there. */
  readonly bytes: Uint8Array;
  /** Size in bytes; what {@linkcode Piece.bytes} does not fill is set to 0. */
  readonly size: number;
}

/**
 * Nothing is put here by itself: the first page, which real mode has its vectors in and guests their
 * trampolines, and what lies between 640 KiB and 1 MiB, which is video memory and firmware on a PC.
 */
const KEPT_FREE: readonly MemoryRange[] = [
  { gpa: 0, size: PAGE_SIZE },
  { gpa: 0xa_0000, size: 0x6_0000 },
];

/**
 * Tables of the loader's own go from here on, if there is room: above what boot code and real-mode
 * trampolines use, below where kernels are linked.
 */
const FIRST_CHOICE = 0x1_0000;

/** Addresses from here on cannot be reached by code of 32 bits. */
const LIMIT_32 = 2 ** 32;

/**
 * A plan for loading an image: pieces are placed one by one, each is checked against memory and
 * against the others, and when all is well everything is written.
 */
export class LoadPlan {
  readonly #vm: Vm;
  readonly #image: string;
  /** By ascending address. */
  readonly #pieces: Piece[] = [];

  /** An empty plan for `vm`; `image` is for messages. */
  constructor(vm: Vm, image: string) {
    this.#vm = vm;
    this.#image = image;
  }

  /**
   * Places a piece at its address. A piece of size 0 takes no room.
   *
   * @throws {ImageError} If there is not memory everywhere, or another piece is there.
   */
  place(piece: Piece): void {
    const { gpa, size } = piece;
    if (size === 0) return;
    this.#checkMemory(piece);
    const index = this.#indexOf(gpa);
    for (const other of [this.#pieces[index - 1], this.#pieces[index]]) {
      if (other === undefined || gpa >= other.gpa + other.size || other.gpa >= gpa + size) continue;
      const there = range(other.gpa, other.size);
      throw this.#error(piece, `${range(gpa, size)} overlaps ${other.what}, at ${there}`);
    }
    this.#pieces.splice(index, 0, piece);
  }

  /**
   * Places a piece where there is room for it, below 4 GiB.
   *
   * @param from The lowest address to look at; without it, 64 KiB, and what is below that if there is no
   * room above.
   * @param align Alignment of the address, a power of two.
   *
   * @returns Its address.
   *
   * @throws {ImageError} If there is no room.
   */
  placeFree(what: string, bytes: Uint8Array, align: number, from?: number): number {
    const size = bytes.length;
    const gpa = this.#find(size, align, from ?? FIRST_CHOICE) ??
      (from === undefined ? this.#find(size, align, 0) : undefined);
    if (gpa === undefined) {
      const above = from === undefined ? "" : ` from ${hex(from)} on`;
      throw new ImageError(
        this.#image,
        what,
        undefined,
        `no room for ${size} bytes in the memory below 4 GiB${above}; ${this.#describeMemory()}`,
      );
    }
    this.place({ what, gpa, bytes, size });
    return gpa;
  }

  /** Writes all pieces. */
  write(): void {
    const { memory } = this.#vm;
    for (const { gpa, bytes, size } of this.#pieces) {
      memory.write(gpa, bytes);
      if (size > bytes.length) memory.fill(gpa + bytes.length, size - bytes.length, 0);
    }
  }

  /** Memory that can be written to, adjoining memslots as one range, by ascending address. */
  static ram(vm: Vm): MemoryRange[] {
    const ranges: MemoryRange[] = [];
    for (const { gpa, size, readonly } of vm.memory.slots) {
      if (readonly) continue;
      const last = ranges.at(-1);
      if (last !== undefined && last.gpa + last.size === gpa) {
        ranges[ranges.length - 1] = { gpa: last.gpa, size: last.size + size };
      } else {
        ranges.push({ gpa, size });
      }
    }
    return ranges;
  }

  /** Index of the first piece that is not below `gpa`. */
  #indexOf(gpa: number): number {
    let [low, high] = [0, this.#pieces.length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#pieces[middle] as Piece).gpa < gpa) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #find(size: number, align: number, from: number): number | undefined {
    for (const free of withoutHoles(LoadPlan.ram(this.#vm), [...KEPT_FREE, ...this.#pieces])) {
      const gpa = Math.ceil(Math.max(free.gpa, from) / align) * align;
      if (gpa + size <= Math.min(free.gpa + free.size, LIMIT_32)) return gpa;
    }
    return undefined;
  }

  #checkMemory(piece: Piece): void {
    const { memory, mmio } = this.#vm;
    const { gpa, size } = piece;
    const end = gpa + size;
    for (let at = gpa; at < end;) {
      const slot = memory.lookup(at);
      if (slot !== undefined && !slot.readonly) {
        at = slot.gpa + slot.size;
        continue;
      }
      const needs = `it needs ${range(gpa, size)}, and`;
      if (slot !== undefined) {
        throw this.#error(piece, `${needs} memory "${slot.name}" at ${hex(at)} is read-only`);
      }
      const device = mmio.firstIn(at, 1);
      if (device !== undefined) {
        throw this.#error(piece, `${needs} device "${device.name}" is at ${hex(at)}`);
      }
      throw this.#error(piece, `${needs} there is none at ${hex(at)}; ${this.#describeMemory()}`);
    }
  }

  #describeMemory(): string {
    const ranges = LoadPlan.ram(this.#vm).map(({ gpa, size }) => range(gpa, size));
    return ranges.length === 0 ? "the VM has no memory" : `memory is at ${ranges.join(", ")}`;
  }

  #error(piece: Piece, message: string): ImageError {
    return new ImageError(this.#image, piece.what, piece.offset, message);
  }
}

function range(gpa: number, size: number): string {
  return `${hex(gpa)} to ${hex(gpa + size - 1)}`;
}
