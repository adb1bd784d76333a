/**
 * Random programs with control flow: nested loops, calls within a page and to another one, branches, jumps
 * and calls through tables, stack and memory accesses, divisions that may fault, immediates that the program
 * overwrites.
 *
 * @module
 */
import { dword } from "./code.ts";

/** Where the program stands. */
export const PROGRAM_AT = 0x1_0000;
/** Where functions stand that it calls. */
export const FUNCTIONS_AT = 0x2_0000;
/** Its data. */
export const DATA_AT = 0x3_0000;
/** Its stack. */
export const STACK_AT = 0x4_0000;

/** Where the tables of jumps stand, behind the functions. */
const TABLES_AT = FUNCTIONS_AT + 0x3000;
const PAGE = 0x1000;

/** Whole numbers, always the same ones for a seed (mulberry32). */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** From 0 to below `limit`. */
  below(limit: number): number {
    this.#state = (this.#state + 0x6d2b_79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 0x1_0000_0000) * limit);
  }

  /** One of `items`. */
  pick<T>(items: readonly T[]): T {
    return items[this.below(items.length)]!;
  }
}

/** A program and what it starts with. */
export interface Program {
  /** Code at {@linkcode PROGRAM_AT}. */
  readonly main: Uint8Array<ArrayBuffer>;
  /** Code at {@linkcode FUNCTIONS_AT}. */
  readonly functions: Uint8Array<ArrayBuffer>;
  /** Bytes at {@linkcode DATA_AT}. */
  readonly data: Uint8Array<ArrayBuffer>;
  /** General registers; 3 (RBX) points to the data. */
  readonly registers: readonly bigint[];
}

/** RAX, RDX, RSI, RDI, and in 64-bit code R8 to R11 are played with; RBX is the data, RCX and RBP count. */
const LEGACY = [0, 2, 6, 7];
const EXTENDED = [8, 9, 10, 11];
/** Opcodes of ADD, OR, ADC, SBB, AND, SUB, XOR, CMP r/m, r with the operand size of the mode. */
const ALU = [0x01, 0x09, 0x11, 0x19, 0x21, 0x29, 0x31, 0x39];

/** Tables of eight targets, 8 bytes each. */
class JumpTable {
  readonly bytes: Uint8Array = new Uint8Array(PAGE);
  #next = 0;

  /** Room for one table; yields its address. */
  reserve(): number {
    this.#next += 64;
    return TABLES_AT + this.#next - 64;
  }

  fill(at: number, targets: readonly number[]): void {
    const view = new DataView(this.bytes.buffer);
    for (const [k, target] of targets.entries()) {
      view.setUint32(at - TABLES_AT + 8 * k, target, true);
    }
  }

  add(targets: readonly number[]): number {
    const at = this.reserve();
    this.fill(at, targets);
    return at;
  }
}

class Writer {
  readonly bytes: number[] = [];
  readonly #random: Random;
  readonly #long: boolean;
  readonly #base: number;
  readonly #registers: readonly number[];

  constructor(random: Random, mode: 32 | 64, base: number) {
    this.#random = random;
    this.#long = mode === 64;
    this.#base = base;
    this.#registers = this.#long ? [...LEGACY, ...EXTENDED] : LEGACY;
  }

  get here(): number {
    return this.#base + this.bytes.length;
  }

  put(...bytes: readonly number[]): void {
    this.bytes.push(...bytes);
  }

