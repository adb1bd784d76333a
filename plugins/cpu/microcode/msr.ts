/**
 * Model-specific registers that the processor itself keeps. All others are the program outside's.
 *
 * @module
 */
import type { Field64 } from "../state/field.ts";
import { S, Seg, segmentAddress, SegmentField } from "../state/cpu_state.ts";
import { type FunctionBuilder, type I32, I32T, type I64, i64, I64T } from "../wasm/mod.ts";
import { x2avic } from "../svm/avic/registers.ts";
import { SvmFeature } from "../svm/features.ts";
import { hasVirtualX2Apic, Virtualized } from "../vmx/apic/accesses.ts";
import { FeatureControl, FIRST_VMX_MSR, VMX_MSRS } from "../vmx/capabilities.ts";
import { INTEL_EFER } from "../vmx/host_checks.ts";
import { canonicalForAny } from "../memory/canonical.ts";
import { MicrocodeFeature } from "../isa_features.ts";
import { CetMsr } from "./cet_msr.ts";
import type { Microcode } from "./microcode.ts";
import { Outcome } from "./outside.ts";
import { Vector } from "./raise.ts";
import { Cr0, DebugCtl, Efer } from "./registers.ts";
import { ratioScaled, scaledTsc, TSC_RATIO_BITS } from "./tsc_scaling.ts";

/** MSR indices (APM vol. 2, appendix A). */
export const Msr = {
  TSC: 0x10,
  FEATURE_CONTROL: 0x3a,
  TSC_ADJUST: 0x3b,
  MPERF: 0xe7,
  APERF: 0xe8,
  SYSENTER_CS: 0x174,
  SYSENTER_ESP: 0x175,
  SYSENTER_EIP: 0x176,
  DEBUGCTL: 0x1d9,
  LAST_BRANCH_FROM_IP: 0x1db,
  LAST_BRANCH_TO_IP: 0x1dc,
  LAST_INT_FROM_IP: 0x1dd,
  LAST_INT_TO_IP: 0x1de,
  PAT: 0x277,
  PKRS: 0x6e1,
  XSS: 0xda0,
  EFER: 0xc000_0080,
  STAR: 0xc000_0081,
  LSTAR: 0xc000_0082,
  CSTAR: 0xc000_0083,
  SFMASK: 0xc000_0084,
  FS_BASE: 0xc000_0100,
  GS_BASE: 0xc000_0101,
  KERNEL_GS_BASE: 0xc000_0102,
  TSC_AUX: 0xc000_0103,
  TSC_RATIO: 0xc000_0104,
  HWCR: 0xc001_0015,
  SMM_BASE: 0xc001_0111,
  VM_CR: 0xc001_0114,
  SMM_CTL: 0xc001_0116,
  VM_HSAVE_PA: 0xc001_0117,
  AVIC_DOORBELL: 0xc001_011b,
} as const;

/** EFER bits that are implemented; writing another raises #GP. */
export const EFER_IMPLEMENTED: number = Efer.SCE | Efer.LME | Efer.LMA | Efer.NXE | Efer.SVME |
  Efer.FFXSR | Efer.TCE;

/** VM_CR bits (APM vol. 2, 15.30.1). */
export const VmCr = {
  DPD: 0x1,
  R_INIT: 0x2,
  DIS_A20M: 0x4,
  LOCK: 0x8,
  SVMDIS: 0x10,
} as const;

/** 256 MSRs from here on are the x2APIC's. */
const X2APIC_MSRS = 0x800;

/**
 * What a write of an MSR has to satisfy. SYSENTER_CS takes any value; Intel's processors keep bits 31:0 of
 * it, which is what a VMCS has room for (SDM vol. 3C, 24.4.1), and AMD's all 64, which a VMCB has.
 */
type Check = "any" | "canonical" | "low32" | "selector";

