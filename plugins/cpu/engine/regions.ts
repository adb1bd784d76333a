/**
 * The compiled regions of one machine: where to compile, and what is dropped again.
 *
 * The dispatcher tells at the end of each slice where the processor is. What is seen often enough becomes the
 * head of a region; from then on the first micro-op of that block names the region as its handler, so whatever
 * comes to the block goes on in the region. What a guest can see does not depend on any of it.
 *
 * @module
 */
import { Mode, S } from "../state/cpu_state.ts";
import { BlockHeader, DEAD_MODE, MAX_REGION_INSTRUCTIONS, MicroOp } from "./block_layout.ts";
import { ALL_BLOCKS, type Blocks } from "./blocks.ts";
import type { CodeCache } from "./code_cache.ts";
import { FIRST_REGION, type Handlers, TABLE_SIZE } from "./handlers.ts";
import { Records } from "./records.ts";
import { type CodeInMaking, type CodeStatistics, RegionCode } from "./region_code.ts";
import { type BlockSource, edgesOf, type RegionBlock, RegionGraph } from "./region_graph.ts";
import { RegionStructure } from "./region_structure.ts";
import { weight } from "./tier2_forms.ts";

/** Which tiers run: the interpreter alone, everything compiled at once, or what is worth it. */
export type Tier = 1 | 2 | "auto";

/** Instructions between two looks, times that a block is seen, and times if a region has it already. */
interface Policy {
  readonly slice: number;
  readonly seen: number;
  readonly seenAgain: number;
}

const POLICIES: Readonly<Record<Tier, Policy>> = {
  1: { slice: 0x4000_0000, seen: Infinity, seenAgain: Infinity },
  2: { slice: 512, seen: 1, seenAgain: 2 },
  auto: { slice: 0x8000, seen: 3, seenAgain: 12 },
};

/**
 * Slices grow by so much, up to a 128th of their length and then from the beginning: slices of one length
 * end at the same place of a loop of some lengths ever again, and never see the rest of it.
 */
const SLICE_STEP = 37;

/** Counts for `--stats` and tests. */
export interface RegionStatistics {
  /** Regions compiled. */
  compiled: number;
  /** Instructions in them. */
  instructions: number;
  /** Bytes of WebAssembly. */
  bytes: number;
  /** Regions dropped, because code in them was written or there was no more room. */
  dropped: number;
  /** Of those, regions dropped because there was no more room. */
  evicted: number;
  /** Regions there are now. */
  live: number;
  /** Bytes of WebAssembly in them. */
  liveBytes: number;
  /** Looks at where the processor is, taken after equal numbers of instructions. */
  samples: number;
  /** Of those, looks that found it in a region. */
  samplesCompiled: number;
}

/** Bytes of WebAssembly in regions at one time, unless told otherwise. */
export const DEFAULT_CODE_LIMIT: number = 32 << 20;
/** With no more room, this part of the regions is dropped. */
const EVICTED_PART = 4;

/** Options of {@linkcode Regions}. */
export interface RegionOptions {
  /** Which tiers run. */
  readonly tier: Tier;
  /** Most bytes of WebAssembly at one time. */
  readonly codeLimit: number;
  /** Where code is kept beyond that. */
  readonly codeCache: CodeCache | undefined;
}

interface Region {
  readonly head: number;
  /** The handler of the head's first micro-op without the region. */
  readonly handler: number;
  readonly index: number;
  readonly blocks: readonly RegionBlock[];
  /** Number of ways between its blocks. */
  readonly edges: number;
  /** For each block (by address) the head of the innermost loop that it is in, once that was needed. */
  loopHeads: ReadonlyMap<number, number> | undefined;
  /** Some of its ways had not been gone yet: it is worth compiling again. */
  open: boolean;
  /** Bytes of its module. */
  readonly bytes: number;
  /** Number of the sample that last found the processor in one of its blocks. */
  used: number;
}

/** A region that is being compiled: the guest runs between the steps. */
interface RegionInMaking {
  readonly head: number;
  readonly index: number;
  readonly blocks: readonly RegionBlock[];
  readonly edges: number;
  readonly open: boolean;
  readonly code: CodeInMaking;
  /**
   * Looks before it is put to use, whenever it was ready: what is compiled next must not depend on whether code
   * came from the cache.
   */
  looks: number;
  /** Bytes of its module, once it is ready. */
  bytes: number | undefined;
}

/** Regions of so much weight are compiled in one go. */
const AT_ONCE = 48;
/** Weight that one step gets done with, or nearly so, and steps besides. */
const IN_A_STEP = 50;
const OTHER_STEPS = 4;

/** How much there is to do for the code of `blocks`: the weight of an integer instruction is 1. */
const weightOf = (blocks: readonly RegionBlock[]): number =>
  blocks.reduce((all, { ops }) => all + ops.reduce((sum, { form }) => sum + weight(form), 0), 0);

/** Modes that end with the first ENDBRANCH: their code is for the interpreter. */
const PASSING: number = Mode.AWAIT_ENDBRANCH | Mode.SUPPRESSED;

