/**
 * Control and debug registers: MOV CR, MOV DR, CLTS, SMSW, LMSW (APM vol. 3, ch. 4).
 *
 * @module
 */
import { Vector } from "../microcode/raise.ts";
import { Cr0, Cr4, Dr6, Dr7 } from "../microcode/registers.ts";
import { S } from "../state/cpu_state.ts";
import type { Field64 } from "../state/field.ts";
import { CR0_WRITABLE } from "../microcode/control.ts";
import { SvmExit } from "../svm/exit_codes.ts";
import { InterceptWord, interceptWord, Misc1, Misc2 } from "../svm/intercepts.ts";
import { type I32, i32, type I64, i64, I64T } from "../wasm/mod.ts";
import type { Instruction, Semantics } from "./instruction.ts";
import { exitGuest, exitTrap, intercept } from "./intercept.ts";
import { checkUmip, ended, privileged } from "./privilege.ts";
import {
  exitCrRead,
  exitDebugRegister,
  guestCrValue,
  guestMayClearTs,
  virtualTaskPriority,
  writeGuestCr,
  writeGuestMsw,
  writeVirtualTaskPriority,
} from "./vmx_registers.ts";

/** Takes #VMEXIT for MOV to or from control register `n` of intercept half `shift`. */
function interceptRegister(i: Instruction, word: number, shift: number, code: number): void {
  const { f } = i;
  const n = i.immediate().wrap().and(15);
  const wanted = S.guestMode.get(f).and(interceptWord(f, word).shrU(n.add(shift)).and(1));
  f.if(
    wanted,
    () => {
      const operand = shift === 16 ? 1 : 0;
      const info = word === InterceptWord.CR
        ? movCrInfo(i, operand)
        : i.registerNumber(operand).and(31).extendU();
      exitGuest(i, n.add(code), info);
    },
    undefined,
    "unlikely",
  );
}

/**
 * EXITINFO1 of a MOV CR: 63 = MOV CR, 3:0 the register (APM vol. 2, 15.8.1). For R16–R31 there is no
 * manual; the reserved bit 4 above the field is taken for them, as VMX widens its own field.
 */
function movCrInfo(i: Instruction, operand: number): I64 {
  return i.registerNumber(operand).and(31).extendU().or(1n << 63n);
}

const CRS: readonly (readonly [number, Field64])[] = [
  [0, S.cr0],
  [2, S.cr2],
  [3, S.cr3],
  [4, S.cr4],
];

function existingCr(i: Instruction): I32 {
  const n = i.immediate().wrap();
  const exists = n.eq(0).or(n.eq(2)).or(n.eq(3)).or(n.eq(4)).or(n.eq(8));
  i.faultIf(exists.eqz(), Vector.UD);
  privileged(i);
  return n;
}

const movFromCr = ended((i) => {
  const { f } = i;
  const n = existingCr(i);
  interceptRegister(i, InterceptWord.CR, 0, SvmExit.CR_READ);
  exitCrRead(i, n);
  const value = f.variable(I64T, 0);
  for (const [number, field] of CRS) f.if(n.eq(number), () => value.set(field.get(f)));
  f.if(n.eq(8), () => {
    // With V_INTR_MASKING, and under AVIC, CR8 is the virtual TPR (APM vol. 2, 15.21.1).
    const virtual = S.intControl.has(f, V_INTR_MASKING).or(S.avicPage.get(f).ne(0));
    const masking = S.guestMode.get(f).and(virtual);
    value.set(masking.select(S.intControl.get(f).and(15).extendU(), S.cr8.get(f)));
    f.if(S.vapic.get(f).ne(0), () => value.set(virtualTaskPriority(i)));
  });
  i.write(0, guestCrValue(i, n, value.get()));
});

const V_INTR_MASKING = 0x100_0000;

/** A selective CR0 write is one that changes more than TS and MP. */
function interceptSelective(i: Instruction, value: I64): void {
  const { f } = i;
  const changed = S.cr0.get(f).xor(value).has(CR0_WRITABLE & ~(Cr0.TS | Cr0.MP));
  const wanted = S.guestMode.get(f)
    .and(interceptWord(f, InterceptWord.MISC1).and(Misc1.CR0_SEL_WRITE).ne(0))
    .and(changed);
  f.if(
    wanted,
    () => exitGuest(i, i32(SvmExit.CR0_SEL_WRITE), movCrInfo(i, 1)),
    undefined,
    "unlikely",
  );
}

/** The exit behind a write of CRn; what CR0 then holds, for the others what was written. */
function trapWrite(i: Instruction, n: I32, value: I64): void {
  const held = n.eqz().select(S.cr0.get(i.f), value);
  exitTrap(i, i32(Misc2.CR_WRITE_TRAP).shl(n), n.add(SvmExit.CR_WRITE_TRAP), held);
}

/** MOV to CR8: the TPR of the processor's APIC, or a guest's virtual one. */
function writeTaskPriority(i: Instruction, value: I64): void {
  const { f, mc } = i;
  const own = (): void => {
    const masking = S.guestMode.get(f).and(S.intControl.has(f, V_INTR_MASKING));
    // Without V_INTR_MASKING a guest's write goes to the APIC's TPR as well (15.21.2).
    f.if(S.guestMode.get(f), () => {
      S.intControl.set(f, S.intControl.get(f).and(~0xff).or(value.wrap()));
    });
    f.if(masking.eqz(), () => {
      S.cr8.set(f, value);
      f.call(mc.setTaskPriority, value.wrap());
    });
  };
  f.if(S.avicPage.get(f).ne(0), () => f.call(mc.avicWriteTpr, value.wrap().shl(4)), () => {
    f.if(S.vapic.get(f).ne(0), () => writeVirtualTaskPriority(i, value), own);
  });
}

