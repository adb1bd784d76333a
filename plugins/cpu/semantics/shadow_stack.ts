/**
 * Instructions on shadow stacks, and ENDBRANCH (SDM vol. 2; APM vol. 3).
 *
 * RDSSP and ENDBRANCH are NOPs where they have nothing to do, so that programs can have them everywhere.
 *
 * @module
 */
import { BUSY, CetControl, controlOf, CpError, PL_SSP, shadowMmu } from "../microcode/cet.ts";
import { Vector } from "../microcode/raise.ts";
import { Cr4, Rflags } from "../microcode/registers.ts";
import { Mode, S } from "../state/cpu_state.ts";
import { MmuIndex } from "../state/tlb_layout.ts";
import { type I32, i32, type I64, i64 } from "../wasm/mod.ts";
import type { Instruction, Semantics } from "./instruction.ts";
import { ended, goesOn, privileged } from "./privilege.ts";

/** #UD unless shadow stacks are enabled at the current privilege level. */
function needShadowStack(i: Instruction): void {
  i.faultIf(S.mode.has(i.f, Mode.SHADOW_STACK).eqz(), Vector.UD);
}

/** #UD unless CPL 0 can have a shadow stack, #GP unless this is CPL 0. */
function needSupervisor(i: Instruction): void {
  const { f } = i;
  const real = S.mode.has(f, Mode.REAL);
  const on = S.cr4.has(f, Cr4.CET).and(S.sCet.has(f, CetControl.SHADOW_STACK)).and(real.eqz());
  i.faultIf(on.eqz(), Vector.UD);
  privileged(i);
}

/** MMU index of shadow-stack accesses at the current privilege level. */
const ownMmu = (i: Instruction): I32 => shadowMmu(S.cpl.get(i.f));

/** 1 in 64-bit mode: also the mode bit of tokens. */
const longBit = (i: Instruction): I64 => i64(i.code === 64 ? 1 : 0);

/** Linear address of the operand, which is a token: #GP unless it is a multiple of 8. */
function tokenAddress(i: Instruction): I64 {
  const linear = i.address(8, 0);
  i.faultIf(linear.has(7), Vector.GP, 0);
  return linear;
}

const rdssp: Semantics = {
  emit: (i) => {
    const { f } = i;
    const bits = i.width(0);
    f.if(
      S.mode.has(f, Mode.SHADOW_STACK),
      () => i.write(0, S.ssp.get(f).zeroExtend(bits)),
      undefined,
      "unlikely",
    );
  },
};

const incssp = ended((i) => {
  const { f, mc } = i;
  const bits = i.width(0);
  needShadowStack(i);
  i.spill();
  const ssp = S.ssp.get(f);
  const count = i.unsigned(0).and(0xff);
  const mmu = ownMmu(i);
  const element = bits / 8;
  // What is skipped is looked at at both ends, so that SSP cannot leave its stack.
  f.call(mc.shadowLoad, ssp, bits, mmu);
  f.if(count.ne(0), () => {
    f.call(mc.shadowLoad, ssp.add(count.sub(1).mul(element)), bits, mmu);
  });
  const next = ssp.add(count.mul(element));
  S.ssp.set(f, i.code === 64 ? next : next.and(0xffff_ffff));
});

const saveprevssp = ended((i) => {
  const { f, mc } = i;
  needShadowStack(i);
  i.spill();
  const bad = (condition: I32): void => i.faultIf(condition, Vector.GP, 0);
  const ssp = S.ssp.get(f);
  const mmu = ownMmu(i);
  bad(ssp.has(7));
  const token = f.call(mc.shadowLoad, ssp, 64, mmu);
  // CF is RSTORSSP's: there is a hole of 4 bytes behind the token, which 64-bit code never makes.
  const hole = i.carry();
  if (i.code === 64) bad(hole);
  else {
    f.if(hole, () => bad(f.call(mc.shadowLoad, ssp.add(8), 32, mmu).ne(0)));
    bad(token.shrU(32).ne(0));
  }
  bad(token.has(2).eqz());
  const old = token.and(~3);
  f.call(mc.shadowStore, old.sub(4), 32, 0, mmu);
  f.call(mc.shadowStore, old.and(~7).sub(8), 64, old.or(longBit(i)), mmu);
  S.ssp.set(f, ssp.add(8).add(hole.extendU().shl(2)));
});

