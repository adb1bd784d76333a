/**
 * BMI1, BMI2 and CMPccXADD of the evaluator.
 *
 * @module
 */
import { AF, ALL, CF, cut, Fault, holds, mask, PF, RDX, SF, type Step, wide, ZF } from "./step.ts";

/** BMI1, BMI2 and CMPccXADD behind VEX or EVEX. */
export function threeOperands(step: Step): boolean {
  const { p, state } = step;
  const bits = p.wide ? 64 : 32;
  const size = BigInt(bits);
  const set = (result: bigint): void => step.set(p.reg, bits, result);
  if (p.map === 3 && p.opcode === 0xf0) {
    const turn = cut(p.immediate, 8) % size;
    const value = step.getRm(bits);
    set((value >> turn) | (value << (size - turn)));
    return true;
  }
  if (p.map !== 2) return false;
  const v = step.get(p.v, bits);
  if ((p.opcode & 0xf0) === 0xe0) {
    const at = step.address;
    if (at % (size / 8n) !== 0n) throw new Fault("#13(0)");
    const [memory, compared] = [step.getRm(bits), step.get(p.reg, bits)];
    state.flags = step.sumFlags(memory, compared, 0n, bits, true);
    step.setRm(bits, holds(p.opcode & 15, state.flags) ? memory + v : memory);
    set(memory);
    return true;
  }
  const source = step.getRm(bits);
  switch (p.opcode) {
    case 0xf2: {
      const result = cut(~v, bits) & source;
      set(result);
      step.flags(ALL, step.resultFlags(result, bits), AF | PF);
      return true;
    }
    case 0xf3: {
      const results: Readonly<Record<number, bigint>> = {
        1: source & (source - 1n),
        2: source ^ (source - 1n),
        3: source & -source,
      };
      const result = results[p.group];
      if (result === undefined) return false;
      step.set(p.v, bits, result);
      const carry = (source === 0n) === (p.group !== 3);
      step.flags(ALL, step.resultFlags(result, bits) & ~PF | (carry ? CF : 0), AF | PF);
      return true;
    }
    case 0xf5: {
      if (p.pp === 0) {
        const index = Number(v & 0xffn);
        const result = index < bits ? source & mask(index) : source;
        set(result);
        const carry = index > bits - 1 ? CF : 0;
        step.flags(ALL, step.resultFlags(result, bits) | carry, AF | PF);
        return true;
      }
      let result = 0n;
      let at = 0n;
      for (let k = 0n; k < size; k++) {
        if (((source >> k) & 1n) === 0n) continue;
        if (p.pp === 0xf2) result |= ((v >> at) & 1n) << k;
        else result |= ((v >> k) & 1n) << at;
        at++;
      }
      set(result);
      return true;
    }
    case 0xf6: {
      const product = step.get(RDX, bits) * source;
      step.set(p.v, bits, product);
      set(product >> size);
      return true;
    }
    case 0xf7: {
      const count = v % size;
      if (p.pp === 0x66) set(source << count);
      else if (p.pp === 0xf2) set(source >> count);
      else if (p.pp === 0xf3) set(wide(source, bits) >> count);
      else {
        const start = v & 0xffn;
        const length = (v >> 8n) & 0xffn;
        const result = (source >> start) & ((1n << length) - 1n);
        set(result);
        step.flags(ALL, result === 0n ? ZF : 0, AF | SF | PF);
      }
      return true;
    }
  }
  return false;
}
