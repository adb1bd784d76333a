/**
 * Control and debug registers in VMX non-root operation: guest/host masks, read shadows, CR3 targets
 * (SDM vol. 3, 25.6.6, 25.6.7, 26.1.3, 26.3).
 *
 * @module
 */
import { Cr0 } from "../microcode/registers.ts";
import { S } from "../state/cpu_state.ts";
import type { Field64 } from "../state/field.ts";
import { ApicOffset } from "../svm/avic/layout.ts";
import { Primary } from "../vmx/controls.ts";
import { VmxExit } from "../vmx/exit_reasons.ts";
import { readField, readField32, Vmcs, writeField } from "../vmx/fields.ts";
import { type I32, I32T, type I64, I64T } from "../wasm/mod.ts";
import type { Instruction } from "./instruction.ts";
import { exitVmx } from "./vmx_intercept.ts";

/** Access types: bits 5:4 of the qualification of a control-register access. */
const CrAccess = { TO: 0x00, FROM: 0x10, CLTS: 0x20, LMSW: 0x30 } as const;
/** LMSW with an operand in memory. */
const LMSW_MEMORY = 0x40;
/** A move from a debug register. */
const FROM_DR = 0x10;
/** The general register: bits 11:8 of the qualification, 12:8 where there is APX (bit 12 was reserved). */
const GPR_SHIFT = 8;
const LMSW_DATA_SHIFT = 16;
/** PE MP EM TS: what LMSW has to do with. */
const LMSW_BITS = 0xf;

const CR3_TARGETS: readonly number[] = [
  Vmcs.CR3_TARGET0,
  Vmcs.CR3_TARGET1,
  Vmcs.CR3_TARGET2,
  Vmcs.CR3_TARGET3,
];

const MASKED: readonly (readonly [number, number, number, Field64])[] = [
  [0, Vmcs.CR0_MASK, Vmcs.CR0_SHADOW, S.cr0],
  [4, Vmcs.CR4_MASK, Vmcs.CR4_SHADOW, S.cr4],
];

function inGuest(i: Instruction, emit: () => void): void {
  i.f.if(S.nonRoot.get(i.f), emit, undefined, "unlikely");
}

/** MOV of `value` to CR`n`: takes the exit it causes, and yields what the guest may write of it. */
export function writeGuestCr(i: Instruction, n: I32, value: I64): I64 {
  const { f } = i;
  const merged = f.variable(I64T, value);
  inGuest(i, () => {
    const exit = f.variable(I32T, 0);
    for (const [number, maskField, shadowField, register] of MASKED) {
      f.if(n.eq(number), () => {
        const mask = readField(f, maskField);
        exit.set(value.xor(readField(f, shadowField)).has(mask));
        merged.set(value.and(mask.xor(-1)).or(register.get(f).and(mask)));
      });
    }
    f.if(n.eq(3), () => {
      const count = readField32(f, Vmcs.CR3_TARGET_COUNT);
      const known = CR3_TARGETS
        .map((target, k) => count.gtU(k).and(readField(f, target).eq(value)))
        .reduce((any, one) => any.or(one));
      exit.set(S.primaryControls.has(f, Primary.CR3_LOAD).and(known.eqz()));
    });
    f.if(n.eq(8), () => exit.set(S.primaryControls.has(f, Primary.CR8_LOAD)));
    f.if(exit.get(), () => {
      const register = i.registerNumber(1).and(31).shl(GPR_SHIFT);
      exitVmx(i, VmxExit.CR_ACCESS, n.or(register).or(CrAccess.TO).extendU());
    });
  });
  return merged.get();
}

/** MOV from CR`n`, or SMSW: takes the exit it causes. */
export function exitCrRead(i: Instruction, n: I32): void {
  const { f } = i;
  inGuest(i, () => {
    const cr3 = n.eq(3).and(S.primaryControls.has(f, Primary.CR3_STORE));
    const cr8 = n.eq(8).and(S.primaryControls.has(f, Primary.CR8_STORE));
    f.if(cr3.or(cr8), () => {
      const register = i.registerNumber(0).and(31).shl(GPR_SHIFT);
      exitVmx(i, VmxExit.CR_ACCESS, n.or(register).or(CrAccess.FROM).extendU());
    });
  });
}

