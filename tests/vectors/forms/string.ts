/**
 * String instructions: MOVS, CMPS, STOS, LODS and SCAS, of every size, alone and repeated, in both
 * directions and with both address sizes.
 *
 * @module
 */

import { type Builder, RAX, RCX, RDI, RSI } from "../builder.ts";
import type { OperandSize } from "../encode.ts";
import { effect, NO_FLAGS, STATUS } from "../flags.ts";
import { DATA_SIZE, LOW_BASE, LOW_SIZE, type Mode, SCRATCH_BASE, SCRATCH_SIZE } from "../layout.ts";
import { type Form, form } from "../rows.ts";

interface Operation {
  readonly name: string;
  readonly opcode: number;
  readonly source: boolean;
  readonly destination: boolean;
  readonly compares: boolean;
  readonly stores: boolean;
  readonly loads: boolean;
}

function operation(name: string, opcode: number, pointers: string, kind: string): Operation {
  return {
    name,
    opcode,
    source: pointers.includes("s"),
    destination: pointers.includes("d"),
    compares: kind === "compare",
    stores: kind === "store",
    loads: kind === "load",
  };
}

const OPERATIONS: readonly Operation[] = [
  operation("MOVS", 0xa4, "sd", "store"),
  operation("CMPS", 0xa6, "sd", "compare"),
  operation("STOS", 0xaa, "d", "store"),
  operation("LODS", 0xac, "s", "load"),
  operation("SCAS", 0xae, "d", "compare"),
];

/** Repeat prefix; F2h is REPNE with CMPS and SCAS and not used with the others. */
type Repeat = "" | "REP" | "REPE" | "REPNE";

const SUFFIX: Record<OperandSize, string> = { 8: "B", 16: "W", 32: "D", 64: "Q" };

function opcodeOf(op: Operation, size: OperandSize): number {
  return op.opcode + (size === 8 ? 0 : 1);
}

function stringName(
  op: Operation,
  size: OperandSize,
  repeat: Repeat,
  bits: number,
  backward: boolean,
): string {
  const hex = opcodeOf(op, size).toString(16).toUpperCase();
  const prefix = repeat === "" ? "" : `${repeat} `;
  return `${prefix}${op.name}${SUFFIX[size]} (${bits}) [${hex}] ${backward ? "down" : "up"}`;
}

/** How many elements a repeated instruction is set up for. */
function chooseCount(b: Builder, area: number, size: number): number {
  const { rng } = b;
  const roll = rng.below(20);
  if (roll < 2) return 0;
  if (roll < 10) return 1 + rng.below(8);
  if (roll < 18) return 1 + rng.below(64);
  return Math.min(64 + rng.below(700), Math.floor(area / size / 2));
}

/** A first element such that `count` of them, in this direction, stay inside an area. */
function chooseStart(
  b: Builder,
  base: number,
  area: number,
  bytes: number,
  size: number,
  backward: boolean,
): number {
  let low = base + b.rng.below(area - bytes + 1);
  if (b.rng.chance(1, 2)) low -= (low - base) % size;
  return backward ? low + bytes - size : low;
}

function setDirection(b: Builder, backward: boolean): void {
  if (b.direction === backward) return;
  b.emit(backward ? "STD [FD]" : "CLD [FC]", { opcode: [backward ? 0xfd : 0xfc] });
  b.direction = backward;
}

interface Setup {
  readonly count: number;
  readonly source: number;
  readonly destination: number;
}

function chooseSetup(
  b: Builder,
  op: Operation,
  bytes: number,
  repeat: Repeat,
  bits: number,
  backward: boolean,
): Setup {
  const { rng } = b;
  const low = bits === 16 || rng.chance(1, 6);
  const base = low ? LOW_BASE : SCRATCH_BASE;
  const area = low ? LOW_SIZE : DATA_SIZE;
  const count = repeat === "" ? 1 : chooseCount(b, area, bytes);
  const span = Math.max(count, 1) * bytes;
  const destination = chooseStart(b, base, area, span, bytes, backward);
  let source = chooseStart(b, base, area, span, bytes, backward);
  const roll = rng.below(3);
  if (roll > 0 && op.source && op.destination) {
    // Overlapping, or the same place, or a few elements apart: copies that smear, comparisons that
    // run on.
    const apart = rng.pick([0, 1, -1, bytes, -bytes, 3, 8, -8, 2 * bytes]);
    const first = backward ? destination + apart - span + bytes : destination + apart;
    if (first >= base && first + span <= base + area) source = destination + apart;
  }
  return { count, source, destination };
}

/**
 * A repeated instruction with 32-bit addresses in 64-bit mode and ECX zero changes nothing on AMD;
 * Intel processors clear bits 63:32 of RCX and, for MOVS and STOS, of the pointers. Either those
 * bits are clear already, or the program is marked.
 */
function settleUpperHalves(b: Builder, op: Operation): void {
  const touched = [RCX];
  if (op.stores && op.source) touched.push(RSI);
  if (op.stores) touched.push(RDI);
  const narrow = b.rng.chance(1, 2);
  for (const r of touched) {
    const value = b.known(r);
    if (value !== undefined && value >> 32n === 0n) continue;
    if (narrow) b.load(r, r === RCX ? 0n : BigInt(b.rng.next()));
    else b.amd = true;
  }
}

/**
 * Whether a copy overlaps itself. Zen 5 gets one such case wrong when it is not single-stepped: REP
 * MOVS with 16-bit addresses and bits 31:16 of EDI set copies as if nothing overlapped. There those
 * bits are kept clear.
 */
function smears(op: Operation, size: OperandSize, setup: Setup): boolean {
  return op.stores && op.source &&
    Math.abs(setup.source - setup.destination) < setup.count * (size / 8);
}