const rstorssp = ended((i) => {
  const { f, mc } = i;
  needShadowStack(i);
  const place = tokenAddress(i);
  i.spill();
  const mmu = ownMmu(i);
  const previous = S.ssp.get(f).or(longBit(i)).or(2);
  const token = f.call(mc.shadowLoad, place, 64, mmu);
  const target = token.and(~1).sub(8).and(~7);
  let bad = token.and(3).ne(longBit(i)).or(target.ne(place));
  if (i.code !== 64) bad = bad.or(token.shrU(32).ne(0));
  i.faultIf(bad, Vector.CP, CpError.RSTORSSP);
  f.call(mc.shadowStore, place, 64, previous, mmu);
  S.ssp.set(f, place);
  // CF: the token was pushed behind a hole. All other flags are clear.
  const hole = token.shrU(2).wrap().and(1);
  i.flagsValue(hole);
});

/** WRSS and WRUSS; `user`: to a shadow stack of CPL 3, by the kernel. */
const write = (user: boolean): Semantics =>
  ended((i) => {
    const { f, mc } = i;
    const bits = i.width(0);
    if (user) {
      i.faultIf(S.cr4.has(f, Cr4.CET).eqz(), Vector.UD);
      privileged(i);
    } else {
      const both = i64(CetControl.SHADOW_STACK | CetControl.WRITE_SHADOW_STACK);
      const control = controlOf(f, S.cpl.get(f));
      const on = S.mode.has(f, Mode.SHADOW_STACK).and(control.and(both).eq(both));
      i.faultIf(on.eqz(), Vector.UD);
    }
    const linear = i.address(bits / 8, 1);
    i.faultIf(linear.has(bits / 8 - 1), Vector.GP, 0);
    i.spill();
    f.call(mc.shadowStore, linear, bits, i.unsigned(1), user ? i32(MmuIndex.USER) : ownMmu(i));
  });

const setssbsy = ended((i) => {
  const { f, mc } = i;
  needSupervisor(i);
  i.spill();
  const ssp = PL_SSP[0].get(f);
  i.faultIf(ssp.has(7), Vector.GP, 0);
  const token = f.call(mc.shadowLoad, ssp, 64, MmuIndex.SUPERVISOR_AC);
  // The token of a stack above 4 GiB fits no code that is not of 64 bits.
  const expected = i.code === 64 ? ssp : ssp.and(0xffff_ffff);
  i.faultIf(token.ne(expected), Vector.CP, CpError.SETSSBSY);
  f.call(mc.shadowStore, ssp, 64, ssp.or(BUSY), MmuIndex.SUPERVISOR_AC);
  S.ssp.set(f, ssp);
});

const clrssbsy = ended((i) => {
  const { f, mc } = i;
  needSupervisor(i);
  const place = tokenAddress(i);
  i.spill();
  const released = f.call(mc.releaseShadow, place, MmuIndex.SUPERVISOR_AC);
  S.ssp.set(f, 0);
  i.flagsValue(released.select(i32(0), i32(Rflags.CF)));
});

/** ENDBRANCH where it ends a wait, or suppression: behind it is code of another mode. */
const endbranch = goesOn((i) => {
  const { f } = i;
  const cleared = ~(CetControl.TRACKER | CetControl.SUPPRESS);
  f.if(
    S.cpl.get(f).eq(3),
    () => S.uCet.set(f, S.uCet.get(f).and(cleared)),
    () => S.sCet.set(f, S.sCet.get(f).and(cleared)),
  );
  S.mode.set(f, S.mode.get(f).and(~(Mode.AWAIT_ENDBRANCH | Mode.SUPPRESSED)).or(Mode.TRACK));
});

/** Instructions on shadow stacks by mnemonic, and ENDBRANCH where it has something to do. */
export const SHADOW_STACK: Readonly<Record<string, Semantics>> = {
  RDSSP: rdssp,
  INCSSP: incssp,
  SAVEPREVSSP: saveprevssp,
  RSTORSSP: rstorssp,
  WRSS: write(false),
  WRUSS: write(true),
  SETSSBSY: setssbsy,
  CLRSSBSY: clrssbsy,
  ENDBR32: { emit: () => {} },
  ENDBR64: { emit: () => {} },
  "ENDBR32.awaited": endbranch,
  "ENDBR64.awaited": endbranch,
};
