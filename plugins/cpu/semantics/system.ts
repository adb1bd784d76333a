/**
 * System instructions: MSRs, time, CPUID, the interrupt flag, HLT, caches, FS and GS bases, system
 * calls; control registers and descriptor tables are beside (APM vol. 3, ch. 4).
 *
 * @module
 */
import { canonicalForAny } from "../memory/canonical.ts";
import { hostTsc, Msr } from "../microcode/msr.ts";
import { readsOwnRate } from "../microcode/tsc_scaling.ts";
import { Vector } from "../microcode/raise.ts";
import { Cr0, Cr4, Rflags } from "../microcode/registers.ts";
import { Event, Mode, S, Seg, segmentAddress, SegmentField } from "../state/cpu_state.ts";
import { SvmExit } from "../svm/exit_codes.ts";
import { InterceptWord, interceptWord, Misc1, Misc2, Misc3 } from "../svm/intercepts.ts";
import { SvmFeature } from "../svm/features.ts";
import { hasVirtualNmi } from "../svm/virtual.ts";
import { IntControl } from "../svm/vmcb.ts";
import { Secondary } from "../vmx/controls.ts";
import { type I32, i32, type I64, I64T } from "../wasm/mod.ts";
import { CACHES } from "./cache.ts";
import { CONTROL_REGISTERS } from "./control_registers.ts";
import { DESCRIPTOR_TABLES } from "./descriptor_tables.ts";
import { type Instruction, Reg, type Semantics } from "./instruction.ts";
import { INVALIDATE } from "./invalidate.ts";
import { MONITOR } from "./monitor.ts";
import { PROTECTION_KEYS } from "./protection_keys.ts";
import { RANDOM } from "./random.ts";
import { exitGuest, exitTrap, intercept } from "./intercept.ts";
import { asks, ended, goesOn, privileged } from "./privilege.ts";
import { changeInterruptFlag } from "./virtual_interrupts.ts";
import { exitImmediateMsr, exitMsr, exitPause } from "./vmx_intercept.ts";
import { pendingException } from "./x87_available.ts";

// MSRs, time, identification.

const rdmsr = asks((i) => {
  const { f, mc } = i;
  privileged(i);
  const index = i.reg(Reg.RCX, 32).wrap();
  interceptMsr(i, index, 0);
  i.spill();
  i.faultIf(i.mayAsk(() => f.call(mc.readMsr, index)).eqz(), Vector.GP, 0);
  i.setReg(Reg.RAX, 32, f.load32(0, S.exchange).extendU());
  i.setReg(Reg.RDX, 32, f.load32(0, S.exchange + 4).extendU());
});

const wrmsr = asks((i) => {
  const { f, mc } = i;
  privileged(i);
  const index = i.reg(Reg.RCX, 32).wrap();
  interceptMsr(i, index, 1);
  i.spill();
  f.store32(0, i.reg(Reg.RAX, 32).wrap(), S.exchange);
  f.store32(0, i.reg(Reg.RDX, 32).wrap(), S.exchange + 4);
  i.faultIf(i.mayAsk(() => f.call(mc.writeMsr, index)).eqz(), Vector.GP, 0);
  f.if(index.eq(Msr.EFER), () => {
    exitTrap(i, Misc2.EFER_WRITE_TRAP, SvmExit.EFER_WRITE_TRAP, S.efer.get(f));
  });
});

/**
 * RDMSR and WRMSRNS with an immediate index (MSR_IMM). No manual says how SVM reports them; here the
 * permission map and the exit code are those of RDMSR and WRMSR, bit 1 of EXITINFO1 tells the immediate
 * form, and EXITINFO2 holds the index in 31:0 and the number of the register in 36:32.
 */
const immediateMsr = (write: boolean): Semantics =>
  ended((i) => {
    const { f, mc } = i;
    privileged(i);
    const index = i.immediate().wrap();
    const operand = i.registerNumber(0).extendU().shl(32).or(index.extendU());
    guardMsr(i, index, Number(write), 2, operand);
    exitImmediateMsr(i, index, Number(write));
    i.spill();
    if (write) f.store64(0, i.unsigned(0), S.exchange);
    i.faultIf(f.call(write ? mc.writeMsr : mc.readMsr, index).eqz(), Vector.GP, 0);
    if (!write) i.write(0, f.load64(0, S.exchange));
  });

