/**
 * The stack: PUSH and POP of everything, PUSHF and POPF, PUSHA and POPA, ENTER and LEAVE.
 *
 * @module
 */

import { chooseMemory } from "../addressing.ts";
import { type Builder, RBP } from "../builder.ts";
import type { Instruction, Memory } from "../encode.ts";
import { DF, effect, ID, IF, NT, STATUS } from "../flags.ts";
import { RSP } from "../initial.ts";
import type { Mode } from "../layout.ts";
import { DATA_SIZE, SCRATCH_BASE } from "../layout.ts";
import { type Form, form } from "../rows.ts";

/** Operand size of a stack operation. */
type Slot = 16 | 32 | 64;

function slots(mode: Mode): readonly Slot[] {
  return mode === 64 ? [16, 64] : [16, 32];
}

function ready(b: Builder): boolean {
  return !b.anyLocked(1 << RSP) && b.ensureStack();
}

function stackInstruction(size: Slot, ins: Instruction): Instruction {
  return { ...ins, size, default64: true };
}

/** PUSH of a register, in either encoding. */
function pushRegister(b: Builder, size: Slot, short: boolean): boolean {
  if (!ready(b)) return false;
  const rex = b.chooseRex(8);
  const r = b.register(rex);
  b.emit(
    pushName(size, short),
    short
      ? stackInstruction(size, { opcode: [0x50], opcodeReg: r, rex })
      : stackInstruction(size, { opcode: [0xff], digit: 6, rm: r, rex }),
  );
  b.moveStack(-size / 8);
  return true;
}

function pushName(size: Slot, short: boolean): string {
  return `PUSH r${size} [${short ? "50+r" : "FF /6"}]`;
}

/** POP of a register, in either encoding. POP of RSP leaves the popped value. */
function popRegister(b: Builder, size: Slot, short: boolean): boolean {
  if (!ready(b)) return false;
  const rex = b.chooseRex(8);
  const r = b.writable(size, rex);
  b.moveStack(size / 8);
  b.emit(
    popName(size, short),
    short
      ? stackInstruction(size, { opcode: [0x58], opcodeReg: r, rex })
      : stackInstruction(size, { opcode: [0x8f], digit: 0, rm: r, rex }),
    { writes: 1 << r },
  );
  return true;
}

function popName(size: Slot, short: boolean): string {
  return `POP r${size} [${short ? "58+r" : "8F /0"}]`;
}

/** PUSH of memory. */
function pushMemory(b: Builder, size: Slot): boolean {
  if (!ready(b)) return false;
  const rex = b.chooseRex(8);
  const choice = chooseMemory(b, { size: size / 8, access: "read", rex });
  if (choice === undefined) return false;
  b.emit(
    `PUSH m${size} [FF /6]`,
    stackInstruction(size, { opcode: [0xff], digit: 6, rm: choice.memory, rex }),
  );
  b.moveStack(-size / 8);
  return true;
}

/** POP to memory; an address by RSP is computed after RSP has moved. */
function popMemory(b: Builder, size: Slot): boolean {
  if (!ready(b)) return false;
  const rex = b.chooseRex(8);
  let memory: Memory;
  if (b.rng.chance(1, 4)) {
    memory = {
      kind: "indexed",
      addressSize: b.mode,
      base: RSP,
      index: undefined,
      scale: b.rng.below(4),
      disp: b.rng.below(128) - 64,
      dispBytes: b.rng.pick([1, 4] as const),
      sib: true,
    };
  } else {
    const choice = chooseMemory(b, { size: size / 8, access: "write", rex, still: true });
    if (choice === undefined) return false;
    memory = choice.memory;
  }
  b.emit(
    `POP m${size} [8F /0]`,
    stackInstruction(size, { opcode: [0x8f], digit: 0, rm: memory, rex }),
    { stores: true },
  );
  b.moveStack(size / 8);
  return true;
}

/** PUSH of an immediate. */
function pushImmediate(b: Builder, size: Slot, byte: boolean): boolean {
  if (!ready(b)) return false;
  const immBytes = byte ? 1 : size === 16 ? 2 : 4;
  b.emit(
    pushImmediateName(size, byte),
    stackInstruction(size, {
      opcode: [byte ? 0x6a : 0x68],
      imm: b.immediate(immBytes),
      immBytes,
      rex: b.chooseRex(8),
    }),
  );
  b.moveStack(-size / 8);
  return true;
}

function pushImmediateName(size: Slot, byte: boolean): string {
  const bits = byte ? 8 : size === 16 ? 16 : 32;
  return `PUSH imm${bits} (${size}) [${byte ? "6A" : "68"}]`;
}

function pushFlags(b: Builder, size: Slot): boolean {
  if (!ready(b)) return false;
  b.defineFlags(STATUS);
  if (!ready(b)) return false;
  b.emit(`PUSHF (${size}) [9C]`, stackInstruction(size, { opcode: [0x9c], rex: b.chooseRex(8) }), {
    flags: effect(STATUS, 0),
  });
  b.moveStack(-size / 8);
  return true;
}

/**
 * POPF of an image put there just before: either by PUSHF or as an immediate. IF stays set, IOPL 0,
 * TF and AC clear, so that the outcome is the same at CPL 3 and at CPL 0; NT and ID vary.
 */
