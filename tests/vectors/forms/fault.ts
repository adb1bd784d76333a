/**
 * Programs that end in an exception: each function here appends an instruction that raises one, with
 * the registers and memory of just before to be found in the outcome.
 *
 * @module
 */

import { chooseMemory, type MemoryFault, noncanonical } from "../addressing.ts";
import { type Builder, RAX, RBP, RCX } from "../builder.ts";
import { encode, type Instruction, type Memory } from "../encode.ts";
import { effect, STATUS, ZF } from "../flags.ts";
import { RSP } from "../initial.ts";
import {
  CODE_BASE,
  CODE_SIZE,
  LOW_BASE,
  LOW_SIZE,
  type Mode,
  SCRATCH_BASE,
  SCRATCH_SIZE,
} from "../layout.ts";
import { type Form, noncanonicalVector } from "../rows.ts";
import { adjustBase, bound, interruptOverflow } from "./legacy.ts";
import { divide } from "./multiply.ts";
import { paddedAdd } from "./nop.ts";
import { faultingString } from "./string.ts";

/** One way for a program to end in an exception. */
export interface Fault {
  /** What the coverage table calls it. */
  readonly name: string;
  /** The processor modes it exists in. */
  readonly modes: readonly Mode[];
  /** How often it is chosen, against the others. */
  readonly weight: number;
  /** The program must lie at the end of the code pages. */
  readonly atEnd?: true;
  /** Appends it; false when what is certain here leaves no way. */
  readonly emit: (b: Builder) => boolean;
}

const BOTH: readonly Mode[] = [64, 32];

function divisionFault(outcome: "zero" | "overflow"): Fault["emit"] {
  return (b) => {
    const size = b.rng.pick(b.mode === 64 ? [8, 16, 32, 64] as const : [8, 16, 32] as const);
    return divide(b, b.rng.chance(1, 2), size, b.rng.chance(1, 3), outcome);
  };
}

/** Opcodes that are undefined in both modes, or misuse LOCK. */
const INVALID: readonly (readonly number[])[] = [
  [0x0f, 0x0b], // UD2
  [0x0f, 0xb9, 0xc1], // UD1
  [0x0f, 0xff, 0xc1], // UD0
  [0x0f, 0x04],
  [0x0f, 0x0a],
  [0x0f, 0x0c],
  [0xf0, 0x01, 0xc8], // LOCK ADD with a register destination
  [0xf0, 0x03, 0x03], // LOCK ADD of memory to a register
  [0xf0, 0x39, 0x03], // LOCK CMP
  [0xf0, 0x89, 0x03], // LOCK MOV
  [0xf0, 0x85, 0x03], // LOCK TEST
  [0xf0, 0x90], // LOCK NOP
  [0xf0, 0xd1, 0x03], // LOCK ROL
  [0xf0, 0x0f, 0xa3, 0x03], // LOCK BT
  [0xf0, 0xa4], // LOCK MOVS
  [0xfe, 0xd0], // group 4 /2
  [0xfe, 0xf8], // group 4 /7
  [0xff, 0xf8], // group 5 /7
  [0xff, 0xd8], // far CALL of a register
  [0xff, 0xe8], // far JMP of a register
  [0xc6, 0xc8, 0x00], // group 11 /1
  [0xc7, 0xd0, 0, 0, 0, 0], // group 11 /2
  [0x0f, 0xba, 0xc0, 0x00], // group 8 /0
  [0x0f, 0xba, 0xd8, 0x00], // group 8 /3
  [0x8d, 0xc1], // LEA of a register
  [0x8e, 0xc8], // MOV to CS
  [0x8e, 0xf0], // MOV to a sixth segment register
  [0x8c, 0xf8], // MOV from an eighth segment register
  [0x0f, 0xc7, 0xc8], // CMPXCHG8B of a register
  [0x0f, 0xc3, 0xc1], // MOVNTI to a register
];

/** One-byte opcodes that 64-bit mode made invalid; D5 is left out, for APX gives it a meaning. */
const INVALID_64: readonly number[] = [
  0x06,
  0x07,
  0x0e,
  0x16,
  0x17,
  0x1e,
  0x1f,
  0x27,
  0x2f,
  0x37,
  0x3f,
  0x60,
  0x61,
  0x82,
  0x9a,
  0xce,
  0xd4,
  0xd6,
  0xea,
];