function interceptMsr(i: Instruction, index: I32, write: number): void {
  guardMsr(i, index, write);
  exitMsr(i, index, write);
}

/** The #VMEXIT under SVM, by the permission map. */
function guardMsr(
  i: Instruction,
  index: I32,
  write: number,
  form = 0,
  operand: I64 | number = 0,
): void {
  const { f, mc } = i;
  const guarded = S.guestMode.get(f)
    .and(interceptWord(f, InterceptWord.MISC1).and(Misc1.MSR).ne(0));
  f.if(
    guarded,
    () => {
      f.if(f.call(mc.msrIntercepted, index, write), () => {
        exitGuest(i, i32(SvmExit.MSR), write | form, operand);
      });
    },
    undefined,
    "unlikely",
  );
}

/** CR4.TSD keeps RDTSC from anyone but CPL 0. */
function checkTsd(i: Instruction): void {
  const { f } = i;
  i.faultIf(S.cr4.has(f, Cr4.TSD).and(S.cpl.get(f).ne(0)), Vector.GP, 0);
}

function readTime(i: Instruction): void {
  const { f } = i;
  const now = f.choose(
    I64T,
    readsOwnRate(f),
    () => hostTsc(f, i.budget()).add(S.tscOffset.get(f)),
    () => {
      i.spill();
      return f.call(i.mc.readTsc);
    },
    "likely",
  );
  i.setReg(Reg.RAX, 32, now.and(0xffff_ffff));
  i.setReg(Reg.RDX, 32, now.shrU(32));
}

const rdtsc = goesOn((i) => {
  checkTsd(i);
  intercept(i, InterceptWord.MISC1, Misc1.RDTSC, SvmExit.RDTSC);
  readTime(i);
});

/** RDPMC: at CPL 1–3 only with CR4.PCE, but in real mode. */
const rdpmc = asks((i) => {
  const { f, mc } = i;
  const denied = S.cr4.has(f, Cr4.PCE).eqz().and(S.cpl.get(f).ne(0));
  i.faultIf(denied.and(S.cr0.has(f, Cr0.PE)), Vector.GP, 0);
  intercept(i, InterceptWord.MISC1, Misc1.RDPMC, SvmExit.RDPMC);
  const there = i.outside(() => f.call(mc.counterRead, i.reg(Reg.RCX, 32).wrap()));
  i.faultIf(there.eqz(), Vector.GP, 0);
  i.setReg(Reg.RAX, 32, f.load32(0, S.exchange).extendU());
  i.setReg(Reg.RDX, 32, f.load32(0, S.exchange + 4).extendU());
});

/** RDPID: TSC_AUX without the counter. */
const rdpid = goesOn((i) => {
  const { f } = i;
  const guest = S.nonRoot.get(f);
  i.faultIf(guest.and(S.secondaryControls.has(f, Secondary.RDTSCP).eqz()), Vector.UD);
  i.write(0, S.tscAux.get(f));
});

/**
 * RDPRU: registers that user software may read, MPERF for ECX 0 and APERF for 1; others read as 0. With
 * CR4.TSD only CPL 0 may; of the two exceptions that are possible, #UD is chosen.
 */
const rdpru = ended((i) => {
  const { f, mc } = i;
  i.faultIf(S.cr4.has(f, Cr4.TSD).and(S.cpl.get(f).ne(0)), Vector.UD);
  intercept(i, InterceptWord.MISC2, Misc2.RDPRU, SvmExit.RDPRU);
  const index = i.reg(Reg.RCX, 32).wrap();
  i.spill();
  f.store64(0, 0, S.exchange);
  f.if(index.leU(1), () => f.call(mc.readMsr, index.add(Msr.MPERF)));
  i.setReg(Reg.RAX, 32, f.load32(0, S.exchange).extendU());
  i.setReg(Reg.RDX, 32, f.load32(0, S.exchange + 4).extendU());
});

