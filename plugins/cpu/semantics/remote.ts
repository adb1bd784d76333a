/**
 * Instructions that read, compare and write memory in one go without holding its value: RAO-INT,
 * CMPccXADD, and stores of 64 bytes (SDM vol. 2).
 *
 * @module
 */
import { Vector } from "../microcode/raise.ts";
import { Seg } from "../state/cpu_state.ts";
import type { I64 } from "../wasm/mod.ts";
import { emitCondition } from "./flags.ts";
import type { Instruction, Semantics } from "./instruction.ts";
import { CONDITIONS } from "./move.ts";

/** The memory operand's value; its address must be a multiple of its size, else #GP. */
function alignedOperand(i: Instruction): I64 {
  const bytes = i.width(0) / 8;
  const linear = i.address(bytes, 1);
  i.faultIf(linear.has(bytes - 1), Vector.GP, 0);
  return i.loadForWrite(i.width(0), linear);
}

const remote = (operation: (memory: I64, operand: I64) => I64): Semantics => ({
  emit: (i) => {
    const value = alignedOperand(i);
    i.write(0, operation(value, i.unsigned(1)));
  },
});

/** Memory is written in any case, with what it held if the condition does not hold. */
const compareAndAdd = (code: number): Semantics => ({
  emit: (i) => {
    const { bits } = i;
    const value = alignedOperand(i).signExtend(bits);
    const compared = i.signed(1);
    const sum = value.add(i.unsigned(2));
    i.flagsSub(bits, value, compared);
    const holds = emitCondition(i.mc, i.f, code, i.flags);
    i.write(0, holds.select(sum, value));
    i.write(1, value);
  },
});

/** MOVDIR64B: 64 bytes from the memory operand to ES:register. */
const movdir64b: Semantics = {
  addressSize: true,
  code: true,
  emit: (i) => {
    const { f, mc } = i;
    const source = i.address(64, 0);
    const offset = i.unsigned(0).zeroExtend(i.addressBits);
    i.spill();
    const target = i.code === 64 ? offset : f.call(mc.segmentAddress, Seg.ES, offset, 64, 1);
    i.faultIf(target.has(63), Vector.GP, 0);
    const quads = Array.from({ length: 8 }, (_, k) => i.load(64, source.add(8 * k)));
    for (const [k, quad] of quads.entries()) i.store(64, target.add(8 * k), quad);
  },
};

/** These instructions by mnemonic. */
export const REMOTE: Readonly<Record<string, Semantics>> = {
  AADD: remote((memory, operand) => memory.add(operand)),
  AAND: remote((memory, operand) => memory.and(operand)),
  AOR: remote((memory, operand) => memory.or(operand)),
  AXOR: remote((memory, operand) => memory.xor(operand)),
  MOVDIR64B: movdir64b,
  ...Object.fromEntries(CONDITIONS.map(([name, code]) => [`CMP${name}XADD`, compareAndAdd(code)])),
};