const SIMPLE: readonly (readonly [number, Field64, Check])[] = [
  [Msr.SYSENTER_CS, S.sysenterCs, "selector"],
  [Msr.SYSENTER_ESP, S.sysenterEsp, "canonical"],
  [Msr.SYSENTER_EIP, S.sysenterEip, "canonical"],
  [Msr.STAR, S.star, "any"],
  [Msr.LSTAR, S.lstar, "canonical"],
  [Msr.CSTAR, S.cstar, "canonical"],
  [Msr.SFMASK, S.sfmask, "low32"],
  [Msr.KERNEL_GS_BASE, S.kernelGsBase, "canonical"],
  [Msr.TSC_AUX, S.tscAux, "low32"],
];

/** MSRs that WRMSR raises #GP for. */
const READ_ONLY: readonly (readonly [number, Field64])[] = [
  [Msr.LAST_BRANCH_FROM_IP, S.lastBranchFrom],
  [Msr.LAST_BRANCH_TO_IP, S.lastBranchTo],
  [Msr.LAST_INT_FROM_IP, S.lastIntFrom],
  [Msr.LAST_INT_TO_IP, S.lastIntTo],
];

const BASES: readonly (readonly [number, number])[] = [
  [Msr.FS_BASE, segmentAddress(Seg.FS) + SegmentField.BASE],
  [Msr.GS_BASE, segmentAddress(Seg.GS) + SegmentField.BASE],
];

const hasFeature = (f: FunctionBuilder, feature: number): I32 =>
  S.features.get(f).and(feature).ne(0);

/** 1 for TSC_ADJUST where it is: it holds what writes of the TSC have added (SDM vol. 3B, 18.17.3). */
const isTscAdjust = (f: FunctionBuilder, index: I32): I32 =>
  index.eq(Msr.TSC_ADJUST).and(hasFeature(f, MicrocodeFeature.TSC_ADJUST));

const isXss = (f: FunctionBuilder, index: I32): I32 =>
  index.eq(Msr.XSS).and(hasFeature(f, MicrocodeFeature.XSAVES));

/** 1 for an index of those of control-flow enforcement, whether they exist or not. */
const isCet = (index: I32): I32 =>
  index.sub(CetMsr.U_CET).leU(CetMsr.INTERRUPT_SSP_TABLE - CetMsr.U_CET);

const isPkrs = (f: FunctionBuilder, index: I32): I32 =>
  index.eq(Msr.PKRS).and(hasFeature(f, MicrocodeFeature.PKS));

/** 1 for an MSR that only AMD's processors have. */
const isAmds = (f: FunctionBuilder, index: I32, number: number): I32 =>
  index.eq(number).and(S.intel.get(f).eqz());

/** 1 for the TSC ratio where it is. */
const isTscRatio = (f: FunctionBuilder, index: I32): I32 =>
  isAmds(f, index, Msr.TSC_RATIO).and(S.svmFeatures.has(f, SvmFeature.TSC_RATIO));

/** HWCR.SMMLOCK. */
const HWCR_SMMLOCK = 1;

/** MPERF and APERF, which count the same here: there is one frequency, and time passes in a halt. */
const PERFORMANCE: readonly (readonly [number, Field64])[] = [
  [Msr.MPERF, S.mperfOffset],
  [Msr.APERF, S.aperfOffset],
];

/** What the time-stamp counter would be had nobody written it. */
const cycles = (mc: Microcode, f: FunctionBuilder): I64 =>
  f.call(mc.readHostTsc).sub(S.tscAdjust.get(f));

/** 1 if all eight PAT fields hold a defined memory type: 0, 1, 4, 5, 6 or 7 (APM vol. 2, 7.8). */
export function validPat(value: I64): I32 {
  // No bit above 2:0 in any field, and no field equal to 2 or 3: bit 1 implies bit 2.
  const high = value.and(0xf8f8_f8f8_f8f8_f8f8n).eqz();
  const bit1 = value.shrU(1).and(0x0101_0101_0101_0101n);
  const bit2 = value.shrU(2).and(0x0101_0101_0101_0101n);
  return high.and(bit1.and(bit2.xor(-1)).eqz());
}

/**
 * Behind a call of the program outside: 0 if it refused the access with #GP, which is for the caller to
 * raise, as not every access to an MSR is an instruction's.
 */
function answered(mc: Microcode, f: FunctionBuilder): I32 {
  const refused = S.outcome.get(f).eq(Outcome.FAULT).and(
    S.exception.get(f).and(0xff).eq(Vector.GP),
  );
  f.if(refused, () => S.outcome.set(f, Outcome.DONE));
  f.call(mc.afterOutside);
  return refused.eqz();
}