  /** REX prefix for the registers, if it is needed or wanted. */
  #rex(reg: number, rm: number): void {
    if (!this.#long) return;
    const wide = this.#random.below(2) << 3;
    const rex = 0x40 | wide | ((reg >> 3) << 2) | (rm >> 3);
    if (rex !== 0x40 || this.#random.below(4) === 0) this.put(rex);
  }

  /** An instruction without control flow. */
  plain(): void {
    const random = this.#random;
    const reg = random.pick(this.#registers);
    const rm = random.pick(this.#registers);
    const both = 0xc0 | ((reg & 7) << 3) | (rm & 7);
    // RBX with a displacement within the data.
    const memory = 0x83 | ((reg & 7) << 3);
    const displacement = dword(random.below(2 * PAGE));
    switch (random.below(14)) {
      case 0:
      case 1:
      case 2:
        this.#rex(reg, rm);
        return this.put(random.pick(ALU), both);
      case 3:
        this.#rex(reg, 3);
        return this.put(random.pick(ALU), memory, ...displacement);
      case 4:
        this.#rex(reg, 3);
        return this.put(random.pick(ALU) + 2, memory, ...displacement);
      case 5:
        this.#rex(reg, 3);
        return this.put(random.pick([0x89, 0x8b]), memory, ...displacement);
      case 6: // imul
        this.#rex(reg, rm);
        return this.put(0x0f, 0xaf, both);
      case 7: { // shifts and rotates by a constant
        this.#rex(0, rm);
        const kind = random.pick([0, 1, 2, 3, 4, 5, 7]);
        return this.put(0xc1, 0xc0 | (kind << 3) | (rm & 7), random.below(40));
      }
      case 8: // setcc, cmovcc
        if (random.below(2) === 0) {
          return this.put(0x0f, 0x90 | random.below(16), 0xc0 | random.pick([0, 2, 4, 6]));
        }
        this.#rex(reg, rm);
        return this.put(0x0f, 0x40 | random.below(16), both);
      case 9: // movzx, movsx
        this.#rex(reg, 3);
        return this.put(0x0f, random.pick([0xb6, 0xb7, 0xbe, 0xbf]), memory, ...displacement);
      case 10: // byte and word arithmetic, AH and the like among them
        // Destinations are AL, DL, AH and DH, or AX, DX, SI and DI: neither counter nor pointer.
        return this.put(
          random.pick(ALU) - 1,
          0xc0 | (random.below(8) << 3) | random.pick([0, 2, 4, 6]),
        );
      case 11: // push and pop
        return this.put(0x50 | random.pick(LEGACY), 0x58 | random.pick(LEGACY));
      case 12: // inc, dec, not, neg
        this.#rex(0, rm);
        return this.put(
          ...random.pick([[0xff, 0xc0], [0xff, 0xc8], [0xf7, 0xd0], [0xf7, 0xd8]])
            .map((byte, k) => k === 1 ? byte | (rm & 7) : byte),
        );
      default: // cmc, stc, clc, cwd, cbw, sahf is not of all modes
        return this.put(random.pick([0xf5, 0xf9, 0xf8, 0x99, 0x98, 0x90]));
    }
  }

  plains(most: number): void {
    for (let k = 1 + this.#random.below(most); k > 0; k--) this.plain();
  }

  /** A conditional branch over some instructions. */
  skip(body: () => void): void {
    const at = this.bytes.length;
    this.put(0x0f, 0x80 | this.#random.below(16), 0, 0, 0, 0);
    body();
    const distance = dword(this.bytes.length - at - 6);
    for (const [k, byte] of distance.entries()) this.bytes[at + 2 + k] = byte;
  }

  /** `body`, `rounds` times, counted by RCX (1) or RBP (5). */
  loop(counter: 1 | 5, rounds: number, body: () => void): void {
    this.put(0xb8 | counter, ...dword(rounds));
    const top = this.here;
    body();
    // A decrement that leaves no doubt about 32 or 64 bits, and sets ZF.
    this.put(0x83, 0xe8 | counter, 1, 0x0f, 0x85);
    this.put(...dword(top - (this.here + 4)));
  }

  call(target: number): void {
    this.put(0xe8);
    this.put(...dword(target - (this.here + 4)));
  }

  /** `FF /extension` through a table of eight targets at `table`, by the low bits of EDX. */
  #through(extension: 2 | 4, table: number): void {
    this.put(0x0f, 0xb6, 0xf2); // movzx esi, dl
    this.put(0x83, 0xe6, 7); // and esi, 7
    // [rbx + 8 * rsi + disp32]
    this.put(0xff, 0x84 | (extension << 3), 0xf3, ...dword(table - DATA_AT));
  }

  /** A call of one of eight functions; `table` gets their addresses. */
  callOneOf(targets: readonly number[], table: JumpTable): void {
    const picked = Array.from({ length: 8 }, () => this.#random.pick(targets));
    this.#through(2, table.add(picked));
  }

  /** A jump to one of some pieces of code. */
  choose(pieces: number, table: JumpTable): void {
    const random = this.#random;
    const slots = Array.from({ length: 8 }, () => random.below(pieces));
    const at = table.reserve();
    this.#through(4, at);
    const starts: number[] = [];
    const ends: number[] = [];
    for (let k = 0; k < pieces; k++) {
      starts.push(this.here);
      this.plains(3);
      this.put(0xe9, 0, 0, 0, 0);
      ends.push(this.bytes.length);
    }
    for (const end of ends) {
      for (const [k, byte] of dword(this.bytes.length - end).entries()) {
        this.bytes[end - 4 + k] = byte;
      }
    }
    table.fill(at, slots.map((slot) => starts[slot]!));
  }

  /** Writes the low byte of EAX into the immediate of the instruction behind. */
  patch(): void {
    // mov [next + 1], al: by RIP-relative or absolute address.
    if (this.#long) this.put(0x88, 0x05, ...dword(1));
    else this.put(0x88, 0x05, ...dword(this.here + 6 + 1));
    this.put(0x05, 1, 2, 3, 0); // add eax, imm32
  }
}

/** Makes the program of a seed. */
export function makeProgram(seed: number, mode: 32 | 64): Program {
  const random = new Random(seed);
  const functions = new Writer(random, mode, FUNCTIONS_AT);
  const far: number[] = [];
  for (let k = 0; k < 3; k++) {
    far.push(functions.here);
    functions.plains(6);
    if (k > 0 && random.below(2) === 0) functions.call(far[k - 1]!);
    functions.skip(() => functions.plains(3));
    functions.put(0xc3);
    // Over a page's end now and then.
    while (random.below(3) === 0 && functions.bytes.length < PAGE - 20) functions.put(0x90);
  }
  const main = new Writer(random, mode, PROGRAM_AT);
  // Functions within the page, jumped over.
  main.put(0xe9, 0, 0, 0, 0);
  const near: number[] = [];
  for (let k = 0; k < 2; k++) {
    near.push(main.here);
    main.plains(4);
    main.skip(() => main.plains(2));
    main.put(0xc3);
  }
  for (const [k, byte] of dword(main.bytes.length - 5).entries()) main.bytes[1 + k] = byte;
  const patches = random.below(3) === 0;
  const table = new JumpTable();
  main.loop(5, 3 + random.below(40), () => {
    main.plains(4);
    if (random.below(2) === 0) main.call(random.pick(far));
    main.loop(1, 5 + random.below(patches ? 20 : 120), () => {
      main.plains(5);
      main.skip(() => {
        main.plains(3);
        if (random.below(2) === 0) main.call(random.pick(near));
      });
      if (random.below(2) === 0) main.call(random.pick(far));
      if (random.below(2) === 0) main.callOneOf([...near, ...far], table);
      if (random.below(2) === 0) main.choose(2 + random.below(7), table);
      if (patches) main.patch();
      main.skip(() => main.plains(2));
    });
    main.plains(3);
  });
  // The end: INT3, a division that may fault, or UD2.
  main.put(...random.pick([[0xcc], [0xf7, 0xf6, 0xcc], [0x0f, 0x0b]]));
  const data = Uint8Array.from({ length: 4 * PAGE }, () => random.below(256));
  const registers = Array.from({ length: 16 }, (_, n) => {
    if (n === 3) return BigInt(DATA_AT);
    return (BigInt(random.below(2 ** 32)) << 32n) | BigInt(random.below(2 ** 32));
  });
  return {
    main: Uint8Array.from(main.bytes),
    functions: withTables(functions.bytes, table),
    data,
    registers,
  };
}

/** Functions and, behind them, the tables. */
function withTables(functions: readonly number[], table: JumpTable): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(TABLES_AT - FUNCTIONS_AT + table.bytes.length);
  if (functions.length > TABLES_AT - FUNCTIONS_AT) throw new Error("the functions are too long");
  bytes.set(functions);
  bytes.set(table.bytes, TABLES_AT - FUNCTIONS_AT);
  return bytes;
}
