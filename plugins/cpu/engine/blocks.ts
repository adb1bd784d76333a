/**
 * The cache of decoded blocks: finding again, dropping.
 *
 * A block is known by where its bytes stand in memory, its RIP, CS.base, CS.limit and mode. It covers at most the
 * page it starts in and the head of the next one, in which only its last instruction may lie.
 *
 * @module
 */
import type { IsaFeatureName } from "../isa_features.ts";
import { Mode, S, Seg, segmentAddress, SegmentField } from "../state/cpu_state.ts";
import { disturbed } from "../state/disturbed.ts";
import {
  BLOCK_BUCKETS,
  BUCKETS,
  CPU_AREA_BYTES,
  CPU_AREAS,
  MICRO_OPS,
  MICRO_OPS_BYTES,
} from "../state/layout.ts";
import { Context, CONTEXT_COUNT, CONTEXTS } from "../state/tlb_layout.ts";
import { BlockBuilder, type Frame } from "./block_builder.ts";
import {
  ALONE_MODE,
  BlockHeader,
  DEAD_MODE,
  MAX_BLOCK_INSTRUCTIONS,
  MICRO_OP_BYTES,
  MicroOp,
  Serviced,
  UNLINKED,
} from "./block_layout.ts";
import { CodePages } from "./code_pages.ts";
import { DEAD_HANDLER, type Handlers } from "./handlers.ts";
import { Isolation } from "./isolation.ts";
import { clearEdges } from "./jump_edges.ts";

const PAGE = 0x1000;
/** Room a block may need, with a micro-op that counts, and one that goes on. */
const LARGEST_BLOCK = BlockHeader.BYTES + (MAX_BLOCK_INSTRUCTIONS + 2) * MICRO_OP_BYTES;
const CS_BASE = segmentAddress(Seg.CS) + SegmentField.BASE;
const CS_LIMIT = segmentAddress(Seg.CS) + SegmentField.LIMIT;

/** What blocks that may follow each other along links have in common. */
const SAME = [BlockHeader.MODE, BlockHeader.CS_BASE, BlockHeader.CS_LIMIT] as const;

/** Address of the bucket for code at memory address `code`. */
function bucketOf(code: number): number {
  return BLOCK_BUCKETS + (((code ^ (code >>> 13)) & (BUCKETS - 1)) << 2);
}

/** Counts for `--stats` and tests. */
export interface BlockStatistics {
  /** Blocks built. */
  built: number;
  /** Instructions decoded. */
  decoded: number;
  /** Blocks dropped because their bytes were written, or one of their instructions has to be the last. */
  invalidated: number;
  /** Times that an instruction was found to have to be the last of its block. */
  isolated: number;
  /** Times all blocks were dropped because there was no more room. */
  resets: number;
  /** Milliseconds that building them took, estimated from one in {@linkcode TIMED}. */
  ms: number;
}

/** Writes to code after which a page is hot; it cools with each compilation. */
const HOT = 4;
/** A page gets no hotter. */
const MOST_HEAT = 32;

/** Of so many blocks that are built one is timed. */
const TIMED = 16;

/** In place of a block: all of them. */
export const ALL_BLOCKS = -1;

/** The decoded blocks of one machine. */
export class Blocks {
  /** What has happened so far. */
  readonly statistics: BlockStatistics = {
    built: 0,
    decoded: 0,
    invalidated: 0,
    isolated: 0,
    resets: 0,
    ms: 0,
  };
  /** Called with address and length of what is being written in a page that is watched. */
  onWatchedWrite: (address: number, bytes: number) => void = () => {};
  /** Called with each block that is about to be dropped, or {@linkcode ALL_BLOCKS}. */
  onDrop: (block: number) => void = () => {};
  /** Whether code that has `block` among its blocks is also made of `other`. */
  isJoined: (block: number, other: number) => boolean = () => false;
  readonly #bytes: Uint8Array;
  readonly #halves: Uint16Array;
  readonly #words: Int32Array;
  readonly #cpus: number;
  readonly #pages: CodePages;
  readonly #builder: BlockBuilder;
  readonly #isolation = new Isolation();
  /** Pages where code was written, and how often of late: see {@linkcode HOT}. */
  readonly #heat = new Map<number, number>();
  #next = MICRO_OPS;
  /** Blocks asked for. */
  #asked = 0;

  constructor(
    memory: ArrayBuffer,
    handlers: Handlers,
    cpus: number,
    isa: ReadonlySet<IsaFeatureName>,
  ) {
    this.#bytes = new Uint8Array(memory);
    this.#halves = new Uint16Array(memory);
    this.#words = new Int32Array(memory);
    this.#cpus = cpus;
    this.#pages = new CodePages(memory, cpus);
    this.#builder = new BlockBuilder(memory, handlers, this.#isolation, isa);
  }

