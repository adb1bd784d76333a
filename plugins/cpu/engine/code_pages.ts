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

const PAGE = 0x1000;
/** log2 of the bytes of a piece. */
const PIECE_SHIFT = 5;

/** Pieces of a page. */
const PIECES: number = PAGE >> PIECE_SHIFT;

const NONE: readonly number[] = [];

/** Where a block has bytes in one page. */
interface Extent {
  readonly block: number;
  /** Address of the first of them. */
  readonly start: number;
  /** Address behind the last of them. */
  readonly end: number;
}

/** The blocks that have bytes in one page. */
interface CodePage {
  readonly blocks: Map<number, Extent>;
  /** The same for each piece, so that a store looks at few: data may stand between code. */
  readonly pieces: (Extent[] | undefined)[];
  /** Marks have been left where no code is any more, see {@linkcode CodePages.remove}. */
  stale: boolean;
}

/** The pages of one machine that hold code. */
export class CodePages {
  readonly #bytes: Uint8Array;
  readonly #words: Int32Array;
  readonly #cpus: number;
  readonly #pages = new Map<number, CodePage>();
  /** Places whose writes somebody wants to hear of, by page: address and length. */
  readonly #watched = new Map<number, Map<number, number>>();

  constructor(memory: ArrayBuffer, cpus: number) {
    this.#bytes = new Uint8Array(memory);
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
  blocksIn(page: number): Iterable<number> {
    return this.#pages.get(page)?.blocks.keys() ?? NONE;
  }

  /** Notes that `block` has `length` bytes at `code`, within a page; writes to them will be seen. */
  add(block: number, code: number, length: number): void {
    const number = code >>> 12;
    let page = this.#pages.get(number);
    if (page === undefined) {
      page = { blocks: new Map(), pieces: new Array(PIECES).fill(undefined), stale: false };
      this.#pages.set(number, page);
      this.#forbidWrites(number << 12);
    }
    const extent = { block, start: code, end: code + length };
    page.blocks.set(block, extent);
    const last = lastPiece(code, length);
    for (let piece = firstPiece(code); piece <= last; piece++) {
      const extents = page.pieces[piece];
      if (extents === undefined) page.pieces[piece] = [extent];
      else extents.push(extent);
    }
    this.#markBits(code, length);
  }

  /**
   * Takes `block`, which has bytes in page number `number`, out, and the marks off what was its alone. If code
   * is written there again and again (`hot`), the last block's marks stay: while there are none the page may be
   * stored to without asking, and to take that back costs more than to ask.
   */
  remove(block: number, number: number, hot: boolean): void {
    const page = this.#pages.get(number);
    const extent = page?.blocks.get(block);
    if (page === undefined || extent === undefined) return;
    page.blocks.delete(block);
    const stays = hot && page.blocks.size === 0;
    page.stale ||= stays;
    const { start, end } = extent;
    const last = lastPiece(start, end - start);
    for (let piece = firstPiece(start); piece <= last; piece++) {
      const extents = page.pieces[piece]!;
      if (extents.length > 1) extents.splice(extents.indexOf(extent), 1);
      else {
        page.pieces[piece] = undefined;
        if (!stays) this.#bytes[CODE_BITS + number * 16 + (piece >> 3)]! &= ~(1 << (piece & 7));
      }
    }
    if (page.blocks.size === 0 && !page.stale) this.#pages.delete(number);
    this.#markWatched(number);
  }

  /** Page number `number` is not hot any more: takes off the marks that were left. */
  cool(number: number): void {
    const page = this.#pages.get(number);
    if (page?.stale !== true) return;
    page.stale = false;
    if (page.blocks.size === 0) this.#pages.delete(number);
    this.#mark(number);
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
    const last = lastPiece(code, length);
    for (let piece = firstPiece(code); piece <= last; piece++) {
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
    this.#mark(page);
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

  /** Marks the pieces of page number `number` that blocks have bytes in, or somebody watches, and no others. */
  #mark(number: number): void {
    this.#clearBits(number);
    this.#markWatched(number);
    for (const [piece, extents] of (this.#pages.get(number)?.pieces ?? []).entries()) {
      if (extents !== undefined) this.#markBits(number * PAGE + (piece << PIECE_SHIFT), 1);
    }
  }

  /** The blocks that have any of the `bytes` at `address` that stand in page number `number`. */
  covering(number: number, address: number, bytes: number): readonly number[] {
    const page = this.#pages.get(number);
    if (page === undefined) return NONE;
    const from = Math.max(address, number * PAGE);
    const to = Math.min(address + bytes, (number + 1) * PAGE);
    let found: number[] | undefined;
    const last = lastPiece(from, to - from);
    for (let piece = firstPiece(from); piece <= last; piece++) {
      const extents = page.pieces[piece];
      if (extents === undefined) continue;
      for (const { block, start, end } of extents) {
        if (from >= end || start >= to || found?.includes(block) === true) continue;
        if (found === undefined) found = [block];
        else found.push(block);
      }
    }
    return found ?? NONE;
  }
}

/** The first piece of its page that has bytes from `address` on. */
function firstPiece(address: number): number {
  return (address & (PAGE - 1)) >> PIECE_SHIFT;
}

/** The last piece of the page of `address` that has bytes of the `length` from there. */
function lastPiece(address: number, length: number): number {
  return Math.min((address & (PAGE - 1)) + length - 1, PAGE - 1) >> PIECE_SHIFT;
}