/** SERIALIZE: instructions take place one after the other anyway. */
const serialize = goesOn(() => {});

const rdtscp = goesOn((i) => {
  checkTsd(i);
  intercept(i, InterceptWord.MISC2, Misc2.RDTSCP, SvmExit.RDTSCP);
  readTime(i);
  i.setReg(Reg.RCX, 32, S.tscAux.get(i.f));
});

const cpuid = asks((i) => {
  const { f, mc } = i;
  intercept(i, InterceptWord.MISC1, Misc1.CPUID, SvmExit.CPUID);
  i.outside(() => f.call(mc.cpuid, i.reg(Reg.RAX, 32).wrap(), i.reg(Reg.RCX, 32).wrap()));
  for (const [k, n] of [Reg.RAX, Reg.RBX, Reg.RCX, Reg.RDX].entries()) {
    i.setReg(n, 32, f.load32(0, S.exchange + 4 * k).extendU());
  }
});

// Interrupt flag, halting.

const clear = (i: Instruction, flag: number): void =>
  S.rflags.set(i.f, S.rflags.get(i.f).and(~flag));

const cli: Semantics = {
  emit: (i) => {
    changeInterruptFlag(i, () => clear(i, Rflags.IF), () => clear(i, Rflags.VIF));
  },
};

/** STI holds interrupts off for one more instruction if they were disabled. */
const sti = goesOn((i) => {
  const { f } = i;
  changeInterruptFlag(i, () => {
    f.if(S.rflags.has(f, Rflags.IF).eqz(), () => {
      S.rflags.set(f, S.rflags.get(f).or(Rflags.IF));
      i.event(Event.SHADOW_NEW);
    });
  }, () => {
    // One that waits is for the monitor to deliver.
    i.faultIf(S.rflags.has(f, Rflags.VIP), Vector.GP, 0);
    S.rflags.set(f, S.rflags.get(f).or(Rflags.VIF));
  });
});

/**
 * The idle HLT intercept: only a guest without a virtual interrupt or NMI exits (APM vol. 2, table 15-7).
 * The manual does not say whether one counts that is masked. It does here, by V_IRQ and V_NMI alone: the
 * guest then halts in guest mode. Under AVIC, where V_IRQ means nothing, what counts is an interrupt that
 * has enough priority.
 */
function interceptIdle(i: Instruction): void {
  const { f } = i;
  const enabled = S.guestMode.get(f)
    .and(interceptWord(f, InterceptWord.MISC3).and(Misc3.IDLE_HLT).ne(0))
    .and(S.svmFeatures.has(f, SvmFeature.IDLE_HLT));
  f.if(
    enabled,
    () => {
      const virtualNmi = hasVirtualNmi(f).and(S.intControl.has(f, IntControl.V_NMI));
      const pending = S.events.has(f, Event.VINTR | Event.AVIC).or(virtualNmi);
      f.if(pending.eqz(), () => exitGuest(i, i32(SvmExit.IDLE_HLT)));
    },
    undefined,
    "unlikely",
  );
}

const hlt = ended((i) => {
  privileged(i);
  intercept(i, InterceptWord.MISC1, Misc1.HLT, SvmExit.HLT);
  interceptIdle(i);
  S.monitorWait.set(i.f, 0);
  i.event(Event.HALTED);
});

const pause = goesOn((i) => {
  const { f, mc } = i;
  const wanted = S.guestMode.get(f)
    .and(interceptWord(f, InterceptWord.MISC1).and(Misc1.PAUSE).ne(0));
  f.if(
    wanted,
    () => {
      i.spill();
      f.if(f.call(mc.pauseExits), () => exitGuest(i, i32(SvmExit.PAUSE)));
    },
    undefined,
    "unlikely",
  );
  exitPause(i);
});

