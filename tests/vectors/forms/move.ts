/**
 * Data movement: MOV in all its forms, MOVNTI, sign and zero extension, XCHG, LEA, BSWAP, XLAT, the
 * conditional SETcc and CMOVcc, and the instructions that move or set single flags.
 *
 * @module
 */

import { chooseAddress, type MemoryFault } from "../addressing.ts";
import { type Builder, RAX, RBX, RDX } from "../builder.ts";
import type { OperandSize } from "../encode.ts";
import { AF, CF, CONDITIONS, effect, PF, SF, ZF } from "../flags.ts";
import { LOW_BASE, LOW_SIZE } from "../layout.ts";
import { expand, type Form, form, type Row } from "../rows.ts";

const ALL: readonly OperandSize[] = [8, 16, 32, 64];
const WORDS: readonly OperandSize[] = [16, 32, 64];

const MOV = { name: "MOV", group: "move" } as const;
const XCHG = { name: "XCHG", group: "atomic", rm: "rw", reg: "rw" } as const;
const EXTEND = { group: "move", encoding: "RM", rm: "r", reg: "w" } as const;

const MOVES: readonly Row[] = [
  { ...MOV, opcode: [0x88], encoding: "MR", sizes: [8], rm: "w", reg: "r" },
  { ...MOV, opcode: [0x89], encoding: "MR", sizes: WORDS, rm: "w", reg: "r" },
  { ...MOV, opcode: [0x8a], encoding: "RM", sizes: [8], rm: "r", reg: "w" },
  { ...MOV, opcode: [0x8b], encoding: "RM", sizes: WORDS, rm: "r", reg: "w" },
  { ...MOV, opcode: [0xc6], encoding: "MI", digit: 0, sizes: [8], imm: "b", rm: "w" },
  { ...MOV, opcode: [0xc7], encoding: "MI", digit: 0, sizes: WORDS, imm: "z", rm: "w" },
  { ...MOV, opcode: [0xb0], encoding: "OI", sizes: [8], imm: "b", rm: "w" },
  { ...MOV, opcode: [0xb8], encoding: "OI", sizes: WORDS, imm: "v", rm: "w" },
  {
    name: "MOVNTI",
    group: "move",
    opcode: [0x0f, 0xc3],
    encoding: "MR",
    sizes: [32, 64],
    rm: "w",
    reg: "r",
    only: "mem",
    plain: true,
  },
  { ...EXTEND, name: "MOVZX", opcode: [0x0f, 0xb6], sizes: WORDS, rmSize: 8 },
  { ...EXTEND, name: "MOVZX", opcode: [0x0f, 0xb7], sizes: WORDS, rmSize: 16 },
  { ...EXTEND, name: "MOVSX", opcode: [0x0f, 0xbe], sizes: WORDS, rmSize: 8 },
  { ...EXTEND, name: "MOVSX", opcode: [0x0f, 0xbf], sizes: WORDS, rmSize: 16 },
  { ...EXTEND, name: "MOVSXD", opcode: [0x63], sizes: [32, 64], rmSize: 32, mode: 64 },
  // The manuals differ on how much memory the 16-bit form reads, so only registers.
  { ...EXTEND, name: "MOVSXD", opcode: [0x63], sizes: [16], rmSize: 16, mode: 64, only: "reg" },
  {
    name: "LEA",
    group: "move",
    opcode: [0x8d],
    encoding: "RM",
    sizes: WORDS,
    reg: "w",
    rm: "r",
    only: "mem",
    noAccess: true,
  },
  { ...XCHG, opcode: [0x86], encoding: "MR", sizes: [8], lock: true },
  { ...XCHG, opcode: [0x87], encoding: "MR", sizes: WORDS, lock: true },
  { name: "BSWAP", group: "bits", opcode: [0x0f, 0xc8], encoding: "O", sizes: [32, 64], rm: "rw" },
  {
    name: "CBW/CWDE/CDQE",
    group: "move",
    opcode: [0x98],
    encoding: "ZO",
    sizes: WORDS,
    implicit: 1 << RAX,
  },
  {
    name: "CWD/CDQ/CQO",
    group: "move",
    opcode: [0x99],
    encoding: "ZO",
    sizes: WORDS,
    implicit: 1 << RDX,
  },
];

