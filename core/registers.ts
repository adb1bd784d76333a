/**
 * A vCPU's general registers, as a view over memory that the vendor supplies.
 *
 * @module
 */

import { ArgumentError } from "./errors.ts";

/**
 * Register numbers: the general-purpose registers by their encoding in instructions (SDM vol. 2A,
 * section 2.1.5), then RIP and RFLAGS. 16 to 31 are the extended registers of APX.
 */
export const Gpr = {
  /** Accumulator. */
  RAX: 0,
  /** Counter. */
  RCX: 1,
  /** Data. */
  RDX: 2,
  /** Base. */
  RBX: 3,
  /** Stack pointer. */
  RSP: 4,
  /** Frame pointer. */
  RBP: 5,
  /** String source. */
  RSI: 6,
  /** String destination. */
  RDI: 7,
  /** R8; R9 to R31 follow in order. */
  R8: 8,
  /** R15, the last register without APX. */
  R15: 15,
  /** R16, the first register of APX. */
  R16: 16,
  /** R31, the last general-purpose register. */
  R31: 31,
  /** Instruction pointer. */
  RIP: 32,
  /** Flags. */
  RFLAGS: 33,
} as const;

/** Number of 64-bit slots in a vCPU's register storage. */
export const REGISTER_SLOTS = 34;

/** Number of 32-bit words in a vCPU's register storage: low half first, then high half, per slot. */
export const REGISTER_WORDS: number = 2 * REGISTER_SLOTS;

/**
 * The registers of one vCPU.
 *
 * Hot paths use the 32-bit halves and never allocate; the bigint accessors are for everybody else.
 * Handlers of an exit may read and write any register: the vendor keeps the storage current while an
 * exit is handled, and honours what was written when the guest goes on.
 */
export class Registers {
  #words: Uint32Array;
  #quads: BigUint64Array;

  /** A view over `storage`, see {@linkcode Registers.bind}. */
  constructor(storage: Uint32Array = new Uint32Array(REGISTER_WORDS)) {
    this.#words = storage;
    this.#quads = quadsOf(storage);
  }

  /**
   * Makes the view look at other storage, of {@linkcode REGISTER_WORDS} words at an address that is a
   * multiple of 8. Nothing is copied.
   *
   * @throws {ArgumentError} If the storage is too small or not aligned.
   */
  bind(storage: Uint32Array): void {
    this.#quads = quadsOf(storage);
    this.#words = storage;
  }

  /** Copies every register from `other`. */
  copyFrom(other: Registers): void {
    this.#words.set(other.#words.subarray(0, REGISTER_WORDS));
  }

