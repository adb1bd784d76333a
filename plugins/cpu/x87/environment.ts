/**
 * The environment of the unit in memory: control, status and tag word, and where the last instruction
 * and its operand stood (SDM vol. 1, 8.1.10; APM vol. 2, 11.4.4).
 *
 * | 32-bit | 16-bit |                                                                         |
 * | ------ | ------ | ----------------------------------------------------------------------- |
 * | 0      | 0      | control word                                                            |
 * | 4      | 2      | status word                                                             |
 * | 8      | 4      | tag word                                                                |
 * | 12     | 6      | instruction pointer                                                     |
 * | 16     | 8      | CS and in the 32-bit format the opcode; in real mode see below          |
 * | 20     | 10     | pointer to the operand                                                  |
 * | 24     | 12     | its segment                                                             |
 *
 * In real and virtual-8086 mode pointers are linear addresses, bits 15:0 in their own word, the rest in
 * bits 12 and above of the next, whose bits 10:0 are the opcode. What is reserved is stored as ones.
 *
 * @module
 */
import type { Microcode } from "../microcode/microcode.ts";
import { Mode, S } from "../state/cpu_state.ts";
import {
  type FunctionBuilder,
  type I32,
  i32,
  I32T,
  type I64,
  i64,
  I64T,
  type ModuleBuilder,
} from "../wasm/mod.ts";
import { Control, EXPONENT, exponentOf, isUnsupported, isZero, type Real } from "./format.ts";
import type { X87Routines } from "./header.ts";
import { summarized } from "./operations.ts";
import { EMPTY, physical, readRegister, registerAt } from "./stack.ts";

/** Bytes of an environment. */
export const ENVIRONMENT_BYTES = { 16: 14, 32: 28 } as const;
/** Bytes of a register behind it. */
export const STORED_REGISTER_BYTES = 10;

const OPCODE_BITS = 0x7ff;
const RESERVED = 0xffff_0000;
/** Bits of the status word that exist, but summary and busy, which follow from the others. */
const STATUS_BITS = 0x7f7f;

/** Tags besides "empty". */
const Tag = { VALID: 0, ZERO: 1, SPECIAL: 2 } as const;

/** The tag that a register's contents have. */
function tagOf(real: Real): I32 {
  const exponent = exponentOf(real);
  const special = exponent.eqz().or(exponent.eq(EXPONENT)).or(isUnsupported(real));
  return isZero(real).select(
    i32(Tag.ZERO),
    special.select(i32(Tag.SPECIAL), i32(Tag.VALID)),
  );
}

