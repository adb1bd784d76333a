/**
 * Layout of a TLB context: what a processor remembers about one address space.
 *
 * A context has a read and a write array for each of three kinds of access, an instruction TLB for
 * user and for supervisor mode, a jump cache (linear address → decoded block), and a log of the
 * entries filled, so that a flush costs what was used and not what exists.
 *
 * @module
 */

/** Kinds of data access that see different translations. */
export const MmuIndex = {
  /** CPL 3. */
  USER: 0,
  /** CPL 0–2 with SMAP in force (RFLAGS.AC = 0, or an implicit access). */
  SUPERVISOR: 1,
  /** CPL 0–2 with SMAP suspended or off. */
  SUPERVISOR_AC: 2,
} as const;

/** How many of them there are. */
export const MMU_INDICES = 3;
/** Bytes for the windows of an index, see `memory/windows.ts`. */
export const WINDOWS_BYTES = 0x80;

/** Entries of each read and write array (16 bytes each: u64 page, u32 pointer minus page, u32 unused). */
export const TLB_ENTRIES = 1024;
/** Mask for the byte offset of an entry in its array. */
export const TLB_MASK: number = (TLB_ENTRIES - 1) << 4;
/** Entries of each instruction TLB (16 bytes: u64 page, u32 pointer to the page). */
export const FETCH_ENTRIES = 256;
/** Entries of the jump cache (16 bytes: u64 linear address, u32 block, u32 mode). */
export const JUMP_ENTRIES = 1024;
/** Entries of the fill log. */
export const LOG_ENTRIES = 2048;

/** Bits of each of the sets in a context. */
export const SET_BITS = 1024;

/** Offsets inside a context. */
export const Context = {
  /** u32: what the context belongs to (an ASID). */
  TAG: 0,
  /** u32: entries filled since the last flush; may exceed {@linkcode LOG_ENTRIES}. */
  FILLED: 8,
  /** u32: log2 of the size of the largest page that entries are pieces of; 12 if none is large. */
  LARGE: 12,
  /** u32: when the context was last chosen; 0 if never. */
  USED: 16,
  /** u32: CS.base (low half) of the blocks in the jump cache that belong to modes with one. */
  JUMP_BASE: 20,
  /** u32: CS.limit of those blocks. */
  JUMP_LIMIT: 24,
  /** u32: 1 if there may be an entry for writing that is only there because CR0.WP was clear. */
  LOOSE: 28,
  /** u64: EPT pointer under which the context was filled; 0 for none. */
  EPT: 32,
  /** u32: pages taken away since the last flush whose entries had to be looked for in the log. */
  SEARCHED: 40,
  /** u32: bits of CR4 that forbid accesses, as they were when the context was last chosen or flushed. */
  RULES: 44,
  /** u32 each: PKRU and PKRS at that time. */
  KEYS: 48,
  /** Windows of each index while they are not in force ({@linkcode WINDOWS_BYTES} each). */
  WINDOWS: 0x40,
  /** A bit for each region of 4 MiB (modulo their number): an entry may be a piece of a large page in it. */
  LARGE_REGIONS: 0x200,
  /** A bit for each page (modulo their number): instructions may have been fetched from it. */
  FETCHED: 0x280,
  /** Read array of index 0; the write array follows it, then the next index. */
  DATA: 0x1000,
  /** Instruction TLB of user mode; that of supervisor mode follows. */
  FETCH: 0x1_9000,
  /** Jump cache. */
  JUMP: 0x1_b000,
  /** Fill log: u32 addresses of entries. */
  LOG: 0x1_f000,
  /** Bytes of a context. */
  BYTES: 0x2_2000,
} as const;

/** Distance from an entry of a read array to the write array's. */
export const WRITE_OFFSET: number = TLB_ENTRIES * 16;
/** Distance from one index's read array to the next one's. */
export const INDEX_BYTES: number = 2 * WRITE_OFFSET;
/** Distance from the user to the supervisor instruction TLB. */
export const FETCH_BYTES: number = FETCH_ENTRIES * 16;

/** Where the TLB contexts begin in a processor's area; what stands before is its saved state. */
export const CONTEXTS = 0x4000;
/** TLB contexts per processor: the host's and the most recent guests'. */
export const CONTEXT_COUNT = 6;
