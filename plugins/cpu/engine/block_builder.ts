/**
 * Building decoded blocks: instruction bytes to the records of a block's micro-ops.
 *
 * @module
 */
import { Decoder } from "../decode/decoder.ts";
import { type Form, hasLinks } from "../decode/form.ts";
import { type DecodeMode, DecodeStatus } from "../decode/status.ts";
import type { IsaFeatureName } from "../isa_features.ts";
import { beyondLimit, enforcedName } from "../semantics/branch.ts";
import { lockedName } from "../semantics/instruction.ts";
import { SEMANTICS } from "../semantics/mod.ts";
import { Pseudo } from "../semantics/pseudo.ts";
import { ENFORCED_MODES, Mode, Seg, segmentAddress, SegmentField } from "../state/cpu_state.ts";
import {
  BlockHeader,
  MAX_BLOCK_INSTRUCTIONS,
  MICRO_OP_BYTES,
  MicroOp,
  NEVER_LINK,
  Serviced,
  Transfer,
  UNLINKED,
} from "./block_layout.ts";
import type { Handlers } from "./handlers.ts";
import type { Isolation } from "./isolation.ts";

const PAGE = 0x1000;
const CS_LIMIT = segmentAddress(Seg.CS) + SegmentField.LIMIT;

const TRANSFERS = {
  "never": Transfer.NEVER,
  "if taken": Transfer.IF_TAKEN,
  "always": Transfer.ALWAYS,
} as const;

/** What the block being built has in common. */
export interface Frame {
  /** RIP of the first instruction, low half. */
  readonly ripLow: number;
  /** High half. */
  readonly ripHigh: number;
  /** Low half of CS.base; 0 in 64-bit mode. */
  readonly csBase: number;
  /** Limit of CS; 0 where none is checked. */
  readonly csLimit: number;
  /** Jumps within the page may be linked. */
  readonly linkable: boolean;
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

/** Builds the blocks of one machine, one at a time. */
export class BlockBuilder {
  /** Address behind the block built last. */
  end = 0;
  /** Memory address of the page that it runs over into; 0 for none. */
  second = 0;
  readonly #bytes: Uint8Array;
  readonly #halves: Uint16Array;
  readonly #words: Int32Array;
  readonly #handlers: Handlers;
  readonly #isolation: Isolation;
  readonly #decoder: Decoder;
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

