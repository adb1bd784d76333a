/**
 * Control transfer: conditional and unconditional branches, loops that end, calls and returns. All
 * targets are inside the program; branches over a block and loops around one leave RSP alone.
 *
 * @module
 */

import { chooseMemory } from "../addressing.ts";
import { type Builder, RCX } from "../builder.ts";
import type { Instruction, Memory } from "../encode.ts";
import { CF, CONDITIONS, effect, STATUS, ZF } from "../flags.ts";
import { RSP } from "../initial.ts";
import type { Mode } from "../layout.ts";
import { type Form, form } from "../rows.ts";

/** Size of a branch displacement in bits; 16 only in 32-bit mode, where it also cuts EIP short. */
type Reach = 8 | 16 | 32;

const BOTH: readonly Mode[] = [64, 32];
const LEGACY: readonly Mode[] = [32];

function reachModes(reach: Reach): readonly Mode[] {
  return reach === 16 ? LEGACY : BOTH;
}

/** A near branch whose displacement is to be filled in; returns the offset of its end. */
function branch(
  b: Builder,
  name: string,
  opcode: readonly number[],
  reach: Reach,
  reads: number,
  extra: Partial<Instruction> = {},
  writes = 0,
): number {
  const size: Partial<Instruction> = reach === 16 ? { size: 16 } : {};
  const rex = b.mode === 64 && b.rng.chance(1, 8);
  b.emit(
    name,
    { opcode, imm: 0n, immBytes: reach / 8, default64: true, rex, ...size, ...extra },
    { flags: effect(reads, 0), writes },
  );
  return b.code.length;
}

/** Patches a branch of {@linkcode branch} to the end of the program so far. */
function land(b: Builder, end: number, reach: Reach): void {
  b.patchBranch(end, (reach / 8) as 1 | 2 | 4, b.code.length);
}

/** A block that one path skips. */
function skipped(b: Builder): void {
  const before = b.snapshot();
  const locks = b.lock(1 << RSP);
  b.block(1 + b.rng.below(3));
  b.restore(locks);
  b.join(before);
}

/** Bytes that no path reaches. */
function dead(b: Builder, least: number): void {
  const count = least + b.rng.below(12);
  for (let i = 0; i < count; i++) b.code.push(b.rng.below(256));
}

function conditionName(code: number, reach: Reach): string {
  const hex = (reach === 8 ? 0x70 : 0x80) + code;
  const escape = reach === 8 ? "" : "0F ";
  return `J${CONDITIONS[code]?.[0]} rel${reach} [${escape}${hex.toString(16).toUpperCase()}]`;
}

function conditionalOpcode(code: number, reach: Reach): number[] {
  return reach === 8 ? [0x70 + code] : [0x0f, 0x80 + code];
}

function conditional(b: Builder, code: number, reach: Reach): boolean {
  const reads = CONDITIONS[code]?.[1] ?? 0;
  b.defineFlags(reads);
  const end = branch(b, conditionName(code, reach), conditionalOpcode(code, reach), reach, reads);
  skipped(b);
  land(b, end, reach);
  return true;
}

const LOOPS = ["LOOPNE", "LOOPE", "LOOP", "JCXZ"] as const;

function countName(i: number, bits: number): string {
  return `${LOOPS[i]} (${bits}) [E${i}]`;
}

/** Bits of rCX that an address size makes LOOP and JCXZ use. */
function countSizes(mode: Mode): readonly (16 | 32 | 64)[] {
  return mode === 64 ? [64, 32] : [32, 16];
}

/** LOOPNE, LOOPE, LOOP or JCXZ as a forward branch. */
function countForward(b: Builder, i: number, bits: 16 | 32 | 64): boolean {
  const writes = i === 3 ? 0 : 1 << RCX;
  if (b.anyLocked(writes)) return false;
  const reads = i < 2 ? ZF : 0;
  if (b.rng.chance(2, 3) && !b.anyLocked(1 << RCX)) {
    b.ensure(RCX, BigInt(b.rng.below(3)), bits);
  }
  b.defineFlags(reads);
  const end = branch(
    b,
    countName(i, bits),
    [0xe0 + i],
    8,
    reads,
    { addressSize: bits },
    writes,
  );
  skipped(b);
  land(b, end, 8);
  return true;
}

