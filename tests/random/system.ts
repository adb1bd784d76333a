/**
 * Instructions that concern the system, and such as fault: segment registers, descriptor tables, control
 * and debug registers, MSRs, ports, far calls, pages. Each may fault, in some contexts it must.
 *
 * @module
 */
import type { Random } from "../silicon/programs.ts";
import type { Assembler } from "./assembler.ts";
import type { Context } from "./context.ts";
import { type Handlers, RETURNING } from "./handlers.ts";
import { At, Data, Sel } from "./machine.ts";
import type { Plain } from "./plain.ts";

/** Selectors good and bad: with wrong RPL, beyond the limit, of the LDT, of system descriptors. */
const SELECTORS: readonly number[] = [
  0,
  3,
  ...Object.values(Sel).flatMap((selector) => [selector, selector | 3]),
  Sel.DATA | 1,
  0x04,
  0x0f,
  0x17,
  0x14,
  0x1f,
  0x24,
  0x300,
  0xfffb,
];

/** MSRs of segments and system calls, and one that there is not. */
const SYSENTER_CS = 0x174;
const MSRS = [0xc000_0100, 0xc000_0101, 0xc000_0102, 0xc000_0084, SYSENTER_CS, 0x1234];
const EFER = 0xc000_0080;

/** Options of {@linkcode System}. */
export interface SystemChoice {
  readonly long: boolean;
  /** Only what AMD's and Intel's processors do alike. */
  readonly neutral: boolean;
  /** Whether steps and debug registers are among it. */
  readonly debug: boolean;
}

/** Emits them. */
export class System {
  readonly #random: Random;
  readonly #out: Assembler;
  readonly #plain: Plain;
  readonly #handlers: Handlers;
  readonly #choice: SystemChoice;

  constructor(
    random: Random,
    out: Assembler,
    plain: Plain,
    handlers: Handlers,
    choice: SystemChoice,
  ) {
    this.#random = random;
    this.#out = out;
    this.#plain = plain;
    this.#handlers = handlers;
    this.#choice = choice;
  }

  /** One of them. The data segment is good before it, and need not be behind it. */
  any(context: Context, dataBase: number): void {
    const n = this.#random.below(20);
    if (n < 4) return this.#segments(context);
    if (n < 6) return this.#descriptors();
    if (n < 8) return this.#control();
    if (n < 10) return this.#farCall(context);
    if (n < 13) return this.#page(context, dataBase);
    if (n < 15) return this.#faults();
    if (n < 16) return this.#ports();
    if (n < 17) return this.#msrs();
    if (n < 18) return this.#privileged();
    if (n < 19) return this.#flags();
    this.#returningInterrupt();
  }

  #selector(): void {
    const out = this.#out;
    out.operandSize(16);
    out.put(0xb8);
    out.put16(this.#random.pick(SELECTORS));
  }