function invalidOpcode(b: Builder): boolean {
  const { rng } = b;
  const bytes = b.mode === 64 && rng.chance(1, 3)
    ? [rng.pick(INVALID_64), rng.below(256), 0, 0, 0, 0]
    : rng.pick(INVALID);
  b.append("#UD", bytes, { vectors: [6] });
  return true;
}

function tooLong(b: Builder): boolean {
  b.append("#GP length", paddedAdd(b, 0, 3, 16), { vectors: [13], flags: effect(0, STATUS) });
  return true;
}

function misaligned(b: Builder): boolean {
  const choice = chooseMemory(b, { size: 16, access: "modify", rex: true, still: true, align: 16 });
  if (choice === undefined || choice.memory.kind !== "indexed") return false;
  const { memory } = choice;
  const disp = memory.disp + 1 + b.rng.below(15);
  if (disp > 0x7fff_ffff) return false;
  b.emit("#GP CMPXCHG16B", {
    opcode: [0x0f, 0xc7],
    digit: 1,
    size: 64,
    rm: { ...memory, disp, dispBytes: 4 },
    rex: true,
  }, { vectors: [13], flags: effect(0, ZF), plain: true });
  return true;
}

/** Instructions whose memory operand no table describes. */
const OTHERS: readonly (readonly [Instruction, bytes: (mode: Mode) => number, store: boolean])[] = [
  [{ opcode: [0xff], digit: 6, default64: true }, (mode) => mode / 8, false], // PUSH
  [{ opcode: [0x8f], digit: 0, default64: true }, (mode) => mode / 8, true], // POP
  [{ opcode: [0xff], digit: 4, default64: true }, (mode) => mode / 8, false], // JMP
  [{ opcode: [0xff], digit: 2, default64: true }, (mode) => mode / 8, false], // CALL
  [{ opcode: [0x0f, 0xc7], digit: 1 }, () => 8, true], // CMPXCHG8B
  [{ opcode: [0xf7], digit: 6, size: 32 }, () => 4, false], // DIV
  [{ opcode: [0xf7], digit: 7, size: 32 }, () => 4, false], // IDIV
  [{ opcode: [0x0f, 0xa4], size: 32, reg: RCX, imm: 5n, immBytes: 1 }, () => 4, true], // SHLD
  [{ opcode: [0x0f, 0xbd], size: 32, reg: RAX }, () => 4, false], // BSR
];

function otherOperand(b: Builder, fault: MemoryFault): boolean {
  if (!b.ensureStack()) return false;
  const [ins, bytes, stores] = b.rng.pick(OTHERS);
  const choice = chooseMemory(b, {
    size: bytes(b.mode),
    access: stores ? "modify" : "read",
    rex: false,
    still: true,
    fault,
  });
  if (choice === undefined) return false;
  const vector = fault === "noncanonical" ? noncanonicalVector(choice.memory) : 14;
  const plain = fault === "noncanonical";
  b.emit("#PF operand", { ...ins, rm: choice.memory }, {
    vectors: [vector],
    stores,
    plain,
    flags: effect(0, 0, STATUS),
    writes: 1 << RAX,
  });
  return true;
}

function operandFault(forms: readonly Form[], fault: MemoryFault): Fault["emit"] {
  return (b) => {
    if (b.rng.chance(1, 5)) return otherOperand(b, fault);
    const form = b.rng.pick(forms);
    if (!form.modes.includes(b.mode) || form.emitFault === undefined) return false;
    return form.emitFault(b, fault);
  };
}

type StackOperation = (b: Builder) => readonly [Instruction, slot: number, grows: boolean];