const movToCr = ended((i) => {
  const { f, mc } = i;
  const n = existingCr(i);
  // In VMX non-root operation the exit comes before the value is looked at.
  const value = writeGuestCr(i, n, i.unsigned(1));
  i.spill();
  f.call(mc.checkCr, n, value);
  interceptRegister(i, InterceptWord.CR, 16, SvmExit.CR_WRITE);
  f.if(n.eq(0), () => interceptSelective(i, value));
  f.if(n.eq(0), () => f.call(mc.writeCr0, value));
  f.if(n.eq(2), () => S.cr2.set(f, value));
  f.if(n.eq(3), () => f.call(mc.writeCr3, value));
  f.if(n.eq(4), () => f.call(mc.writeCr4, value));
  f.if(n.eq(8), () => writeTaskPriority(i, value));
  trapWrite(i, n, value);
});

// Debug registers.

/** DR4 and DR5 are DR6 and DR7 unless CR4.DE is set. */
function debugRegister(i: Instruction, read: 0 | 1): I32 {
  const { f } = i;
  const n = i.immediate().wrap();
  i.faultIf(n.gtU(7), Vector.UD);
  // On Intel processors the exit comes before the other faults (SDM vol. 3, 26.1.3).
  exitDebugRegister(i, n, read);
  const alias = n.eq(4).or(n.eq(5));
  i.faultIf(alias.and(S.cr4.has(f, Cr4.DE)), Vector.UD);
  privileged(i);
  return alias.select(n.add(2), n);
}

/** DR7.GD: any access is a #DB with DR6.BD. */
function generalDetect(i: Instruction): void {
  const { f } = i;
  f.if(
    S.dr7.has(f, Dr7.GD),
    () => {
      S.exceptionAddress.set(f, 0x2000);
      i.raise(Vector.DB);
    },
    undefined,
    "unlikely",
  );
}

const movFromDr = ended((i) => {
  const { f } = i;
  const n = debugRegister(i, 1);
  generalDetect(i);
  interceptRegister(i, InterceptWord.DR, 0, SvmExit.DR_READ);
  const value = f.choose(
    I64T,
    n.ltU(4),
    () => f.load64(n.shl(3), S.dr),
    () => n.eq(6).select(S.dr6.get(f), S.dr7.get(f)),
  );
  i.write(0, value);
});

const movToDr = ended((i) => {
  const { f, mc } = i;
  const n = debugRegister(i, 0);
  generalDetect(i);
  const value = i.unsigned(1);
  i.faultIf(n.geU(4).and(value.shrU(32).ne(0)), Vector.GP, 0);
  interceptRegister(i, InterceptWord.DR, 16, SvmExit.DR_WRITE);
  f.if(n.ltU(4), () => f.store64(n.shl(3), value, S.dr), () => {
    f.if(
      n.eq(6),
      () => S.dr6.set(f, value.and(Dr6.WRITABLE).or(Dr6.FIXED)),
      () => {
        S.dr7.set(f, value.and(Dr7.WRITABLE).or(Dr7.FIXED));
        f.call(mc.updateMode);
      },
    );
  });
});

const clts = ended((i) => {
  const { f } = i;
  privileged(i);
  intercept(i, InterceptWord.CR, 0x1_0000, SvmExit.CR_WRITE);
  f.if(guestMayClearTs(i), () => S.cr0.set(f, S.cr0.get(f).and(~Cr0.TS)));
  trapWrite(i, i32(0), i64(0));
});

const smsw = ended((i) => {
  const { f } = i;
  checkUmip(i);
  intercept(i, InterceptWord.CR, 1, SvmExit.CR_READ);
  i.write(0, guestCrValue(i, i32(0), S.cr0.get(f)));
}, { operandSize: true });

/** LMSW sets PE, MP, EM and TS, and cannot clear PE. */
const lmsw = ended((i) => {
  const { f, mc } = i;
  privileged(i);
  intercept(i, InterceptWord.CR, 0x1_0000, SvmExit.CR_WRITE);
  // LMSW takes the selective intercept whatever it changes.
  intercept(i, InterceptWord.MISC1, Misc1.CR0_SEL_WRITE, SvmExit.CR0_SEL_WRITE);
  const source = writeGuestMsw(i, i.unsigned(0));
  const old = S.cr0.get(f);
  i.spill();
  f.call(mc.writeCr0, old.and(~0xe).or(source));
  trapWrite(i, i32(0), i64(0));
});

/** Instructions on control and debug registers by mnemonic. */
export const CONTROL_REGISTERS: Readonly<Record<string, Semantics>> = {
  MOVFROMCR: movFromCr,
  MOVTOCR: movToCr,
  MOVFROMDR: movFromDr,
  MOVTODR: movToDr,
  CLTS: clts,
  SMSW: smsw,
  LMSW: lmsw,
};