/** Times that a head is compiled because there are more ways than before. */
const RENEWALS = 2;

/** The compiled regions of one machine. */
export class Regions {
  /** What has happened so far. */
  readonly statistics: RegionStatistics = {
    compiled: 0,
    instructions: 0,
    bytes: 0,
    dropped: 0,
    evicted: 0,
    live: 0,
    liveBytes: 0,
    samples: 0,
    samplesCompiled: 0,
  };
  readonly #code: RegionCode;
  readonly #codeLimit: number;
  readonly #handlers: Handlers;
  readonly #halves: Uint16Array;
  readonly #words: Int32Array;
  readonly #source: BlockSource;
  readonly #policy: Policy;
  readonly #cool: () => void;
  readonly #look: (block: number) => void;
  /** How often each block was seen. */
  readonly #seen = new Map<number, number>();
  /** How often each head was compiled. */
  readonly #renewed = new Map<number, number>();
  /** Regions by head. */
  readonly #regions = new Map<number, Region>();
  /** Regions by block. */
  readonly #members = new Map<number, Set<Region>>();
  readonly #free: number[] = [];
  #next = FIRST_REGION;
  #making: RegionInMaking | undefined;

  constructor(memory: ArrayBuffer, handlers: Handlers, blocks: Blocks, options: RegionOptions) {
    this.#handlers = handlers;
    this.#halves = new Uint16Array(memory);
    this.#words = new Int32Array(memory);
    this.#code = new RegionCode(handlers, new Records(memory), options.codeCache);
    this.#codeLimit = options.codeLimit;
    this.#policy = POLICIES[options.tier];
    this.#source = {
      words: this.#words,
      halves: this.#halves,
      longs: new BigUint64Array(memory),
      formOf: (record) => handlers.formOf(this.#handlerOf(record)),
      find: (like, code, rip) => blocks.find(like, code, rip),
      isHot: (block) => blocks.isHot(block),
    };
    this.#cool = () => blocks.cool();
    this.#look = (block) => blocks.sample(block);
    blocks.isJoined = (block, other) => this.#isJoined(block, other);
    blocks.onDrop = (block) => block === ALL_BLOCKS ? this.clear() : this.#drop(block);
  }

  /** What making code has come to. */
  get codeStatistics(): Readonly<CodeStatistics> {
    return this.#code.statistics;
  }

