/**
 * Host physical memory of a machine, for everybody but the processors.
 *
 * @module
 */
import { ArgumentError, type HostMemory, MemoryError } from "../../../core/mod.ts";
import { CHUNK_SHIFT, PHYSICAL_SHIFT } from "../state/layout.ts";
import type { Machine } from "./machine.ts";

const PAGE = 0x1000;
const CHUNK: number = 1 << CHUNK_SHIFT;
/** Where memory begins: a host's firmware and devices live below. */
const FIRST: number = 1 << 24;

interface Allocation {
  readonly hpa: number;
  readonly bytes: number;
}

/** Hands out host physical memory. The machine itself is made when memory is first touched. */
export class MachineMemory implements HostMemory {
  readonly #allocations: Allocation[] = [];
  readonly #machine: () => Machine;
  readonly #made: () => Machine | undefined;

  /** `machine` makes the machine if need be; `made` yields it only if it exists. */
  constructor(machine: () => Machine, made: () => Machine | undefined) {
    this.#machine = machine;
    this.#made = made;
  }

  /** Size of the address space that memory can be in, in bytes. */
  get size(): number {
    return 2 ** PHYSICAL_SHIFT;
  }

  /** Bytes reserved so far, in whole chunks. */
  get reserved(): number {
    return this.#allocations.reduce((sum, { bytes }) => sum + bytes, 0);
  }

  /** See `HostMemory.alloc`. Small pieces share a chunk. */
  alloc(bytes: number, align: number = PAGE): number {
    if (!(bytes > 0) || !Number.isSafeInteger(bytes)) {
      throw new ArgumentError(`host memory: ${bytes} is no number of bytes to reserve`);
    }
    if (align < PAGE || !Number.isInteger(Math.log2(align))) {
      throw new ArgumentError(`host memory: alignment ${align} is no power of two from ${PAGE} on`);
    }
    const size = Math.ceil(bytes / PAGE) * PAGE;
    const hpa = this.#place(size, align);
    const at = this.#allocations.findIndex((other) => other.hpa > hpa);
    const index = at < 0 ? this.#allocations.length : at;
    this.#allocations.splice(index, 0, { hpa, bytes: size });
    const machine = this.#made();
    if (machine !== undefined) this.#back(machine, hpa, size);
    return hpa;
  }

