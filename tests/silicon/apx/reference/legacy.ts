/**
 * Opcode maps 0 and 1 of the evaluator, and what EVEX map 4 has of map 0.
 *
 * @module
 */
import {
  AF,
  ALL,
  CF,
  cut,
  Fault,
  holds,
  OF,
  PF,
  RAX,
  RBX,
  RCX,
  RDX,
  RSP,
  SF,
  type Step,
  wide,
  ZF,
} from "./step.ts";
import {
  arithmetic,
  compareFlags,
  conditionally,
  countBits,
  doubleShift,
  incDec,
  multiply,
  rotate,
  swap,
  unary,
} from "./arithmetic.ts";

/** Instructions that legacy map 0 and EVEX map 4 have in common; false if it is none of them. */
export function common(step: Step): boolean {
  const { p, state } = step;
  const { opcode } = p;
  const bits = (opcode & 1) === 0 ? 8 : p.bits;
  const toRm = (b: number, value: bigint): void => step.setRm(b, value);
  const toReg = (b: number, value: bigint): void => step.set(p.reg, b, value);
  const evex = p.kind === "evex";
  if (opcode < 0x40 && (opcode & 7) < 4) {
    const operation = opcode >> 3;
    const fromRm = (opcode & 2) !== 0;
    const [a, b] = fromRm
      ? [step.get(p.reg, bits), step.getRm(bits)]
      : [step.getRm(bits), step.get(p.reg, bits)];
    if (operation === 7) {
      const compare = (): void => compareFlags(step, false, a, b, bits);
      if (evex) conditionally(step, compare);
      else compare();
    } else step.put(bits, arithmetic(step, operation, a, b, bits), fromRm ? toReg : toRm);
    return true;
  }
  switch (opcode) {
    case 0x69:
    case 0x6b: {
      const product = multiply(step, step.getRm(p.bits), p.immediate, p.bits);
      // ND means that the upper bits of the usual destination are cleared.
      if (evex && p.nd) state.registers[p.reg] = cut(product, p.bits);
      else step.set(p.reg, p.bits, product);
      return true;
    }
    case 0x80:
    case 0x81:
    case 0x83: {
      const a = step.getRm(bits);
      if (p.group === 7) {
        const compare = (): void => compareFlags(step, false, a, p.immediate, bits);
        if (evex) conditionally(step, compare);
        else compare();
      } else step.put(bits, arithmetic(step, p.group, a, p.immediate, bits), toRm);
      return true;
    }
    case 0x84:
    case 0x85: {
      const a = step.getRm(bits);
      const compare = (): void => compareFlags(step, true, a, step.get(p.reg, bits), bits);
      if (evex) conditionally(step, compare);
      else compare();
      return true;
    }
    case 0xc0:
    case 0xc1:
    case 0xd0:
    case 0xd1:
    case 0xd2:
    case 0xd3: {
      const count = opcode < 0xd0 ? p.immediate : opcode < 0xd2 ? 1n : step.get(RCX, 8);
      step.put(bits, rotate(step, p.group, step.getRm(bits), cut(count, 8), bits), toRm);
      return true;
    }
    case 0xf6:
    case 0xf7: {
      if (p.group >= 2) {
        unary(step, p.group, bits);
        return true;
      }
      const a = step.getRm(bits);
      const compare = (): void => compareFlags(step, true, a, cut(p.immediate, bits), bits);
      if (evex) conditionally(step, compare);
      else compare();
      return true;
    }
    case 0xfe:
    case 0xff:
      if (p.group > 1) return false;
      incDec(step, p.group === 1, bits);
      return true;
  }
  return false;
}