/** Gives the functions of the environment their bodies. */
export function defineEnvironment(module: ModuleBuilder, x87: X87Routines, mc: Microcode): void {
  const tagWord = module.define("x87.tagWord", [], I32T, (f) => {
    const word = f.variable(I32T, 0);
    const n = f.variable(I32T, 0);
    f.while(() => n.get().ltU(8), () => {
      const shift = n.get().shl(1);
      const kept = S.fpuTag.get(f).shrU(shift).and(3);
      const tag = kept.eq(EMPTY).select(i32(EMPTY), tagOf(readRegister(f, n.get())));
      word.set(word.get().or(tag.shl(shift)));
      n.set(n.get().add(1));
    });
    f.return(word.get());
  });

  /** A pointer in real mode: its two words. */
  const linear = (offset: I32, selector: I32): I32 => selector.shl(4).add(offset);

  module.body(x87.storeEnvironment, (f, area, wide, real) => {
    const at = f.variable(I64T, area);
    /** Stores the next word of the format, with what stands in the upper half of a wide one. */
    const next = (low: I32, high: I32 | number = RESERVED): void => {
      f.if(wide, () => {
        const value = low.and(0xffff).or(typeof high === "number" ? i32(high) : high);
        f.call(mc.store32, at.get(), value.extendU());
        at.set(at.get().add(4));
      }, () => {
        f.call(mc.store16, at.get(), low.extendU());
        at.set(at.get().add(2));
      });
    };
    next(S.fpuControl.get(f));
    next(S.fpuStatus.get(f));
    next(f.call(tagWord));
    const selectors = S.fpuSelectors.get(f);
    const opcode = S.fpuOpcode.get(f).and(OPCODE_BITS);
    const instruction = S.fpuInstruction.low(f);
    const data = S.fpuData.low(f);
    const upper = i32(RESERVED);
    f.if(real, () => {
      const from = linear(instruction, selectors.and(0xffff));
      const operand = linear(data, selectors.shrU(16));
      const split = (address: I32, code: I32 | number): void => {
        next(address);
        const top = address.shrU(16).shl(12);
        f.if(wide, () => {
          const word = top.or(code);
          next(word, word.and(0x0fff_0000));
        }, () => next(top.or(code)));
      };
      split(from, opcode);
      split(operand, 0);
      f.return();
    });
    next(instruction, instruction.and(upper));
    next(selectors, opcode.shl(16));
    next(data, data.and(upper));
    next(selectors.shrU(16));
  });

  module.body(x87.loadEnvironment, (f, area, wide, real) => {
    const at = f.variable(I64T, area);
    /** The next word of the format, and the whole of a wide one. */
    const next = (): I32 => {
      const value = f.choose(
        I32T,
        wide,
        () => f.call(mc.load32, at.get()).wrap(),
        () => f.call(mc.load16, at.get()).wrap(),
      );
      at.set(at.get().add(wide.select(i64(4), i64(2))));
      return value;
    };
    const control = next().and(Control.BITS).or(Control.ONE);
    const status = next();
    const tags = next();
    const first = next();
    const second = next();
    const third = next();
    const fourth = next();
    S.fpuControl.set(f, control);
    S.fpuStatus.set(f, summarized(status.and(STATUS_BITS), control));
    // Only what is empty counts: 3 in both bits of a tag.
    const both = tags.and(tags.shrU(1)).and(0x5555);
    S.fpuTag.set(f, both.mul(EMPTY));
    f.if(real, () => {
      const join = (low: I32, high: I32): I32 =>
        low.and(0xffff).or(wide.select(high.shrU(12).and(0xffff), high.shrU(12).and(15)).shl(16));
      S.fpuOpcode.set(f, second.and(OPCODE_BITS));
      S.fpuSelectors.set(f, 0);
      S.fpuInstruction.set(f, join(first, second).extendU());
      S.fpuData.set(f, join(third, fourth).extendU());
      f.return();
    });
    f.if(wide, () => S.fpuOpcode.set(f, second.shrU(16).and(OPCODE_BITS)));
    S.fpuSelectors.set(f, second.and(0xffff).or(fourth.shl(16)));
    const legacy = S.mode.has(f, Mode.LONG).eqz().extendU();
    const pointer = (offset: I32, selector: I32): I64 =>
      offset.extendU().or(selector.and(0xffff).extendU().mul(legacy).shl(32));
    S.fpuInstruction.set(f, pointer(first, second));
    S.fpuData.set(f, pointer(third, fourth));
  });

  /** Runs `body` with the address of each register of the stack and its place behind `area`. */
  const eachRegister = (
    f: FunctionBuilder,
    area: I64,
    body: (register: I32, at: I64) => void,
  ): void => {
    const n = f.variable(I32T, 0);
    f.while(() => n.get().ltU(8), () => {
      const place = area.add(n.get().mul(STORED_REGISTER_BYTES).extendU());
      body(registerAt(physical(f, n.get())), place);
      n.set(n.get().add(1));
    });
  };

  module.body(x87.storeRegisters, (f, area) => {
    eachRegister(f, area, (register, at) => {
      f.call(mc.store64, at, f.load64(register));
      f.call(mc.store16, at.add(8), f.load64(register, 8));
    });
  });

  module.body(x87.loadRegisters, (f, area) => {
    eachRegister(f, area, (register, at) => {
      f.store64(register, f.call(mc.load64, at));
      f.store64(register, f.call(mc.load16, at.add(8)), 8);
    });
  });

  module.body(x87.maskedStore, (f, area, value, mask) => {
    f.call(mc.probeStore, area, 8);
    for (let k = 0; k < 8; k++) {
      f.if(mask.and(1 << k), () => f.call(mc.store8, area.add(k), value.shrU(8 * k)));
    }
  });
}