  #word(address: number): number {
    return this.#words[address >> 2]!;
  }

  #setWord(address: number, value: number): void {
    this.#words[address >> 2] = value;
  }

  /**
   * Builds the block at RIP, whose first byte stands at `code`. Yields its address, or 0 if fetching
   * its first instruction raised an exception, which is then recorded in the state.
   */
  build(code: number, alone: boolean): number {
    // Looking at the clock takes as long as a tenth of a short block.
    if (++this.#asked % TIMED !== 0) return this.#build(code, alone);
    const start = performance.now();
    const block = this.#build(code, alone);
    this.statistics.ms += TIMED * (performance.now() - start);
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
    if (!this.#builder.fill(block, code, mode, frame, alone)) return 0;
    this.#next = this.#builder.end;
    const { second } = this.#builder;

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
    this.#pages.add(block, code, inFirst);
    if (second !== 0) this.#pages.add(block, second, length - inFirst);
    return block;
  }

  /** Has writes to `length` bytes at `address`, within a page, told to `onWatchedWrite`. */
  watch(address: number, length: number): void {
    this.#pages.watch(address, length);
  }

  /** Takes back what was asked for with {@linkcode Blocks.watch}. */
  unwatch(address: number): void {
    this.#pages.unwatch(address);
  }

  /**
   * The instruction of micro-op `uop` (0 for none) is about to store `bytes` at `address`, within a page, where
   * code or a watched place is. True if its own block, or compiled code that it may be in, is made of those
   * bytes, or somebody is to hear of the store: then nothing has been done, and the instruction has to be the
   * last of its block. Otherwise what is made of the bytes has been dropped, and the block may go on.
   */
  stored(address: number, bytes: number, uop: number): boolean {
    if (uop !== 0) {
      const page = address >>> 12;
      if (this.#pages.meetsWatched(address, bytes)) return true;
      const hit = this.#pages.covering(page, address, bytes);
      // Data between code, mostly.
      if (hit.length === 0 && !this.#pages.isWatched(page)) return false;
      const own = this.#blockOf(uop);
      for (const block of hit) if (block === own || this.isJoined(own, block)) return true;
    }
    this.written(address, bytes);
    return false;
  }

  /** Drops all blocks that have bytes in the `bytes` at memory address `address`. */
  written(address: number, bytes: number): void {
    const lastPage = (address + bytes - 1) >>> 12;
    for (let page = address >>> 12; page <= lastPage; page++) {
      if (this.#pages.isWatched(page)) this.onWatchedWrite(address, bytes);
      const hit = this.#pages.covering(page, address, bytes);
      if (hit.length === 0) continue;
      for (const block of hit) this.#kill(block);
      this.#heat.set(page, Math.min(MOST_HEAT, (this.#heat.get(page) ?? 0) + 1));
    }
  }

  #kill(block: number): void {
    if (this.#word(block + BlockHeader.MODE) === DEAD_MODE) return;
    this.statistics.invalidated++;
    this.#setWord(disturbed.address, 1);
    this.onDrop(block);
    const code = this.#word(block + BlockHeader.CODE) >>> 0;
    const bucket = bucketOf(code);
    let link = bucket;
    while (this.#word(link) !== block) link = this.#word(link) + BlockHeader.NEXT;
    this.#setWord(link, this.#word(block + BlockHeader.NEXT));
    this.#setWord(block + BlockHeader.MODE, DEAD_MODE);
    // Jump caches may still lead here; the first micro-op sends them to the dispatcher.
    this.#halves[(block + BlockHeader.BYTES + MicroOp.HANDLER) >> 1] = DEAD_HANDLER;
    this.#remove(block, code >>> 12);
    this.#unlink(block, code >>> 12);
    const second = this.#word(block + BlockHeader.CODE2) >>> 0;
    if (second !== 0) this.#remove(block, second >>> 12);
  }

  #remove(block: number, page: number): void {
    this.#pages.remove(block, page, (this.#heat.get(page) ?? 0) >= HOT);
  }

  /** Takes back the links to `block`, which come from its own page, so that another may be linked there. */
  #unlink(block: number, page: number): void {
    for (const other of this.#pages.blocksIn(page)) {
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
      if (heat === HOT) this.#pages.cool(page);
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
    return this.#builder.unimplementedName(uop);
  }

  #blockOf(uop: number): number {
    return uop - this.#bytes[uop + MicroOp.INDEX]! * MICRO_OP_BYTES - BlockHeader.BYTES;
  }

  /** Ends blocks behind the instruction of micro-op `uop` from now on. */
  isolate(uop: number): void {
    const block = this.#blockOf(uop);
    const code = this.#word(block + BlockHeader.CODE) >>> 0;
    const address = code + this.#halves[(uop + MicroOp.OFFSET) >> 1]!;
    this.#isolation.add(address, address + this.#bytes[uop + MicroOp.LENGTH]!);
    this.statistics.isolated++;
    this.#kill(block);
  }

  /**
   * The processor is about to run `block` at the end of a slice. Where an isolated instruction stands before
   * it that has not needed to be one for long, blocks go on behind that again.
   */
  sample(block: number): void {
    const end = this.#word(block + BlockHeader.CODE) >>> 0;
    const address = this.#isolation.endingAt(end);
    if (address === undefined) return;
    const page = address >>> 12;
    const before: number[] = [];
    let used = false;
    for (const other of this.#pages.blocksIn(page)) {
      const code = this.#word(other + BlockHeader.CODE) >>> 0;
      if (code + this.#halves[(other + BlockHeader.LENGTH) >> 1]! !== end) continue;
      if (this.#word(other + BlockHeader.SERVICED) === Serviced.USED) used = true;
      this.#setWord(other + BlockHeader.SERVICED, Serviced.YES);
      before.push(other);
    }
    if (!this.#isolation.look(address, used)) return;
    for (const other of before) this.#kill(other);
  }

  /** Drops everything. */
  reset(): void {
    this.statistics.resets++;
    this.#setWord(disturbed.address, 1);
    this.onDrop(ALL_BLOCKS);
    this.#next = MICRO_OPS;
    this.#bytes.fill(0, BLOCK_BUCKETS, BLOCK_BUCKETS + BUCKETS * 4);
    this.#pages.clear();
    this.#isolation.clear();
    this.#builder.reset();
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