  /** First gap of `size` bytes. */
  #place(size: number, align: number): number {
    let from = Math.ceil(FIRST / align) * align;
    for (const { hpa, bytes } of this.#allocations) {
      if (from + size <= hpa) break;
      from = Math.max(from, Math.ceil((hpa + bytes) / align) * align);
    }
    if (from + size > this.size) {
      throw new MemoryError(from, `host memory: no ${size} bytes in one piece are left`);
    }
    return from;
  }

  /** Makes the chunks that cover a range memory. */
  #back(machine: Machine, hpa: number, bytes: number): void {
    const end = Math.ceil((hpa + bytes) / CHUNK) * CHUNK;
    for (let chunk = Math.floor(hpa / CHUNK) * CHUNK; chunk < end; chunk += CHUNK) {
      if (!machine.physical.isMemory(chunk)) machine.physical.addMemory(chunk, CHUNK);
    }
  }

  /** For the machine that has just been made: backs what was reserved before. */
  backAll(machine: Machine): void {
    for (const { hpa, bytes } of this.#allocations) this.#back(machine, hpa, bytes);
  }

  /** See `HostMemory.free`. */
  free(hpa: number): void {
    const index = this.#allocations.findIndex((allocation) => allocation.hpa === hpa);
    const freed = this.#allocations[index];
    if (freed === undefined) {
      throw new MemoryError(hpa, `host memory: nothing was reserved at ${hpa.toString(16)}h`);
    }
    this.#allocations.splice(index, 1);
    const machine = this.#made();
    if (machine === undefined) return;
    const end = hpa + freed.bytes;
    for (let chunk = Math.floor(hpa / CHUNK) * CHUNK; chunk < end; chunk += CHUNK) {
      const shared = this.#allocations.some((other) =>
        other.hpa < chunk + CHUNK && other.hpa + other.bytes > chunk
      );
      if (!shared) machine.physical.removeMemory(chunk, CHUNK);
      else {
        const from = Math.max(hpa, chunk);
        this.fill(from, Math.min(end, chunk + CHUNK) - from, 0);
      }
    }
  }

  /** Memory address of `hpa`, with `length` bytes behind it in the same chunk. */
  #at(hpa: number, length: number): number {
    const address = this.#machine().physical.translate(hpa);
    if (address === 0) {
      throw new MemoryError(hpa, `host memory: there is none at ${hpa.toString(16)}h`);
    }
    if ((hpa & (CHUNK - 1)) + length > CHUNK) {
      throw new MemoryError(hpa, `host memory: ${length} bytes leave the piece they begin in`);
    }
    return address;
  }

  /** See `HostMemory.view`. */
  view(hpa: number, length: number): Uint8Array {
    const address = this.#at(hpa, length);
    return this.#machine().bytes.subarray(address, address + length);
  }

  /** See `HostMemory.changed`. */
  changed(hpa: number, length: number): void {
    this.#pieces(hpa, length, (address, bytes) => this.#machine().blocks.written(address, bytes));
  }

  /** Calls `piece` with memory address, length and offset of each part that lies in one chunk. */
  #pieces(
    hpa: number,
    length: number,
    piece: (address: number, bytes: number, offset: number) => void,
  ): void {
    for (let offset = 0; offset < length;) {
      const bytes = Math.min(length - offset, CHUNK - (hpa + offset) % CHUNK);
      piece(this.#at(hpa + offset, bytes), bytes, offset);
      offset += bytes;
    }
  }

  /** See `HostMemory.read`. */
  read(hpa: number, target: Uint8Array): void {
    const machine = this.#machine();
    this.#pieces(hpa, target.length, (address, bytes, offset) => {
      target.set(machine.bytes.subarray(address, address + bytes), offset);
    });
  }

  /** See `HostMemory.write`. */
  write(hpa: number, source: Uint8Array): void {
    const machine = this.#machine();
    this.#pieces(hpa, source.length, (address, bytes, offset) => {
      machine.bytes.set(source.subarray(offset, offset + bytes), address);
      machine.blocks.written(address, bytes);
    });
  }

  /** See `HostMemory.fill`. */
  fill(hpa: number, length: number, value: number): void {
    const machine = this.#machine();
    this.#pieces(hpa, length, (address, bytes) => {
      machine.bytes.fill(value, address, address + bytes);
      machine.blocks.written(address, bytes);
    });
  }

  /** Little-endian number of `bytes` (1–4) at `hpa`. */
  #get(hpa: number, bytes: number): number {
    if (bytes === 4 && (hpa & 3) === 0) {
      return this.#machine().words[this.#at(hpa, 4) >>> 2]! >>> 0;
    }
    const memory = this.#machine().bytes;
    let value = 0;
    if (hpa % CHUNK + bytes <= CHUNK) {
      const at = this.#at(hpa, bytes);
      for (let k = 0; k < bytes; k++) value |= memory[at + k]! << (8 * k);
      return value >>> 0;
    }
    this.#pieces(hpa, bytes, (address, count, offset) => {
      for (let k = 0; k < count; k++) value |= memory[address + k]! << (8 * (offset + k));
    });
    return value >>> 0;
  }

  #put(hpa: number, bytes: number, value: number): void {
    const machine = this.#machine();
    this.#pieces(hpa, bytes, (address, count, offset) => {
      for (let k = 0; k < count; k++) machine.bytes[address + k] = value >>> (8 * (offset + k));
      machine.blocks.written(address, count);
    });
  }

  /** See `HostMemory.readU8`. */
  readU8(hpa: number): number {
    return this.#get(hpa, 1);
  }
  /** See `HostMemory.readU16`. */
  readU16(hpa: number): number {
    return this.#get(hpa, 2);
  }
  /** See `HostMemory.readU32`. */
  readU32(hpa: number): number {
    return this.#get(hpa, 4);
  }
  /** See `HostMemory.readU64`. */
  readU64(hpa: number): bigint {
    return BigInt(this.#get(hpa, 4)) | (BigInt(this.#get(hpa + 4, 4)) << 32n);
  }
  /** See `HostMemory.writeU8`. */
  writeU8(hpa: number, value: number): void {
    this.#put(hpa, 1, value);
  }
  /** See `HostMemory.writeU16`. */
  writeU16(hpa: number, value: number): void {
    this.#put(hpa, 2, value);
  }
  /** See `HostMemory.writeU32`. */
  writeU32(hpa: number, value: number): void {
    this.#put(hpa, 4, value);
  }
  /** See `HostMemory.writeU64`. */
  writeU64(hpa: number, value: bigint): void {
    this.#put(hpa, 4, Number(BigInt.asUintN(32, value)));
    this.#put(hpa + 4, 4, Number(BigInt.asUintN(32, value >> 32n)));
  }
}