function emitString(
  b: Builder,
  op: Operation,
  size: OperandSize,
  repeat: Repeat,
  bits: 16 | 32 | 64,
  backward: boolean,
  setup: Setup,
  faults: boolean,
): boolean {
  let writes = (op.source ? 1 << RSI : 0) | (op.destination ? 1 << RDI : 0);
  if (repeat !== "") writes |= 1 << RCX;
  if (op.loads) writes |= 1 << RAX;
  if (b.anyLocked(writes)) return false;
  setDirection(b, backward);
  const nothing = repeat !== "" && setup.count === 0;
  // With nothing to do the pointers are not used and may be anything.
  const pointerBits = smears(op, size, setup) && bits === 16 ? 32 : bits;
  if (op.source && !nothing) b.ensure(RSI, BigInt(setup.source), pointerBits);
  if (op.destination && !nothing) b.ensure(RDI, BigInt(setup.destination), pointerBits);
  if (repeat !== "") b.ensure(RCX, BigInt(setup.count), bits);
  if (nothing && b.mode === 64 && bits === 32) settleUpperHalves(b, op);
  const before = [RSI, RDI].map((r) => b.known(r));
  b.emit(
    stringName(op, size, repeat, bits, backward),
    {
      opcode: [opcodeOf(op, size)],
      size,
      addressSize: bits,
      rex: b.chooseRex(size),
      ...(repeat === "" ? {} : { prefixes: [repeat === "REPNE" ? 0xf2 : 0xf3] }),
    },
    {
      writes,
      flags: op.compares && !nothing ? effect(0, STATUS) : NO_FLAGS,
      stores: op.stores,
      vectors: faults ? [14] : [],
      amdFault: faults && op.compares && repeat !== "",
    },
  );
  if (bits === b.mode && !faults && (repeat === "" || !op.compares)) {
    const moved = BigInt((backward ? -1 : 1) * setup.count * (size / 8));
    const [rsi, rdi] = before;
    if (op.source && rsi !== undefined) b.setKnown(RSI, rsi + moved);
    if (op.destination && rdi !== undefined) b.setKnown(RDI, rdi + moved);
    if (repeat !== "") b.setKnown(RCX, 0n);
  }
  return true;
}

/** A byte of SCAS's area into the accumulator, so that REPNE may find it. */
function aimScan(b: Builder, setup: Setup): void {
  const at = setup.destination - SCRATCH_BASE + b.rng.below(16);
  const byte = b.image.scratch[at];
  if (byte === undefined || b.anyLocked(1 << RAX)) return;
  b.emit("MOV r8, imm8 [B0+r]", {
    opcode: [0xb0],
    size: 8,
    opcodeReg: RAX,
    imm: BigInt(byte),
    immBytes: 1,
  }, { writes: 1 << RAX });
}

function string(
  b: Builder,
  op: Operation,
  size: OperandSize,
  repeat: Repeat,
  bits: 16 | 32 | 64,
  backward: boolean,
): boolean {
  const setup = chooseSetup(b, op, size / 8, repeat, bits, backward);
  if (op.name === "SCAS" && b.rng.chance(1, 2)) aimScan(b, setup);
  return emitString(b, op, size, repeat, bits, backward, setup, false);
}

/**
 * A repeated string instruction that one of its pointers leads out of its region after some
 * elements; the element that faults may lie across the edge.
 */
export function faultingString(b: Builder): boolean {
  const { rng } = b;
  const op = rng.pick(OPERATIONS);
  const size = rng.pick(b.mode === 64 ? [8, 16, 32, 64] as const : [8, 16, 32] as const);
  const bytes = size / 8;
  const repeat = rng.pick(repeats(op));
  const backward = rng.chance(1, 2);
  const low = rng.chance(1, 2);
  const edgeBase = low ? LOW_BASE : SCRATCH_BASE;
  const edgeEnd = low ? LOW_BASE + LOW_SIZE : SCRATCH_BASE + SCRATCH_SIZE;
  // REPE seldom gets far in memory that is not all the same.
  const before = repeat === "" ? 0 : rng.below(repeat === "REPE" ? 2 : 40);
  const skew = rng.chance(1, 2) ? rng.below(bytes) : 0;
  const bad = backward ? edgeBase + (before - 1) * bytes + skew : edgeEnd - before * bytes - skew;
  // The other pointer keeps inside the middle of the data.
  const good = SCRATCH_BASE + 0x4000 + rng.below(0x4000);
  const source = op.source && (!op.destination || rng.chance(1, 2));
  const setup: Setup = {
    count: repeat === "" ? 1 : before + 1 + rng.below(40),
    source: source ? bad : good,
    destination: source ? good : bad,
  };
  return emitString(b, op, size, repeat, b.mode, backward, setup, true);
}

function repeats(op: Operation): readonly Repeat[] {
  return op.compares ? ["", "REPE", "REPNE"] : ["", "REP"];
}

function formsOf(mode: Mode): Form[] {
  const forms: Form[] = [];
  const sizes = mode === 64 ? [8, 16, 32, 64] as const : [8, 16, 32] as const;
  const addresses = mode === 64 ? [64, 32] as const : [32, 16] as const;
  for (const op of OPERATIONS) {
    for (const size of sizes) {
      for (const repeat of repeats(op)) {
        for (const bits of addresses) {
          for (const backward of [false, true]) {
            forms.push(
              form(
                "string",
                stringName(op, size, repeat, bits, backward),
                (b) => string(b, op, size, repeat, bits, backward),
                { modes: [mode] },
              ),
            );
          }
        }
      }
    }
  }
  return forms;
}

/** Forms of string instructions. */
export const STRING: readonly Form[] = [...formsOf(64), ...formsOf(32)];
