/**
 * Instructions that do nothing that a program can see: NOP in its many encodings, PAUSE, prefetches,
 * the hint space of 0F 19–0F 1F, and the fences. Their memory operands are not accessed, so their
 * addresses may be anything. Beside them, an instruction padded with idle prefixes to the longest
 * that is allowed.
 *
 * @module
 */

import type { Builder } from "../builder.ts";
import type { Instruction, Memory } from "../encode.ts";
import { effect, STATUS } from "../flags.ts";
import { type Form, form } from "../rows.ts";

/** A memory operand of any form and address. */
function anywhere(b: Builder, rex: boolean): Memory {
  const { rng } = b;
  const n = b.registers(rex);
  if (b.mode === 32 && rng.chance(1, 4)) {
    return {
      kind: "word",
      addressSize: 16,
      rm: rng.below(8),
      disp: rng.below(0x10000) - 0x8000,
      dispBytes: rng.pick([0, 2] as const),
      absolute: false,
    };
  }
  const index = rng.below(n);
  return {
    kind: "indexed",
    addressSize: b.mode === 64 && rng.chance(1, 4) ? 32 : b.mode,
    base: rng.chance(1, 6) ? undefined : rng.below(n),
    index: index === 4 || rng.chance(1, 3) ? undefined : index,
    scale: rng.below(4),
    disp: rng.next() | 0,
    dispBytes: rng.pick([0, 4] as const),
    sib: rng.chance(1, 2) || b.mode === 64,
  };
}

interface Hint {
  readonly name: string;
  readonly opcode: number;
  readonly digits: readonly number[];
  readonly registers: boolean;
}

const HINTS: readonly Hint[] = [
  { name: "NOP r/m [0F 1F /0]", opcode: 0x1f, digits: [0], registers: true },
  { name: "NOP m [0F 1F /1-7]", opcode: 0x1f, digits: [1, 2, 3, 4, 5, 6, 7], registers: false },
  { name: "NOP m [0F 19]", opcode: 0x19, digits: [0, 1, 2, 3, 4, 5, 6, 7], registers: false },
  { name: "PREFETCHNTA/T0/T1/T2 m [0F 18]", opcode: 0x18, digits: [0, 1, 2, 3], registers: false },
  { name: "PREFETCH/PREFETCHW m [0F 0D]", opcode: 0x0d, digits: [0, 1], registers: false },
];

function hint(b: Builder, { name, opcode, digits, registers }: Hint): boolean {
  const rex = b.chooseRex(8);
  const rm = registers && b.rng.chance(1, 3) ? b.register(rex) : anywhere(b, rex);
  const wide = b.rng.chance(1, 3) && opcode === 0x1f;
  const ins: Instruction = { opcode: [0x0f, opcode], digit: b.rng.pick(digits), rm, rex };
  b.emit(name, wide ? { ...ins, size: 16 } : ins, { plain: true });
  return true;
}

const SIMPLE = { simple: true };

function plain(name: string, bytes: readonly number[]): Form {
  return form("nop", name, (b) => {
    b.append(name, bytes);
    return true;
  }, SIMPLE);
}

/** NOP with a REX prefix, any but one with B set, which would make it an XCHG with R8. */
function rexNop(b: Builder): boolean {
  b.append("NOP [REX 90]", [0x40 + (b.rng.below(16) & 0xe), 0x90]);
  return true;
}

/** ADD of two registers below 8, lengthened by prefixes that change nothing. */
export function paddedAdd(b: Builder, to: number, from: number, length: number): number[] {
  const bytes: number[] = [];
  const rex = b.mode === 64 && b.rng.chance(1, 2) ? [0x48] : [];
  while (bytes.length + rex.length + 2 < length) {
    bytes.push(b.rng.pick([0x26, 0x2e, 0x36, 0x3e, 0x67]));
  }
  return [...bytes, ...rex, 0x01, 0xc0 | from << 3 | to];
}

/** An instruction of exactly the 15 bytes that are allowed. */
function longest(b: Builder): boolean {
  const to = b.writable(32, false);
  b.append("ADD r, r of 15 bytes [01]", paddedAdd(b, to, b.register(false), 15), {
    writes: 1 << to,
    flags: effect(0, STATUS),
  });
  return true;
}

/** Forms that do nothing, and the padded one. */
export const NOP: readonly Form[] = [
  plain("NOP [90]", [0x90]),
  plain("NOP [66 90]", [0x66, 0x90]),
  plain("PAUSE [F3 90]", [0xf3, 0x90]),
  plain("LFENCE [0F AE E8]", [0x0f, 0xae, 0xe8]),
  plain("MFENCE [0F AE F0]", [0x0f, 0xae, 0xf0]),
  plain("SFENCE [0F AE F8]", [0x0f, 0xae, 0xf8]),
  form("nop", "ADD r, r of 15 bytes [01]", longest, SIMPLE),
  form("nop", "NOP [REX 90]", rexNop, { modes: [64], simple: true }),
  ...HINTS.map((entry) => form("nop", entry.name, (b) => hint(b, entry), SIMPLE)),
];