/** Legacy map 0 with REX2. */
export function oneByte(step: Step): boolean {
  const { p, state } = step;
  const { opcode, bits } = p;
  const half = (opcode & 1) === 0 ? 8 : bits;
  // Stack instructions are 64 bits wide unless 66 says 16.
  const stack = p.pp === 0x66 && !p.wide ? 16 : 64;
  const push = (value: bigint): void => {
    const top = cut(state.registers[RSP]! - BigInt(stack / 8), 64);
    state.store(top, stack / 8, cut(value, stack));
    state.registers[RSP] = top;
  };
  const pop = (): bigint => {
    const top = state.registers[RSP]!;
    const value = state.load(top, stack / 8);
    state.registers[RSP] = cut(top + BigInt(stack / 8), 64);
    return value;
  };
  if (opcode >= 0x50 && opcode <= 0x57) {
    push(state.registers[p.rm]!);
    return true;
  }
  if (opcode >= 0x58 && opcode <= 0x5f) {
    step.set(p.rm, stack, pop());
    return true;
  }
  if (opcode >= 0x90 && opcode <= 0x97) {
    if (p.rm === 0) return true;
    const [a, b] = [step.get(p.rm, bits), step.get(RAX, bits)];
    step.set(p.rm, bits, b);
    step.set(RAX, bits, a);
    return true;
  }
  if (opcode >= 0xb0 && opcode <= 0xbf) {
    step.set(p.rm, opcode < 0xb8 ? 8 : bits, p.immediate);
    return true;
  }
  switch (opcode) {
    case 0x63:
      step.set(p.reg, bits, wide(step.getRm(32), 32));
      return true;
    case 0x86:
    case 0x87: {
      const [a, b] = [step.getRm(half), step.get(p.reg, half)];
      step.setRm(half, b);
      step.set(p.reg, half, a);
      return true;
    }
    case 0x88:
    case 0x89:
      step.setRm(half, step.get(p.reg, half));
      return true;
    case 0x8a:
    case 0x8b:
      step.set(p.reg, half, step.getRm(half));
      return true;
    case 0x8d:
      step.set(p.reg, bits, step.address);
      return true;
    case 0x8f: {
      const value = pop();
      step.setRm(stack, value);
      return true;
    }
    case 0xa1:
      state.rip = cut(p.immediate, 64);
      if (wide(state.rip, 48) !== wide(state.rip, 64)) throw new Fault("#13(0)");
      return true;
    case 0xc6:
    case 0xc7:
      step.setRm(half, p.immediate);
      return true;
    case 0xff:
      if (p.group === 6) push(step.getRm(stack));
      else if (p.group === 2 || p.group === 4) {
        const target = step.getRm(64);
        if (wide(target, 48) !== wide(target, 64)) throw new Fault("#13(0)");
        if (p.group === 2) {
          const top = cut(state.registers[RSP]! - 8n, 64);
          state.store(top, 8, state.rip + BigInt(p.length));
          state.registers[RSP] = top;
        }
        state.rip = target;
      } else return false;
      return true;
  }
  return false;
}