/** LOOPNE, LOOPE or LOOP around a block. */
function countLoop(b: Builder, i: number, bits: 16 | 32 | 64): boolean {
  if (b.anyLocked(1 << RCX)) return false;
  b.ensure(RCX, BigInt(1 + b.rng.below(9)), bits);
  const locks = b.lock(1 << RCX | 1 << RSP);
  b.forget();
  b.setKnown(RCX, undefined);
  const head = b.code.length;
  b.block(1 + b.rng.below(3));
  const reads = i < 2 ? ZF : 0;
  b.defineFlags(reads);
  b.restore(locks);
  const name = `${countName(i, bits)} backward`;
  const end = branch(b, name, [0xe0 + i], 8, reads, { addressSize: bits }, 1 << RCX);
  b.patchBranch(end, 1, head);
  return true;
}

interface Counter {
  /** First value for n iterations. */
  readonly start: (n: bigint) => bigint;
  readonly step: (r: number, size: 16 | 32 | 64, rex: boolean) => readonly [string, Instruction];
  readonly condition: number;
  readonly writes: number;
}

const decrement: Counter["step"] = (r, size, rex) => [
  `DEC r${size} [FF /1]`,
  { opcode: [0xff], digit: 1, rm: r, size, rex },
];
const increment: Counter["step"] = (r, size, rex) => [
  `INC r${size} [FF /0]`,
  { opcode: [0xff], digit: 0, rm: r, size, rex },
];
const add: Counter["step"] = (r, size, rex) => [
  `ADD r${size}, imm8s [83 /0]`,
  { opcode: [0x83], digit: 0, rm: r, size, rex, imm: 1n, immBytes: 1 },
];
const subtract: Counter["step"] = (r, size, rex) => [
  `SUB r${size}, imm8s [83 /5]`,
  { opcode: [0x83], digit: 5, rm: r, size, rex, imm: 1n, immBytes: 1 },
];

const COUNTERS: readonly Counter[] = [
  { start: (n) => n, step: decrement, condition: 5, writes: STATUS & ~CF },
  { start: (n) => n, step: decrement, condition: 15, writes: STATUS & ~CF },
  { start: (n) => -n, step: increment, condition: 8, writes: STATUS & ~CF },
  { start: (n) => -n, step: increment, condition: 12, writes: STATUS & ~CF },
  { start: (n) => -n, step: add, condition: 3, writes: STATUS },
  { start: (n) => n, step: subtract, condition: 7, writes: STATUS },
];

/** A loop that a counter in any register ends: the branch back is a Jcc. */
function counterLoop(b: Builder, counter: Counter, reach: Reach): boolean {
  const { rng } = b;
  const size = rng.pick(b.mode === 64 ? [16, 32, 64] as const : [16, 32] as const);
  const rex = b.chooseRex(size);
  const r = b.register(rex);
  if (r === RSP || b.anyLocked(1 << r)) return false;
  b.ensure(r, counter.start(BigInt(1 + rng.below(9))), size);
  const locks = b.lock(1 << r | 1 << RSP);
  b.forget();
  b.setKnown(r, undefined);
  const head = b.code.length;
  b.block(1 + rng.below(3));
  b.restore(locks);
  const [name, ins] = counter.step(r, size, rex);
  b.emit(name, ins, { flags: effect(0, counter.writes), writes: 1 << r });
  const { condition } = counter;
  const reads = CONDITIONS[condition]?.[1] ?? 0;
  const jump = `${conditionName(condition, reach)} backward`;
  const end = branch(b, jump, conditionalOpcode(condition, reach), reach, reads);
  b.patchBranch(end, (reach / 8) as 1 | 2 | 4, head);
  return true;
}

/** JMP over bytes that are never run. */
function jump(b: Builder, reach: Reach): boolean {
  const end = branch(
    b,
    `JMP rel${reach} [${reach === 8 ? "EB" : "E9"}]`,
    [
      reach === 8 ? 0xeb : 0xe9,
    ],
    reach,
    0,
  );
  dead(b, 0);
  land(b, end, reach);
  return true;
}

/** An indirect target: a register or memory that holds an address patched in later. */
interface Target {
  readonly rm: number | Memory;
  readonly rex: boolean;
  /** Offset in the code of the 32 (or 16) bits that hold the address. */
  readonly at: number;
}

