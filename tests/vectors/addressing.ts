/**
 * Choosing memory operands: every addressing form, arranged so that the address falls where it is
 * wanted.
 *
 * @module
 */

import { type Builder, signed, WORD_REGISTERS } from "./builder.ts";
import type { IndexedMemory, Memory, WordMemory } from "./encode.ts";
import { RSP } from "./initial.ts";
import {
  CODE_BASE,
  CODE_SIZE,
  DATA_SIZE,
  LOW_BASE,
  LOW_SIZE,
  SCRATCH_BASE,
  SCRATCH_SIZE,
} from "./layout.ts";

/** What an instruction does with its memory operand. */
export type Access = "read" | "write" | "modify";

/** What is wanted of a memory operand. */
export interface MemoryRequest {
  /** Bytes accessed. */
  readonly size: number;
  /** What the instruction does there. */
  readonly access: Access;
  /** Whether the instruction has a REX prefix, and so may name R8–R15. */
  readonly rex: boolean;
  /** Mask of registers that must keep their values. */
  readonly keep?: number;
  /** Alignment in bytes. */
  readonly align?: number;
  /** The instruction adds this many bytes to the effective address itself (bit strings). */
  readonly bias?: bigint;
  /** Only the mode's own address size. */
  readonly natural?: boolean;
  /** No address that moves with the instruction or with RSP. */
  readonly still?: boolean;
  /** Only where the access faults, and how. */
  readonly fault?: MemoryFault;
}

/** How an access is to fault. */
export type MemoryFault = "unmapped" | "straddle" | "noncanonical";

/** A memory operand and where it points. */
export interface MemoryChoice {
  /** The operand. */
  readonly memory: Memory;
  /** Linear address of the first byte accessed, bias included. */
  readonly address: bigint;
}

function alignDown(offset: number, align: number | undefined): number {
  return align === undefined ? offset : offset - offset % align;
}

/** An offset for an access of `size` bytes in a region: anywhere, aligned, or across a boundary. */
function offsetIn(b: Builder, region: number, size: number, align: number | undefined): number {
  const { rng } = b;
  const offset = rng.below(region - size + 1);
  if (align !== undefined) return alignDown(offset, align);
  const roll = rng.below(10);
  if (roll < 3) return alignDown(offset, size & (size - 1) ? 4 : size);
  if (roll < 5 && size > 1) {
    const boundary = roll === 3 ? 4096 : 64;
    const across = alignDown(offset, boundary) - 1 - rng.below(size - 1);
    if (across >= 0) return across;
  }
  return offset;
}

function validTarget(b: Builder, request: MemoryRequest): bigint {
  const { rng } = b;
  const { size, align } = request;
  if (request.access === "read" && align === undefined && rng.chance(1, 24)) {
    return BigInt(CODE_BASE + rng.below(CODE_SIZE - size));
  }
  if (rng.chance(1, 8)) return BigInt(LOW_BASE + offsetIn(b, LOW_SIZE, size, align));
  return BigInt(SCRATCH_BASE + offsetIn(b, DATA_SIZE, size, align));
}

/** An address that is not canonical, whether linear addresses have 48 bits or 57. */
export function noncanonical(b: Builder): bigint {
  const top = 1n + BigInt(b.rng.below(126));
  return top << 56n | BigInt.asUintN(56, b.rng.next64());
}

function faultTarget(b: Builder, request: MemoryRequest, fault: MemoryFault): bigint {
  const { rng } = b;
  const { size } = request;
  if (fault === "noncanonical") return noncanonical(b);
  if (fault === "straddle" && size > 1) {
    const into = 1 + rng.below(size - 1);
    const start = rng.pick([SCRATCH_BASE, LOW_BASE]);
    const end = rng.pick([SCRATCH_BASE + SCRATCH_SIZE, LOW_BASE + LOW_SIZE]);
    return BigInt(rng.chance(1, 2) ? start - into : end - into);
  }
  switch (rng.below(4)) {
    case 0:
      return BigInt(rng.below(LOW_BASE - 16));
    case 1:
      return BigInt(LOW_BASE + LOW_SIZE + rng.below(CODE_BASE - LOW_BASE - LOW_SIZE - 16));
    case 2:
      return BigInt(SCRATCH_BASE + SCRATCH_SIZE + rng.below(0x1000));
    default:
      return BigInt(rng.next() | 0x100_0000) & 0xffff_ff00n;
  }
}

