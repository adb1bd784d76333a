/**
 * Random programs: sections in all modes and both rings, gone through in rounds, with faults on the way.
 *
 * A section loads its segments and a pointer to the data, says where a fault is to lead, and plays: plain
 * instructions, loops, calls, instructions that it overwrites, such as concern the system. Then it goes to
 * the next section, one way or another. Whatever faults goes on behind the piece that did.
 *
 * @module
 */
import type { SystemState } from "../../core/mod.ts";
import { Random } from "../silicon/programs.ts";
import { Assembler } from "./assembler.ts";
import { type Context, CONTEXTS, KERNEL16, KERNEL32, KERNEL64, REAL } from "./context.ts";
import { type Handlers, writeHandlers } from "./handlers.ts";
import { At, Data, FRAME_BYTES, FRAMES, Machine, Sel } from "./machine.ts";
import { type Choice, Plain } from "./plain.ts";
import { System } from "./system.ts";
import { type Target, Transitions } from "./transitions.ts";

/** What kind of program is wanted; what is not said is left to the seed. */
export interface ProgramOptions {
  /** Only what AMD's and Intel's processors do alike. */
  readonly neutral?: boolean;
  /** Whether it starts in long mode. */
  readonly long?: boolean;
  /** x87, SSE and AVX. */
  readonly vectors?: boolean;
  /** Instructions that leave flags undefined. */
  readonly undefinedFlags?: boolean;
  /** Single steps, debug registers. */
  readonly debug?: boolean;
  /** Whether protected mode without long mode is paged. */
  readonly paging?: boolean;
  /** Rounds through all sections. */
  readonly rounds?: number;
}

/** A program: physical memory from 0 to `At.END`, and the registers it starts with. */
export interface Program {
  readonly memory: Uint8Array<ArrayBuffer>;
  readonly system: SystemState;
  readonly registers: readonly bigint[];
  readonly rip: bigint;
  /** Whether AMD's and Intel's processors do the same. */
  readonly neutral: boolean;
  /** Where sections are: for reports. */
  readonly sections: readonly { readonly at: number; readonly name: string }[];
}

interface Section extends Target {
  readonly entered: (entry: number) => void;
}

const PG = 0x8000_0000;
const PE = 1;
const ARITHMETIC = 0x8d5;

class Writer {
  readonly #random: Random;
  readonly #long: boolean;
  readonly #machine: Machine;
  readonly #out = new Assembler();
  readonly #plain: Plain;
  readonly #system: System;
  readonly #transitions: Transitions;
  readonly #handlers: Handlers;
  readonly #options: Required<ProgramOptions>;
  readonly #sections: Section[] = [];
  readonly #places: { at: number; name: string }[] = [];
  #frames = 0;

  constructor(random: Random, options: Required<ProgramOptions>) {
    this.#random = random;
    this.#options = options;
    const { long, neutral } = options;
    this.#long = long;
    const out = this.#out;
    this.#machine = new Machine(long);
    this.#handlers = writeHandlers(out, this.#machine);
    this.#plain = new Plain(random, out);
    this.#system = new System(random, out, this.#plain, this.#handlers, options);
    this.#transitions = new Transitions(random, out, this.#machine, neutral);
  }