/** The time-stamp counter of the processor itself, where `budget` is left. */
export function hostTsc(f: FunctionBuilder, budget: I32): I64 {
  // It counts retired instructions; the whole block was charged on entry.
  const used = S.budgetStart.get(f).sub(budget).sub(S.held.get(f))
    .sub(S.timerHeld.get(f)).sub(S.sliceHeld.get(f)).sub(S.deliveries.get(f));
  return S.tscStart.get(f).add(S.tscAdjust.get(f)).add(used.extendS());
}

/** Gives the MSR functions their bodies. */
export function defineMsr(mc: Microcode): void {
  const { module } = mc;

  module.body(mc.readHostTsc, (f) => f.return(hostTsc(f, S.budget.get(f))));
  module.body(mc.readTsc, (f) => {
    f.return(scaledTsc(f, f.call(mc.readHostTsc)).add(S.tscOffset.get(f)));
  });

  module.body(mc.readMsr, (f, index) => {
    const give = (value: I64): void => {
      f.store64(0, value, S.exchange);
      f.return(1);
    };
    const apic = index.and(~0xff).eq(X2APIC_MSRS).and(x2avic(f));
    f.if(apic, () => f.return(f.call(mc.avicReadMsr, index)), undefined, "unlikely");
    f.if(
      hasVirtualX2Apic(f, index),
      () => {
        const result = f.call(mc.vapicReadMsr, index);
        f.if(result.ne(Virtualized.NO), () => f.return(result));
      },
      undefined,
      "unlikely",
    );
    for (const [number, field] of SIMPLE) f.if(index.eq(number), () => give(field.get(f)));
    for (const [number, field] of READ_ONLY) f.if(index.eq(number), () => give(field.get(f)));
    for (const [number, address] of BASES) f.if(index.eq(number), () => give(f.load64(0, address)));
    f.if(index.eq(Msr.DEBUGCTL), () => give(S.debugCtl.get(f)));
    f.if(index.eq(Msr.EFER), () => give(S.efer.get(f)));
    f.if(index.eq(Msr.PAT), () => give(S.pat.get(f)));
    f.if(index.eq(Msr.TSC), () => give(f.call(mc.readTsc)));
    f.if(isTscAdjust(f, index), () => give(S.tscAdjust.get(f)));
    for (const [number, offset] of PERFORMANCE) {
      f.if(index.eq(number).and(hasFeature(f, MicrocodeFeature.APERFMPERF)), () => {
        const count = cycles(mc, f).add(offset.get(f));
        // The TSC ratio applies to MPERF, and not to APERF (APM vol. 2, 15.30.5).
        give(number === Msr.MPERF ? ratioScaled(f, count) : count);
      });
    }
    f.if(isPkrs(f, index), () => give(S.pkrs.get(f)));
    f.if(isCet(index), () => f.return(f.call(mc.readCetMsr, index)));
    f.if(S.intel.get(f), () => {
      const place = index.sub(FIRST_VMX_MSR);
      f.if(place.ltU(VMX_MSRS), () => give(f.load64(place.shl(3), S.vmxMsrs)));
      f.if(index.eq(Msr.FEATURE_CONTROL), () => give(S.featureControl.get(f)));
    });
    f.if(isXss(f, index), () => give(S.xss.get(f)));
    f.if(isAmds(f, index, Msr.SMM_BASE), () => give(S.smbase.get(f).extendU()));
    f.if(isAmds(f, index, Msr.SMM_CTL), () => f.return(0));
    f.if(isAmds(f, index, Msr.VM_CR), () => give(S.vmCr.get(f)));
    f.if(isAmds(f, index, Msr.VM_HSAVE_PA), () => give(S.hsavePa.get(f)));
    f.if(isAmds(f, index, Msr.AVIC_DOORBELL), () => f.return(0));
    f.if(isTscRatio(f, index), () => give(S.tscRatio.get(f)));
    f.call(mc.beforeOutside);
    const exists = f.call(mc.msrRead, index);
    f.return(exists.and(answered(mc, f)));
  });

  const writeEfer = (f: FunctionBuilder, value: I64): void => {
    const old = S.efer.get(f);
    const implemented = S.intel.get(f).select(i64(INTEL_EFER), i64(EFER_IMPLEMENTED));
    f.if(value.has(implemented.xor(-1)), () => f.return(0));
    const paging = S.cr0.has(f, Cr0.PG);
    // LME cannot change while paging is on; LMA is read-only and follows CR0.PG.
    f.if(paging.and(old.xor(value).has(Efer.LME)), () => f.return(0));
    f.if(S.vmCr.has(f, VmCr.SVMDIS).and(value.has(Efer.SVME)), () => f.return(0));
    S.efer.set(f, value.and(~Efer.LMA).or(old.and(Efer.LMA)));
    f.if(old.xor(value).has(Efer.NXE), () => f.call(mc.flushTlb));
    f.return(1);
  };

  module.body(mc.writeMsr, (f, index) => {
    const value = f.variable(I64T, f.load64(0, S.exchange)).get();
    const apic = index.and(~0xff).eq(X2APIC_MSRS).and(x2avic(f));
    f.if(apic, () => f.return(f.call(mc.avicWriteMsr, index)), undefined, "unlikely");
    f.if(
      hasVirtualX2Apic(f, index),
      () => {
        const result = f.call(mc.vapicWriteMsr, index);
        f.if(result.ne(Virtualized.NO), () => f.return(result));
      },
      undefined,
      "unlikely",
    );
    for (const [number, field, check] of SIMPLE) {
      f.if(index.eq(number), () => {
        if (check === "canonical") f.if(canonicalForAny(f, value).eqz(), () => f.return(0));
        if (check === "low32") f.if(value.shrU(32).ne(0), () => f.return(0));
        const kept = check === "selector"
          ? S.intel.get(f).select(value.and(0xffff_ffffn), value)
          : value;
        field.set(f, kept);
        f.return(1);
      });
    }
    for (const [number, address] of BASES) {
      f.if(index.eq(number), () => {
        f.if(canonicalForAny(f, value).eqz(), () => f.return(0));
        f.store64(0, value, address);
        f.return(1);
      });
    }
    for (const [number] of READ_ONLY) f.if(index.eq(number), () => f.return(0));
    f.if(index.eq(Msr.DEBUGCTL), () => {
      // Bus-lock traps and freezing on a PMC interrupt are not implemented (CPUID says so): reserved.
      const known = DebugCtl.LBR | DebugCtl.BTF;
      f.if(value.has(i64(BigInt(known | DebugCtl.IGNORED)).xor(-1)), () => f.return(0));
      S.debugCtl.set(f, value.and(known));
      f.call(mc.updateMode);
      f.return(1);
    });
    f.if(index.eq(Msr.EFER), () => writeEfer(f, value));
    f.if(index.eq(Msr.PAT), () => {
      f.if(validPat(value).eqz(), () => f.return(0));
      S.pat.set(f, value);
      f.return(1);
    });
    f.if(index.eq(Msr.TSC), () => {
      // TSC ratio and TSC_OFFSET apply to what has been written as well (APM vol. 2, 15.30.5).
      const now = f.call(mc.readHostTsc);
      S.tscAdjust.set(f, S.tscAdjust.get(f).add(value.sub(now)));
      f.return(1);
    });
    for (const [number, offset] of PERFORMANCE) {
      f.if(index.eq(number).and(hasFeature(f, MicrocodeFeature.APERFMPERF)), () => {
        offset.set(f, value.sub(cycles(mc, f)));
        f.return(1);
      });
    }
    f.if(isPkrs(f, index), () => {
      f.if(value.shrU(32).ne(0), () => f.return(0));
      S.pkrs.set(f, value);
      f.call(mc.flushTlb);
      f.return(1);
    });
    f.if(isCet(index), () => f.return(f.call(mc.writeCetMsr, index)));
    f.if(isTscAdjust(f, index), () => {
      S.tscAdjust.set(f, value);
      f.return(1);
    });
    f.if(S.intel.get(f).and(index.eq(Msr.FEATURE_CONTROL)), () => {
      const locked = S.featureControl.has(f, FeatureControl.LOCK);
      const defined = FeatureControl.LOCK | FeatureControl.VMXON;
      f.if(locked.or(value.has(~defined)), () => f.return(0));
      S.featureControl.set(f, value);
      f.return(1);
    });
    f.if(isXss(f, index), () => {
      f.if(value.and(S.xssSupported.get(f).xor(-1)).ne(0), () => f.return(0));
      S.xss.set(f, value);
      f.return(1);
    });
    f.if(isAmds(f, index, Msr.VM_CR), () => {
      const old = S.vmCr.get(f);
      f.if(value.has(~0x1f), () => f.return(0));
      const disables = value.has(VmCr.SVMDIS);
      f.if(disables.and(S.efer.has(f, Efer.SVME)), () => f.return(0));
      // Once locked, LOCK and SVMDIS stay as they are.
      const fixed = old.has(VmCr.LOCK).select(i64(VmCr.LOCK | VmCr.SVMDIS), i64(0));
      S.vmCr.set(f, value.and(fixed.xor(-1)).or(old.and(fixed)));
      f.return(1);
    });
    f.if(isAmds(f, index, Msr.SMM_BASE), () => {
      f.if(S.smmLocked.get(f).or(value.shrU(32).ne(0)), () => f.return(0));
      S.smbase.set(f, value.wrap());
      f.return(1);
    });
    f.if(isAmds(f, index, Msr.SMM_CTL), () => {
      f.if(value.shrU(32).ne(0), () => f.return(0));
      f.return(f.call(mc.controlSmm, value.wrap()));
    });
    // The APM has an ID of 8 bits here, Linux writes 12, the PPR of family 1Ah has 32: 63:32 must be 0.
    f.if(isAmds(f, index, Msr.AVIC_DOORBELL), () => {
      f.if(value.shrU(32).ne(0).or(S.svmFeatures.has(f, SvmFeature.AVIC).eqz()), () => f.return(0));
      f.call(mc.ringDoorbell, value.wrap());
      f.return(1);
    });
    f.if(isTscRatio(f, index), () => {
      f.if(value.shrU(TSC_RATIO_BITS).ne(0), () => f.return(0));
      S.tscRatio.set(f, value);
      f.return(1);
    });
    f.if(isAmds(f, index, Msr.VM_HSAVE_PA), () => {
      const beyond = value.shrU(S.physicalBits.get(f).extendU()).ne(0);
      f.if(beyond.or(value.has(0xfff)), () => f.return(0));
      S.hsavePa.set(f, value);
      f.return(1);
    });
    // The rest of HWCR is kept outside. What is locked stays so until RESET.
    const isHwcr = isAmds(f, index, Msr.HWCR);
    f.if(
      isHwcr,
      () => f.store64(0, value.or(S.smmLocked.get(f).extendU()), S.exchange),
      undefined,
      "unlikely",
    );
    f.call(mc.beforeOutside);
    const exists = f.call(mc.msrWrite, index);
    const good = f.variable(I32T, exists.and(answered(mc, f))).get();
    f.if(
      isHwcr.and(good),
      () => S.smmLocked.or(f, value.wrap().and(HWCR_SMMLOCK)),
      undefined,
      "unlikely",
    );
    f.return(good);
  });

  // Two bits per MSR: even for reads, odd for writes; the three ranges follow each other
  // (APM vol. 2, 15.11). What is in none of them is always intercepted.
  module.body(mc.msrIntercepted, (f, index, write) => {
    const range = f.variable(I32T, -1);
    const high = index.and(~0x1fff);
    f.if(high.eqz(), () => range.set(0));
    f.if(high.eq(0xc000_0000), () => range.set(0x800));
    f.if(high.eq(0xc001_0000), () => range.set(0x1000));
    f.if(range.get().ltS(0), () => f.return(1));
    const low = index.and(0x1fff);
    const at = S.msrpm.get(f).add(range.get().add(low.shrU(2)).extendU());
    const byte = f.call(mc.readPhysical, at).wrap();
    f.return(byte.shrU(low.and(3).shl(1).add(write)).and(1));
  });
}