/** What a guest reads from CR`n`, whose value is `value`: the shadow where the host owns the bit. */
export function guestCrValue(i: Instruction, n: I32, value: I64): I64 {
  const { f } = i;
  const seen = f.variable(I64T, value);
  inGuest(i, () => {
    for (const [number, maskField, shadowField] of MASKED) {
      f.if(n.eq(number), () => {
        const mask = readField(f, maskField);
        seen.set(value.and(mask.xor(-1)).or(readField(f, shadowField).and(mask)));
      });
    }
  });
  return seen.get();
}

/** CLTS: takes the exit it causes; yields 1 if TS is the guest's to clear. */
export function guestMayClearTs(i: Instruction): I32 {
  const { f } = i;
  const may = f.variable(I32T, 1);
  inGuest(i, () => {
    const owned = readField(f, Vmcs.CR0_MASK).has(Cr0.TS);
    f.if(owned.and(readField(f, Vmcs.CR0_SHADOW).has(Cr0.TS)), () => {
      exitVmx(i, VmxExit.CR_ACCESS, CrAccess.CLTS);
    });
    may.set(owned.eqz());
  });
  return may.get();
}

/** LMSW of `source` (bits 3:0): takes the exit it causes, and yields what it writes of them. */
export function writeGuestMsw(i: Instruction, source: I64): I64 {
  const { f } = i;
  const merged = f.variable(I64T, source.and(LMSW_BITS));
  inGuest(i, () => {
    const mask = readField(f, Vmcs.CR0_MASK);
    const shadow = readField(f, Vmcs.CR0_SHADOW);
    const differs = source.xor(shadow).and(mask);
    // LMSW cannot clear PE, so it does not exit for that.
    const sets = differs.and(source).has(Cr0.PE);
    f.if(sets.or(differs.has(LMSW_BITS & ~Cr0.PE)), () => {
      const memory = i.isMemory(0);
      if (memory) writeField(f, Vmcs.GUEST_LINEAR_ADDRESS, i.address(2, 0));
      const data = source.and(0xffff).shl(LMSW_DATA_SHIFT);
      exitVmx(i, VmxExit.CR_ACCESS, data.or(CrAccess.LMSW | (memory ? LMSW_MEMORY : 0)));
    });
    const kept = mask.and(LMSW_BITS);
    merged.set(source.and(LMSW_BITS).and(kept.xor(-1)).or(S.cr0.get(f).and(kept)));
  });
  return merged.get();
}

/** MOV to (`read` 0) or from a debug register: exits before anything but a bad number is looked at. */
export function exitDebugRegister(i: Instruction, n: I32, read: 0 | 1): void {
  const { f } = i;
  inGuest(i, () => {
    f.if(S.primaryControls.has(f, Primary.MOV_DR), () => {
      const register = i.registerNumber(read === 1 ? 0 : 1).and(31).shl(GPR_SHIFT);
      exitVmx(i, VmxExit.DR_ACCESS, n.or(register).or(read * FROM_DR).extendU());
    });
  });
}

/** CR8 with the TPR shadow: VTPR bits 7:4 (30.3). */
export function virtualTaskPriority(i: Instruction): I64 {
  const { f } = i;
  return f.load32(S.vapic.get(f), ApicOffset.TPR).shrU(4).and(15).extendU();
}

/** MOV to CR8 with the TPR shadow. */
export function writeVirtualTaskPriority(i: Instruction, value: I64): void {
  const { f, mc } = i;
  f.store32(S.vapic.get(f), value.wrap().shl(4), ApicOffset.TPR);
  f.call(mc.vapicTpr);
}
