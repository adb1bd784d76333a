/**
 * The cache of decoded blocks: building, finding again, dropping.
 *
 * A block is known by where its bytes stand in memory, its RIP, CS.base, CS.limit and mode. It covers at most the
 * page it starts in and the head of the next one, in which only its last instruction may lie.
 *
 * @module
 */
import { Decoder } from "../decode/decoder.ts";
import { type DecodeMode, DecodeStatus } from "../decode/status.ts";
import type { Entry } from "../decode/entries.ts";
import type { Form } from "../decode/form.ts";
import type { IsaFeatureName } from "../isa_features.ts";
import { clearKeptWindows, clearWindows } from "../memory/windows.ts";
import { beyondLimit } from "../semantics/branch.ts";
import { lockedName } from "../semantics/instruction.ts";
import { SEMANTICS } from "../semantics/mod.ts";
import { Pseudo } from "../semantics/pseudo.ts";
import { Mode, S, Seg, segmentAddress, SegmentField } from "../state/cpu_state.ts";
import {
  BLOCK_BUCKETS,
  BUCKETS,
  CODE_BITS,
  CPU_AREA_BYTES,
  CPU_AREAS,
  MICRO_OPS,
  MICRO_OPS_BYTES,
  WRITABLE_PAGES,
} from "../state/layout.ts";
import {
  Context,
  CONTEXT_COUNT,
  CONTEXTS,
  INDEX_BYTES,
  TLB_ENTRIES,
  WRITE_OFFSET,
} from "../state/tlb_layout.ts";
import {
  ALONE_MODE,
  BlockHeader,
  DEAD_MODE,
  MAX_BLOCK_INSTRUCTIONS,
  MICRO_OP_BYTES,
  MicroOp,
  NEVER_LINK,
  Transfer,
  UNLINKED,
} from "./block_layout.ts";
import { clearEdges } from "./jump_edges.ts";
import { DEAD_HANDLER, type Handlers } from "./handlers.ts";

const PAGE = 0x1000;
/** Room a block may need, header and terminator included. */
const TRANSFERS = {
  "never": Transfer.NEVER,
  "if taken": Transfer.IF_TAKEN,
  "always": Transfer.ALWAYS,
} as const;
/** With a micro-op that counts, and one that goes on. */
const LARGEST_BLOCK = BlockHeader.BYTES + (MAX_BLOCK_INSTRUCTIONS + 2) * MICRO_OP_BYTES;
const CS_BASE = segmentAddress(Seg.CS) + SegmentField.BASE;
const CS_LIMIT = segmentAddress(Seg.CS) + SegmentField.LIMIT;

/** What the block being built has in common. */
interface Frame {
  readonly ripLow: number;
  readonly ripHigh: number;
  readonly csBase: number;
  /** Limit of CS; 0 where none is checked. */
  readonly csLimit: number;
  /** Jumps within the page may be linked. */
  readonly linkable: boolean;
}

/** What blocks that may follow each other along links have in common. */
const SAME = [BlockHeader.MODE, BlockHeader.CS_BASE, BlockHeader.CS_LIMIT] as const;

/** Address of the bucket for code at memory address `code`. */
function bucketOf(code: number): number {
  return BLOCK_BUCKETS + (((code ^ (code >>> 13)) & (BUCKETS - 1)) << 2);
}

/** Forms of the pseudo micro-ops: nothing about them varies. */
function pseudoForm(name: string): Form {
  return {
    name,
    bits: 64,
    operands: [],
    address: undefined,
    addressBits: 0,
    code: 0,
    stack: 0,
    rep: 0,
  };
}

/** How a page and its blocks are kept. */
interface CodePage {
  readonly blocks: Set<number>;
}

/** Counts for `--stats` and tests. */
export interface BlockStatistics {
  /** Blocks built. */
  built: number;
  /** Instructions decoded. */
  decoded: number;
  /** Blocks dropped because their bytes were written. */
  invalidated: number;
  /** Times all blocks were dropped because there was no more room. */
  resets: number;
  /** Milliseconds that building them took. */
  ms: number;
}

