/**
 * What a region consists of: the blocks that can be reached from its head, and how they go on.
 *
 * Edges are those that the interpreter has gone already: links within a page, jumps that the jump cache
 * knows, where indirect jumps have been noted to go, and returns from calls that are in the region as well.
 * What else a block may do leaves the region.
 *
 * @module
 */
import { type Form, hasLinks } from "../decode/form.ts";
import { withoutShadow } from "../semantics/branch.ts";
import { SEMANTICS } from "../semantics/mod.ts";
import { Pseudo } from "../semantics/pseudo.ts";
import { S } from "../state/cpu_state.ts";
import { JUMP_ENTRIES } from "../state/tlb_layout.ts";
import {
  BlockHeader,
  MAX_REGION_INSTRUCTIONS,
  MICRO_OP_BYTES,
  MicroOp,
  NEVER_LINK,
  UNLINKED,
} from "./block_layout.ts";
import { edgesFrom, INDIRECT } from "./jump_edges.ts";

/** Most blocks of a region. */
export const MAX_REGION_BLOCKS = 64;
/** Most places that one return may go to inside its region. */
const MAX_RETURNS = 8;
/** Most places that another indirect jump may. */
const MAX_JUMPS = 32;

/** One micro-op of a block. */
export interface RegionOp {
  /** Memory address of its record. */
  readonly record: number;
  /** What it is. */
  readonly form: Form;
}

/** A way from one block of a region to another. */
export interface RegionEdge {
  /** Where it leads. */
  readonly to: RegionBlock;
  /** It leads into another page: whether that is still there has to be looked up in the jump cache. */
  readonly guarded: boolean;
}

/** A block of a region. */
export interface RegionBlock {
  /** Memory address of its header. */
  readonly address: number;
  /** RIP of its first instruction. */
  readonly rip: bigint;
  /** Number of instructions. */
  readonly count: number;
  /** Its micro-ops. */
  readonly ops: readonly RegionOp[];
  /** Where it goes if its last instruction branches. */
  taken: RegionEdge | undefined;
  /** Where it goes if not. */
  next: RegionEdge | undefined;
  /** Where its last instruction may go if it takes its target from a register or from memory. */
  readonly jumps: RegionEdge[];
}

/** Reads decoded blocks. */
export interface BlockSource {
  /** The memory as 32-bit words. */
  readonly words: Int32Array;
  /** The memory as 16-bit words. */
  readonly halves: Uint16Array;
  /** The memory as 64-bit words. */
  readonly longs: BigUint64Array;
  /** The form that micro-op `record` is of. */
  formOf(record: number): Form;
  /** The block of the same mode with code segment as `like` at `code` in memory and at `rip`, or 0. */
  find(like: number, code: number, rip: bigint): number;
  /** Whether the code around a block is written again and again. */
  isHot(block: number): boolean;
}

const CALLS: ReadonlySet<string> = new Set(["CALL", "CALLIND"]);
const isCall = (name: string): boolean => CALLS.has(withoutShadow(name));
const isReturn = (name: string): boolean => withoutShadow(name) === "RET";
/** Direct branches that always branch. */
const ALWAYS: ReadonlySet<string> = new Set([
  "JMP",
  "CALL",
  "CALL.shadow",
  Pseudo.END,
  Pseudo.BOUNDARY,
]);

/** Collects the region with `head` as its only entry. */
export class RegionGraph {
  /** Blocks in the order they were found, the head first. */
  readonly blocks: RegionBlock[] = [];
  /** Whether there are ways that had not been gone when the region was collected. */
  open = false;
  readonly #source: BlockSource;
  readonly #known = new Map<number, RegionBlock>();
  readonly #mode: number;
  readonly #codeSegment: readonly [number, number];
  readonly #most: number;
  #instructions = 0;