/** Puts an address into a register or memory; the operand size is the slot's. */
function indirect(b: Builder, memory: boolean, size: 16 | 32 | 64): Target | undefined {
  const rex = b.chooseRex(8);
  if (!memory) {
    const r = b.register(rex);
    if (r === RSP || b.anyLocked(1 << r)) return undefined;
    b.emit("MOV r32, imm32 [B8+r]", {
      opcode: [0xb8],
      size: 32,
      opcodeReg: r,
      imm: 0n,
      immBytes: 4,
    }, { writes: 1 << r });
    return { rm: r, rex, at: b.code.length - 4 };
  }
  const choice = chooseMemory(b, { size: size / 8, access: "write", rex, still: true });
  if (choice === undefined) return undefined;
  const bytes = size === 16 ? 2 : 4;
  b.emit(`MOV m${size}, imm${8 * bytes} [C7 /0]`, {
    opcode: [0xc7],
    digit: 0,
    size,
    rm: choice.memory,
    imm: 0n,
    immBytes: bytes,
    rex,
  }, { stores: true });
  return { rm: choice.memory, rex, at: b.code.length - bytes };
}

function patchTarget(b: Builder, target: Target, size: 16 | 32 | 64, memory: boolean): void {
  if (size === 16 && memory) b.patch16(target.at, b.here);
  else b.patch32(target.at, b.here);
}

function indirectName(call: boolean, size: number, memory: boolean): string {
  return `${call ? "CALL" : "JMP"} ${memory ? "m" : "r"}${size} [FF /${call ? 2 : 4}]`;
}

function indirectJump(b: Builder, size: 16 | 32 | 64, memory: boolean): boolean {
  const target = indirect(b, memory, size);
  if (target === undefined) return false;
  b.emit(indirectName(false, size, memory), {
    opcode: [0xff],
    digit: 4,
    rm: target.rm,
    rex: target.rex,
    size,
    default64: true,
  });
  dead(b, 0);
  patchTarget(b, target, size, memory);
  return true;
}

/** Bytes on the stack that a return address of this operand size takes. */
function slotBytes(size: 16 | 32 | 64): number {
  return size / 8;
}

/** Takes a return address off the stack without returning. */
function dropReturn(b: Builder, size: 16 | 32 | 64): void {
  if (b.rng.chance(1, 3)) return;
  if (b.rng.chance(1, 2)) {
    const word = b.mode;
    b.emit(`LEA r${word}, m [8D]`, {
      opcode: [0x8d],
      size: word,
      reg: RSP,
      rm: {
        kind: "indexed",
        addressSize: word,
        base: RSP,
        index: undefined,
        scale: 0,
        disp: slotBytes(size),
        dispBytes: 1,
        sib: true,
      },
    });
    b.moveStack(slotBytes(size));
    return;
  }
  const r = b.writable(size, false);
  if (r === RSP) return;
  b.moveStack(slotBytes(size));
  b.emit(
    `POP r${size} [58+r]`,
    { opcode: [0x58], opcodeReg: r, size, default64: true },
    { writes: 1 << r },
  );
}

function operandSize(size: 16 | 32 | 64): Reach {
  return size === 16 ? 16 : 32;
}

/** CALL of code further on that does not return. */
function callForward(b: Builder, size: 16 | 32 | 64): boolean {
  if (b.anyLocked(1 << RSP) || !b.ensureStack()) return false;
  const reach = operandSize(size);
  const end = branch(b, `CALL rel${reach} [E8]`, [0xe8], reach, 0);
  b.moveStack(-slotBytes(size));
  dead(b, 0);
  land(b, end, reach);
  dropReturn(b, size);
  return true;
}

function indirectCall(b: Builder, size: 16 | 32 | 64, memory: boolean): boolean {
  if (b.anyLocked(1 << RSP) || !b.ensureStack()) return false;
  const target = indirect(b, memory, size);
  if (target === undefined || b.known(RSP) === undefined) return false;
  b.emit(indirectName(true, size, memory), {
    opcode: [0xff],
    digit: 2,
    rm: target.rm,
    rex: target.rex,
    size,
    default64: true,
  });
  b.moveStack(-slotBytes(size));
  dead(b, 0);
  patchTarget(b, target, size, memory);
  dropReturn(b, size);
  return true;
}

function returnName(size: 16 | 32 | 64, imm: boolean): string {
  return imm ? `RET imm16 (${size}) [C2]` : `RET (${size}) [C3]`;
}

function emitReturn(b: Builder, size: 16 | 32 | 64, imm: boolean): void {
  const release = imm ? b.rng.below(64) : 0;
  b.emit(returnName(size, imm), {
    opcode: [imm ? 0xc2 : 0xc3],
    size,
    default64: true,
    rex: b.chooseRex(8),
    ...(imm ? { imm: BigInt(release), immBytes: 2 } : {}),
  });
  b.moveStack(slotBytes(size) + release);
}