/** Writes to code after which a page is hot; it cools with each compilation. */
const HOT = 4;
/** A page gets no hotter. */
const MOST_HEAT = 32;

/** In place of a block: all of them. */
export const ALL_BLOCKS = -1;

/** The decoded blocks of one machine. */
export class Blocks {
  /** What has happened so far. */
  readonly statistics: BlockStatistics = { built: 0, decoded: 0, invalidated: 0, resets: 0, ms: 0 };
  readonly #bytes: Uint8Array;
  readonly #halves: Uint16Array;
  readonly #words: Int32Array;
  readonly #handlers: Handlers;
  readonly #cpus: number;
  readonly #decoder: Decoder;
  /** Places whose writes somebody wants to hear of, by page: address and length. */
  readonly #watched = new Map<number, Map<number, number>>();
  /** Called with address and length of what is being written in a page with such a place. */
  onWatchedWrite: (address: number, bytes: number) => void = () => {};
  readonly #pages = new Map<number, CodePage>();
  /** Pages where code was written, and how often of late: see {@linkcode HOT}. */
  readonly #heat = new Map<number, number>();
  /** Addresses of instructions that have to be the last of their block. */
  readonly #isolated = new Set<number>();
  readonly #straddle = new Uint8Array(32);
  readonly #modes = new Map<number, DecodeMode>();
  /** Handlers this machine has instantiated: entries are shared with other machines. */
  readonly #known = new Set<number>();
  /** Whether the last instruction written uses its IMMEDIATE for links. */
  #links = false;
  /** Whether the last instruction decoded is a control transfer. */
  #transfer: number = Transfer.NEVER;
  /** What each micro-op of an unimplemented instruction stands for. */
  readonly #unimplemented = new Map<number, string>();
  #next = MICRO_OPS;
  /** Called with each block that is about to be dropped, or {@linkcode ALL_BLOCKS}. */
  onDrop: (block: number) => void = () => {};

  constructor(
    memory: ArrayBuffer,
    handlers: Handlers,
    cpus: number,
    isa: ReadonlySet<IsaFeatureName>,
  ) {
    this.#decoder = new Decoder(isa);
    this.#bytes = new Uint8Array(memory);
    this.#halves = new Uint16Array(memory);
    this.#words = new Int32Array(memory);
    this.#handlers = handlers;
    this.#cpus = cpus;
  }

