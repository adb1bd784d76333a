/**
 * Which bytes of memory hold decoded code, or are watched for another reason.
 *
 * Stores ask for pieces of 32 bytes, in a page that no TLB lets be written to without asking.
 *
 * @module
 */
import { clearKeptWindows, clearWindows } from "../memory/windows.ts";
import { CODE_BITS, CPU_AREA_BYTES, CPU_AREAS, WRITABLE_PAGES } from "../state/layout.ts";
import {
  Context,
  CONTEXT_COUNT,
  CONTEXTS,
  INDEX_BYTES,
  TLB_ENTRIES,
  WRITE_OFFSET,
} from "../state/tlb_layout.ts";
import { BlockHeader } from "./block_layout.ts";

const PAGE = 0x1000;
/** log2 of the bytes of a piece. */
const PIECE_SHIFT = 5;

const NONE: ReadonlySet<number> = new Set();

/** The pages of one machine that hold code. */
export class CodePages {
  readonly #bytes: Uint8Array;
  readonly #halves: Uint16Array;
  readonly #words: Int32Array;
  readonly #cpus: number;
  /** Blocks by page. */
  readonly #pages = new Map<number, Set<number>>();
  /** Places whose writes somebody wants to hear of, by page: address and length. */
  readonly #watched = new Map<number, Map<number, number>>();

  constructor(memory: ArrayBuffer, cpus: number) {
    this.#bytes = new Uint8Array(memory);
    this.#halves = new Uint16Array(memory);
    this.#words = new Int32Array(memory);
    this.#cpus = cpus;
  }

  #word(address: number): number {
    return this.#words[address >> 2]!;
  }

  #setWord(address: number, value: number): void {
    this.#words[address >> 2] = value;
  }

  /** The blocks that have bytes in the page with this number. */
  blocksIn(page: number): ReadonlySet<number> {
    return this.#pages.get(page) ?? NONE;
  }

  /** Notes that `block` has `length` bytes at `code`, within a page; writes to them will be seen. */
  add(block: number, code: number, length: number): void {
    const page = code >>> 12;
    let blocks = this.#pages.get(page);
    if (blocks === undefined) {
      blocks = new Set();
      this.#pages.set(page, blocks);
      this.#forbidWrites(page << 12);
    }
    blocks.add(block);
    this.#markBits(code, length);
  }

  /** Takes `block`, which has bytes in page number `page`, out. Its pieces stay marked for now. */
  remove(block: number, page: number): void {
    this.#pages.get(page)?.delete(block);
  }

  /** Takes all blocks out. */
  clear(): void {
    for (const page of this.#pages.keys()) {
      this.#clearBits(page);
      this.#markWatched(page);
    }
    this.#pages.clear();
  }

  #markWatched(page: number): void {
    const watched = this.#watched.get(page);
    if (watched === undefined) return;
    for (const [address, length] of watched) this.#markBits(address, length);
  }

  #markBits(code: number, length: number): void {
    const table = CODE_BITS + (code >>> 12) * 16;
    const last = Math.min((code & (PAGE - 1)) + length - 1, PAGE - 1) >> PIECE_SHIFT;
    for (let piece = (code & (PAGE - 1)) >> PIECE_SHIFT; piece <= last; piece++) {
      this.#bytes[table + (piece >> 3)]! |= 1 << (piece & 7);
    }
  }

  /** Takes all write translations of a page out of every TLB. */
  #forbidWrites(page: number): void {
    const known = WRITABLE_PAGES + (page >>> 12);
    if (this.#bytes[known] === 0) return;
    this.#bytes[known] = 0;
    clearWindows(this.#bytes);
    for (let cpu = 0; cpu < this.#cpus; cpu++) {
      for (let k = 0; k < CONTEXT_COUNT; k++) {
        const context = CPU_AREAS + cpu * CPU_AREA_BYTES + CONTEXTS + k * Context.BYTES;
        if (this.#word(context + Context.USED) === 0) continue;
        clearKeptWindows(this.#bytes, context);
        for (let index = 0; index < 3; index++) {
          const array = context + Context.DATA + index * INDEX_BYTES + WRITE_OFFSET;
          for (let entry = array; entry < array + TLB_ENTRIES * 16; entry += 16) {
            const address = (this.#word(entry) + this.#word(entry + 8)) | 0;
            if (address === (page | 0)) {
              this.#setWord(entry, -1);
              this.#setWord(entry + 4, -1);
            }
          }
        }
      }
    }
  }

  /** Has writes to `length` bytes at `address`, within a page, told to `onWatchedWrite`. */
  watch(address: number, length: number): void {
    const page = address >>> 12;
    let watched = this.#watched.get(page);
    if (watched === undefined) {
      watched = new Map();
      this.#watched.set(page, watched);
      this.#forbidWrites(page << 12);
    }
    watched.set(address, length);
    this.#markBits(address, length);
  }

  /** Takes back what was asked for with {@linkcode Blocks.watch}. */
  unwatch(address: number): void {
    const page = address >>> 12;
    const watched = this.#watched.get(page);
    if (watched === undefined) return;
    watched.delete(address);
    if (watched.size === 0) this.#watched.delete(page);
    this.unmark(page);
  }

  /** Whether somebody wants to hear of writes to page number `page`. */
  isWatched(page: number): boolean {
    return this.#watched.has(page);
  }

  /** Whether one of the places to hear of is in a piece with the `bytes` at `address`, within a page. */
  meetsWatched(address: number, bytes: number): boolean {
    const first = address >>> PIECE_SHIFT;
    const last = (address + bytes - 1) >>> PIECE_SHIFT;
    for (const [at, length] of this.#watched.get(address >>> 12) ?? []) {
      if (first <= (at + length - 1) >>> PIECE_SHIFT && at >>> PIECE_SHIFT <= last) return true;
    }
    return false;
  }

  #clearBits(page: number): void {
    this.#bytes.fill(0, CODE_BITS + page * 16, CODE_BITS + page * 16 + 16);
  }

  /** Takes the marks off the pieces of page number `page` that no block has bytes in any more. */
  unmark(page: number): void {
    this.#clearBits(page);
    this.#markWatched(page);
    const blocks = this.#pages.get(page);
    if (blocks === undefined) return;
    for (const block of blocks) {
      const { start, size } = this.#part(block, page);
      this.#markBits(start, size);
    }
    if (blocks.size === 0) this.#pages.delete(page);
  }

  /** Where the bytes of `block` in page number `page` stand. */
  #part(block: number, page: number): { readonly start: number; readonly size: number } {
    const code = this.#word(block + BlockHeader.CODE) >>> 0;
    const length = this.#halves[(block + BlockHeader.LENGTH) >> 1]!;
    const inFirst = Math.min(length, PAGE - (code & (PAGE - 1)));
    if (code >>> 12 === page) return { start: code, size: inFirst };
    return { start: this.#word(block + BlockHeader.CODE2) >>> 0, size: length - inFirst };
  }

  /** Whether `block` has bytes in page number `page` among the `bytes` at `address`. */
  covers(block: number, page: number, address: number, bytes: number): boolean {
    const { start, size } = this.#part(block, page);
    return address < start + size && start < address + bytes;
  }
}