/** A linear address for an access that no register takes part in. */
export function chooseAddress(b: Builder, request: MemoryRequest): bigint {
  const { fault } = request;
  return fault === undefined ? validTarget(b, request) : faultTarget(b, request, fault);
}

function canLoad(b: Builder, r: number, request: MemoryRequest): boolean {
  return r !== RSP && !b.anyLocked(1 << r) && ((request.keep ?? 0) >> r & 1) === 0;
}

function chooseDisplacement(b: Builder): bigint {
  const roll = b.rng.below(8);
  if (roll < 2) return 0n;
  if (roll < 5) return BigInt(b.rng.below(256) - 128);
  return BigInt(b.rng.next() | 0);
}

function dispBytesFor(b: Builder, disp: bigint): 0 | 1 | 4 {
  const roll = b.rng.below(4);
  if (disp === 0n && roll < 3) return 0;
  if (disp >= -128n && disp <= 127n && roll < 3) return 1;
  return 4;
}

/** A register's value in an address of `bits` bits. */
function part(value: bigint, bits: number): bigint {
  return BigInt.asUintN(bits, value);
}

/** Random bits above an address that is shorter than the registers. */
function widen(b: Builder, value: bigint, bits: 32 | 64): bigint {
  const low = part(value, bits);
  if (bits === b.mode || b.rng.chance(1, 4)) return low;
  return BigInt(b.rng.next()) << 32n | low;
}

interface Plan {
  readonly base: number | undefined;
  readonly index: number | undefined;
  readonly scale: number;
}

function planRegisters(b: Builder, request: MemoryRequest, plain: boolean): Plan {
  const { rng } = b;
  const n = b.registers(request.rex);
  const scale = rng.below(4);
  const roll = rng.below(100);
  if (roll < 8 && plain) return { base: undefined, index: undefined, scale };
  let index: number | undefined = rng.below(n);
  if (index === RSP) index = undefined;
  if (roll < 20 && plain) return { base: undefined, index, scale };
  const base = rng.below(n);
  return roll < 45 ? { base, index: undefined, scale } : { base, index, scale };
}

/**
 * Tries to reach effective address `ea` by the registers of a plan, loading those whose values are
 * uncertain or do not fit.
 */
function reach(
  b: Builder,
  request: MemoryRequest,
  plan: Plan,
  ea: bigint,
  bits: 32 | 64,
): IndexedMemory | undefined {
  const { rng } = b;
  const { base, index, scale } = plan;
  const sib = rng.chance(1, 6);
  const factor = 1n << BigInt(scale);
  const result = (disp: bigint): IndexedMemory => ({
    kind: "indexed",
    addressSize: bits,
    base,
    index,
    scale,
    disp: Number(disp),
    dispBytes: dispBytesFor(b, disp),
    sib: sib || (base === undefined && bits !== 32),
  });
  const fits = (d: bigint): boolean => bits === 32 || d === signed(d, 32);
  // The displacement that makes up the rest of the address, when it can.
  const rest = (sum: bigint): bigint => signed(ea - sum, bits);
  if (base === undefined && index === undefined) {
    const d = rest(0n);
    return fits(d) ? result(d) : undefined;
  }
  if (base === index || base === undefined) {
    const r = index as number;
    const times = base === undefined ? factor : factor + 1n;
    const value = b.known(r);
    if (value !== undefined && rng.chance(3, 4)) {
      const d = rest(value * times);
      if (fits(d)) return result(d);
    }
    if (!canLoad(b, r, request)) return undefined;
    const fresh = widen(b, BigInt(rng.below(0x4000)), bits);
    const d = rest(part(fresh, bits) * times);
    if (!fits(d)) return undefined;
    b.load(r, fresh);
    return result(d);
  }
  let indexValue = 0n;
  let indexLoad: bigint | undefined;
  if (index !== undefined) {
    const value = b.known(index);
    if (value !== undefined) {
      indexValue = value;
    } else {
      if (!canLoad(b, index, request)) return undefined;
      indexLoad = rng.chance(1, 2) ? rng.next64() : BigInt(rng.below(0x400));
      indexValue = BigInt.asUintN(b.mode, indexLoad);
    }
  }
  const value = b.known(base);
  if (value !== undefined && rng.chance(3, 4)) {
    const d = rest(indexValue * factor + value);
    if (fits(d)) {
      if (indexLoad !== undefined && index !== undefined) b.load(index, indexLoad);
      return result(d);
    }
  }
  if (!canLoad(b, base, request)) return undefined;
  if (indexLoad !== undefined && index !== undefined) b.load(index, indexLoad);
  const disp = chooseDisplacement(b);
  b.load(base, widen(b, ea - indexValue * factor - disp, bits));
  return result(disp);
}

