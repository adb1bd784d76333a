/**
 * Bit test and bit scan.
 *
 * @module
 */

import { chooseMemory } from "../addressing.ts";
import { type Builder, signed } from "../builder.ts";
import type { Memory } from "../encode.ts";
import { CF, effect, STATUS, ZF } from "../flags.ts";
import { drawValue } from "../initial.ts";
import { expand, type Form, form, type Row } from "../rows.ts";

type Width = 16 | 32 | 64;
const WORDS: readonly Width[] = [16, 32, 64];
const TEST = effect(0, CF, STATUS & ~CF);
const SCAN = effect(0, ZF, STATUS & ~ZF);

const OPERATIONS = ["BT", "BTS", "BTR", "BTC"] as const;

const ROWS: readonly Row[] = OPERATIONS.flatMap((name, i): Row[] => {
  const rm = name === "BT" ? "r" : "rw";
  const shared = { name, group: "bits", flags: TEST, rm } as const;
  const lock = name !== "BT";
  return [
    {
      ...shared,
      opcode: [0x0f, 0xa3 + 8 * i],
      encoding: "MR",
      sizes: WORDS,
      reg: "r",
      only: "reg",
    },
    { ...shared, opcode: [0x0f, 0xba], encoding: "MI", digit: 4 + i, sizes: WORDS, imm: "b", lock },
  ];
});

function bitName(i: number, size: Width, lock: boolean): string {
  const hex = (0xa3 + 8 * i).toString(16).toUpperCase();
  return `${lock ? "LOCK " : ""}${OPERATIONS[i]} m${size}, r${size} [0F ${hex}]`;
}

/** Bit `offset` of the string at a memory operand: the register reaches far beyond the operand. */
function bitString(b: Builder, i: number, size: Width, lock: boolean): boolean {
  const { rng } = b;
  const rex = b.chooseRex(size);
  const reg = b.register(rex);
  if (b.known(reg) === undefined || rng.chance(1, 2)) {
    if (reg === 4 || b.anyLocked(1 << reg)) return false;
    b.load(reg, rng.chance(1, 2) ? BigInt(rng.below(0x20000) - 0x10000) : drawValue(rng));
  }
  const offset = signed(b.known(reg) ?? 0n, size);
  // Bytes from the operand to the word that holds the bit, rounding down.
  const bias = (offset >> BigInt(Math.log2(size))) * BigInt(size / 8);
  const choice = chooseMemory(b, {
    size: size / 8,
    access: i === 0 ? "read" : "modify",
    rex,
    keep: 1 << reg,
    natural: true,
    bias,
  });
  if (choice === undefined) return false;
  b.emit(
    bitName(i, size, lock),
    {
      opcode: [0x0f, 0xa3 + 8 * i],
      size,
      reg,
      rm: choice.memory,
      rex,
      ...(lock ? { prefixes: [0xf0] } : {}),
    },
    { flags: TEST, stores: i !== 0 },
  );
  return true;
}

function scanName(reverse: boolean, size: Width, memory: boolean): string {
  const rm = `${memory ? "m" : "r"}${size}`;
  return `${reverse ? "BSR" : "BSF"} r${size}, ${rm} [0F ${reverse ? "BD" : "BC"}]`;
}

/**
 * BSF or BSR of a certain value. It is seldom zero: AMD then leaves the destination as it was, in
 * all its bits; Intel's manual calls it undefined, so such a program is marked.
 */
function scan(b: Builder, reverse: boolean, size: Width, memory: boolean): boolean {
  const { rng } = b;
  const rex = b.chooseRex(size);
  let value = rng.chance(1, 12) ? 0n : drawValue(rng);
  let rm: number | Memory;
  const reg = b.writable(size, rex);
  if (memory) {
    value = signed(value, size === 64 ? 32 : size);
    const choice = chooseMemory(b, { size: size / 8, access: "write", rex, still: true });
    if (choice === undefined) return false;
    const bytes = size === 16 ? 2 : 4;
    b.emit(
      `MOV m${size}, imm${8 * bytes} [C7 /0]`,
      { opcode: [0xc7], digit: 0, size, rm: choice.memory, imm: value, immBytes: bytes, rex },
      { stores: true },
    );
    rm = choice.memory;
  } else {
    rm = b.register(rex);
    const present = b.known(rm);
    if (present !== undefined && rng.chance(3, 4)) {
      value = present;
    } else {
      if (rm === 4 || b.anyLocked(1 << rm)) return false;
      b.load(rm, value);
    }
  }
  if (BigInt.asUintN(size, value) === 0n) b.amd = true;
  b.emit(
    scanName(reverse, size, memory),
    { opcode: [0x0f, reverse ? 0xbd : 0xbc], size, reg, rm, rex },
    { flags: SCAN, writes: 1 << reg },
  );
  return true;
}

function specialForms(): Form[] {
  const forms: Form[] = [];
  for (const size of WORDS) {
    const options = {
      modes: size === 64 ? [64 as const] : [64 as const, 32 as const],
      simple: true,
    };
    for (let i = 0; i < 4; i++) {
      for (const lock of i === 0 ? [false] : [false, true]) {
        forms.push(
          form("bits", bitName(i, size, lock), (b) => bitString(b, i, size, lock), options),
        );
      }
    }
    for (const reverse of [false, true]) {
      for (const memory of [false, true]) {
        const name = scanName(reverse, size, memory);
        forms.push(form("bits", name, (b) => scan(b, reverse, size, memory), options));
      }
    }
  }
  return forms;
}

/** Forms of bit test and scan. */
export const BITS: readonly Form[] = [...expand(ROWS), ...specialForms()];
