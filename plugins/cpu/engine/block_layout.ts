/**
 * Layout of a decoded block in memory: a header, then one record per micro-op.
 *
 * @module
 */

/** Offsets in a block's header. */
export const BlockHeader = {
  /** u32: next block in the same bucket, 0 for none. */
  NEXT: 0,
  /** u32: mode word the block was decoded for (with {@linkcode ALONE_MODE} for one instruction alone). */
  MODE: 4,
  /** u64: RIP of the first instruction. */
  RIP: 8,
  /** u32: memory address of the first instruction's bytes. */
  CODE: 16,
  /** u32: low half of CS.base; blocks of 64-bit mode have 0. */
  CS_BASE: 20,
  /** u16: number of instructions. */
  COUNT: 24,
  /** u16: number of bytes. */
  LENGTH: 26,
  /** u32: memory address of the page a block runs over into; 0 if it stays in one page. */
  CODE2: 28,
  /** u32: limit of CS; 0 where none is checked (64-bit mode and flat code). */
  CS_LIMIT: 32,
  /** u32: one of {@linkcode Serviced}. */
  SERVICED: 36,
  /** u32: one of {@linkcode Transfer}, for a block of one instruction alone. */
  TRANSFER: 40,
  /** u32: address of the last micro-op if it has links, or 0. */
  LINKS: 44,
  /** Bytes of the header. */
  BYTES: 48,
} as const;

/** Whether the dispatcher looks at events behind the last instruction of a block, whatever that did. */
export const Serviced = {
  /** It may not. */
  NO: 0,
  /** It does. */
  YES: 1,
  /** It does, and the instruction has needed it. */
  USED: 2,
} as const;

/** Whether an instruction transfers control, as last-branch records see it. */
export const Transfer = {
  /** It goes on with the next one. */
  NEVER: 0,
  /** If it does not go on with the next one. */
  IF_TAKEN: 1,
  /** It does, wherever to. */
  ALWAYS: 2,
} as const;

/** Mode bit of blocks that hold one instruction, for exact stops. */
export const ALONE_MODE = 0x100;

/** Bytes of a micro-op record. */
export const MICRO_OP_BYTES = 32;

/** Offsets in a micro-op record. */
export const MicroOp = {
  /** u16: index of the handler in the table. */
  HANDLER: 0,
  /** u16: offset of the instruction from the start of the block, in bytes. */
  OFFSET: 2,
  /** u16: address of the first operand's register. */
  REG0: 4,
  /** u16: address of the second operand's register. */
  REG1: 6,
  /** u16: address of the base register ({@linkcode CpuState.zero} for none), or of a third register operand. */
  BASE: 8,
  /** u16: address of the index register, or of `zero`. */
  INDEX_REG: 10,
  /** u8: 1:0 log2 of the scale; 3:2 address size (0 = 16, 1 = 32, 2 = 64); 6:4 segment. */
  ADDRESSING: 12,
  /** u8: length of the instruction in bytes. */
  LENGTH: 13,
  /** u8: number of the instruction within the block. */
  ORDINAL: 14,
  /** u8: number of the micro-op within the block. */
  INDEX: 15,
  /** i64: displacement, or target RIP of a direct branch. */
  DISPLACEMENT: 16,
  /** i64: immediate; for a direct branch the two links below. */
  IMMEDIATE: 24,
  /** u32: block to go on with when the branch is taken; {@linkcode UNLINKED} or {@linkcode NEVER_LINK}. */
  TAKEN_LINK: 24,
  /** u32: block to go on with when it is not. */
  NEXT_LINK: 28,
} as const;

/** Mode of a block that has been invalidated. */
export const DEAD_MODE = -1;

/** Link not yet known. */
export const UNLINKED = 0;
/** Link that may not be cached, because it leaves the page. */
export const NEVER_LINK = 1;
/** Most instructions in one block. */
export const MAX_BLOCK_INSTRUCTIONS = 64;
/** Most instructions in one compiled region. */
export const MAX_REGION_INSTRUCTIONS = 400;