const PUSHES_POPS: readonly StackOperation[] = [
  (b) => [{ opcode: [0x50], opcodeReg: b.register(false) }, b.mode / 8, true],
  (b) => [{ opcode: [0x6a], imm: 1n, immBytes: 1 }, b.mode / 8, true],
  (b) => [{ opcode: [0x50], opcodeReg: b.register(false), size: 16 }, 2, true],
  (b) => [{ opcode: [0xe8], imm: 0x20n, immBytes: 4 }, b.mode / 8, true],
  (b) => [{ opcode: [0xc8], imm: 0x10n, immBytes: 3 }, b.mode / 8, true],
  (b) => [{ opcode: [0x9c] }, b.mode / 8, true],
  (b) => [{ opcode: [0x58], opcodeReg: b.register(false) }, b.mode / 8, false],
  (b) => [{ opcode: [0x58], opcodeReg: b.register(false), size: 16 }, 2, false],
  (b) => [{ opcode: [0x9d] }, b.mode / 8, false],
  (b) => [{ opcode: [0xc3] }, b.mode / 8, false],
  (b) => [{ opcode: [0xc2], imm: 8n, immBytes: 2 }, b.mode / 8, false],
  (b) => [{ opcode: [0xc9] }, b.mode / 8, false],
];

/** A stack operation with RSP (or, for LEAVE, RBP) at the edge of a region or far from any. */
function stackFault(b: Builder, far: boolean): boolean {
  const { rng } = b;
  const [ins, slot, grows] = rng.pick(PUSHES_POPS)(b);
  const pointer = ins.opcode[0] === 0xc9 ? RBP : RSP;
  b.defineFlags(STATUS);
  let address: bigint;
  if (far) {
    address = noncanonical(b);
  } else if (rng.chance(1, 4)) {
    address = BigInt(SCRATCH_BASE + SCRATCH_SIZE + 0x1000 + rng.below(0x10000));
  } else if (grows) {
    address = BigInt(rng.pick([SCRATCH_BASE, LOW_BASE]) + rng.below(slot));
  } else {
    const end = rng.pick([SCRATCH_BASE + SCRATCH_SIZE, LOW_BASE + LOW_SIZE]);
    address = BigInt(end - rng.below(slot));
  }
  b.load(pointer, address);
  b.emit(`${far ? "#SS" : "#PF"} stack`, { ...ins, default64: true }, {
    vectors: [far ? 12 : 14],
    plain: true,
    flags: effect(0, 0, STATUS),
  });
  b.setKnown(RSP, undefined);
  return true;
}

/** A branch to where nothing is mapped: the fault is the fetch's, and the branch is complete. */
function fetchFault(b: Builder): boolean {
  const { rng } = b;
  if (!b.ensureStack()) return false;
  const page = rng.pick([0x20000, 0xc000, 0x9f00, 0x80000, SCRATCH_BASE - 0x100]);
  const address = page + (rng.chance(1, 2) ? 0 : rng.below(0x100));
  const kind = rng.below(5);
  const near = (opcode: number): void => {
    const length = 5;
    const imm = BigInt(address - (b.here + length));
    b.emit("#PF fetch", { opcode: [opcode], imm, immBytes: 4, default64: true }, { plain: true });
  };
  if (kind < 2) {
    near(kind === 0 ? 0xe9 : 0xe8);
  } else if (kind === 2) {
    b.emit(`PUSH imm32 (${b.mode}) [68]`, {
      opcode: [0x68],
      imm: BigInt(address),
      immBytes: 4,
      default64: true,
    });
    b.emit("#PF fetch", { opcode: [0xc3] }, { plain: true });
  } else {
    const r = b.rng.pick([0, 1, 2, 3, 5, 6, 7]);
    b.load(r, BigInt(address));
    b.emit("#PF fetch", { opcode: [0xff], digit: kind === 3 ? 4 : 2, rm: r }, { plain: true });
  }
  b.outsideUndefined = b.undefinedFlags;
  b.setKnown(RSP, undefined);
  return true;
}

