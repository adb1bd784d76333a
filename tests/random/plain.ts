/**
 * Instructions that any program may execute: integer, string, x87 and vector ones.
 *
 * EAX, EDX, ESI and EDI, in 64-bit code R8 to R11 too, are played with; EBX points to the data, ECX and
 * EBP count rounds, ESP is the stack.
 *
 * @module
 */
import type { Random } from "../silicon/programs.ts";
import type { Assembler, Instruction, Operand, Size } from "./assembler.ts";
import { Data } from "./machine.ts";

const LEGACY = [0, 2, 6, 7];
const EXTENDED = [...LEGACY, 8, 9, 10, 11];
/** AL, DL, AH, DH. */
const BYTES = [0, 2, 4, 6];

/** What instructions a program is made of. */
export interface Choice {
  /** Whether SSE and AVX are among them. */
  readonly vectors: boolean;
  /** Whether AVX may be used: not in real and virtual-8086 mode. */
  readonly vex: boolean;
  /** Whether instructions that leave flags undefined are among them, and such as read all flags. */
  readonly undefinedFlags: boolean;
}

/** Emits instructions. */
export class Plain {
  readonly #random: Random;
  readonly #out: Assembler;

  constructor(random: Random, out: Assembler) {
    this.#random = random;
    this.#out = out;
  }

  register(): number {
    return this.#random.pick(this.#out.width === 64 ? EXTENDED : LEGACY);
  }