/** JMP to L; f: a block, RET; L: CALL f, backward. Layout order is also the order of effects. */
function callBackward(b: Builder, size: 16 | 32 | 64, imm: boolean): boolean {
  if (b.anyLocked(1 << RSP) || !b.ensureStack()) return false;
  const reach = operandSize(size);
  const over = branch(b, "JMP rel8 [EB]", [0xeb], 8, 0);
  const subroutine = b.code.length;
  b.moveStack(-slotBytes(size));
  const locks = b.lock(1 << RSP);
  b.block(1 + b.rng.below(3));
  b.restore(locks);
  emitReturn(b, size, imm);
  land(b, over, 8);
  const end = branch(b, `CALL rel${reach} [E8]`, [0xe8], reach, 0);
  b.patchBranch(end, (reach / 8) as 2 | 4, subroutine);
  return true;
}

/** CALL f; JMP over; f: a block, RET. */
function callAndReturn(b: Builder, size: 16 | 32 | 64, imm: boolean): boolean {
  if (b.anyLocked(1 << RSP) || !b.ensureStack()) return false;
  const reach = operandSize(size);
  const call = branch(b, `CALL rel${reach} [E8]`, [0xe8], reach, 0);
  const back = branch(b, "JMP rel8 [EB]", [0xeb], 8, 0);
  b.moveStack(-slotBytes(size));
  land(b, call, reach);
  const locks = b.lock(1 << RSP);
  b.block(1 + b.rng.below(3));
  b.restore(locks);
  emitReturn(b, size, imm);
  land(b, back, 8);
  return true;
}

/** PUSH of an address further on, and RET to it. */
function pushReturn(b: Builder, size: 16 | 32 | 64, imm: boolean): boolean {
  if (b.anyLocked(1 << RSP) || !b.ensureStack()) return false;
  const bytes = size === 16 ? 2 : 4;
  b.emit(`PUSH imm${8 * bytes} (${size}) [68]`, {
    opcode: [0x68],
    size,
    default64: true,
    imm: 0n,
    immBytes: bytes,
  });
  const at = b.code.length - bytes;
  b.moveStack(-slotBytes(size));
  emitReturn(b, size, imm);
  dead(b, 0);
  if (bytes === 2) b.patch16(at, b.here);
  else b.patch32(at, b.here);
  return true;
}

function formsOf(mode: Mode): Form[] {
  const forms: Form[] = [];
  const push = (names: string | string[], emit: (b: Builder) => boolean): void => {
    forms.push(form("flow", names, emit, { modes: [mode] }));
  };
  for (const bits of countSizes(mode)) {
    for (let i = 0; i < 4; i++) {
      push(countName(i, bits), (b) => countForward(b, i, bits));
      if (i < 3) push(`${countName(i, bits)} backward`, (b) => countLoop(b, i, bits));
    }
  }
  // A 66h prefix on a near branch means different things to AMD and Intel in 64-bit mode.
  const sizes = mode === 64 ? [64 as const] : [16 as const, 32 as const];
  for (const size of sizes) {
    const reach = operandSize(size);
    for (const memory of [false, true]) {
      push(indirectName(false, size, memory), (b) => indirectJump(b, size, memory));
      push(indirectName(true, size, memory), (b) => indirectCall(b, size, memory));
    }
    push(`CALL rel${reach} [E8]`, (b) => callForward(b, size));
    for (const imm of [false, true]) {
      push(returnName(size, imm), (b) => callBackward(b, size, imm));
      push(returnName(size, imm), (b) => callAndReturn(b, size, imm));
      push(returnName(size, imm), (b) => pushReturn(b, size, imm));
    }
  }
  return forms;
}

function branchForms(): Form[] {
  const forms: Form[] = [];
  for (const reach of [8, 16, 32] as const) {
    const options = { modes: reachModes(reach) };
    const name = `JMP rel${reach} [${reach === 8 ? "EB" : "E9"}]`;
    forms.push(form("flow", name, (b) => jump(b, reach), options));
    for (let code = 0; code < 16; code++) {
      const emit = (b: Builder): boolean => conditional(b, code, reach);
      forms.push(form("flow", conditionName(code, reach), emit, options));
    }
    for (const counter of COUNTERS) {
      const back = `${conditionName(counter.condition, reach)} backward`;
      forms.push(form("flow", back, (b) => counterLoop(b, counter, reach), options));
    }
  }
  return forms;
}

/** Forms of control transfer. */
export const FLOW: readonly Form[] = [...formsOf(64), ...formsOf(32), ...branchForms()];