function popFlags(b: Builder, size: Slot): boolean {
  if (!ready(b)) return false;
  const { rng } = b;
  if (rng.chance(1, 4)) {
    if (!pushFlags(b, size)) return false;
  } else {
    let image = 0x2 | IF | (rng.next() & STATUS);
    if (rng.chance(1, 4)) image |= DF;
    if (rng.chance(1, 4)) image |= NT;
    if (rng.chance(1, 2) && size !== 16) image |= ID;
    b.emit(
      pushImmediateName(size, false),
      stackInstruction(size, {
        opcode: [0x68],
        imm: BigInt(image),
        immBytes: size === 16 ? 2 : 4,
      }),
    );
    b.moveStack(-size / 8);
    b.direction = (image & DF) !== 0;
  }
  b.emit(`POPF (${size}) [9D]`, stackInstruction(size, { opcode: [0x9d], rex: b.chooseRex(8) }), {
    flags: effect(0, STATUS),
  });
  b.moveStack(size / 8);
  return true;
}

/** ENTER: for levels above 1 the frame pointers it copies are read below RBP. */
function enter(b: Builder, size: Slot, nested: boolean): boolean {
  if (!ready(b) || b.anyLocked(1 << RBP)) return false;
  const { rng } = b;
  const level = nested ? 1 + rng.below(31) : 0;
  if (level > 1) {
    b.ensure(RBP, BigInt(SCRATCH_BASE + 0x200 + rng.below(DATA_SIZE - 0x400)), b.mode);
  }
  const space = rng.chance(1, 4) ? 0 : rng.below(0x200);
  const rsp = b.known(RSP) ?? 0n;
  const spare = rng.chance(1, 4) ? rng.below(8) << 5 : 0;
  b.emit(
    enterName(size, nested),
    stackInstruction(size, {
      opcode: [0xc8],
      imm: BigInt(space | (level | spare) << 16),
      immBytes: 3,
      rex: b.chooseRex(8),
    }),
    { writes: 1 << RBP },
  );
  const bytes = size / 8;
  b.moveStack(-bytes * (1 + level) - space);
  if (size === b.mode) b.setKnown(RBP, rsp - BigInt(bytes));
  return true;
}

function enterName(size: Slot, nested: boolean): string {
  return `ENTER imm16, ${nested ? "level" : "0"} (${size}) [C8]`;
}

/** LEAVE, from a frame pointer into the stack. */
function leave(b: Builder, size: Slot): boolean {
  if (!ready(b) || b.anyLocked(1 << RBP)) return false;
  const rbp = b.known(RBP);
  const rsp = b.known(RSP) ?? 0n;
  if (rbp === undefined || rbp < rsp - 0x400n || rbp > rsp + 0x400n) {
    b.ensure(RBP, rsp + BigInt(b.rng.below(0x100) - 0x80), b.mode);
  }
  const frame = b.known(RBP) ?? 0n;
  b.emit(`LEAVE (${size}) [C9]`, stackInstruction(size, { opcode: [0xc9], rex: b.chooseRex(8) }), {
    writes: 1 << RBP,
  });
  b.setKnown(RSP, frame + BigInt(size / 8));
  return true;
}

function pushAll(b: Builder, size: 16 | 32): boolean {
  if (!ready(b)) return false;
  b.emit(`PUSHA (${size}) [60]`, { opcode: [0x60], size });
  b.moveStack(-size);
  return true;
}

/** POPA: every register but the stack pointer, whose slot is skipped. */
function popAll(b: Builder, size: 16 | 32): boolean {
  if (!ready(b) || b.anyLocked(0xff & ~(1 << RSP))) return false;
  b.emit(`POPA (${size}) [61]`, { opcode: [0x61], size }, { writes: 0xff & ~(1 << RSP) });
  b.moveStack(size);
  return true;
}

function formsOf(mode: Mode): Form[] {
  const modes = [mode];
  const forms: Form[] = [];
  const add = (names: string, emit: (b: Builder) => boolean): void => {
    forms.push(form("stack", names, emit, { modes }));
  };
  for (const size of slots(mode)) {
    for (const short of [false, true]) {
      add(pushName(size, short), (b) => pushRegister(b, size, short));
      add(popName(size, short), (b) => popRegister(b, size, short));
      add(pushImmediateName(size, short), (b) => pushImmediate(b, size, short));
    }
    add(`PUSH m${size} [FF /6]`, (b) => pushMemory(b, size));
    add(`POP m${size} [8F /0]`, (b) => popMemory(b, size));
    add(`PUSHF (${size}) [9C]`, (b) => pushFlags(b, size));
    add(`POPF (${size}) [9D]`, (b) => popFlags(b, size));
    add(enterName(size, false), (b) => enter(b, size, false));
    add(enterName(size, true), (b) => enter(b, size, true));
    add(`LEAVE (${size}) [C9]`, (b) => leave(b, size));
  }
  return forms;
}

const ALL_REGISTERS: readonly Form[] = ([16, 32] as const).flatMap((size) => [
  form("stack", `PUSHA (${size}) [60]`, (b) => pushAll(b, size), { modes: [32] }),
  form("stack", `POPA (${size}) [61]`, (b) => popAll(b, size), { modes: [32] }),
]);

/** Forms of the stack. */
export const STACK: readonly Form[] = [...formsOf(64), ...formsOf(32), ...ALL_REGISTERS];