  #word(address: number): number {
    return this.#words[address >> 2]!;
  }

  #setWord(address: number, value: number): void {
    this.#words[address >> 2] = value;
  }

  #decodeMode(mode: number): DecodeMode {
    const known = this.#modes.get(mode);
    if (known !== undefined) return known;
    const long = (mode & Mode.LONG) !== 0;
    const made: DecodeMode = {
      code: long ? 64 : (mode & Mode.BIG) !== 0 ? 32 : 16,
      stack: long ? 64 : (mode & Mode.STACK32) !== 0 ? 32 : 16,
      flatStack: (mode & Mode.FLAT_SS) !== 0,
      flatData: (mode & Mode.FLAT_DATA) !== 0,
      vex: (mode & Mode.REAL) === 0,
      apx: (mode & Mode.APX) !== 0,
    };
    this.#modes.set(mode, made);
    return made;
  }

  /**
   * Builds the block at RIP, whose first byte stands at `code`. Yields its address, or 0 if fetching
   * its first instruction raised an exception, which is then recorded in the state.
   */
  build(code: number, alone: boolean): number {
    const start = performance.now();
    const block = this.#build(code, alone);
    this.statistics.ms += performance.now() - start;
    return block;
  }

  #build(code: number, alone: boolean): number {
    if (this.#next + LARGEST_BLOCK > MICRO_OPS + MICRO_OPS_BYTES) this.reset();
    const mode = this.#word(S.mode.address);
    const long = (mode & Mode.LONG) !== 0;
    const frame: Frame = {
      ripLow: this.#word(S.rip.address),
      ripHigh: this.#word(S.rip.address + 4),
      csBase: long ? 0 : this.#word(CS_BASE),
      csLimit: (mode & (Mode.LONG | Mode.FLAT_CS)) !== 0 ? 0 : this.#word(CS_LIMIT),
      linkable: !alone,
    };
    const block = this.#next;
    const second = this.#fill(block, code, mode, frame, alone);
    if (second < 0) return 0;

    const count = this.#halves[(block + BlockHeader.COUNT) >> 1]!;
    this.statistics.built++;
    this.statistics.decoded += count;
    this.#setWord(block + BlockHeader.MODE, alone ? mode | ALONE_MODE : mode);
    this.#setWord(block + BlockHeader.RIP, frame.ripLow);
    this.#setWord(block + BlockHeader.RIP + 4, frame.ripHigh);
    this.#setWord(block + BlockHeader.CODE, code);
    this.#setWord(block + BlockHeader.CS_BASE, frame.csBase);
    this.#setWord(block + BlockHeader.CS_LIMIT, frame.csLimit);
    this.#setWord(block + BlockHeader.CODE2, second);
    const bucket = bucketOf(code);
    this.#setWord(block + BlockHeader.NEXT, this.#word(bucket));
    this.#setWord(bucket, block);
    const length = this.#halves[(block + BlockHeader.LENGTH) >> 1]!;
    const inFirst = Math.min(length, PAGE - (code & (PAGE - 1)));
    this.#protect(block, code, inFirst);
    if (second !== 0) this.#protect(block, second, length - inFirst);
    return block;
  }

  /** Decodes into the records behind `block`; yields the second page's address, 0 or -1 (raised). */
  #fill(block: number, code: number, mode: number, frame: Frame, alone: boolean): number {
    const decodeMode = this.#decodeMode(mode);
    const pageEnd = (code | (PAGE - 1)) + 1;
    const checkLimit = (mode & (Mode.LONG | Mode.FLAT_CS)) === 0;
    const limit = this.#word(CS_LIMIT) >>> 0;
    const most = alone ? 1 : MAX_BLOCK_INSTRUCTIONS;
    let offset = 0;
    let count = 0;
    let second = 0;
    let record = block + BlockHeader.BYTES;
    let ended = false;
    let boundary = false;
    while (count < most && !ended && second === 0) {
      const at = code + offset;
      const ripLow = (frame.ripLow + offset) | 0;
      const ripHigh = frame.ripHigh + (((frame.ripLow >>> 0) + offset) > 0xffff_ffff ? 1 : 0);
      let status = this.#decoder.decode(this.#bytes, at, pageEnd, decodeMode, ripLow, ripHigh);
      if (status === DecodeStatus.TRUNCATED) {
        // The instruction runs over into the next page. Only the first of a block may: a later one
        // might be reached without that page being there.
        if (count > 0) break;
        const next = this.#fetchNext(frame, mode, pageEnd - at);
        if (next === 0) return -1;
        second = next;
        status = this.#decodeAcross(at, pageEnd, next, decodeMode, ripLow, ripHigh);
      }
      const { length } = this.#decoder;
      const beyond = checkLimit && (ripLow >>> 0) + length - 1 > limit;
      let index = count;
      if ((mode & Mode.COUNT_BRANCHES) !== 0 && status === DecodeStatus.OK && !beyond) {
        const counter = this.#counter();
        if (counter !== undefined) {
          this.#pseudo(record, counter, offset, index++);
          record += MICRO_OP_BYTES;
        }
      }
      const ends = status === DecodeStatus.OK && !beyond
        ? this.#instruction(record, this.#decoder.entry, checkLimit ? limit : -1)
        : this.#failure(record, beyond ? DecodeStatus.TOO_LONG : status);
      this.#halves[(record + MicroOp.OFFSET) >> 1] = offset;
      this.#bytes[record + MicroOp.LENGTH] = length;
      this.#bytes[record + MicroOp.ORDINAL] = count;
      this.#bytes[record + MicroOp.INDEX] = index;
      ended = ends;
      count++;
      offset += length;
      record += MICRO_OP_BYTES;
      boundary = !ended && this.#isolated.has(at);
      if (boundary || (!ended && code + offset >= pageEnd)) break;
    }
    this.#setWord(block + BlockHeader.TRANSFER, this.#transfer);
    this.#setWord(block + BlockHeader.SERVICED, Number(ended || boundary || alone));
    if (ended && count > 1) this.#fuse(record - MICRO_OP_BYTES);
    this.#halves[(block + BlockHeader.COUNT) >> 1] = count;
    this.#halves[(block + BlockHeader.LENGTH) >> 1] = offset;
    const linkable = frame.linkable && second === 0;
    if (!ended) record = this.#terminator(record, frame, offset, count, linkable, boundary);
    else this.#fixLinks(record - MICRO_OP_BYTES, frame, offset, linkable);
    this.#setWord(block + BlockHeader.LINKS, this.#links ? record - MICRO_OP_BYTES : 0);
    this.#next = record;
    return second;
  }

  /** What counts the instruction just decoded, if it is a branch. */
  #counter(): string | undefined {
    const { entry, operands } = this.#decoder;
    if (SEMANTICS[entry.name]?.transfers === undefined) return undefined;
    const indirect = (entry.name === "JMPIND" || entry.name === "CALLIND") && operands.length > 0;
    return indirect ? Pseudo.COUNT_INDIRECT : Pseudo.COUNT;
  }

  /** Writes a pseudo micro-op in front of instruction number `ordinal`. */
  #pseudo(record: number, name: string, offset: number, ordinal: number): void {
    this.#halves[(record + MicroOp.HANDLER) >> 1] = this.#handlers.indexOf(pseudoForm(name));
    this.#halves[(record + MicroOp.OFFSET) >> 1] = offset;
    this.#bytes[record + MicroOp.LENGTH] = 0;
    this.#bytes[record + MicroOp.ORDINAL] = ordinal;
    this.#bytes[record + MicroOp.INDEX] = ordinal;
  }

  /** Has the last two micro-ops carried out as one, if there is a handler for both. */
  #fuse(last: number): void {
    const before = (last - MICRO_OP_BYTES + MicroOp.HANDLER) >> 1;
    const both = this.#handlers.pairOf(
      this.#halves[before]!,
      this.#halves[(last + MicroOp.HANDLER) >> 1]!,
    );
    if (both !== undefined) this.#halves[before] = both;
  }

  /** Memory address of the page after the one RIP is in; 0 if fetching it raised. */
  #fetchNext(frame: Frame, mode: number, left: number): number {
    const long = (mode & Mode.LONG) !== 0;
    const low = ((frame.ripLow >>> 0) + (frame.csBase >>> 0) + left) % 0x1_0000_0000;
    const carry = long && (frame.ripLow >>> 0) + left > 0xffff_ffff ? 1 : 0;
    const high = long ? frame.ripHigh + carry : 0;
    return this.#handlers.exports.tryFetch!(low | 0, high | 0) as number;
  }

  #decodeAcross(
    at: number,
    pageEnd: number,
    next: number,
    mode: DecodeMode,
    ripLow: number,
    ripHigh: number,
  ): DecodeStatus {
    const head = pageEnd - at;
    this.#straddle.set(this.#bytes.subarray(at, pageEnd));
    this.#straddle.set(this.#bytes.subarray(next, next + 16), head);
    return this.#decoder.decode(this.#straddle, 0, head + 16, mode, ripLow, ripHigh);
  }

  /**
   * Writes the record of the instruction just decoded; true if it ends the block. A direct branch to
   * beyond `limit` (−1 for none) is a fault if it is taken.
   */
  #instruction(record: number, entry: Entry, limit: number): boolean {
    const decoder = this.#decoder;
    const semantics = SEMANTICS[entry.name];
    if (semantics === undefined) return this.#failure(record, DecodeStatus.UNIMPLEMENTED);
    const leaves = limit >= 0 && decoder.operands[0]?.kind === "J" &&
      decoder.displacementLow >>> 0 > limit;
    const conditional = leaves ? beyondLimit(entry.name) : undefined;
    if (leaves && conditional === undefined) return this.#failure(record, DecodeStatus.TOO_LONG);
    // XCHG with memory locks by itself.
    const locked = decoder.operands[0]?.kind === "M" && (decoder.lock || entry.name === "XCHG");
    const variant = decoder.variant(semantics) * 2 + Number(locked);
    let handler = entry.handlers.get(variant);
    if (conditional !== undefined) {
      handler = this.#handlers.indexOf({ ...decoder.form(semantics), name: conditional });
    } else if (handler === undefined || !this.#known.has(handler)) {
      const form = decoder.form(semantics);
      handler = this.#handlers.indexOf(
        locked ? { ...form, name: lockedName(entry.name) } : form,
      );
      entry.handlers.set(variant, handler);
      this.#known.add(handler);
    }
    const halves = this.#halves;
    halves[(record + MicroOp.HANDLER) >> 1] = handler;
    halves[(record + MicroOp.REG0) >> 1] = decoder.reg0;
    halves[(record + MicroOp.REG1) >> 1] = decoder.reg1;
    halves[(record + MicroOp.BASE) >> 1] = decoder.base;
    halves[(record + MicroOp.INDEX_REG) >> 1] = decoder.index;
    this.#bytes[record + MicroOp.ADDRESSING] = decoder.addressing;
    this.#setWord(record + MicroOp.DISPLACEMENT, decoder.displacementLow);
    this.#setWord(record + MicroOp.DISPLACEMENT + 4, decoder.displacementHigh);
    this.#setWord(record + MicroOp.IMMEDIATE, decoder.immediateLow);
    this.#setWord(record + MicroOp.IMMEDIATE + 4, decoder.immediateHigh);
    this.#transfer = TRANSFERS[semantics.transfers ?? "never"];
    this.#links = semantics.ends === true &&
      !decoder.operands.some(({ kind }) => kind === "I");
    return semantics.ends === true;
  }

  /** Writes a pseudo micro-op for what is no instruction; ends the block. */
  #failure(record: number, status: DecodeStatus): boolean {
    const name = status === DecodeStatus.UNIMPLEMENTED
      ? Pseudo.UNIMPLEMENTED
      : status === DecodeStatus.TOO_LONG
      ? Pseudo.TOO_LONG
      : Pseudo.UNDEFINED;
    if (name === Pseudo.UNIMPLEMENTED) this.#unimplemented.set(record, this.#decoder.entry.name);
    this.#halves[(record + MicroOp.HANDLER) >> 1] = this.#handlers.indexOf(pseudoForm(name));
    this.#bytes[record + MicroOp.ADDRESSING] = 0;
    this.#transfer = Transfer.NEVER;
    this.#links = false;
    return true;
  }

  #samePage(frame: Frame, low: number, high: number): boolean {
    const first = ((frame.ripLow >>> 0) + (frame.csBase >>> 0)) % 0x1_0000_0000;
    const other = ((low >>> 0) + (frame.csBase >>> 0)) % 0x1_0000_0000;
    return (first >>> 12) === (other >>> 12) && (high | 0) === (frame.ripHigh | 0);
  }

  #fixLinks(record: number, frame: Frame, end: number, linkable: boolean): void {
    if (!this.#links) return;
    const targetLow = this.#word(record + MicroOp.DISPLACEMENT);
    const targetHigh = this.#word(record + MicroOp.DISPLACEMENT + 4);
    const taken = linkable && this.#samePage(frame, targetLow, targetHigh);
    const nextLow = (frame.ripLow + end) | 0;
    const next = linkable && this.#samePage(frame, nextLow, frame.ripHigh);
    this.#setWord(record + MicroOp.TAKEN_LINK, taken ? UNLINKED : NEVER_LINK);
    this.#setWord(record + MicroOp.NEXT_LINK, next ? UNLINKED : NEVER_LINK);
  }

  /** Writes the micro-op that goes on behind the block; yields the address behind it. */
  #terminator(
    record: number,
    frame: Frame,
    offset: number,
    count: number,
    linkable: boolean,
    boundary: boolean,
  ): number {
    const low = (frame.ripLow + offset) | 0;
    const high = frame.ripHigh + ((frame.ripLow >>> 0) + offset > 0xffff_ffff ? 1 : 0);
    // What the isolated instruction has done must be visible to the next one: no way around the dispatcher.
    const form = pseudoForm(boundary ? Pseudo.BOUNDARY : Pseudo.END);
    this.#halves[(record + MicroOp.HANDLER) >> 1] = this.#handlers.indexOf(form);
    this.#halves[(record + MicroOp.OFFSET) >> 1] = offset;
    this.#bytes[record + MicroOp.LENGTH] = 0;
    this.#bytes[record + MicroOp.ORDINAL] = count;
    this.#bytes[record + MicroOp.INDEX] = count;
    this.#setWord(record + MicroOp.DISPLACEMENT, low);
    this.#setWord(record + MicroOp.DISPLACEMENT + 4, high);
    this.#links = true;
    this.#fixLinks(record, frame, offset, linkable);
    return record + MICRO_OP_BYTES;
  }

  /** Notes that `length` bytes at `code` are decoded; writes to them will be seen. */
  #protect(block: number, code: number, length: number): void {
    const page = code >>> 12;
    let entry = this.#pages.get(page);
    if (entry === undefined) {
      entry = { blocks: new Set() };
      this.#pages.set(page, entry);
      this.#forbidWrites(page << 12);
    }
    entry.blocks.add(block);
    this.#markBits(code, length);
  }

  #markWatched(page: number): void {
    const watched = this.#watched.get(page);
    if (watched === undefined) return;
    for (const [address, length] of watched) this.#markBits(address, length);
  }

  #markBits(code: number, length: number): void {
    const table = CODE_BITS + (code >>> 12) * 16;
    const last = Math.min((code & (PAGE - 1)) + length - 1, PAGE - 1) >> 5;
    for (let piece = (code & (PAGE - 1)) >> 5; piece <= last; piece++) {
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
    this.#recomputeBits(page, this.#pages.get(page));
  }

  /** Drops all blocks that have bytes in the `bytes` at memory address `address`. */
  written(address: number, bytes: number): void {
    const lastPage = (address + bytes - 1) >>> 12;
    for (let page = address >>> 12; page <= lastPage; page++) {
      if (this.#watched.has(page)) this.onWatchedWrite(address, bytes);
      const entry = this.#pages.get(page);
      if (entry === undefined) continue;
      let hit = false;
      for (const block of entry.blocks) {
        if (!this.#covers(block, page, address, bytes)) continue;
        hit = true;
        this.#kill(block);
      }
      if (hit) this.#heat.set(page, Math.min(MOST_HEAT, (this.#heat.get(page) ?? 0) + 1));
      this.#recomputeBits(page, entry);
    }
  }

  /** Whether `block` has bytes in page `page` within the range. */
  #covers(block: number, page: number, address: number, bytes: number): boolean {
    const code = this.#word(block + BlockHeader.CODE) >>> 0;
    const length = this.#halves[(block + BlockHeader.LENGTH) >> 1]!;
    const inFirst = Math.min(length, PAGE - (code & (PAGE - 1)));
    const first = code >>> 12 === page;
    const start = first ? code : this.#word(block + BlockHeader.CODE2) >>> 0;
    const size = first ? inFirst : length - inFirst;
    return address < start + size && start < address + bytes;
  }

  #recomputeBits(page: number, entry: CodePage | undefined): void {
    this.#bytes.fill(0, CODE_BITS + page * 16, CODE_BITS + page * 16 + 16);
    this.#markWatched(page);
    if (entry === undefined) return;
    for (const block of entry.blocks) {
      const code = this.#word(block + BlockHeader.CODE) >>> 0;
      const length = this.#halves[(block + BlockHeader.LENGTH) >> 1]!;
      const inFirst = Math.min(length, PAGE - (code & (PAGE - 1)));
      if (code >>> 12 === page) this.#markBits(code, inFirst);
      else this.#markBits(this.#word(block + BlockHeader.CODE2) >>> 0, length - inFirst);
    }
    if (entry.blocks.size === 0) this.#pages.delete(page);
  }

  #kill(block: number): void {
    if (this.#word(block + BlockHeader.MODE) === DEAD_MODE) return;
    this.statistics.invalidated++;
    this.onDrop(block);
    const code = this.#word(block + BlockHeader.CODE) >>> 0;
    const bucket = bucketOf(code);
    let link = bucket;
    while (this.#word(link) !== block) link = this.#word(link) + BlockHeader.NEXT;
    this.#setWord(link, this.#word(block + BlockHeader.NEXT));
    this.#setWord(block + BlockHeader.MODE, DEAD_MODE);
    // Jump caches may still lead here; the first micro-op sends them to the dispatcher.
    this.#halves[(block + BlockHeader.BYTES + MicroOp.HANDLER) >> 1] = DEAD_HANDLER;
    const page = this.#pages.get(code >>> 12);
    page?.blocks.delete(block);
    this.#unlink(block, page);
    const second = this.#word(block + BlockHeader.CODE2) >>> 0;
    if (second !== 0) this.#pages.get(second >>> 12)?.blocks.delete(block);
  }

  /** Takes back the links to `block`, which come from its own page, so that another may be linked there. */
  #unlink(block: number, page: CodePage | undefined): void {
    for (const other of page?.blocks ?? []) {
      const record = this.#word(other + BlockHeader.LINKS);
      if (record === 0) continue;
      for (const link of [record + MicroOp.TAKEN_LINK, record + MicroOp.NEXT_LINK]) {
        if (this.#word(link) === block) this.#setWord(link, UNLINKED);
      }
    }
  }

  /** Whether the code around `block` is written so often that what is compiled from it would soon be dropped. */
  isHot(block: number): boolean {
    return (this.#heat.get(this.#word(block + BlockHeader.CODE) >>> 12) ?? 0) >= HOT;
  }

  /** Lets time pass for {@linkcode Blocks.isHot}. */
  cool(): void {
    for (const [page, heat] of this.#heat) {
      if (heat > 1) this.#heat.set(page, heat - 1);
      else this.#heat.delete(page);
    }
  }

  /** The block with mode and code segment of block `like` at memory address `code` and at `rip`; 0 for none. */
  find(like: number, code: number, rip: bigint): number {
    const low = Number(BigInt.asIntN(32, rip));
    const high = Number(BigInt.asIntN(32, rip >> 32n));
    let block = this.#word(bucketOf(code));
    for (; block !== 0; block = this.#word(block + BlockHeader.NEXT)) {
      const same = SAME.every((field) => this.#word(block + field) === this.#word(like + field));
      if (
        same && this.#word(block + BlockHeader.CODE) === (code | 0) &&
        this.#word(block + BlockHeader.RIP) === low &&
        this.#word(block + BlockHeader.RIP + 4) === high
      ) break;
    }
    return block;
  }

  /** Mnemonic or group of the unimplemented instruction of micro-op `uop`. */
  unimplementedName(uop: number): string {
    return this.#unimplemented.get(uop) ?? "";
  }

  /** Ends blocks behind the instruction of micro-op `uop` from now on. */
  isolate(uop: number): void {
    const index = this.#bytes[uop + MicroOp.INDEX]!;
    const block = uop - index * MICRO_OP_BYTES - BlockHeader.BYTES;
    const code = this.#word(block + BlockHeader.CODE) >>> 0;
    const address = code + this.#halves[(uop + MicroOp.OFFSET) >> 1]!;
    this.#isolated.add(address);
    this.#kill(block);
  }

  /** Drops everything. */
  reset(): void {
    this.statistics.resets++;
    this.onDrop(ALL_BLOCKS);
    this.#next = MICRO_OPS;
    this.#bytes.fill(0, BLOCK_BUCKETS, BLOCK_BUCKETS + BUCKETS * 4);
    for (const page of this.#pages.keys()) {
      this.#bytes.fill(0, CODE_BITS + page * 16, CODE_BITS + page * 16 + 16);
      this.#markWatched(page);
    }
    this.#pages.clear();
    this.#isolated.clear();
    this.#unimplemented.clear();
    this.#setWord(S.link.address, 0);
    clearEdges(this.#bytes);
    for (let cpu = 0; cpu < this.#cpus; cpu++) {
      for (let k = 0; k < CONTEXT_COUNT; k++) {
        const context = CPU_AREAS + cpu * CPU_AREA_BYTES + CONTEXTS + k * Context.BYTES;
        this.#bytes.fill(0xff, context + Context.JUMP, context + Context.LOG);
      }
    }
  }
}