  constructor(
    memory: ArrayBuffer,
    handlers: Handlers,
    isolation: Isolation,
    isa: ReadonlySet<IsaFeatureName>,
  ) {
    this.#bytes = new Uint8Array(memory);
    this.#halves = new Uint16Array(memory);
    this.#words = new Int32Array(memory);
    this.#handlers = handlers;
    this.#isolation = isolation;
    this.#decoder = new Decoder(isa);
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
   * Decodes the code at `code` into the header and records at `block`, one instruction `alone` or as many as
   * belong together; false if fetching the first one raised. {@linkcode BlockBuilder.end} is the address
   * behind them, {@linkcode BlockBuilder.second} that of the page they run over into.
   */
  fill(block: number, code: number, mode: number, frame: Frame, alone: boolean): boolean {
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
        if (next === 0) return false;
        second = next;
        status = this.#decodeAcross(at, pageEnd, next, decodeMode, ripLow, ripHigh);
      }
      const { length } = this.#decoder;
      const beyond = checkLimit && (ripLow >>> 0) + length - 1 > limit;
      let index = count;
      const missed = (mode & Mode.AWAIT_ENDBRANCH) !== 0 && !beyond && this.#misses(status, mode);
      const plain = status === DecodeStatus.OK && !beyond && !missed;
      if ((mode & Mode.COUNT_BRANCHES) !== 0 && plain) {
        const counter = this.#counter();
        if (counter !== undefined) {
          this.#pseudo(record, counter, offset, index++);
          record += MICRO_OP_BYTES;
        }
      }
      const ends = missed
        ? this.#noEndbranch(record)
        : plain
        ? this.#instruction(record, mode, ripLow, checkLimit ? limit : -1)
        : this.#failure(record, beyond ? DecodeStatus.TOO_LONG : status);
      this.#halves[(record + MicroOp.OFFSET) >> 1] = offset;
      this.#bytes[record + MicroOp.LENGTH] = length;
      this.#bytes[record + MicroOp.ORDINAL] = count;
      this.#bytes[record + MicroOp.INDEX] = index;
      ended = ends;
      count++;
      offset += length;
      record += MICRO_OP_BYTES;
      boundary = !ended && this.#isolation.has(at);
      if (boundary || (!ended && code + offset >= pageEnd)) break;
    }
    this.#setWord(block + BlockHeader.TRANSFER, this.#transfer);
    this.#setWord(
      block + BlockHeader.SERVICED,
      ended || boundary || alone ? Serviced.YES : Serviced.NO,
    );
    if (ended && count > 1) this.#fuse(record - MICRO_OP_BYTES);
    this.#halves[(block + BlockHeader.COUNT) >> 1] = count;
    this.#halves[(block + BlockHeader.LENGTH) >> 1] = offset;
    const linkable = frame.linkable && second === 0;
    if (!ended) record = this.#terminator(record, frame, offset, count, linkable, boundary);
    else this.#fixLinks(record - MICRO_OP_BYTES, frame, offset, linkable);
    this.#setWord(block + BlockHeader.LINKS, this.#links ? record - MICRO_OP_BYTES : 0);
    this.end = record;
    this.second = second;
    return true;
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
  #instruction(record: number, mode: number, ripLow: number, limit: number): boolean {
    const decoder = this.#decoder;
    const { entry } = decoder;
    const name = (mode & ENFORCED_MODES) === 0 ? entry.name : this.#enforced(mode, ripLow);
    const semantics = SEMANTICS[name];
    if (semantics === undefined) return this.#failure(record, DecodeStatus.UNIMPLEMENTED);
    const leaves = limit >= 0 && decoder.operands[0]?.kind === "J" &&
      decoder.displacementLow >>> 0 > limit;
    const conditional = leaves ? beyondLimit(entry.name) : undefined;
    if (leaves && conditional === undefined) return this.#failure(record, DecodeStatus.TOO_LONG);
    // XCHG with memory locks by itself.
    const locked = decoder.operands[0]?.kind === "M" && (decoder.lock || entry.name === "XCHG");
    const variant = decoder.variant(semantics) * 2 + Number(locked);
    let handler = entry.handlers.get(variant);
    if (name !== entry.name) {
      handler = this.#handlers.indexOf({ ...decoder.form(semantics), name });
    } else if (conditional !== undefined) {
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
    this.#links = semantics.ends === true && hasLinks(decoder.operands);
    return semantics.ends === true;
  }

  /** Name of the form of the instruction just decoded, where control-flow enforcement is on. */
  #enforced(mode: number, ripLow: number): string {
    const { entry, length, displacementLow, noTrack } = this.#decoder;
    // A distance of 4 GiB no CALL has.
    const callsNext = entry.name === "CALL" && displacementLow === ((ripLow + length) | 0);
    return enforcedName(entry.name, mode, callsNext, noTrack);
  }

  /** Whether what has just been decoded may not stand where an ENDBRANCH is awaited; INT3 may. */
  #misses(status: DecodeStatus, mode: number): boolean {
    if (status === DecodeStatus.TOO_LONG) return false;
    if (status !== DecodeStatus.OK) return true;
    const { name } = this.#decoder.entry;
    return name !== "INT3" && name !== ((mode & Mode.LONG) !== 0 ? "ENDBR64" : "ENDBR32");
  }

  /** Writes the pseudo micro-op for a missing ENDBRANCH; ends the block. */
  #noEndbranch(record: number): boolean {
    const form = pseudoForm(Pseudo.NO_ENDBRANCH);
    this.#halves[(record + MicroOp.HANDLER) >> 1] = this.#handlers.indexOf(form);
    this.#bytes[record + MicroOp.ADDRESSING] = 0;
    this.#transfer = Transfer.NEVER;
    this.#links = false;
    return true;
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

  /** Mnemonic or group of the unimplemented instruction of micro-op `uop`. */
  unimplementedName(uop: number): string {
    return this.#unimplemented.get(uop) ?? "";
  }

  /** Forgets what the blocks so far have in common with none to come. */
  reset(): void {
    this.#unimplemented.clear();
  }
}