  /** The handler that micro-op `record` has in the interpreter. */
  #handlerOf(record: number): number {
    const index = this.#halves[(record + MicroOp.HANDLER) >> 1]!;
    if (index < FIRST_REGION) return index;
    return this.#regions.get(record - BlockHeader.BYTES)!.handler;
  }

  /** Notes that the processor has come to `block`; yields the instructions until the next look. */
  sample(block: number): number {
    const { slice, seen } = this.#policy;
    this.#look(block);
    this.#code.resumed();
    this.#goOn();
    const entry = seen === Infinity ? undefined : this.#entryFor(block);
    this.#count(block);
    if (entry !== undefined) this.#note(entry);
    return slice + ((this.statistics.samples * SLICE_STEP) & ((slice >> 7) - 1));
  }

  /**
   * Where code is worth compiling if the processor is at `block` when a slice ends. Where a region has left
   * only because the slice ended, and the loop around begins with the region's head, it will soon be in the
   * region again; in a loop further inside it will not, and that loop's head is the place.
   */
  #entryFor(block: number): number | undefined {
    const left = this.#words[S.leftRegion.address >> 2]! >>> 0;
    const before = this.#words[S.leftBefore.address >> 2]! >>> 0;
    const region = before === block
      ? this.#regions.get(left)
      : this.#members.get(block)?.values().next().value;
    if (region === undefined || region.head === block) return block;
    region.loopHeads ??= loopHeads(region.blocks);
    const head = region.loopHeads.get(block);
    if (before === block && (head === undefined || head === region.head)) return undefined;
    return head === undefined || this.#regions.has(head) ? block : head;
  }

  /** Counts the look at `block`, and whether it was a region that the slice ended in. */
  #count(block: number): void {
    const { statistics } = this;
    const left = S.leftBefore.address >> 2;
    if (this.#words[left]! >>> 0 === block) statistics.samplesCompiled++;
    this.#words[left] = 0;
    for (const region of this.#members.get(block) ?? []) region.used = statistics.samples;
    statistics.samples++;
  }

  #note(block: number): void {
    const { seen, seenAgain } = this.#policy;
    const region = this.#regions.get(block);
    if (region !== undefined && !region.open) return;
    if ((this.#words[(block + BlockHeader.MODE) >> 2]! & PASSING) !== 0) return;
    const times = (this.#seen.get(block) ?? 0) + 1;
    this.#seen.set(block, times);
    if (times < (this.#members.has(block) ? seenAgain : seen)) return;
    if (this.#making !== undefined) return;
    this.#seen.delete(block);
    this.#begin(block);
  }

  /** Begins to compile the region with `head`. */
  #begin(head: number): void {
    const { blocks, open } = this.#code.timed(() =>
      new RegionGraph(this.#source, head, MAX_REGION_INSTRUCTIONS)
    );
    this.#cool();
    if (blocks.length === 0) return;
    const edges = blocks.reduce((sum, block) => sum + edgesOf(block).length, 0);
    const before = this.#regions.get(head);
    const renewed = this.#renewed.get(head) ?? 0;
    this.#renewed.set(head, renewed + 1);
    if (before !== undefined && before.blocks.length === blocks.length && before.edges === edges) {
      // Nothing new has been seen, and looks cost, too.
      before.open &&= renewed < RENEWALS;
      return;
    }
    const index = this.#free.pop() ?? this.#next++;
    if (index >= TABLE_SIZE) {
      this.#next--;
      this.#evict();
      return;
    }
    const all = weightOf(blocks);
    this.#making = {
      head,
      index,
      blocks,
      edges,
      open: open && renewed < RENEWALS,
      code: this.#code.make(blocks, index),
      looks: all <= AT_ONCE ? 0 : OTHER_STEPS + Math.ceil(all / IN_A_STEP),
      bytes: undefined,
    };
    this.#goOn();
  }

  /** Takes the next step with the region that is being compiled, and puts it to use when it is time. */
  #goOn(): void {
    const making = this.#making;
    if (making === undefined) return;
    const due = making.looks-- <= 0;
    if (making.bytes === undefined) {
      this.#code.timed(() => {
        do making.bytes = making.code.step(); while (due && making.bytes === undefined);
      });
    }
    const { bytes } = making;
    if (!due || bytes === undefined) return;
    this.#making = undefined;
    const { head, index, blocks, edges, open } = making;
    const before = this.#regions.get(head);
    if (before !== undefined) this.#remove(before);
    const region: Region = {
      head,
      handler: this.#handlerOf(head + BlockHeader.BYTES),
      index,
      blocks,
      edges,
      loopHeads: undefined,
      open,
      bytes,
      used: this.statistics.samples,
    };
    this.#regions.set(head, region);
    for (const { address } of blocks) {
      const members = this.#members.get(address);
      if (members === undefined) this.#members.set(address, new Set([region]));
      else members.add(region);
    }
    this.#halves[(head + BlockHeader.BYTES + MicroOp.HANDLER) >> 1] = index;
    this.statistics.compiled++;
    this.statistics.instructions += blocks.reduce((sum, { count }) => sum + count, 0);
    this.statistics.bytes += bytes;
    this.statistics.live++;
    this.statistics.liveBytes += bytes;
    if (this.statistics.liveBytes > this.#codeLimit) this.#evict();
  }

  /** Gives up the region that is being compiled. */
  #giveUp(): void {
    if (this.#making === undefined) return;
    this.#handlers.table.set(this.#making.index, null);
    this.#free.push(this.#making.index);
    this.#making = undefined;
  }

  /** Drops the regions that were seen longest ago. */
  #evict(): void {
    const oldest = [...this.#regions.values()].sort((a, b) => a.used - b.used);
    const count = Math.ceil(oldest.length / EVICTED_PART);
    for (const region of oldest.slice(0, count)) {
      this.#renewed.delete(region.head);
      this.#remove(region);
    }
    this.statistics.evicted += count;
  }

  /** Whether a region has both blocks. */
  #isJoined(block: number, other: number): boolean {
    const regions = this.#members.get(other);
    if (regions === undefined) return false;
    return this.#members.get(block)?.isDisjointFrom(regions) === false;
  }

  /** Drops all regions that `block`, which is about to go, is in. */
  #drop(block: number): void {
    this.#seen.delete(block);
    this.#renewed.delete(block);
    if (this.#making?.blocks.some(({ address }) => address === block)) this.#giveUp();
    for (const region of this.#members.get(block) ?? []) this.#remove(region);
  }

  #remove(region: Region): void {
    this.statistics.dropped++;
    this.statistics.live--;
    this.statistics.liveBytes -= region.bytes;
    this.#regions.delete(region.head);
    for (const { address } of region.blocks) {
      const members = this.#members.get(address)!;
      members.delete(region);
      if (members.size === 0) this.#members.delete(address);
    }
    if (this.#words[(region.head + BlockHeader.MODE) >> 2] !== DEAD_MODE) {
      this.#halves[(region.head + BlockHeader.BYTES + MicroOp.HANDLER) >> 1] = region.handler;
    }
    this.#handlers.table.set(region.index, null);
    this.#free.push(region.index);
  }

  /** Drops all regions. */
  clear(): void {
    this.#giveUp();
    for (const region of [...this.#regions.values()]) this.#remove(region);
    this.#seen.clear();
    this.#renewed.clear();
  }
}

/** For each of `blocks`, a region's, the head of the innermost loop that it is in. */
function loopHeads(blocks: readonly RegionBlock[]): Map<number, number> {
  const sizes = new Map<number, number>();
  const heads = new Map<number, number>();
  for (const [head, body] of RegionStructure.of(blocks[0]!).loops()) {
    for (const { address } of body) {
      if (body.size >= (sizes.get(address) ?? Infinity)) continue;
      sizes.set(address, body.size);
      heads.set(address, head.address);
    }
  }
  return heads;
}
