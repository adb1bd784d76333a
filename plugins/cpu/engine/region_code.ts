/**
 * The code of regions: built, or taken from a cache.
 *
 * What is built is a function of what goes into the digest below, and of nothing else:
 * the records of the region's blocks and where they stand, how the blocks follow each other, the mode, and
 * the interpreter that is called from there. Addresses are part of it, so code is found again by machines
 * that have decoded the same blocks in the same order, which is what a second run of the same guest does.
 *
 * @module
 */
import type { Form } from "../decode/form.ts";
import { Mode } from "../state/cpu_state.ts";
import { finish, ModuleBuilder, type Steps } from "../wasm/mod.ts";
import { BlockHeader, MICRO_OP_BYTES, MicroOp } from "./block_layout.ts";
import type { CodeCache } from "./code_cache.ts";
import { Digest } from "./digest.ts";
import { formKey, type Handlers, TABLE_SIZE } from "./handlers.ts";
import type { Records } from "./records.ts";
import { edgesOf, type RegionBlock } from "./region_graph.ts";
import { buildRegion } from "./tier2.ts";

/** Counts for `--stats` and tests. */
export interface CodeStatistics {
  /** Regions whose code came from the cache. */
  cached: number;
  /** Milliseconds that building and compiling took, V8's work in the background not counted. */
  compileMs: number;
  /**
   * The longest time that a guest stood still for it, in milliseconds. V8's first code for a region, which it
   * makes when the guest comes there, is not in it.
   */
  longestMs: number;
}

/** Code that is being made, in steps between which the guest runs. */
export interface CodeInMaking {
  /** Takes the next step; yields the bytes of the module once its function is in the table. */
  step(): number | undefined;
}

/** So many pieces of code that come from the cache are built all the same, and compared. */
const CHECKED = 2;

/** Nodes of WebAssembly that are recorded in one step. */
const STEP_NODES = 2000;
/** Nodes that are made bytes in one step, or looked at before: the work on each is less. */
const STEP_BYTES = 6000;

/** Makes the code of one machine's regions. */
export class RegionCode {
  /** What has happened so far. */
  readonly statistics: CodeStatistics = { cached: 0, compileMs: 0, longestMs: 0 };
  readonly #handlers: Handlers;
  readonly #records: Records;
  readonly #cache: CodeCache | undefined;
  #stoodMs = 0;
  #checked = 0;
  #trusted = true;

  constructor(handlers: Handlers, records: Records, cache: CodeCache | undefined) {
    this.#handlers = handlers;
    this.#records = records;
    this.#cache = cache;
  }

  /**
   * Starts to put the function of the region of `blocks` into the table at `index`. The blocks must stay until
   * the last step has been taken.
   */
  make(blocks: readonly RegionBlock[], index: number): CodeInMaking {
    const steps = this.#make(blocks, index);
    return { step: () => steps.next().value ?? undefined };
  }

  /** The guest has run since what was timed last. */
  resumed(): void {
    this.#stoodMs = 0;
  }

  /** Does what the guest stands still for. */
  timed<T>(work: () => T): T {
    const { statistics } = this;
    const start = performance.now();
    const result = work();
    const ms = performance.now() - start;
    statistics.compileMs += ms;
    this.#stoodMs += ms;
    if (this.#stoodMs > statistics.longestMs) statistics.longestMs = this.#stoodMs;
    return result;
  }

  /**
   * Yields `undefined` between steps, at last the bytes of the module. There are as many steps with the cache
   * as without it, so that what is compiled next is the same.
   */
  *#make(blocks: readonly RegionBlock[], index: number): Steps<number> {
    const cache = this.#trusted ? this.#cache : undefined;
    const key = cache === undefined ? "" : this.#key(blocks, index);
    const known = cache?.get(key);
    yield;
    if (known !== undefined) {
      if (this.#usable(known, blocks, index)) {
        this.statistics.cached++;
        return known.length;
      }
      cache?.drop(key);
    }
    const module = yield* this.#build(blocks, index);
    yield;
    const code = yield* module.encodeInSteps(STEP_BYTES);
    yield;
    this.#link(code);
    if (this.#trusted) cache?.put(key, code);
    return code.length;
  }

  /** Uses code from the cache; false if it is not what it should be. */
  #usable(code: Uint8Array<ArrayBuffer>, blocks: readonly RegionBlock[], index: number): boolean {
    if (this.#checked < CHECKED) {
      this.#checked++;
      const right = finish(this.#build(blocks, index)).encode();
      if (right.length !== code.length || right.some((byte, k) => byte !== code[k])) {
        // All of it may have been left by another version of the compiler.
        this.#trusted = false;
        return false;
      }
    }
    try {
      this.#link(code);
      return true;
    } catch (error) {
      if (error instanceof WebAssembly.CompileError || error instanceof WebAssembly.LinkError) {
        return false;
      }
      throw error;
    }
  }

  #link(code: Uint8Array<ArrayBuffer>): void {
    new WebAssembly.Instance(new WebAssembly.Module(code), { env: this.#handlers.environment });
  }

  *#build(
    blocks: readonly RegionBlock[],
    index: number,
  ): Steps<ModuleBuilder> {
    const head = blocks[0]!;
    const { memoryPages, microcode } = this.#handlers;
    const builder = new ModuleBuilder({ memoryPages, tableSize: TABLE_SIZE });
    const mode = this.#records.word(head.address + BlockHeader.MODE);
    const name = `region ${head.rip.toString(16)}`;
    const region = yield* buildRegion(
      builder,
      microcode,
      name,
      head,
      this.#records,
      { word: mode, long: (mode & Mode.LONG) !== 0, apx: (mode & Mode.APX) !== 0 },
      STEP_NODES,
    );
    builder.element(index, region);
    return builder;
  }

  /** Digest of all that the code of the region of `blocks` at `index` of the table follows from. */
  #key(blocks: readonly RegionBlock[], index: number): string {
    const records = this.#records;
    const digest = new Digest();
    const forms = new Map<Form, number>();
    const places = new Map(blocks.map((block, k) => [block, k]));
    digest.text(this.#handlers.identity);
    digest.word(this.#handlers.memoryPages);
    digest.word(index);
    digest.word(blocks.length);
    for (const block of blocks) {
      const { address, ops } = block;
      digest.word(address);
      digest.word(Number(BigInt.asIntN(32, block.rip)));
      digest.word(Number(BigInt.asIntN(32, block.rip >> 32n)));
      for (let at = BlockHeader.MODE; at < BlockHeader.BYTES; at += 4) {
        digest.word(records.word(address + at));
      }
      const links = records.word(address + BlockHeader.LINKS);
      digest.word(ops.length);
      for (const { record, form } of ops) {
        digest.word(record);
        // Handlers are numbered as they are met.
        const known = forms.get(form);
        if (known === undefined) {
          forms.set(form, forms.size);
          digest.text(formKey(form));
        } else digest.word(~known);
        digest.word(records.half(record + MicroOp.OFFSET));
        const end = record === links ? MicroOp.IMMEDIATE : MICRO_OP_BYTES;
        for (let at = MicroOp.REG0; at < end; at += 4) digest.word(records.word(record + at));
      }
      const edges = edgesOf(block);
      digest.word(edges.length);
      for (const edge of edges) {
        digest.word(places.get(edge.to)!);
        digest.word(
          Number(edge.guarded) | (edge === block.taken ? 2 : edge === block.next ? 4 : 0),
        );
      }
    }
    return digest.finish();
  }
}