function chooseWord(b: Builder, request: MemoryRequest): MemoryChoice | undefined {
  const { rng } = b;
  const target = LOW_BASE + offsetIn(b, LOW_SIZE, request.size, request.align);
  const fixed = (memory: Omit<WordMemory, "kind" | "addressSize">): MemoryChoice => ({
    memory: { kind: "word", addressSize: 16, ...memory },
    address: BigInt(target),
  });
  if (rng.chance(1, 6)) {
    return fixed({ rm: 6, disp: target << 16 >> 16, dispBytes: 2, absolute: true });
  }
  const rm = rng.below(8);
  const registers = WORD_REGISTERS[rm] ?? [];
  let sum = 0;
  const uncertain: number[] = [];
  for (const r of registers) {
    const value = b.known(r);
    if (value === undefined) uncertain.push(r);
    else sum += Number(value & 0xffffn);
  }
  if (uncertain.length === 0 && rng.chance(1, 2)) {
    return fixed({ rm, disp: (target - sum) << 16 >> 16, dispBytes: 2, absolute: false });
  }
  const last = uncertain.at(-1) ?? registers.at(-1) as number;
  if (!canLoad(b, last, request) || uncertain.some((r) => !canLoad(b, r, request))) {
    return undefined;
  }
  for (const r of registers) {
    if (r === last) continue;
    if (b.known(r) === undefined) b.load(r, BigInt(rng.next()));
  }
  const others = registers.filter((r) => r !== last)
    .reduce((total, r) => total + Number((b.known(r) ?? 0n) & 0xffffn), 0);
  const dispBytes = rng.pick([0, 1, 2] as const);
  const disp = dispBytes === 0
    ? 0
    : dispBytes === 1
    ? rng.below(256) - 128
    : rng.below(0x10000) - 0x8000;
  const low = (target - others - disp) & 0xffff;
  b.load(last, BigInt(rng.below(0x10000)) << 16n | BigInt(low));
  return fixed({ rm, disp, dispBytes, absolute: false });
}

/** A slot on the stack, by a small displacement from RSP. */
function chooseStack(b: Builder, request: MemoryRequest): MemoryChoice | undefined {
  const { rng } = b;
  if (!b.ensureStack()) return undefined;
  const reads = request.access === "read";
  // Within a subroutine the slots from RSP up hold its return address.
  if (!reads && b.anyLocked(1 << RSP)) return undefined;
  const rsp = b.known(RSP) ?? 0n;
  const disp = rng.below(128) - (reads ? 32 : 64);
  const memory: IndexedMemory = {
    kind: "indexed",
    addressSize: b.mode,
    base: RSP,
    index: undefined,
    scale: rng.below(4),
    disp,
    dispBytes: dispBytesFor(b, BigInt(disp)),
    sib: true,
  };
  return { memory, address: rsp + BigInt(disp) };
}

/**
 * Chooses a memory operand and appends whatever loads its registers need. Undefined when the locks
 * leave no way; the loads done by then are harmless.
 */
export function chooseMemory(b: Builder, request: MemoryRequest): MemoryChoice | undefined {
  const { rng } = b;
  const bias = request.bias ?? 0n;
  const { fault } = request;
  const natural = request.natural === true || fault !== undefined || bias !== 0n;
  const aligned = request.align !== undefined;
  if (b.mode === 32 && !natural && rng.chance(1, 4)) return chooseWord(b, request);
  if (!natural && !aligned && request.still !== true && rng.chance(1, 16)) {
    const stack = chooseStack(b, request);
    if (stack !== undefined) return stack;
  }
  const bits = b.mode === 64 && !natural && rng.chance(1, 7) ? 32 : b.mode;
  const address = chooseAddress(b, request);
  const ea = part(address - bias, bits);
  const near = ea < 0x7000_0000n;
  if (b.mode === 64 && near && request.still !== true && rng.chance(1, 9)) {
    return { memory: { kind: "relative", addressSize: bits, target: Number(ea) }, address };
  }
  for (let attempt = 0; attempt < 6; attempt++) {
    const plan = planRegisters(b, request, near);
    if (request.still === true && plan.base === RSP) continue;
    const memory = reach(b, request, plan, ea, bits);
    if (memory !== undefined) return { memory, address };
  }
  return undefined;
}