  /** A copy with storage of its own. */
  clone(): Registers {
    return new Registers(this.#words.slice(0, REGISTER_WORDS));
  }

  /** Bits 31:0 of register `index` ({@linkcode Gpr}). */
  lo(index: number): number {
    return this.#words[2 * index] as number;
  }

  /** Bits 63:32 of register `index`. */
  hi(index: number): number {
    return this.#words[2 * index + 1] as number;
  }

  /** Writes a 32-bit value the way a 32-bit instruction does: bits 63:32 become 0. */
  setU32(index: number, value: number): void {
    this.#words[2 * index] = value;
    this.#words[2 * index + 1] = 0;
  }

  /** Writes bits 15:0 and keeps the others, as a 16-bit instruction does. */
  setU16(index: number, value: number): void {
    const old = this.#words[2 * index] as number;
    this.#words[2 * index] = (old & 0xffff_0000) | (value & 0xffff);
  }

  /** Writes bits 7:0 and keeps the others, as an 8-bit instruction does. */
  setU8(index: number, value: number): void {
    const old = this.#words[2 * index] as number;
    this.#words[2 * index] = (old & 0xffff_ff00) | (value & 0xff);
  }

  /** Writes both halves of register `index`. */
  setPair(index: number, lo: number, hi: number): void {
    this.#words[2 * index] = lo;
    this.#words[2 * index + 1] = hi;
  }

  /** Register `index` as an unsigned 64-bit number. Allocates: not for paths that run per exit. */
  get(index: number): bigint {
    return this.#quads[index] as bigint;
  }

  /** Writes register `index`, modulo 2^64. Allocates: not for paths that run per exit. */
  set(index: number, value: bigint): void {
    this.#quads[index] = value;
  }

  /** RAX, 64 bits. */
  get rax(): bigint {
    return this.get(0);
  }
  set rax(value: bigint) {
    this.set(0, value);
  }

  /** RCX, 64 bits. */
  get rcx(): bigint {
    return this.get(1);
  }
  set rcx(value: bigint) {
    this.set(1, value);
  }

  /** RDX, 64 bits. */
  get rdx(): bigint {
    return this.get(2);
  }
  set rdx(value: bigint) {
    this.set(2, value);
  }

  /** RBX, 64 bits. */
  get rbx(): bigint {
    return this.get(3);
  }
  set rbx(value: bigint) {
    this.set(3, value);
  }

  /** RSP, 64 bits. */
  get rsp(): bigint {
    return this.get(4);
  }
  set rsp(value: bigint) {
    this.set(4, value);
  }

  /** RBP, 64 bits. */
  get rbp(): bigint {
    return this.get(5);
  }
  set rbp(value: bigint) {
    this.set(5, value);
  }

  /** RSI, 64 bits. */
  get rsi(): bigint {
    return this.get(6);
  }
  set rsi(value: bigint) {
    this.set(6, value);
  }

  /** RDI, 64 bits. */
  get rdi(): bigint {
    return this.get(7);
  }
  set rdi(value: bigint) {
    this.set(7, value);
  }

  /** R8, 64 bits. */
  get r8(): bigint {
    return this.get(8);
  }
  set r8(value: bigint) {
    this.set(8, value);
  }

  /** R9, 64 bits. */
  get r9(): bigint {
    return this.get(9);
  }
  set r9(value: bigint) {
    this.set(9, value);
  }

  /** R10, 64 bits. */
  get r10(): bigint {
    return this.get(10);
  }
  set r10(value: bigint) {
    this.set(10, value);
  }

  /** R11, 64 bits. */
  get r11(): bigint {
    return this.get(11);
  }
  set r11(value: bigint) {
    this.set(11, value);
  }

  /** R12, 64 bits. */
  get r12(): bigint {
    return this.get(12);
  }
  set r12(value: bigint) {
    this.set(12, value);
  }

  /** R13, 64 bits. */
  get r13(): bigint {
    return this.get(13);
  }
  set r13(value: bigint) {
    this.set(13, value);
  }

  /** R14, 64 bits. */
  get r14(): bigint {
    return this.get(14);
  }
  set r14(value: bigint) {
    this.set(14, value);
  }

  /** R15, 64 bits. */
  get r15(): bigint {
    return this.get(15);
  }
  set r15(value: bigint) {
    this.set(15, value);
  }

  /** R16, 64 bits. */
  get r16(): bigint {
    return this.get(16);
  }
  set r16(value: bigint) {
    this.set(16, value);
  }

  /** R17, 64 bits. */
  get r17(): bigint {
    return this.get(17);
  }
  set r17(value: bigint) {
    this.set(17, value);
  }

  /** R18, 64 bits. */
  get r18(): bigint {
    return this.get(18);
  }
  set r18(value: bigint) {
    this.set(18, value);
  }

  /** R19, 64 bits. */
  get r19(): bigint {
    return this.get(19);
  }
  set r19(value: bigint) {
    this.set(19, value);
  }

  /** R20, 64 bits. */
  get r20(): bigint {
    return this.get(20);
  }
  set r20(value: bigint) {
    this.set(20, value);
  }

  /** R21, 64 bits. */
  get r21(): bigint {
    return this.get(21);
  }
  set r21(value: bigint) {
    this.set(21, value);
  }

  /** R22, 64 bits. */
  get r22(): bigint {
    return this.get(22);
  }
  set r22(value: bigint) {
    this.set(22, value);
  }

  /** R23, 64 bits. */
  get r23(): bigint {
    return this.get(23);
  }
  set r23(value: bigint) {
    this.set(23, value);
  }

  /** R24, 64 bits. */
  get r24(): bigint {
    return this.get(24);
  }
  set r24(value: bigint) {
    this.set(24, value);
  }

  /** R25, 64 bits. */
  get r25(): bigint {
    return this.get(25);
  }
  set r25(value: bigint) {
    this.set(25, value);
  }

  /** R26, 64 bits. */
  get r26(): bigint {
    return this.get(26);
  }
  set r26(value: bigint) {
    this.set(26, value);
  }

  /** R27, 64 bits. */
  get r27(): bigint {
    return this.get(27);
  }
  set r27(value: bigint) {
    this.set(27, value);
  }

  /** R28, 64 bits. */
  get r28(): bigint {
    return this.get(28);
  }
  set r28(value: bigint) {
    this.set(28, value);
  }

  /** R29, 64 bits. */
  get r29(): bigint {
    return this.get(29);
  }
  set r29(value: bigint) {
    this.set(29, value);
  }

  /** R30, 64 bits. */
  get r30(): bigint {
    return this.get(30);
  }
  set r30(value: bigint) {
    this.set(30, value);
  }

  /** R31, 64 bits. */
  get r31(): bigint {
    return this.get(31);
  }
  set r31(value: bigint) {
    this.set(31, value);
  }

  /** The instruction pointer, 64 bits. */
  get rip(): bigint {
    return this.get(32);
  }
  set rip(value: bigint) {
    this.set(32, value);
  }

  /** The flags, 64 bits. */
  get rflags(): bigint {
    return this.get(33);
  }
  set rflags(value: bigint) {
    this.set(33, value);
  }
}

function quadsOf(storage: Uint32Array): BigUint64Array {
  if (storage.length < REGISTER_WORDS || storage.byteOffset % 8 !== 0) {
    throw new ArgumentError(
      `register storage: ${storage.length} words at byte offset ${storage.byteOffset}; ` +
        `wanted ${REGISTER_WORDS} words at a multiple of 8`,
    );
  }
  return new BigUint64Array(storage.buffer, storage.byteOffset, REGISTER_SLOTS);
}