  /** Loads of segment registers, and uses of them. */
  #segments(context: Context): void {
    const random = this.#random;
    const out = this.#out;
    const segment = random.pick([0, 2, 3, 4, 5, 3, 0]);
    switch (random.below(5)) {
      case 0:
      case 1:
        this.#selector();
        out.put(0x8e, 0xc0 | segment << 3);
        break;
      case 2: { // POP of a segment register
        this.#selector();
        out.put(0x50);
        const pops: readonly (readonly number[])[] = out.width === 64
          ? [[0x0f, 0xa1], [0x0f, 0xa9]]
          : [[0x0f, 0xa1], [0x0f, 0xa9], [0x1f], [0x07], [0x17]];
        out.put(...random.pick(pops));
        break;
      }
      case 3: // LES, LDS, LSS, LFS, LGS
        out.store(Data.POINTER, random.below(0x1_0000));
        out.store(Data.POINTER + 4, random.pick(SELECTORS));
        out.op({
          size: 32,
          opcode: random.pick(
            out.width === 64
              ? [[0x0f, 0xb2], [0x0f, 0xb4], [0x0f, 0xb5]]
              : [[0xc4], [0xc5], [0x0f, 0xb2], [0x0f, 0xb4], [0x0f, 0xb5]],
          ),
          reg: 2,
          rm: { disp: Data.POINTER },
        });
        break;
      default: // MOV from one, PUSH of FS
        out.op({ size: 32, opcode: [0x8c], reg: segment, rm: { reg: 0 } });
        out.put(0x0f, 0xa0, 0x58);
    }
    // A use, by another prefix than the default one.
    if (random.below(2) === 0 && !context.paragraphs) {
      out.put(random.pick([0x26, 0x64, 0x65, 0x3e]));
      out.op({ size: 32, opcode: [random.pick([0x8b, 0x89])], reg: 2, rm: this.#plain.memory() });
    }
  }

  /** LAR, LSL, VERR, VERW, ARPL, and stores of the table registers. */
  #descriptors(): void {
    const random = this.#random;
    const out = this.#out;
    this.#selector();
    const size = random.pick([16, 32] as const);
    switch (random.below(7)) {
      case 0:
        return out.op({ size, opcode: [0x0f, 0x02], reg: 2, rm: { reg: 0 } });
      case 1:
        return out.op({ size, opcode: [0x0f, 0x03], reg: 2, rm: { reg: 0 } });
      case 2:
      case 3:
        return out.op({
          opcode: [0x0f, 0x00],
          reg: random.pick([4, 5]),
          rm: { reg: 0 },
        });
      case 4:
        if (out.width === 64) return out.op({ opcode: [0x0f, 0x00], reg: 4, rm: { reg: 0 } });
        return out.op({ opcode: [0x63], reg: 2, rm: { reg: 0 } });
      case 5: // SLDT, STR
        return out.op({ size, opcode: [0x0f, 0x00], reg: random.below(2), rm: { reg: 2 } });
      default: // SGDT, SIDT
        return out.op({ opcode: [0x0f, 0x01], reg: random.below(2), rm: this.#plain.memory() });
    }
  }

  /** Control registers, table registers. */
  #control(): void {
    const random = this.#random;
    const out = this.#out;
    switch (random.below(8)) {
      case 0: // MOV from a control register
        return out.put(0x0f, 0x20, 0xc2 | random.pick([0, 2, 3, 4]) << 3);
      case 1: // MOV to CR3 of what it was
        return out.put(0x0f, 0x20, 0xda, 0x0f, 0x22, 0xda);
      case 2: { // CR0.TS, an x87 instruction, CLTS
        out.put(0x0f, 0x20, 0xc2);
        out.op({ size: 32, opcode: [0x83], reg: 1, rm: { reg: 2 }, imm: [8] });
        out.put(0x0f, 0x22, 0xc2, ...random.pick([[0xd9, 0xe8], [0x0f, 0x57, 0xc0]]));
        return out.put(0x0f, 0x06);
      }
      case 3: // SMSW
        return out.op({ size: 32, opcode: [0x0f, 0x01], reg: 4, rm: { reg: 2 } });
      case 4: // LMSW of what it was
        return out.put(0x0f, 0x01, 0xe2, 0x0f, 0x01, 0xf2);
      case 5: // LLDT
        this.#selector();
        return out.put(0x0f, 0x00, 0xd0);
      case 6: // LTR
        this.#selector();
        return out.put(0x0f, 0x00, 0xd8);
      default: // INVLPG
        return out.op({ opcode: [0x0f, 0x01], reg: 7, rm: this.#plain.memory() });
    }
  }

  /** Far calls of code that returns, and of selectors that may not be called. */
  #farCall(context: Context): void {
    const random = this.#random;
    const out = this.#out;
    const { long } = this.#choice;
    if (context.paragraphs) {
      out.put(0x9a);
      out.put16(this.#handlers.farReturns[32] - At.CODE);
      return out.put16(At.CODE >> 4);
    }
    const good = random.below(2) === 0;
    const task = !long && random.below(6) === 0;
    const selector = task ? Sel.OTHER_TSS : good ? context.cs : random.pick(SELECTORS);
    const target = this.#handlers.farReturns[32] - context.codeBase;
    if (out.width !== 64) {
      out.put(0x9a);
      if (out.width === 16) out.put16(target);
      else out.put32(target);
      return out.put16(selector);
    }
    out.store(Data.POINTER, target);
    out.store(Data.POINTER + 4, selector);
    out.op({ size: 32, opcode: [0xff], reg: 3, rm: { disp: Data.POINTER } });
  }

  /** Accesses to pages that are not there, or not for everybody; addresses that are not canonical. */
  #page(context: Context, dataBase: number): void {
    const random = this.#random;
    const out = this.#out;
    const page = random.pick([Data.SUPERVISOR, Data.READ_ONLY, Data.ABSENT]);
    const near = random.pick([0, 8, 0xffc, 0x1000 - 2, -2, 0x7f0]);
    switch (random.below(6)) {
      case 0:
      case 1:
        return out.op({
          size: random.pick([16, 32]),
          opcode: [random.pick([0x8b, 0x89, 0x01, 0x31])],
          reg: this.#plain.register(),
          rm: { disp: page + near },
        });
      case 2: // FLD, FSTP, MOVUPS over a page's end
        return out.op({
          opcode: random.pick([[0xdd], [0xd9], [0x0f, 0x11], [0x0f, 0x10]]),
          reg: 0,
          rm: { disp: page - random.below(20) },
        });
      case 3: // a string that runs into it
        out.op({ size: 32, opcode: [0x8d], reg: 7, rm: { disp: page - random.below(24) } });
        out.op({ size: 32, opcode: [0x8d], reg: 6, rm: { disp: random.below(0x1000) } });
        out.load(1, 4 + random.below(40));
        out.put(0xf3);
        out.wideAddress();
        return out.put(random.pick([0xa4, 0xa5, 0xaa, 0xab]));
      case 4: // a jump to data that is not code
        if (out.width === 16) return out.put(0x0f, 0x0b);
        out.load(0, At.DATA + random.pick([Data.NO_EXECUTE, Data.ABSENT, Data.SUPERVISOR + 0x800]));
        return out.put(0xff, random.pick([0xe0, 0xd0]));
      default:
        if (out.width === 64) { // beyond what is canonical: a shift, and a use
          out.put(0x48, 0xc7, 0xc0);
          out.put32(random.below(0x7fff_ffff));
          out.put(0x48, 0xc1, 0xe0, 32);
          return out.put(...random.pick([[0x8b, 0x10], [0x89, 0x10], [0xff, 0xe0], [0xff, 0x30]]));
        }
        // Beyond the limit of a small segment, or far away in a large one.
        return out.op({
          size: 32,
          opcode: [random.pick([0x8b, 0x89])],
          reg: 2,
          rm: { disp: dataBase === 0 && !context.paragraphs ? 0x7000_0000 : 0xfffe },
        });
    }
  }

  #faults(): void {
    const random = this.#random;
    const out = this.#out;
    switch (random.below(7)) {
      case 0: // DIV, IDIV
        return out.op({
          size: random.pick([16, 32]),
          opcode: [0xf7],
          reg: random.pick([6, 7]),
          rm: { reg: this.#plain.register() },
        });
      case 1:
        return out.put(...random.pick([[0x0f, 0x0b], [0x0f, 0xff, 0xc0], [0x0f, 0xb9, 0xc0]]));
      case 2: // LOCK where it may not be, too long an instruction
        return out.put(
          ...random.pick([
            [0xf0, 0x90],
            [0xf0, 0x01, 0xc0],
            Array.from({ length: 16 }, () => 0x66),
          ]),
        );
      case 3: // INT3, INT1
        return out.put(0xcc);
      case 4: // BOUND, INTO
        if (out.width === 64) return out.put(0xcc);
        if (random.below(2) === 0) return out.put(0xce);
        return out.op({ size: 32, opcode: [0x62], reg: 2, rm: this.#plain.memory() });
      case 5: // an unaligned access of those that mind
        return out.op({ opcode: [0x0f, 0x28], reg: 1, rm: { disp: 1 + random.below(0x100) } });
      default: // AAM by 0
        return out.width === 64 ? out.put(0x06) : out.put(0xd4, 0);
    }
  }

  /** IN, OUT, INS, OUTS of ports where nothing is. */
  #ports(): void {
    const random = this.#random;
    const out = this.#out;
    const port = 0xc0 + random.below(16);
    switch (random.below(4)) {
      case 0:
        return out.put(random.pick([0xe4, 0xe5]), port);
      case 1:
        return out.put(random.pick([0xe6, 0xe7]), port);
      case 2:
        out.load(2, port);
        return out.put(random.pick([0xec, 0xed, 0xee, 0xef]));
      default:
        out.load(2, port);
        out.op({ size: 32, opcode: [0x8d], reg: 7, rm: this.#plain.memory() });
        out.op({ size: 32, opcode: [0x8d], reg: 6, rm: this.#plain.memory() });
        out.load(1, random.below(8));
        if (random.below(2) === 0) out.put(0xf3);
        out.wideAddress();
        return out.put(random.pick([0x6c, 0x6d, 0x6e, 0x6f]));
    }
  }

  #msrs(): void {
    const random = this.#random;
    const out = this.#out;
    const index = random.pick(MSRS);
    out.load(1, index);
    switch (random.below(3)) {
      case 0:
        return out.put(0x0f, 0x32);
      case 1: {
        out.load(0, random.below(0x1_0000));
        const high = random.pick([0, 0, 0, 0x8000_0000]);
        // Intel's processors drop the upper half of SYSENTER_CS, AMD's keep it.
        out.load(2, this.#choice.neutral && index === SYSENTER_CS ? 0 : high);
        return out.put(0x0f, 0x30);
      }
      default: // EFER as it was
        out.load(1, EFER);
        return out.put(0x0f, 0x32, 0x0f, 0x30);
    }
  }

  #privileged(): void {
    const random = this.#random;
    const out = this.#out;
    const choices: readonly (readonly number[])[] = [
      [0xfa], // CLI
      [0x0f, 0x01, 0xd0], // XGETBV
      [0x0f, 0x09], // WBINVD
      [0x0f, 0x06], // CLTS
      ...(out.width === 64 ? [[0x0f, 0x01, 0xf8, 0x0f, 0x01, 0xf8], [0xf3, 0x0f, 0xae, 0xc0]] : []),
      ...(this.#choice.debug ? [[0x0f, 0x21, 0xc2], [0x0f, 0x21, 0xf2], [0x0f, 0x21, 0xfa]] : []),
    ];
    if (random.below(4) === 0) out.load(1, 0);
    out.put(...random.pick(choices));
  }

  /** POPF of other flags. Steps are for programs that nobody else steps through. */
  #flags(): void {
    const random = this.#random;
    const out = this.#out;
    const step = this.#choice.debug && random.below(2) === 0 ? 0x100 : 0;
    const iopl = random.pick([0, 0x1000, 0x3000]);
    const flags = 2 | step | iopl | random.pick([0, 0x400, 0x4_0000 * Number(out.width !== 16)]);
    out.operandSize(out.width === 16 ? 16 : 32);
    out.put(0x68);
    if (out.width === 16) out.put16(flags);
    else out.put32(flags);
    out.put(0x9d);
    if (this.#choice.debug) this.#plain.string(true);
    out.put(0xfc);
  }

  /** INT n whose handler returns: allowed, of a gate for ring 0, of none, beyond the table. */
  #returningInterrupt(): void {
    this.#out.put(0xcd, this.#random.pick([RETURNING, RETURNING + 1, 14, 0x90, 0xff]));
  }
}
