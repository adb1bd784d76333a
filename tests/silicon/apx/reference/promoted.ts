/**
 * What EVEX map 4 has of its own.
 *
 * @module
 */
import { CF, cut, Fault, holds, mask, OF, RCX, RSP, type Step } from "./step.ts";
import { countBits, crc32, doubleShift, multiply, swap } from "./arithmetic.ts";

/** What only EVEX map 4 has. */
export function promoted(step: Step): boolean {
  const { p, state } = step;
  const { opcode, bits } = p;
  const toReg = (b: number, value: bigint): void => step.set(p.reg, b, value);
  const toRm = (b: number, value: bigint): void => step.setRm(b, value);
  if ((opcode & 0xf0) === 0x40) {
    const truth = holds(opcode & 15, state.flags);
    if (p.pp === 0xf2) {
      const value = BigInt(truth);
      if (p.memory !== undefined) step.setRm(8, value);
      else if (p.nd) state.registers[p.rm] = value;
      else step.set(p.rm, 8, value);
    } else if (p.nd && !p.nf) {
      const source = step.getRm(bits);
      state.registers[p.v] = truth ? source : step.get(p.reg, bits);
    } else if (p.nd) state.registers[p.v] = truth ? step.getRm(bits) : step.get(p.reg, bits);
    else if (!p.nf) state.registers[p.reg] = truth ? step.getRm(bits) : 0n;
    else if (p.memory !== undefined) {
      if (truth) step.setRm(bits, step.get(p.reg, bits));
    } else state.registers[p.rm] = truth ? step.get(p.reg, bits) : 0n;
    return true;
  }
  switch (opcode) {
    case 0x24:
    case 0x2c:
    case 0xa5:
    case 0xad: {
      const count = opcode < 0x30 ? cut(p.immediate, 8) : step.get(RCX, 8);
      const left = opcode === 0x24 || opcode === 0xa5;
      const value = step.getRm(bits);
      const other = step.get(p.reg, bits);
      step.put(bits, doubleShift(step, left, value, other, count, bits), toRm);
      return true;
    }
    case 0x60:
      step.set(p.reg, bits, swap(step.getRm(bits), bits));
      return true;
    case 0x61:
      step.setRm(bits, swap(step.get(p.reg, bits), bits));
      return true;
    case 0x66: {
      if (p.pp === 0) return false;
      const size = p.wide ? 64 : 32;
      const flag = p.pp === 0x66 ? CF : OF;
      const carry = (state.flags & flag) !== 0 ? 1n : 0n;
      const sum = step.get(p.reg, size) + step.getRm(size) + carry;
      step.put(size, sum, toReg);
      step.flags(flag, sum > mask(size) ? flag : 0);
      return true;
    }
    case 0x88:
    case 0xf4:
    case 0xf5:
      countBits(step, opcode, bits);
      return true;
    case 0x8a:
      step.set(p.reg, 8, step.getRm(8));
      return true;
    case 0x8b:
      step.set(p.reg, bits, step.getRm(bits));
      return true;
    case 0x8f: {
      const top = state.registers[RSP]!;
      if ((top & 15n) !== 0n) throw new Fault("#13(0)");
      const first = state.load(top, 8);
      const second = state.load(top + 8n, 8);
      state.registers[RSP] = cut(top + 16n, 64);
      state.registers[p.v] = first;
      state.registers[p.rm] = second;
      return true;
    }
    case 0xaf: {
      const product = multiply(step, step.get(p.reg, bits), step.getRm(bits), bits);
      step.put(bits, product, toReg);
      return true;
    }
    case 0xf0:
    case 0xf1: {
      if (p.pp === 0xf3) return false;
      const size = opcode === 0xf0 ? 8 : bits;
      step.set(p.reg, p.wide ? 64 : 32, crc32(state.registers[p.reg]!, step.getRm(size), size));
      return true;
    }
    case 0xf9:
      step.setRm(p.wide ? 64 : 32, step.get(p.reg, p.wide ? 64 : 32));
      return true;
    case 0xfc: {
      const size = p.wide ? 64 : 32;
      const a = step.getRm(size);
      const b = step.get(p.reg, size);
      const result = { 0: a + b, 0x66: a & b, 0xf3: a ^ b, 0xf2: a | b }[p.pp]!;
      step.setRm(size, result);
      return true;
    }
    case 0xff: {
      if (p.group !== 6) return false;
      const top = state.registers[RSP]!;
      if ((top & 15n) !== 0n) throw new Fault("#13(0)");
      const values = [state.registers[p.v]!, state.registers[p.rm]!];
      state.store(cut(top - 8n, 64), 8, values[0]!);
      state.store(cut(top - 16n, 64), 8, values[1]!);
      state.registers[RSP] = cut(top - 16n, 64);
      return true;
    }
  }
  return false;
}