  #flags(context: Context): number {
    const random = this.#random;
    const arithmetic = random.below(0x1000) & ARITHMETIC;
    const iopl = random.pick([0, 0, 0x3000]);
    return 2 | arithmetic | iopl | (context.virtual ? 0x2_0000 : 0);
  }

  /** A frame for IRET, to be filled in. */
  #frame(): number {
    if (this.#frames === FRAMES) throw new RangeError("the program has too many frames");
    return At.FRAMES + FRAME_BYTES * this.#frames++;
  }

  #fill(frame: number, context: Context, flags: number, entry: number): void {
    const { view } = this.#machine;
    const fields = [entry - context.codeBase, context.cs, flags, context.stack, context.ss];
    if (context === REAL) {
      for (const k of [0, 1, 2]) view.setUint16(frame + 2 * k, fields[k]!, true);
      return;
    }
    if (context.virtual) { for (let k = 0; k < 4; k++) fields.push(k < 2 ? At.DATA >> 4 : 0); }
    for (const [k, value] of fields.entries()) {
      if (this.#long) view.setBigUint64(frame + 8 * k, BigInt(value), true);
      else view.setUint32(frame + 4 * k, value, true);
    }
  }

  #section(context: Context): Section {
    const uses: ((entry: number) => void)[] = [];
    let known: number | undefined;
    const flags = this.#flags(context);
    const frame = this.#frame();
    uses.push((entry) => this.#fill(frame, context, flags, entry));
    return {
      context,
      frame,
      flags,
      located: (use) => known === undefined ? void uses.push(use) : use(known),
      entered: (entry) => {
        known = entry;
        for (const use of uses) use(entry);
      },
    };
  }

  /** Segments, pointer, stack, and where faults lead. Gives the base of the data segment. */
  #prologue(context: Context, recover: number): number {
    const out = this.#out;
    out.width = context.width;
    const [selector, base] = this.#random.pick(context.data);
    out.loadSegment(3, selector);
    out.loadSegment(0, selector);
    out.loadSegment(2, context.ss);
    out.load(4, context.stack);
    out.load(3, At.DATA - base);
    out.store(Data.RECOVER, recover);
    return base;
  }

  /** Loops with plain instructions, branches and calls. */
  #loop(choice: Choice, base: number): void {
    const random = this.#random;
    const out = this.#out;
    const plain = this.#plain;
    const over = out.forward(out.width === 16 ? [0xe9] : [0xe9]);
    const subroutine = out.here;
    plain.some(3, choice);
    out.put(0xc3);
    over();
    out.load(1, 2 + random.below(12));
    const top = out.here;
    plain.some(4, choice);
    const skip = out.forward([0x0f, 0x80 | random.below(16)]);
    plain.some(2, choice);
    if (random.below(2) === 0) out.near([0xe8], subroutine);
    skip();
    if (base === 0 && out.width !== 16 && random.below(3) === 0) this.#patch();
    plain.some(2, choice);
    out.op({ size: 32, opcode: [0x83], reg: 5, rm: { reg: 1 }, imm: [1] });
    out.near([0x0f, 0x85], top);
  }

  /** AL goes into the immediate of the instruction behind. */
  #patch(): void {
    const out = this.#out;
    if (out.width === 64) out.put(0x88, 0x05, 1, 0, 0, 0);
    else {
      out.put(0x88, 0x05);
      out.put32(out.here + 5);
    }
    out.put(0x05, 1, 2, 3, 0);
  }

  #play(context: Context, next: number, start: number): void {
    const random = this.#random;
    const out = this.#out;
    const { vectors, undefinedFlags } = this.#options;
    const choice: Choice = { vectors, undefinedFlags, vex: vectors && !context.paragraphs };
    let base = start;
    for (let pieces = 1 + random.below(4); pieces > 0; pieces--) {
      switch (random.below(4)) {
        case 0:
          this.#plain.some(8, choice);
          break;
        case 1:
          this.#loop(choice, base);
          break;
        default: {
          const resume = this.#frame();
          out.store(Data.RECOVER, resume);
          this.#system.any(context, base);
          this.#fill(resume, context, this.#flags(context), out.here);
          base = this.#prologue(context, next);
        }
      }
    }
  }

  /** From 16-bit code of ring 0 to real mode, its section, and back. */
  #real(next: number): void {
    const out = this.#out;
    // What faults in real mode goes on where it is left.
    const leave = this.#frame();
    this.#prologue(KERNEL16, next);
    out.loadSegment(3, Sel.DATA16);
    out.load(3, 0);
    out.op({ size: 32, opcode: [0x0f, 0x01], reg: 3, rm: { disp: Data.IVTR } });
    this.#setCr0(0, this.#modes());
    out.put(0xea);
    out.put16(out.at + 4);
    out.put16(At.CODE >> 4);
    const base = this.#prologue(REAL, leave);
    this.#play(REAL, leave, base);
    this.#fill(leave, REAL, 2, out.here);
    this.#prologue(REAL, leave);
    this.#setCr0(this.#modes(), 0);
    out.put(0xea);
    out.put16(out.at + 4);
    out.put16(Sel.CODE16);
    this.#prologue(KERNEL16, next);
    out.loadSegment(3, Sel.DATA16);
    out.load(3, 0);
    out.op({ size: 32, opcode: [0x0f, 0x01], reg: 3, rm: { disp: Data.IDTR } });
    this.#prologue(KERNEL16, next);
  }

  /** CR0 bits that protected mode has on, and real mode off. */
  #modes(): number {
    return this.#options.paging ? PG | PE : PE;
  }

  /** `mov eax, cr0`, bits set and cleared, `mov cr0, eax`. */
  #setCr0(set: number, clear: number): void {
    const out = this.#out;
    out.put(0x0f, 0x20, 0xc0);
    out.operandSize(32);
    out.put(set === 0 ? 0x25 : 0x0d);
    out.put32(set === 0 ? ~clear : set);
    out.put(0x0f, 0x22, 0xc0);
  }

  /** From compatibility mode's ring 0 to protected mode without long mode, and back. */
  #withoutLongMode(next: number): void {
    const out = this.#out;
    this.#prologue(KERNEL32, next);
    this.#setCr0(0, PG);
    this.#setEfer(0x25, ~0x100);
    const paging = this.#random.below(2) === 0 && this.#options.paging;
    this.#setCr3(At.TABLES);
    if (paging) {
      this.#setCr4(0x25, ~0x20);
      this.#setCr0(PG, 0);
    }
    out.op({ size: 32, opcode: [0x0f, 0x01], reg: 3, rm: { disp: Data.IDTR } });
    // Frames of this mode are of 4 bytes a field.
    const leave = this.#frame();
    const base = this.#prologue(KERNEL32, leave);
    const { vectors, undefinedFlags } = this.#options;
    this.#loop({ vectors, undefinedFlags, vex: vectors }, base);
    if (this.#random.below(2) === 0) out.put(0x0f, 0x0b);
    const { view } = this.#machine;
    for (const [k, value] of [out.here, Sel.CODE32, 2].entries()) {
      view.setUint32(leave + 4 * k, value, true);
    }
    this.#prologue(KERNEL32, leave);
    out.loadSegment(3, Sel.DATA);
    out.load(3, At.DATA);
    out.op({ size: 32, opcode: [0x0f, 0x01], reg: 3, rm: { disp: Data.LONG_IDTR } });
    this.#setCr0(0, PG);
    if (paging) this.#setCr4(0x0d, 0x20);
    this.#setEfer(0x0d, 0x100);
    this.#setCr3(At.LONG_TABLES);
    this.#setCr0(PG, 0);
    this.#prologue(KERNEL32, next);
  }

  /** RDMSR of EFER, `opcode eax, imm32`, WRMSR. */
  #setEfer(opcode: number, imm: number): void {
    const out = this.#out;
    out.load(1, 0xc000_0080);
    out.put(0x0f, 0x32, opcode);
    out.put32(imm);
    out.put(0x0f, 0x30);
  }

  #setCr3(address: number): void {
    this.#out.load(0, address);
    this.#out.put(0x0f, 0x22, 0xd8);
  }

  #setCr4(opcode: number, imm: number): void {
    const out = this.#out;
    out.put(0x0f, 0x20, 0xe0, opcode);
    out.put32(imm);
    out.put(0x0f, 0x22, 0xe0);
  }

  #body(section: Section, next: Section): void {
    const out = this.#out;
    const { context } = section;
    const entry = context === REAL ? KERNEL16 : context;
    out.width = entry.width;
    section.entered(out.here);
    this.#places.push({ at: out.here, name: context.name });
    if (context === REAL) this.#real(next.frame);
    else {
      const base = this.#prologue(context, next.frame);
      this.#play(context, next.frame, base);
      if (context === KERNEL32 && this.#long && this.#random.below(3) === 0) {
        this.#withoutLongMode(next.frame);
      }
    }
    this.#transitions.emit(entry, next);
  }

  /** Counts rounds, and in the end stores the vector registers and halts. */
  #end(section: Section, first: Section): void {
    const out = this.#out;
    const { context } = section;
    out.width = context.width;
    section.entered(out.here);
    this.#places.push({ at: out.here, name: "end" });
    this.#prologue(context, first.frame);
    // dec dword [ebx + ROUNDS]
    out.op({ size: 32, opcode: [0xff], reg: 1, rm: { disp: Data.ROUNDS } });
    const done = out.forward([0x0f, 0x84]);
    this.#transitions.emit(context, first);
    done();
    out.put(0x0f, 0x06);
    if (this.#options.vectors) {
      out.op({ opcode: [0x0f, 0xae], reg: 0, rm: { disp: Data.FX_END } });
      for (let n = 0; n < (context.width === 64 ? 16 : 8); n++) {
        // VMOVUPS [ebx + …], YMMn
        out.put(0xc5, n < 8 ? 0xfc : 0x7c, 0x11, 0x83 | (n & 7) << 3);
        out.put32(Data.FX_END + 512 + 32 * n);
      }
    }
    out.put(0xfa, 0xf4);
  }

  write(): Program {
    const random = this.#random;
    const out = this.#out;
    const contexts = CONTEXTS[this.#long ? "long" : "legacy"];
    const home = this.#long ? KERNEL64 : KERNEL32;
    for (let k = 2 + random.below(5); k > 0; k--) {
      const context = random.pick(contexts);
      const section = this.#section(context === REAL ? KERNEL16 : context);
      this.#sections.push(context === REAL ? { ...section, context: REAL } : section);
    }
    const [first] = this.#sections;
    const end = this.#section(home);
    for (const [k, section] of this.#sections.entries()) {
      this.#body(section, this.#asEntered(this.#sections[k + 1] ?? end));
    }
    this.#end(end, this.#asEntered(first!));
    // The start: x87 and SSE as the data have them, AVX's halves cleared.
    out.width = home.width;
    const rip = BigInt(out.here);
    this.#prologue(home, first!.frame);
    if (this.#options.vectors) {
      out.put(0xdb, 0xe3);
      out.op({ opcode: [0x0f, 0xae], reg: 1, rm: { disp: Data.FX_START } });
      out.put(0xc5, 0xf8, 0x77);
    }
    this.#transitions.emit(home, this.#asEntered(first!));
    return this.#finish(rip);
  }

  /** Real mode's sections are entered in 16-bit code of ring 0. */
  #asEntered(section: Section): Section {
    return section.context === REAL ? { ...section, context: KERNEL16 } : section;
  }

  #finish(rip: bigint): Program {
    const random = this.#random;
    const { bytes, view } = this.#machine;
    bytes.set(this.#out.bytes, At.CODE);
    for (let k = 0; k < Data.PLAY_BYTES; k++) bytes[At.DATA + k] = random.below(256);
    // UD2 where jumps to data go; the absent page has nothing to be compared.
    for (const page of [Data.SUPERVISOR, Data.NO_EXECUTE]) {
      for (let k = 0; k < 0x1000; k += 2) view.setUint16(At.DATA + page + k, 0x0b0f, true);
    }
    for (let k = 32; k < 416; k++) bytes[At.DATA + Data.FX_START + k] = random.below(256);
    view.setUint32(At.DATA + Data.ROUNDS, this.#options.rounds, true);
    const system = this.#machine.system();
    const stub = BigInt(this.#handlers.dispatch);
    if (!this.#long && !this.#options.paging) system.cr0 &= ~BigInt(PG);
    system.lstar = stub;
    system.cstar = stub;
    system.star |= stub;
    system.sysenterEip = stub;
    const registers = Array.from({ length: 16 }, (_, n) => {
      const low = BigInt(random.below(2 ** 32));
      if (n === 4) return BigInt(At.KERNEL_STACK);
      return this.#long ? BigInt(random.below(2 ** 32)) << 32n | low : n < 8 ? low : 0n;
    });
    const { neutral } = this.#options;
    return { memory: bytes, system, registers, rip, neutral, sections: this.#places };
  }
}

/** Makes the program of a seed. */
export function makeProgram(seed: number, options: ProgramOptions = {}): Program {
  const random = new Random(seed);
  const defaults: Required<ProgramOptions> = {
    neutral: random.below(2) === 0,
    long: random.below(3) !== 0,
    vectors: true,
    undefinedFlags: true,
    debug: true,
    paging: true,
    rounds: 2 + random.below(5),
  };
  return new Writer(random, { ...defaults, ...options }).write();
}