const CONDITIONAL: readonly Row[] = CONDITIONS.flatMap(([suffix, reads], code): Row[] => [
  {
    name: `SET${suffix}`,
    group: "condition",
    opcode: [0x0f, 0x90 + code],
    encoding: "M",
    sizes: [8],
    rm: "w",
    flags: effect(reads, 0),
  },
  {
    name: `CMOV${suffix}`,
    group: "condition",
    opcode: [0x0f, 0x40 + code],
    encoding: "RM",
    sizes: WORDS,
    rm: "r",
    reg: "rw",
    flags: effect(reads, 0),
  },
]);

const LOW_FLAGS = SF | ZF | AF | PF | CF;
const FLAG = { group: "flags", encoding: "ZO", sizes: [32] } as const;

const FLAG_ROWS: readonly Row[] = [
  { ...FLAG, name: "LAHF", opcode: [0x9f], flags: effect(LOW_FLAGS, 0), implicit: 1 << RAX },
  { ...FLAG, name: "SAHF", opcode: [0x9e], flags: effect(0, LOW_FLAGS) },
  { ...FLAG, name: "CMC", opcode: [0xf5], flags: effect(CF, CF) },
  { ...FLAG, name: "CLC", opcode: [0xf8], flags: effect(0, CF) },
  { ...FLAG, name: "STC", opcode: [0xf9], flags: effect(0, CF) },
];

/** XCHG of the accumulator and a register; `rm` 0 is left to NOP. */
function exchangeAccumulator(b: Builder, size: OperandSize): boolean {
  const rex = b.chooseRex(size);
  const r = b.writable(size, rex);
  if (r === RAX || b.anyLocked(1 << RAX)) return false;
  b.emit(
    `XCHG r${size}, rAX [90+r]`,
    { opcode: [0x90], size, opcodeReg: r, rex },
    { writes: 1 << r | 1 << RAX },
  );
  return true;
}

/** LEA with registers of any value: the address is computed and not used. */
function leaAnything(b: Builder, size: OperandSize): boolean {
  const { rng } = b;
  const rex = b.chooseRex(size);
  const n = b.registers(rex);
  const reg = b.writable(size, rex);
  const name = `LEA r${size}, anything [8D]`;
  const effects = { writes: 1 << reg };
  if (b.mode === 32 && rng.chance(1, 3)) {
    const rm = rng.below(8);
    const disp = rng.below(0x10000) - 0x8000;
    const memory = { kind: "word", addressSize: 16, rm, disp, absolute: false } as const;
    b.emit(name, { opcode: [0x8d], size, reg, rex, rm: { ...memory, dispBytes: 2 } }, effects);
    return true;
  }
  const index = rng.below(n);
  b.emit(
    name,
    {
      opcode: [0x8d],
      size,
      reg,
      rex,
      rm: {
        kind: "indexed",
        addressSize: b.mode === 64 && rng.chance(1, 3) ? 32 : b.mode,
        base: rng.chance(1, 6) ? undefined : rng.below(n),
        index: index === 4 ? undefined : index,
        scale: rng.below(4),
        disp: rng.next() | 0,
        dispBytes: rng.pick([0, 4, 4] as const),
        sib: true,
      },
    },
    effects,
  );
  return true;
}

