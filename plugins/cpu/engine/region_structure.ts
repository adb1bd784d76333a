/**
 * The control flow of a region as WebAssembly has it: blocks and loops, found from the dominator tree.
 *
 * @module
 */
import { edgesOf, type RegionBlock, type RegionEdge } from "./region_graph.ts";

/** Where a block of a region stands. */
export interface Place {
  /** Number in reverse postorder, the head 0. */
  readonly order: number;
  /** The nearest block that every way from the head goes through; the head's is itself. */
  dominator: RegionBlock;
  /** Blocks that this one is the nearest dominator of, by their order. */
  readonly children: RegionBlock[];
  /** Edges that come from blocks before it. */
  forward: number;
  /** An edge comes back to it from a block that it dominates. */
  loop: boolean;
}

/** What an edge is. */
export type EdgeKind =
  /** To a block with no other way to it. */
  | "single"
  /** To a block that several edges lead to. */
  | "merge"
  /** Back to the head of a loop that the edge is in. */
  | "back"
  /** Into a loop past its head: there is no structure for that. */
  | "irregular";

/** The structure of a region. */
export class RegionStructure {
  /** Places of the blocks that can be reached. */
  readonly places: ReadonlyMap<RegionBlock, Place>;
  /** The blocks that edges come from to each. */
  readonly #before: ReadonlyMap<RegionBlock, readonly RegionBlock[]>;
  readonly #reaches = new Map<RegionBlock, number>();

  /** The structure of the region with `head` that has the fewest irregular edges. */
  static of(head: RegionBlock): RegionStructure {
    // Where a loop has several entries, it depends on the order of the search which of them is its head.
    const first = new RegionStructure(head, edgesOf);
    if (first.#irregular() === 0) return first;
    const second = new RegionStructure(head, (block) => edgesOf(block).reverse());
    return second.#irregular() < first.#irregular() ? second : first;
  }

  private constructor(head: RegionBlock, edges: (block: RegionBlock) => RegionEdge[]) {
    const order = reversePostorder(head, edges);
    const places = new Map<RegionBlock, Place>();
    for (const [k, block] of order.entries()) {
      places.set(block, { order: k, dominator: head, children: [], forward: 0, loop: false });
    }
    this.places = places;
    const before = new Map<RegionBlock, RegionBlock[]>(order.map((block) => [block, []]));
    for (const block of order) for (const { to } of edgesOf(block)) before.get(to)!.push(block);
    this.#before = before;
    this.#dominate(order);
    for (const block of order) {
      if (block !== head) places.get(places.get(block)!.dominator)!.children.push(block);
    }
    for (const block of order) {
      for (const { to } of edgesOf(block)) {
        const target = places.get(to)!;
        if (target.order > places.get(block)!.order) target.forward++;
        else if (this.#dominates(to, block)) target.loop = true;
      }
    }
  }

  /** How many edges are irregular. */
  #irregular(): number {
    let count = 0;
    for (const block of this.places.keys()) {
      for (const { to } of edgesOf(block)) if (this.kind(block, to) === "irregular") count++;
    }
    return count;
  }

  /** What the edge from `from` to `to` is. */
  kind(from: RegionBlock, to: RegionBlock): EdgeKind {
    const target = this.places.get(to)!;
    if (target.order <= this.places.get(from)!.order) {
      return this.#dominates(to, from) ? "back" : "irregular";
    }
    return target.forward > 1 ? "merge" : "single";
  }

  /**
   * The most instructions from behind `block` to the next head of a loop (without that block) or to where the
   * region is left.
   */
  reach(block: RegionBlock): number {
    const known = this.#reaches.get(block);
    if (known !== undefined) return known;
    let most = 0;
    for (const { to } of edgesOf(block)) {
      if (this.places.get(to)!.loop || this.kind(block, to) === "irregular") continue;
      most = Math.max(most, to.count + this.reach(to));
    }
    this.#reaches.set(block, most);
    return most;
  }

  /** All loops by their heads, each with all its blocks. */
  loops(): Map<RegionBlock, Set<RegionBlock>> {
    const loops = new Map<RegionBlock, Set<RegionBlock>>();
    for (const [head, { loop }] of this.places) {
      if (loop) loops.set(head, this.#bodyOf(head, this.#before.get(head) ?? []));
    }
    return loops;
  }

  /** The loops that have no other loop inside, each with all its blocks. */
  innermost(): Set<RegionBlock>[] {
    const loops = this.loops();
    const heads = [...loops.keys()];
    return [...loops.values()].filter((body) =>
      heads.filter((head) => body.has(head)).length === 1
    );
  }

  /**
   * The same where several loops that begin with the same block count as loops of their own, and together those
   * that are `fit` together, the smaller ones first.
   */
  innermostParts(fit: (body: ReadonlySet<RegionBlock>) => boolean): Set<RegionBlock>[] {
    const found: Set<RegionBlock>[] = [];
    for (const [head, { loop }] of this.places) {
      if (!loop) continue;
      const bodies = (this.#before.get(head) ?? [])
        .filter((source) => this.#dominates(head, source))
        .map((source) => this.#bodyOf(head, [source]))
        .sort((x, y) => x.size - y.size);
      let together: Set<RegionBlock> | undefined;
      for (const body of bodies) {
        const more: Set<RegionBlock> = body.union(together ?? new Set());
        const heads = [...more].filter((block) => this.places.get(block)!.loop);
        if (heads.length > 1 || !fit(more)) break;
        together = more;
      }
      if (together !== undefined) found.push(together);
    }
    return found;
  }

  /** The blocks from which `head` is come back to from `sources` without leaving what it dominates. */
  #bodyOf(head: RegionBlock, sources: readonly RegionBlock[]): Set<RegionBlock> {
    const body = new Set([head]);
    const add = (block: RegionBlock): void => {
      if (body.has(block) || !this.#dominates(head, block)) return;
      body.add(block);
      for (const other of this.#before.get(block) ?? []) add(other);
    };
    for (const source of sources) add(source);
    return body;
  }

  #dominates(a: RegionBlock, b: RegionBlock): boolean {
    const { order } = this.places.get(a)!;
    let at = b;
    while (this.places.get(at)!.order > order) at = this.places.get(at)!.dominator;
    return at === a;
  }

  /** Nearest dominators, by going over the blocks until nothing changes. */
  #dominate(order: readonly RegionBlock[]): void {
    const found = new Set([order[0]!]);
    for (let changed = true; changed;) {
      changed = false;
      for (const block of order.slice(1)) {
        let common: RegionBlock | undefined;
        for (const other of this.#before.get(block)!) {
          if (!found.has(other)) continue;
          common = common === undefined ? other : this.#meet(common, other);
        }
        const place = this.places.get(block)!;
        if (found.has(block) && place.dominator === common) continue;
        place.dominator = common!;
        found.add(block);
        changed = true;
      }
    }
  }

  #meet(a: RegionBlock, b: RegionBlock): RegionBlock {
    let [x, y] = [a, b];
    while (x !== y) {
      if (this.places.get(x)!.order > this.places.get(y)!.order) x = this.places.get(x)!.dominator;
      else y = this.places.get(y)!.dominator;
    }
    return x;
  }
}

function reversePostorder(
  head: RegionBlock,
  edges: (block: RegionBlock) => RegionEdge[],
): RegionBlock[] {
  const order: RegionBlock[] = [];
  const seen = new Set([head]);
  const visit = (block: RegionBlock): void => {
    for (const { to } of edges(block)) {
      if (seen.has(to)) continue;
      seen.add(to);
      visit(to);
    }
    order.push(block);
  };
  visit(head);
  return order.reverse();
}