  #size(): Exclude<Size, 8> {
    return this.#random.pick(this.#out.width === 64 ? [16, 32, 64] : [16, 32]);
  }

  /** Somewhere in the data that all may touch. */
  memory(align = 1): Operand {
    return { disp: this.#random.below(Math.floor((Data.PLAY_BYTES - 64) / align)) * align };
  }

  #operand(): Operand {
    return this.#random.below(3) === 0 ? this.memory() : { reg: this.register() };
  }

  #imm(size: Size): number[] {
    const bytes = size === 8 ? 1 : size === 16 ? 2 : 4;
    return Array.from({ length: bytes }, () => this.#random.below(256));
  }

  #op(instruction: Instruction): void {
    this.#out.op(instruction);
  }

  /** One instruction, or a few that belong together. */
  any(choice: Choice): void {
    const n = this.#random.below(choice.vectors ? 24 : 18);
    if (n < 6) return this.#arithmetic();
    if (n < 10) return this.#moves();
    if (n < 13) return choice.undefinedFlags ? this.#loose() : this.#arithmetic();
    if (n < 14) return this.#stack(choice.undefinedFlags);
    if (n < 15) return this.#flags();
    if (n < 16) return this.string(choice.undefinedFlags);
    if (n < 18) return choice.vectors ? this.#x87() : this.#moves();
    if (n < 21 || !choice.vex) return this.#sse();
    this.#avx();
  }

  /** `most` of them, or fewer. */
  some(most: number, choice: Choice): void {
    for (let k = 1 + this.#random.below(most); k > 0; k--) this.any(choice);
  }

  #arithmetic(): void {
    const random = this.#random;
    const kind = random.below(8) << 3;
    const size = this.#size();
    switch (random.below(8)) {
      case 0:
      case 1:
        return this.#op({ size, opcode: [kind | 1], reg: this.register(), rm: this.#operand() });
      case 2:
      case 3:
        return this.#op({ size, opcode: [kind | 3], reg: this.register(), rm: this.#operand() });
      case 4:
        return this.#op({
          size,
          opcode: [0x81],
          reg: kind >> 3,
          rm: this.#operand(),
          imm: this.#imm(size),
        });
      case 5: {
        const rm = random.below(2) === 0 ? this.memory() : { reg: random.pick(BYTES) };
        return this.#op({ opcode: [kind], reg: random.below(8), rm });
      }
      case 6: { // INC, DEC, NOT, NEG
        const [opcode, reg] = random.pick<[number, number]>([[0xff, 0], [0xff, 1], [0xf7, 2], [
          0xf7,
          3,
        ]]);
        return this.#op({ size, opcode: [opcode], reg, rm: { reg: this.register() } });
      }
      default: // LOCK ADD, XADD
        return this.#op({
          size,
          prefixes: [0xf0],
          opcode: random.pick([[0x01], [0x0f, 0xc1], [0x31]]),
          reg: this.register(),
          rm: this.memory(),
        });
    }
  }

  #moves(): void {
    const random = this.#random;
    const size = this.#size();
    const reg = this.register();
    switch (random.below(9)) {
      case 0:
        return this.#op({ size, opcode: [0x89], reg, rm: this.#operand() });
      case 1:
        return this.#op({ size, opcode: [0x8b], reg, rm: this.#operand() });
      case 2: // MOVZX, MOVSX from memory
        return this.#op({
          size,
          opcode: [0x0f, random.pick([0xb6, 0xb7, 0xbe, 0xbf])],
          reg,
          rm: this.memory(),
        });
      case 3:
        return this.#op({
          size,
          opcode: [0x0f, 0x40 | random.below(16)],
          reg,
          rm: this.#operand(),
        });
      case 4:
        return this.#op({
          opcode: [0x0f, 0x90 | random.below(16)],
          reg: 0,
          rm: { reg: random.pick(BYTES) },
        });
      case 5: // XCHG
        return this.#op({ size, opcode: [0x87], reg, rm: this.#operand() });
      case 6: // LEA
        return this.#op({ size, opcode: [0x8d], reg, rm: this.memory() });
      case 7: // CMPXCHG
        return this.#op({ size, opcode: [0x0f, 0xb1], reg, rm: this.#operand() });
      default: // MOVBE
        return this.#op({
          size,
          opcode: [0x0f, 0x38, random.pick([0xf0, 0xf1])],
          reg,
          rm: this.memory(),
        });
    }
  }

  /** Instructions that leave some flags undefined, or defined by the vendor. */
  #loose(): void {
    const random = this.#random;
    const out = this.#out;
    const size = this.#size();
    const reg = this.register();
    const rm = this.#operand();
    switch (random.below(10)) {
      case 0:
        return this.#op({ size, opcode: [0x0f, 0xaf], reg, rm });
      case 1:
        return this.#op({
          size,
          opcode: [0xc1],
          reg: random.pick([0, 1, 2, 3, 4, 5, 7]),
          rm,
          imm: [random.below(40)],
        });
      case 2:
        return this.#op({ size, opcode: [0xd3], reg: random.pick([0, 1, 2, 3, 4, 5, 7]), rm });
      case 3: // MUL, IMUL
        return this.#op({ size, opcode: [0xf7], reg: random.pick([4, 5]), rm });
      case 4: // BT and its kin, by an immediate
        return this.#op({
          size,
          opcode: [0x0f, 0xba],
          reg: 4 + random.below(4),
          rm,
          imm: [random.below(64)],
        });
      case 5: // BSF, BSR
        return this.#op({ size, opcode: [0x0f, random.pick([0xbc, 0xbd])], reg, rm });
      case 6: // POPCNT, TZCNT, LZCNT
        return this.#op({
          size,
          prefixes: [0xf3],
          opcode: [0x0f, random.pick([0xb8, 0xbc, 0xbd])],
          reg,
          rm,
        });
      case 7: { // SHLD, SHRD: of 16 bits by less than 16
        const count = random.below(size === 16 ? 16 : 40);
        return this.#op({ size, opcode: [0x0f, random.pick([0xa4, 0xac])], reg, rm, imm: [count] });
      }
      case 8:
        // BCD, which 64-bit mode has not.
        return out.width === 64
          ? this.#op({ size: 32, opcode: [0x0f, 0xaf], reg, rm })
          : out.put(...random.pick([[0x27], [0x2f], [0x37], [0x3f], [0xd4, 10], [0xd5, 10]]));
      default: // ADCX, ADOX; CRC32
        if (random.below(2) === 0) {
          const mandatory = random.pick([0x66, 0xf3]);
          return this.#op({ mandatory, opcode: [0x0f, 0x38, 0xf6], reg, rm });
        }
        return this.#op({ size: 32, mandatory: 0xf2, opcode: [0x0f, 0x38, 0xf1], reg, rm });
    }
  }

  #stack(all: boolean): void {
    const random = this.#random;
    const out = this.#out;
    switch (random.below(4)) {
      case 0:
        return out.put(0x50 | random.pick(LEGACY), 0x58 | random.pick(LEGACY));
      case 1:
        out.put(0x6a, random.below(256), 0x58 | random.pick(LEGACY));
        return;
      case 2:
        if (out.width === 64 && all) return out.put(0x9c, 0x58 | random.pick(LEGACY));
        // PUSHA and POPA, with nothing in between: all registers stay.
        return out.width === 64 ? out.put(0x56, 0x5f) : out.put(0x60, 0x61);
      default: // ENTER and LEAVE; EBP counts
        out.put(0x55, 0xc8, 0x10, 0, random.below(2), 0xc9, 0x5d);
    }
  }

  #flags(): void {
    // CMC, STC, CLC, CDQ, CWDE, NOP, LAHF
    this.#out.put(this.#random.pick([0xf5, 0xf9, 0xf8, 0x99, 0x98, 0x90, 0x9f]));
  }

  /** A string instruction, repeated or not, within the data. */
  string(all: boolean): void {
    const random = this.#random;
    const out = this.#out;
    const size = this.#size();
    const opcode = random.pick(all ? [0xa4, 0xa6, 0xaa, 0xac, 0xae] : [0xa4, 0xaa, 0xac]);
    out.put(0x51); // ECX counts rounds
    for (const reg of [6, 7]) {
      // lea esi, [ebx + disp]
      out.op({
        size: 32,
        opcode: [0x8d],
        reg,
        rm: { disp: 0x200 + random.below(Data.PLAY_BYTES - 0x400) },
      });
    }
    out.load(1, random.below(40));
    const down = random.below(4) === 0;
    if (down) out.put(0xfd);
    const wide = random.below(2);
    const repeat = random.pick([0, 0xf2, 0xf3, 0xf3]);
    if (repeat !== 0) out.put(opcode === 0xa6 || opcode === 0xae ? repeat : 0xf3);
    out.wideAddress();
    if (wide === 1 && size === 64) out.put(0x48);
    else if (wide === 1 && size === 16) out.operandSize(16);
    else if (wide === 1) out.operandSize(32);
    out.put(opcode | wide);
    if (down) out.put(0xfc);
    out.put(0x59);
  }

  /** An x87 instruction that leaves the stack as deep as it was, or begins anew. */
  #x87(): void {
    const random = this.#random;
    const out = this.#out;
    const memory = (opcode: number, reg: number) =>
      this.#op({ opcode: [opcode], reg, rm: this.memory() });
    switch (random.below(8)) {
      case 0: // FLD and FSTP, of 32, 64 and 80 bits
        memory(...random.pick<[number, number]>([[0xd9, 0], [0xdd, 0], [0xdb, 5], [0xdf, 5]]));
        return memory(...random.pick<[number, number]>([[0xd9, 3], [0xdd, 3], [0xdb, 7]]));
      case 1: // with memory: FADD, FMUL, FCOM, FSUB, FSUBR, FDIV, FDIVR
        return memory(random.pick([0xd8, 0xdc, 0xda, 0xde]), random.pick([0, 1, 2, 4, 5, 6, 7]));
      case 2:
        return out.put(0xd8, 0xc0 | random.pick([0, 1, 4, 5, 6, 7]) << 3 | random.below(8));
      case 3: // FLD1 and the other constants, FXCH, FST
        out.put(0xd9, 0xe8 + random.below(7));
        return out.put(0xdd, 0xd8 | random.below(8));
      case 4: // FCHS, FABS, FTST, FXAM, FSQRT, FRNDINT, FSCALE
        return out.put(0xd9, random.pick([0xe0, 0xe1, 0xe4, 0xe5, 0xfa, 0xfc, 0xfd]));
      case 5: // FISTP, FIST, FISTTP after FLD
        memory(0xd9, 0);
        return memory(
          ...random.pick<[number, number]>([[0xdb, 3], [0xdf, 3], [0xdf, 7], [0xdd, 1]]),
        );
      case 6: // FNSTSW, FNSTCW
        return random.below(2) === 0 ? out.put(0xdf, 0xe0) : memory(0xd9, 7);
      default: // FNINIT, FNCLEX, FFREE
        return out.put(...random.pick([[0xdb, 0xe3], [0xdb, 0xe2], [0xdd, 0xc0], [0x0f, 0x77]]));
    }
  }

  #sse(): void {
    const random = this.#random;
    const xmm = random.below(this.#out.width === 64 ? 16 : 8);
    const other = random.below(this.#out.width === 64 ? 16 : 8);
    const rm = random.below(2) === 0 ? { reg: other } : this.memory(16);
    const plain = (opcode: number, mandatory?: number) =>
      this.#op({
        opcode: [0x0f, opcode],
        reg: xmm,
        rm,
        ...(mandatory === undefined ? {} : { mandatory }),
      });
    switch (random.below(7)) {
      case 0:
        return plain(random.pick([0x28, 0x10, 0x6f, 0x5b]), random.pick([undefined, 0x66]));
      case 1:
        return plain(random.pick([0x29, 0x11]), random.pick([undefined, 0x66]));
      case 2: // packed integers
        return plain(
          random.pick([
            0xd4,
            0xdb,
            0xdf,
            0xeb,
            0xef,
            0xfa,
            0xfb,
            0xfc,
            0xfd,
            0xfe,
            0xf4,
            0xf5,
            0x60,
          ]),
          0x66,
        );
      case 3: // packed and scalar numbers
        return plain(
          random.pick([0x51, 0x58, 0x59, 0x5c, 0x5d, 0x5e, 0x5f, 0x54, 0x55, 0x57]),
          random.pick([undefined, 0x66]),
        );
      case 4:
        return plain(random.pick([0x51, 0x58, 0x59, 0x5a, 0x5c, 0x5e]), random.pick([0xf2, 0xf3]));
      case 5: // SSSE3 and SSE4
        return this.#op({
          mandatory: 0x66,
          opcode: [0x0f, 0x38, random.pick([0x00, 0x04, 0x1c, 0x1e, 0x28, 0x38, 0x3c, 0x40])],
          reg: xmm,
          rm,
        });
      default: // MOVD to a general register and back
        return this.#op({
          mandatory: 0x66,
          opcode: [0x0f, random.pick([0x6e, 0x7e])],
          reg: xmm,
          rm: { reg: this.register() },
        });
    }
  }

  /** A three-byte VEX prefix and what follows; `map` 1 to 3, `pp` 0 to 3. */
  #vex(map: number, pp: number, opcode: number, long: boolean, rm: Operand, imm: number[]): void {
    const random = this.#random;
    const out = this.#out;
    const registers = out.width === 64 ? 16 : 8;
    const reg = random.below(registers);
    const second = random.below(registers);
    const memory = "disp" in rm;
    const base = memory ? 3 : rm.reg;
    if (memory) out.wideAddress();
    const b1 = (reg < 8 ? 0x80 : 0) | 0x40 | (base < 8 ? 0x20 : 0) | map;
    out.put(0xc4, b1, (15 - second) << 3 | (long ? 4 : 0) | pp, opcode);
    out.put((memory ? 0x80 : 0xc0) | (reg & 7) << 3 | (base & 7));
    if (memory) out.put32(rm.disp);
    out.put(...imm);
  }

  #avx(): void {
    const random = this.#random;
    const long = random.below(2) === 0;
    const registers = this.#out.width === 64 ? 16 : 8;
    const rm = random.below(2) === 0 ? { reg: random.below(registers) } : this.memory();
    switch (random.below(5)) {
      case 0: // packed numbers
        return this.#vex(
          1,
          random.below(2),
          random.pick([0x58, 0x59, 0x5c, 0x5d, 0x5e, 0x5f, 0x54, 0x57]),
          long,
          rm,
          [],
        );
      case 1: // packed integers
        return this.#vex(
          1,
          1,
          random.pick([0xd4, 0xdb, 0xeb, 0xef, 0xfa, 0xfc, 0xfe, 0xf4, 0x62, 0x6a]),
          long,
          rm,
          [],
        );
      case 2: // VPSHUFB, VPMULLD, VPMINSD, VPMAXUD
        return this.#vex(2, 1, random.pick([0x00, 0x40, 0x39, 0x3f]), long, rm, []);
      case 3: // VPERM2F128, VBLENDPS, VPALIGNR
        return this.#vex(3, 1, random.pick([0x06, 0x0c, 0x0f]), true, rm, [random.below(256)]);
      default: // FMA
        return this.#vex(2, 1, random.pick([0x98, 0xa8, 0xb8, 0x9c, 0xaa]), long, rm, []);
    }
  }
}
