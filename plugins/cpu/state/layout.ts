/**
 * Where everything stands in the one WebAssembly memory of a machine.
 *
 * | area | what |
 * |---|---|
 * | 0–3FFh | never used, so that a null pointer hits nothing |
 * | {@linkcode CPU_STATE} | state of the processor that is loaded (see `cpu_state.ts`) |
 * | {@linkcode CHUNK_MAPS} | physical address → memory, one word per 2 MiB, a map per address space |
 * | {@linkcode BLOCK_BUCKETS} | hash table of decoded blocks |
 * | {@linkcode CODE_BITS} | which 32-byte pieces of each page hold decoded code |
 * | {@linkcode WRITABLE_PAGES} | which pages a TLB may have for writing |
 * | {@linkcode CPU_AREAS} | per processor: saved state, TLBs, jump caches |
 * | {@linkcode MICRO_OPS} | decoded blocks |
 * | {@linkcode RAM} | host physical memory, handed out in chunks of 2 MiB |
 *
 * The addresses are the same in every machine, so the interpreter's code is generated once. What a
 * machine does not touch costs address space only.
 *
 * @module
 */

/** State of the loaded processor. */
export const CPU_STATE = 0x400;
/** Bytes of what a processor keeps of one of SVM's worlds, see `svm/world_image.ts`. */
export const IMAGE_BYTES = 336;
/** First address past the state of the loaded processor. */
export const CPU_STATE_END = 0x3000;
/** What AVIC's registers allow, see `svm/avic/access_table.ts`. */
export const AVIC_TABLES = 0x3000;

/**
 * A TLB that never hits, for code whose every access has to take the slow path (alignment checking).
 * As large as one index of a TLB context.
 */
export const TLB_NEVER = 0x4000;

/** Where VMCS fields stand, by encoding: see `vmx/fields.ts`. */
export const VMX_TABLES = 0xc000;

/** Windows of the loaded processor, see `memory/windows.ts`. */
export const WINDOWS = 0xd000;

/** What the interpreter counts for statistics: u64 each, by {@linkcode Counter}. */
export const COUNTERS = 0xd400;

/** Whether the way on has to be looked up anew, see `state/disturbed.ts`. */
export const DISTURBED = 0xd500;

/** Constants of the float unit, see `semantics/float/lanes.ts`. */
export const FLOAT_CONSTANTS = 0xd600;

/** Where indirect jumps have gone, see `engine/jump_edges.ts`. */
export const JUMP_EDGES = 0x1_0000;
/** Bytes of that table, a power of two. */
export const JUMP_EDGES_BYTES = 0x1_0000;

/** log2 of the size of a chunk of physical memory. */
export const CHUNK_SHIFT = 21;
/** log2 of the size of the physical address space that can hold memory: 64 GiB. */
export const PHYSICAL_SHIFT = 36;
/** Chunk maps: one u32 per chunk, see `memory/physical.ts`. The first is the host's. */
export const CHUNK_MAPS = 0x8_0000;
/** Bytes of one chunk map. */
export const CHUNK_MAP_BYTES: number = 4 << (PHYSICAL_SHIFT - CHUNK_SHIFT);
/** How many physical address spaces there can be. */
export const CHUNK_MAP_COUNT = 4;

/** Number of buckets of the block table (u32 each). */
export const BUCKETS: number = 1 << 16;
/** Hash table of blocks. */
export const BLOCK_BUCKETS = 0x4_0000;

/** Per processor: saved state, TLB contexts, jump caches. */
export const CPU_AREAS = 0x10_0000;
/** Bytes of one processor's area. */
export const CPU_AREA_BYTES = 0x10_0000;
/** Most processors a machine can have. */
export const MAX_CPUS = 32;

/** Code bits: 16 bytes (128 pieces of 32 bytes) for each page of the memory's 4 GiB. */
export const CODE_BITS: number = CPU_AREAS + CPU_AREA_BYTES * MAX_CPUS;
/** Bytes of the code bits. */
export const CODE_BITS_BYTES: number = 16 << 20;

/** A byte for each page of the memory's 4 GiB: not 0 if a TLB may have a translation for writing to it. */
export const WRITABLE_PAGES: number = CODE_BITS + CODE_BITS_BYTES;
/** Bytes of that table. */
export const WRITABLE_PAGES_BYTES: number = 1 << 20;

/** Decoded blocks. */
export const MICRO_OPS: number = WRITABLE_PAGES + WRITABLE_PAGES_BYTES;
/** Bytes for decoded blocks. When they are used up, all blocks are dropped. */
export const MICRO_OPS_BYTES: number = 32 << 20;

/** Tables of 4 KiB entries for chunks that are not memory throughout, see `memory/physical.ts`. */
export const PAGE_MAPS: number = MICRO_OPS + MICRO_OPS_BYTES;
/** Bytes for those tables (2 KiB each). */
export const PAGE_MAPS_BYTES: number = 1 << 20;

/** Host physical memory; aligned to a chunk. */
export const RAM: number = Math.ceil((PAGE_MAPS + PAGE_MAPS_BYTES) / (1 << CHUNK_SHIFT)) *
  (1 << CHUNK_SHIFT);