/** RSM: undefined but in system management mode. The intercept comes first (APM vol. 2, 15.9). */
const rsm: Semantics = {
  ends: true,
  transfers: "always",
  emit: (i) => {
    intercept(i, InterceptWord.MISC1, Misc1.RSM, SvmExit.RSM);
    i.faultIf(S.smm.get(i.f).eqz(), Vector.UD);
    i.spillOnce();
    i.f.call(i.mc.leaveSmm);
    i.leaveAsIs();
  },
};

// 64-bit bases, SMAP, system calls.

const swapgs = goesOn((i) => {
  const { f } = i;
  privileged(i);
  const at = segmentAddress(Seg.GS) + SegmentField.BASE;
  const base = f.load64(0, at);
  f.store64(0, S.kernelGsBase.get(f), at);
  S.kernelGsBase.set(f, base);
});

function checkFsgsbase(i: Instruction): void {
  i.faultIf(S.cr4.has(i.f, Cr4.FSGSBASE).eqz(), Vector.UD);
}

const readBase = (segment: number): Semantics => ({
  emit: (i) => {
    checkFsgsbase(i);
    i.write(0, i.f.load64(0, segmentAddress(segment) + SegmentField.BASE));
  },
});

const writeBase = (segment: number): Semantics => ({
  emit: (i) => {
    checkFsgsbase(i);
    const base = i.unsigned(0);
    i.faultIf(canonicalForAny(i.f, base).eqz(), Vector.GP, 0);
    i.f.store64(0, base, segmentAddress(segment) + SegmentField.BASE);
  },
});

const setAc = (value: boolean): Semantics =>
  ended((i) => {
    const { f, mc } = i;
    i.faultIf(S.cpl.get(f).ne(0).or(S.mode.has(f, Mode.REAL)), Vector.UD);
    const flags = S.rflags.get(f);
    S.rflags.set(f, value ? flags.or(Rflags.AC) : flags.and(~Rflags.AC));
    f.call(mc.updateMode);
  });

const microcoded = (emit: (i: Instruction) => void): Semantics => ({
  operandSize: true,
  ends: true,
  transfers: "always",
  emit: (i) => {
    i.spillOnce();
    emit(i);
    i.leaveAsIs();
  },
});

/** WAIT: #NM if the coprocessor is marked as switched out. */
const fwait: Semantics = {
  emit: (i) => {
    const both = Cr0.MP | Cr0.TS;
    i.faultIf(S.cr0.get(i.f).and(both).eq(both), Vector.NM);
    pendingException(i);
  },
};

/** System instructions by mnemonic. */
export const SYSTEM: Readonly<Record<string, Semantics>> = {
  ...CONTROL_REGISTERS,
  ...DESCRIPTOR_TABLES,
  ...CACHES,
  ...INVALIDATE,
  ...MONITOR,
  ...PROTECTION_KEYS,
  ...RANDOM,
  RSM: rsm,
  RDMSR: rdmsr,
  WRMSR: wrmsr,
  // Nothing here is reordered, so there is nothing that WRMSR serializes and WRMSRNS does not.
  WRMSRNS: wrmsr,
  "RDMSR.imm": immediateMsr(false),
  "WRMSRNS.imm": immediateMsr(true),
  RDTSC: rdtsc,
  RDTSCP: rdtscp,
  RDPMC: rdpmc,
  RDPID: rdpid,
  RDPRU: rdpru,
  SERIALIZE: serialize,
  CPUID: cpuid,
  CLI: cli,
  STI: sti,
  HLT: hlt,
  PAUSE: pause,
  SWAPGS: swapgs,
  RDFSBASE: readBase(Seg.FS),
  RDGSBASE: readBase(Seg.GS),
  WRFSBASE: writeBase(Seg.FS),
  WRGSBASE: writeBase(Seg.GS),
  CLAC: setAc(false),
  STAC: setAc(true),
  FWAIT: fwait,
  SYSCALL: microcoded((i) => i.f.call(i.mc.systemCall, i.nextRip())),
  SYSRET: microcoded((i) => i.f.call(i.mc.systemReturn, i.bits)),
  SYSENTER: microcoded((i) => i.f.call(i.mc.systemEnter)),
  SYSEXIT: microcoded((i) => i.f.call(i.mc.systemExit, i.bits)),
};