  /** The region of at most `most` instructions; if that is less than it could have, it stays open. */
  constructor(source: BlockSource, head: number, most: number = MAX_REGION_INSTRUCTIONS) {
    this.#source = source;
    this.#most = most;
    this.#mode = this.#word(head + BlockHeader.MODE);
    this.#codeSegment = this.#segmentOf(head);
    this.#add(head);
    // Breadth first, so that what is near the head comes in before the region is full.
    for (let k = 0; k < this.blocks.length; k++) this.#follow(this.blocks[k]!);
    this.#connectReturns();
  }

  #word(address: number): number {
    return this.#source.words[address >> 2]!;
  }

  #segmentOf(block: number): readonly [number, number] {
    return [this.#word(block + BlockHeader.CS_BASE), this.#word(block + BlockHeader.CS_LIMIT)];
  }

  /** The block at `address`, taken into the region if it fits. */
  #add(address: number): RegionBlock | undefined {
    const known = this.#known.get(address);
    if (known !== undefined) return known;
    const { halves, longs } = this.#source;
    const count = halves[(address + BlockHeader.COUNT) >> 1]!;
    const [base, limit] = this.#segmentOf(address);
    if (
      this.#word(address + BlockHeader.MODE) !== this.#mode ||
      base !== this.#codeSegment[0] || limit !== this.#codeSegment[1] ||
      this.#word(address + BlockHeader.CODE2) !== 0 ||
      this.blocks.length >= MAX_REGION_BLOCKS
    ) return undefined;
    if (this.blocks.length > 0 && this.#instructions + count > this.#most) {
      this.open ||= this.#most < MAX_REGION_INSTRUCTIONS;
      return undefined;
    }
    const ops: RegionOp[] = [];
    for (let record = address + BlockHeader.BYTES;; record += MICRO_OP_BYTES) {
      const form = this.#source.formOf(record);
      ops.push({ record, form });
      if (SEMANTICS[form.name]!.ends === true) break;
    }
    const rip = longs[(address + BlockHeader.RIP) >> 3]!;
    const block: RegionBlock = {
      address,
      rip,
      count,
      ops,
      taken: undefined,
      next: undefined,
      jumps: [],
    };
    this.#instructions += count;
    this.#known.set(address, block);
    this.blocks.push(block);
    return block;
  }

  #follow(block: RegionBlock): void {
    const { record, form } = block.ops[block.ops.length - 1]!;
    const direct = form.operands[0]?.kind === "J" || form.name === Pseudo.END ||
      form.name === Pseudo.BOUNDARY;
    const beyond = form.name.endsWith(".beyond");
    const semantics = SEMANTICS[form.name]!;
    const behind = ripBehind(block, this.#source.halves);
    if (direct && !beyond) {
      const target = this.#source.longs[(record + MicroOp.DISPLACEMENT) >> 3]!;
      block.taken = this.#edge(record + MicroOp.TAKEN_LINK, target);
    }
    if (direct ? !ALWAYS.has(form.name) : semantics.rep === true || semantics.goesOn === true) {
      block.next = hasLinks(form.operands)
        ? this.#edge(record + MicroOp.NEXT_LINK, behind)
        : this.#edgeTo(this.#cached(behind), behind, true);
    }
    if (INDIRECT.has(form.name)) this.#jump(block, record);
    // Where a call inside comes back to belongs to the region, too.
    if (isCall(form.name) && calleesOf(block).length > 0) {
      const code = this.#word(block.address + BlockHeader.CODE) >>> 0;
      const at = code + Number(behind - block.rip);
      if (at >>> 12 !== code >>> 12) return;
      const site = this.#source.find(block.address, at, behind);
      if (site !== 0) this.#add(site);
    }
  }

  /** Follows the indirect jump `record` at the end of `block` to where it has gone before. */
  #jump(block: RegionBlock, record: number): void {
    this.open = true;
    for (const address of edgesFrom(this.#source.words, record)) {
      if (block.jumps.length >= MAX_JUMPS) return;
      // A region goes with any of its blocks, so what would go soon stays outside.
      const code = (at: number): number => this.#word(at + BlockHeader.CODE) >>> 12;
      if (code(address) !== code(block.address) && this.#source.isHot(address)) continue;
      const to = this.#add(address);
      if (to === undefined) continue;
      const guarded = this.#page(block) !== this.#page(to) || block.rip >> 12n !== to.rip >> 12n;
      block.jumps.push({ to, guarded });
    }
  }

  /** The edge along the link at `link`, which leads to `target`. */
  #edge(link: number, target: bigint): RegionEdge | undefined {
    const word = this.#word(link) >>> 0;
    if (word === UNLINKED) this.open = true;
    const guarded = word === NEVER_LINK;
    const address = guarded ? this.#cached(target) : word;
    return this.#edgeTo(address, target, guarded);
  }

  #edgeTo(address: number, target: bigint, guarded: boolean): RegionEdge | undefined {
    if (address <= NEVER_LINK) return undefined;
    const to = this.#add(address);
    return to === undefined || to.rip !== target ? undefined : { to, guarded };
  }

  /** The block that the jump cache has for `rip`, or 0. */
  #cached(rip: bigint): number {
    const entry = (this.#word(S.jumpCache.address) >>> 0) + jumpOffset(Number(rip & 0xffff_ffffn));
    if (this.#source.longs[entry >> 3]! !== rip) return 0;
    if (this.#word(entry + 12) !== this.#mode) return 0;
    return this.#word(entry + 8) >>> 0;
  }

  /** Finds for each call of the region the returns that its callee may end in. */
  #connectReturns(): void {
    for (const block of this.blocks) {
      if (!isCall(block.ops[block.ops.length - 1]!.form.name)) continue;
      const site = this.#siteOf(block);
      if (site === undefined) continue;
      for (const end of calleesOf(block).flatMap((callee) => this.#returnsFrom(callee))) {
        if (end.jumps.length >= MAX_RETURNS || end.jumps.some(({ to }) => to === site)) {
          continue;
        }
        end.jumps.push({ to: site, guarded: this.#page(end) !== this.#page(site) });
      }
    }
  }

  #page(block: RegionBlock): number {
    return this.#word(block.address + BlockHeader.CODE) >>> 12;
  }

  /** The block of the region behind call block `block`. */
  #siteOf(block: RegionBlock): RegionBlock | undefined {
    const behind = ripBehind(block, this.#source.halves);
    return this.blocks.find(({ rip }) => rip === behind);
  }

  /** Return blocks that are reached from `entry` without leaving its function. */
  #returnsFrom(entry: RegionBlock): RegionBlock[] {
    const seen = new Set([entry]);
    const ends: RegionBlock[] = [];
    for (const block of seen) {
      const { name } = block.ops[block.ops.length - 1]!.form;
      if (isReturn(name)) ends.push(block);
      const successors = isCall(name) ? [this.#siteOf(block)] : [
        block.taken?.to,
        block.next?.to,
        ...isReturn(name) ? [] : block.jumps.map(({ to }) => to),
      ];
      for (const successor of successors) if (successor !== undefined) seen.add(successor);
    }
    return ends;
  }
}

/** Byte offset of `rip` (its low half) in the jump cache; the same as `jumpSlot` in memory/tlb.ts. */
function jumpOffset(low: number): number {
  return ((low ^ (low >>> 10)) & (JUMP_ENTRIES - 1)) * 16;
}

/** Where the call at the end of `block` goes inside the region. */
function calleesOf(block: RegionBlock): RegionBlock[] {
  return [...block.taken === undefined ? [] : [block.taken], ...block.jumps].map(({ to }) => to);
}

/** RIP behind the last instruction of `block`. */
export function ripBehind(block: RegionBlock, halves: Uint16Array): bigint {
  return block.rip + BigInt(halves[(block.address + BlockHeader.LENGTH) >> 1]!);
}

/** All edges that leave `block` inside the region. */
export function edgesOf(block: RegionBlock): RegionEdge[] {
  return [block.taken, block.next, ...block.jumps].filter((edge) => edge !== undefined);
}
