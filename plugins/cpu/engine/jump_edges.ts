/**
 * Where indirect jumps and calls have gone: pairs of a micro-op and the block that it led to.
 *
 * Whoever goes from one to the other through the jump cache notes it here, in a table without chains: of two
 * pairs that fall together the later one stays. What a compiled region makes of it is checked where it is
 * used, so that a pair that is missing, or left from a block that is no more, costs speed alone.
 *
 * @module
 */
import { JUMP_EDGES, JUMP_EDGES_BYTES } from "../state/layout.ts";
import type { FunctionBuilder, I32 } from "../wasm/mod.ts";

/** Bytes of an entry: u32 micro-op, u32 block; 0 for none. */
const ENTRY_BYTES = 8;
const ENTRY_MASK: number = JUMP_EDGES_BYTES - ENTRY_BYTES;

/** Forms whose jumps are noted. */
export const INDIRECT: ReadonlySet<string> = new Set(["JMPIND", "CALLIND", "CALLIND.shadow"]);

/** Notes that micro-op `uop` has led to `block`. */
export function noteEdge(f: FunctionBuilder, uop: I32, block: I32): void {
  // Records stand 32 bytes apart and blocks 16.
  const entry = uop.shrU(2).add(block.shrU(1)).and(ENTRY_MASK);
  f.store32(entry, uop, JUMP_EDGES);
  f.store32(entry, block, JUMP_EDGES + 4);
}

/** Blocks that micro-op `uop` has been noted to lead to, by address. */
export function edgesFrom(words: Int32Array, uop: number): number[] {
  const blocks = new Set<number>();
  for (let at = JUMP_EDGES; at < JUMP_EDGES + JUMP_EDGES_BYTES; at += ENTRY_BYTES) {
    if (words[at >> 2]! >>> 0 === uop) blocks.add(words[(at + 4) >> 2]! >>> 0);
  }
  return [...blocks].sort((a, b) => a - b);
}

/** Forgets all. */
export function clearEdges(bytes: Uint8Array): void {
  bytes.fill(0, JUMP_EDGES, JUMP_EDGES + JUMP_EDGES_BYTES);
}