/** An instruction whose last bytes are beyond the code pages. */
function fetchStraddle(b: Builder): boolean {
  const whole = encode(
    b.rng.pick<Instruction>([
      { opcode: [0x81], digit: 0, rm: 3, imm: 0x1234_5678n, immBytes: 4 },
      { opcode: [0xb8], opcodeReg: 2, imm: 0x7654_3210n, immBytes: 4, size: 32 },
      { opcode: [0x0f, 0xaf], reg: 1, rm: 2 },
      { opcode: [0x68], imm: 0x1111n, immBytes: 4 },
    ]),
    b.mode,
    b.here,
  );
  const present = 1 + b.rng.below(whole.length - 1);
  const at = CODE_BASE + CODE_SIZE - present - b.base;
  if (at < b.code.length + 5) return false;
  b.emit("JMP rel32 [E9]", {
    opcode: [0xe9],
    imm: BigInt(at - (b.code.length + 5)),
    immBytes: 4,
    default64: true,
  }, { plain: true });
  while (b.code.length < at) b.code.push(0xcc);
  b.append("#PF fetch straddle", whole.slice(0, present), { vectors: [14] });
  b.endless = true;
  return true;
}

/** A near branch to an address that is not canonical: it is the branch that faults. */
function branchFault(b: Builder): boolean {
  const { rng } = b;
  if (!b.ensureStack()) return false;
  const target = noncanonical(b);
  const r = rng.pick([0, 1, 2, 3, 5, 6, 7]);
  b.load(r, target);
  const kind = rng.below(3);
  let rm: number | Memory = r;
  const effects = { vectors: [13], plain: true };
  if (kind === 2 || rng.chance(1, 3)) {
    b.emit("PUSH r64 [50+r]", { opcode: [0x50], opcodeReg: r, size: 64, default64: true });
    b.moveStack(-8);
    rm = {
      kind: "indexed",
      addressSize: 64,
      base: RSP,
      index: undefined,
      scale: 0,
      disp: 0,
      dispBytes: 0,
      sib: true,
    };
  }
  if (kind === 2) b.emit("#GP branch", { opcode: [0xc3] }, effects);
  else b.emit("#GP branch", { opcode: [0xff], digit: kind === 0 ? 4 : 2, rm }, effects);
  return true;
}

/** The ways to fault, given the forms that have a memory operand. */
export function faults(forms: readonly Form[]): readonly Fault[] {
  const operand = forms.filter((form) => form.emitFault !== undefined);
  return [
    { name: "#DE, divisor zero", modes: BOTH, weight: 3, emit: divisionFault("zero") },
    { name: "#DE, quotient too large", modes: BOTH, weight: 5, emit: divisionFault("overflow") },
    { name: "#DE, AAM by zero", modes: [32], weight: 1, emit: (b) => adjustBase(b, true, 0) },
    {
      name: "#BR, BOUND",
      modes: [32],
      weight: 2,
      emit: (b) => bound(b, b.rng.pick([16, 32]), false),
    },
    { name: "#OF, INTO", modes: [32], weight: 2, emit: (b) => interruptOverflow(b, true) },
    { name: "#UD", modes: BOTH, weight: 6, emit: invalidOpcode },
    { name: "#GP, longer than 15 bytes", modes: BOTH, weight: 1, emit: tooLong },
    { name: "#GP, CMPXCHG16B not aligned", modes: [64], weight: 2, emit: misaligned },
    {
      name: "#GP or #SS, operand not canonical",
      modes: [64],
      weight: 6,
      emit: operandFault(operand, "noncanonical"),
    },
    { name: "#GP, branch not canonical", modes: [64], weight: 3, emit: branchFault },
    { name: "#SS, stack not canonical", modes: [64], weight: 3, emit: (b) => stackFault(b, true) },
    {
      name: "#PF, operand not mapped",
      modes: BOTH,
      weight: 8,
      emit: operandFault(operand, "unmapped"),
    },
    {
      name: "#PF, operand partly mapped",
      modes: BOTH,
      weight: 8,
      emit: operandFault(operand, "straddle"),
    },
    { name: "#PF, stack", modes: BOTH, weight: 5, emit: (b) => stackFault(b, false) },
    { name: "#PF, string instruction", modes: BOTH, weight: 12, emit: faultingString },
    { name: "#PF, fetch", modes: BOTH, weight: 4, emit: fetchFault },
    {
      name: "#PF, fetch in mid-instruction",
      modes: BOTH,
      weight: 2,
      atEnd: true,
      emit: fetchStraddle,
    },
  ];
}
