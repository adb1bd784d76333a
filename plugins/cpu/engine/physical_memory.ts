/**
 * Physical memory of a machine: which chunks there are, what backs them, and the address spaces by which
 * processors see them. `memory/physical.ts` has what the emitted code does with the same maps.
 *
 * @module
 */
import { MemoryError } from "../../../core/mod.ts";
import { ChunkEntry, PAGE_BACKED, PAGE_READ_ONLY } from "../memory/physical.ts";
import { S } from "../state/cpu_state.ts";
import {
  CHUNK_MAP_BYTES,
  CHUNK_MAP_COUNT,
  CHUNK_MAPS,
  CHUNK_SHIFT,
  PAGE_MAPS,
  PAGE_MAPS_BYTES,
  PHYSICAL_SHIFT,
  RAM,
} from "../state/layout.ts";
import type { Blocks } from "./blocks.ts";

const CHUNK = 1 << CHUNK_SHIFT;
const PAGE = 0x1000;
/** Bytes of the page words of one chunk. */
const PAGE_MAP_BYTES = (CHUNK / PAGE) * 4;

/** The physical memory of a machine. */
export class PhysicalMemory {
  readonly #bytes: Uint8Array<ArrayBuffer>;
  readonly #words: Int32Array<ArrayBuffer>;
  readonly #blocks: Blocks;
  readonly #poolEnd: number;
  #pool = RAM;
  #pageMaps = PAGE_MAPS;
  /** Host physical address behind each chunk of another address space, by index of its map word. */
  readonly #aliases = new Map<number, number>();
  /** Backing that was given back, filled with zeros. */
  readonly #free: number[] = [];

  /**
   * @param bytes The machine's memory.
   * @param words The same as 32-bit words.
   * @param end Address in it where what can back chunks ends.
   * @param blocks Code that was decoded from it.
   */
  constructor(
    bytes: Uint8Array<ArrayBuffer>,
    words: Int32Array<ArrayBuffer>,
    end: number,
    blocks: Blocks,
  ) {
    this.#bytes = bytes;
    this.#words = words;
    this.#poolEnd = end;
    this.#blocks = blocks;
  }

  /** Address of the chunk map of physical address space `space`; 0 is the host's. */
  chunkMap(space: number): number {
    if (space < 0 || space >= CHUNK_MAP_COUNT) throw new RangeError(`no address space ${space}`);
    return CHUNK_MAPS + space * CHUNK_MAP_BYTES;
  }

  /** Makes `bytes` at host physical address `start` memory; both multiples of 2 MiB. */
  addMemory(start: number, bytes: number): void {
    if (start % CHUNK !== 0 || bytes % CHUNK !== 0 || start + bytes > 2 ** PHYSICAL_SHIFT) {
      throw new RangeError(`memory at ${start.toString(16)}h: not chunks of 2 MiB below 64 GiB`);
    }
    const map = this.chunkMap(0) >> 2;
    this.#words.fill(ChunkEntry.LAZY, map + start / CHUNK, map + (start + bytes) / CHUNK);
  }

  /** Takes memory out again; its backing is used for something else. */
  removeMemory(start: number, bytes: number): void {
    const map = this.chunkMap(0) >> 2;
    for (let chunk = start / CHUNK; chunk < (start + bytes) / CHUNK; chunk++) {
      const word = this.#words[map + chunk]!;
      this.#words[map + chunk] = ChunkEntry.NONE;
      if ((word & ChunkEntry.BACKED) === 0) continue;
      const address = (word & ~(CHUNK - 1)) >>> 0;
      this.#blocks.written(address, CHUNK);
      this.#bytes.fill(0, address, address + CHUNK);
      this.#free.push(address);
    }
  }

  /**
   * In address space `space`, maps `bytes` at `start` to host physical memory at `host`; where it is
   * `readonly`, writes are a device's.
   */
  mapAlias(space: number, start: number, bytes: number, host: number, readonly: boolean): void {
    const map = this.chunkMap(space);
    for (let at = start; at < start + bytes;) {
      const end = Math.min(start + bytes, (Math.floor(at / CHUNK) + 1) * CHUNK);
      const entry = (map + Math.floor(at / CHUNK) * 4) >> 2;
      const source = host + (at - start);
      if (end - at === CHUNK && source % CHUNK === 0 && !readonly) {
        this.#words[entry] = ChunkEntry.LAZY;
        this.#aliases.set(entry, source);
      } else {
        this.#split(entry, at);
        this.#aliasPages(entry, at, end, source, readonly ? PAGE_READ_ONLY : 0);
      }
      at = end;
    }
  }