/** Legacy map 1 with REX2. */
export function twoByte(step: Step): boolean {
  const { p, state } = step;
  const { opcode, bits } = p;
  const half = (opcode & 1) === 0 ? 8 : bits;
  if ((opcode & 0xf0) === 0x40) {
    const source = step.getRm(bits);
    const truth = holds(opcode & 15, state.flags);
    step.set(p.reg, bits, truth ? source : step.get(p.reg, bits));
    return true;
  }
  if ((opcode & 0xf0) === 0x90) {
    step.setRm(8, BigInt(holds(opcode & 15, state.flags)));
    return true;
  }
  if (opcode >= 0xc8 && opcode <= 0xcf) {
    if (bits === 16) return false;
    step.set(p.rm, bits, swap(step.get(p.rm, bits), bits));
    return true;
  }
  switch (opcode) {
    case 0x1f:
      return true;
    case 0xa3:
    case 0xab:
    case 0xb3:
    case 0xbb:
    case 0xba: {
      const operation = opcode === 0xba ? p.group & 3 : (opcode >> 3) & 3;
      const index = opcode === 0xba ? cut(p.immediate, 8) : step.get(p.reg, bits);
      const size = BigInt(bits);
      const bit = index % size;
      // A register as index reaches beyond a memory operand.
      const far = opcode !== 0xba && p.memory !== undefined;
      const units = far ? (wide(index, bits) - bit) / size : 0n;
      const at = far ? cut(step.address + units * (size / 8n), 64) : 0n;
      const value = far ? state.load(at, bits / 8) : step.getRm(bits);
      const one = 1n << bit;
      const result = [value, value | one, value & ~one, value ^ one][operation]!;
      if (operation !== 0) {
        if (far) state.store(at, bits / 8, result);
        else step.setRm(bits, result);
      }
      step.flags(CF, Number((value >> bit) & 1n), OF | SF | AF | PF);
      return true;
    }
    case 0xa4:
    case 0xa5:
    case 0xac:
    case 0xad: {
      const count = (opcode & 1) === 0 ? cut(p.immediate, 8) : step.get(RCX, 8);
      const value = step.getRm(bits);
      const other = step.get(p.reg, bits);
      step.setRm(bits, doubleShift(step, opcode < 0xa8, value, other, count, bits));
      return true;
    }
    case 0xaf:
      step.set(p.reg, bits, multiply(step, step.get(p.reg, bits), step.getRm(bits), bits));
      return true;
    case 0xb0:
    case 0xb1: {
      const [destination, source] = [step.getRm(half), step.get(p.reg, half)];
      const accumulator = step.get(RAX, half);
      step.flags(ALL, step.sumFlags(accumulator, destination, 0n, half, true));
      if (accumulator === destination) step.setRm(half, source);
      else {
        if (p.memory !== undefined) step.setRm(half, destination);
        step.set(RAX, half, destination);
      }
      return true;
    }
    case 0xb6:
      step.set(p.reg, bits, step.getRm(8));
      return true;
    case 0xb7:
      step.set(p.reg, bits, step.getRm(16));
      return true;
    case 0xbe:
      step.set(p.reg, bits, wide(step.getRm(8), 8));
      return true;
    case 0xbf:
      step.set(p.reg, bits, wide(step.getRm(16), 16));
      return true;
    case 0xb8:
      if (p.pp !== 0xf3) return false;
      countBits(step, opcode, bits);
      return true;
    case 0xbc:
    case 0xbd: {
      if (p.pp === 0xf3) {
        countBits(step, opcode, bits);
        return true;
      }
      const source = step.getRm(bits);
      // A zero source leaves the destination alone (APM vol. 3).
      if (source !== 0n) {
        const text = source.toString(2);
        const last = text.length - 1;
        step.set(p.reg, bits, BigInt(opcode === 0xbd ? last : last - text.lastIndexOf("1")));
      }
      step.flags(ALL, source === 0n ? ZF : 0, ALL & ~ZF);
      return true;
    }
    case 0xc0:
    case 0xc1: {
      const [destination, source] = [step.getRm(half), step.get(p.reg, half)];
      step.flags(ALL, step.sumFlags(destination, source, 0n, half, false));
      step.set(p.reg, half, destination);
      step.setRm(half, destination + source);
      return true;
    }
    case 0xc3:
      step.setRm(bits, step.get(p.reg, bits));
      return true;
    case 0xc7: {
      if (p.group !== 1) return false;
      const size = p.wide ? 64 : 32;
      const at = step.address;
      if (p.wide && (at & 15n) !== 0n) throw new Fault("#13(0)");
      const bytes = size / 8;
      const low = state.load(at, bytes);
      const high = state.load(at + BigInt(bytes), bytes);
      const equal = low === step.get(RAX, size) && high === step.get(RDX, size);
      state.store(at, bytes, equal ? step.get(RBX, size) : low);
      state.store(at + BigInt(bytes), bytes, equal ? step.get(RCX, size) : high);
      if (!equal) {
        step.set(RAX, size, low);
        step.set(RDX, size, high);
      }
      step.flags(ZF, equal ? ZF : 0);
      return true;
    }
  }
  return false;
}