/** MOV between the accumulator and an address given in the instruction. */
function moveOffset(b: Builder, size: OperandSize, store: boolean, fault?: MemoryFault): boolean {
  const { rng } = b;
  if (!store && b.anyLocked(1 << RAX)) return false;
  const noncanonical = fault === "noncanonical";
  const narrow = !noncanonical && rng.chance(1, 3);
  const addressSize = b.mode === 64 ? (narrow ? 32 : 64) : narrow && !fault ? 16 : 32;
  const address = addressSize === 16
    ? BigInt(LOW_BASE + rng.below(LOW_SIZE - 8))
    : chooseAddress(b, {
      size: size / 8,
      access: store ? "write" : "read",
      rex: false,
      ...(fault === undefined ? {} : { fault }),
    });
  const acc = { 8: "AL", 16: "AX", 32: "EAX", 64: "RAX" }[size];
  const opcode = (size === 8 ? 0xa0 : 0xa1) + (store ? 2 : 0);
  const hex = opcode.toString(16).toUpperCase();
  const operands = store ? `moffs${addressSize}, ${acc}` : `${acc}, moffs${addressSize}`;
  b.emit(
    `MOV ${operands} [${hex}]`,
    {
      opcode: [opcode],
      size,
      addressSize,
      imm: address,
      immBytes: addressSize / 8,
      rex: b.chooseRex(size),
    },
    {
      writes: store ? 0 : 1 << RAX,
      stores: store,
      vectors: fault === undefined ? [] : [noncanonical ? 13 : 14],
      plain: noncanonical,
    },
  );
  return true;
}

function moveOffsetForms(): Form[] {
  return ALL.flatMap((size) =>
    [false, true].flatMap((store): Form[] => {
      const acc = { 8: "AL", 16: "AX", 32: "EAX", 64: "RAX" }[size];
      const hex = ((size === 8 ? 0xa0 : 0xa1) + (store ? 2 : 0)).toString(16).toUpperCase();
      const name = (bits: number): string =>
        `MOV ${store ? `moffs${bits}, ${acc}` : `${acc}, moffs${bits}`} [${hex}]`;
      const forms = [{
        ...form("move", [name(64), name(32)], (b) => moveOffset(b, size, store), {
          modes: [64],
          simple: true,
        }),
        emitFault: (b: Builder, fault: MemoryFault) => moveOffset(b, size, store, fault),
      }];
      if (size === 64) return forms;
      return [...forms, {
        ...form("move", [name(32), name(16)], (b) => moveOffset(b, size, store), {
          modes: [32],
          simple: true,
        }),
        emitFault: (b: Builder, fault: MemoryFault) => moveOffset(b, size, store, fault),
      }];
    })
  );
}

/** XLAT: the table is RBX, and AL may be anything. */
function translate(b: Builder): boolean {
  if (b.anyLocked(1 << RAX | 1 << RBX)) return false;
  const narrow = b.rng.chance(1, 4);
  const bits = b.mode === 64 ? (narrow ? 32 : 64) : narrow ? 16 : 32;
  b.ensure(RBX, BigInt(LOW_BASE + b.rng.below(LOW_SIZE - 256)), bits);
  b.emit("XLAT [D7]", { opcode: [0xd7], addressSize: bits }, { writes: 1 << RAX });
  return true;
}

function direction(b: Builder, set: boolean): boolean {
  b.emit(set ? "STD [FD]" : "CLD [FC]", { opcode: [set ? 0xfd : 0xfc] });
  b.direction = set;
  return true;
}

/** Forms of data movement. */
export const MOVE: readonly Form[] = [
  ...expand(MOVES),
  ...expand(CONDITIONAL),
  ...expand(FLAG_ROWS),
  ...([16, 32, 64] as const).map((size) =>
    form("move", `XCHG r${size}, rAX [90+r]`, (b) => exchangeAccumulator(b, size), {
      modes: size === 64 ? [64] : [64, 32],
      simple: true,
    })
  ),
  ...([16, 32, 64] as const).map((size) =>
    form("move", `LEA r${size}, anything [8D]`, (b) => leaAnything(b, size), {
      modes: size === 64 ? [64] : [64, 32],
      simple: true,
    })
  ),
  ...moveOffsetForms(),
  form("move", "XLAT [D7]", translate, { simple: true }),
  form("flags", "CLD [FC]", (b) => direction(b, false)),
  form("flags", "STD [FD]", (b) => direction(b, true)),
];