  /** In address space `space`, makes `bytes` at `start` no memory. */
  unmapAlias(space: number, start: number, bytes: number): void {
    const map = this.chunkMap(space);
    for (let at = start; at < start + bytes;) {
      const end = Math.min(start + bytes, (Math.floor(at / CHUNK) + 1) * CHUNK);
      const entry = (map + Math.floor(at / CHUNK) * 4) >> 2;
      if (end - at < CHUNK) this.#split(entry, at);
      const word = this.#words[entry]!;
      if ((word & ChunkEntry.PAGES) === 0) {
        this.#words[entry] = ChunkEntry.NONE;
        this.#aliases.delete(entry);
      } else {
        for (let page = at; page < end; page += PAGE) {
          this.#words[((word & ~7) + ((page % CHUNK) / PAGE) * 4) >> 2] = 0;
        }
      }
      at = end;
    }
  }

  /** Has an aliased chunk, which `address` is in, mapped page by page. */
  #split(entry: number, address: number): void {
    const source = this.#aliases.get(entry);
    if (source === undefined) return;
    this.#aliases.delete(entry);
    this.#words[entry] = ChunkEntry.NONE;
    const start = address - address % CHUNK;
    this.#aliasPages(entry, start, start + CHUNK, source, 0);
  }

  #aliasPages(entry: number, start: number, end: number, host: number, flags: number): void {
    let word = this.#words[entry]!;
    if ((word & ChunkEntry.PAGES) === 0) {
      if (this.#pageMaps >= PAGE_MAPS + PAGE_MAPS_BYTES) {
        throw new RangeError("too many pieces of memory that are not whole chunks of 2 MiB");
      }
      word = this.#pageMaps | ChunkEntry.PAGES;
      this.#pageMaps += PAGE_MAP_BYTES;
      this.#words[entry] = word;
    }
    const table = word & ~7;
    for (let at = start; at < end; at += PAGE) {
      const page = this.translate(host + (at - start));
      this.#words[(table + ((at % CHUNK) / PAGE) * 4) >> 2] = page | PAGE_BACKED | flags;
    }
  }

  /** A processor has touched chunk `index` of its address space for the first time. */
  touched(index: number): number {
    const map = this.#words[S.physicalMap.address >> 2]! >> 2;
    const address = this.#backing(this.#aliases.get(map + index) ?? index * CHUNK);
    this.#words[map + index] = address | ChunkEntry.BACKED;
    return address;
  }

  /** Memory address of the chunk at host physical address `host`, which gets its backing. */
  #backing(host: number): number {
    const entry = (this.chunkMap(0) + (host / CHUNK) * 4) >> 2;
    const word = this.#words[entry]!;
    if ((word & ChunkEntry.BACKED) !== 0) return (word & ~(CHUNK - 1)) >>> 0;
    if (word !== ChunkEntry.LAZY) throw new RangeError(`no memory at ${host.toString(16)}h`);
    const address = this.#free.pop() ?? this.#take();
    this.#words[entry] = address | ChunkEntry.BACKED;
    return address;
  }

  #take(): number {
    if (this.#pool + CHUNK > this.#poolEnd) {
      throw new MemoryError(0, "host physical memory is used up: give the cpu plugin more of it");
    }
    const address = this.#pool;
    this.#pool += CHUNK;
    return address;
  }

  /** Memory address of a host physical address, or 0; chunks without backing get one. */
  translate(address: number): number {
    if (address < 0 || address >= 2 ** PHYSICAL_SHIFT) return 0;
    const chunk = Math.floor(address / CHUNK);
    const word = this.#words[(this.chunkMap(0) >> 2) + chunk]!;
    if (word === ChunkEntry.NONE) return 0;
    const start = (word & ChunkEntry.BACKED) !== 0
      ? (word & ~(CHUNK - 1)) >>> 0
      : this.#backing(chunk * CHUNK);
    return start + (address & (CHUNK - 1));
  }

  /** Whether host physical address `address` is memory. */
  isMemory(address: number): boolean {
    return this.#words[(this.chunkMap(0) >> 2) + Math.floor(address / CHUNK)] !== ChunkEntry.NONE;
  }
}
