/**
 * What a processor's VMX can do: optional parts by name, and the capability MSRs that follow from them
 * (SDM vol. 3, appendix A).
 *
 * @module
 */
import { S } from "../state/cpu_state.ts";
import { type FunctionBuilder, type I32, type I64, i64 } from "../wasm/mod.ts";
import { EntryControl, ExitControl, Pin, Primary, Secondary, Tertiary } from "./controls.ts";
import { HIGHEST_INDEX, VMCS_REVISION, VmcsRegion } from "./fields.ts";

/** The capability MSRs. */
export const VmxMsr = {
  BASIC: 0x480,
  PIN: 0x481,
  PRIMARY: 0x482,
  EXIT: 0x483,
  ENTRY: 0x484,
  MISC: 0x485,
  CR0_FIXED0: 0x486,
  CR0_FIXED1: 0x487,
  CR4_FIXED0: 0x488,
  CR4_FIXED1: 0x489,
  VMCS_ENUM: 0x48a,
  SECONDARY: 0x48b,
  EPT_VPID: 0x48c,
  TRUE_PIN: 0x48d,
  TRUE_PRIMARY: 0x48e,
  TRUE_EXIT: 0x48f,
  TRUE_ENTRY: 0x490,
  VMFUNC: 0x491,
  TERTIARY: 0x492,
} as const;

/** First capability MSR. */
export const FIRST_VMX_MSR = 0x480;
/** How many there are in a row. */
export const VMX_MSRS = 0x13;

/** IA32_FEATURE_CONTROL (MSR 3Ah): bits. */
export const FeatureControl = { LOCK: 1, VMXON_IN_SMX: 2, VMXON: 4 } as const;

/** Bits of IA32_VMX_EPT_VPID_CAP. */
export const EptVpid = {
  EXECUTE_ONLY: 0x1,
  LEVELS_4: 0x40,
  LEVELS_5: 0x80,
  UNCACHEABLE: 0x100,
  WRITE_BACK: 0x4000,
  PAGE_2M: 0x1_0000,
  PAGE_1G: 0x2_0000,
  INVEPT: 0x10_0000,
  ACCESSED_DIRTY: 0x20_0000,
  SUPERVISOR_SHADOW_STACK: 0x80_0000,
  INVEPT_SINGLE: 0x200_0000,
  INVEPT_ALL: 0x400_0000,
} as const;

/** INVVPID and its four types: bits 32 and 43:40 of IA32_VMX_EPT_VPID_CAP, less 32. */
const INVVPID = 0xf01;

/** An optional part of VMX, by the name Linux has for it where it has one. */
export type VmxFeatureName =
  | "vnmi"
  | "preemption_timer"
  | "vapic"
  | "ept"
  | "ept_ad"
  | "ept_1gb"
  | "ept_5level"
  | "vpid"
  | "unrestricted_guest"
  | "ple"
  | "shadow_vmcs"
  | "pml"
  | "mbec"
  | "tsc_scaling"
  | "eptp_switching"
  | "flexpriority"
  | "virtual_x2apic"
  | "vapic_reg"
  | "vid"
  | "posted_intr"
  | "ipi_virt"
  | "bus_lock_detection"
  | "notify_vm_exiting"
  | "load_perf_global_ctrl"
  | "ept_sss";

/** Parts of VMX to switch on or off against what the model has. */
export type VmxFeatureChoice = { readonly [K in VmxFeatureName]?: boolean };

interface FeatureRow {
  readonly pin?: number;
  readonly primary?: number;
  readonly secondary?: number;
  readonly tertiary?: number;
  readonly exit?: number;
  readonly entry?: number;
  readonly eptVpid?: number;
  /** The feature it cannot be without; it stands in front. */
  readonly extends?: VmxFeatureName;
}

const EPT_BASE = EptVpid.EXECUTE_ONLY | EptVpid.LEVELS_4 | EptVpid.UNCACHEABLE |
  EptVpid.WRITE_BACK | EptVpid.PAGE_2M | EptVpid.INVEPT | EptVpid.INVEPT_SINGLE |
  EptVpid.INVEPT_ALL;

/** Optional parts, and the settings that each allows. */
export const VMX_FEATURES: Readonly<Record<VmxFeatureName, FeatureRow>> = {
  vnmi: { pin: Pin.VIRTUAL_NMIS, primary: Primary.NMI_WINDOW },
  preemption_timer: { pin: Pin.PREEMPTION_TIMER, exit: ExitControl.SAVE_TIMER },
  vapic: { primary: Primary.TPR_SHADOW },
  ept: { secondary: Secondary.EPT, eptVpid: EPT_BASE },
  ept_ad: { eptVpid: EptVpid.ACCESSED_DIRTY, extends: "ept" },
  ept_1gb: { eptVpid: EptVpid.PAGE_1G, extends: "ept" },
  ept_5level: { eptVpid: EptVpid.LEVELS_5, extends: "ept" },
  vpid: { secondary: Secondary.VPID },
  unrestricted_guest: { secondary: Secondary.UNRESTRICTED_GUEST, extends: "ept" },
  ple: { secondary: Secondary.PAUSE_LOOP },
  shadow_vmcs: { secondary: Secondary.SHADOW_VMCS },
  pml: { secondary: Secondary.PML, extends: "ept_ad" },
  mbec: { secondary: Secondary.MODE_BASED_EXECUTE, extends: "ept" },
  tsc_scaling: { secondary: Secondary.TSC_SCALING },
  eptp_switching: { secondary: Secondary.VM_FUNCTIONS, extends: "ept" },
  flexpriority: { secondary: Secondary.VIRTUALIZE_APIC_ACCESSES, extends: "vapic" },
  virtual_x2apic: { secondary: Secondary.VIRTUALIZE_X2APIC, extends: "vapic" },
  vapic_reg: { secondary: Secondary.APIC_REGISTERS, extends: "vapic" },
  vid: { secondary: Secondary.VIRTUAL_INTERRUPTS, extends: "vapic" },
  posted_intr: { pin: Pin.POSTED_INTERRUPTS, extends: "vid" },
  ipi_virt: { tertiary: Tertiary.IPI_VIRTUALIZATION, extends: "vapic" },
  bus_lock_detection: { secondary: Secondary.BUS_LOCK_DETECTION },
  notify_vm_exiting: { secondary: Secondary.NOTIFY },
  load_perf_global_ctrl: {
    exit: ExitControl.LOAD_PERF_GLOBAL_CTRL,
    entry: EntryControl.LOAD_PERF_GLOBAL_CTRL,
  },
  ept_sss: { eptVpid: EptVpid.SUPERVISOR_SHADOW_STACK, extends: "ept" },
};

/** Bits that must be 1 unless a TRUE capability says otherwise. */
const DEFAULT1 = {
  pin: 0x16,
  primary: 0x0401_e172,
  exit: 0x0003_6dff,
  entry: 0x0000_11ff,
} as const;
/** Of those, what the TRUE capabilities let be 0: CR3 exits, saving and loading debug controls. */
const FLEXIBLE = { pin: 0, primary: 0x1_8000, exit: 0x4, entry: 0x4 } as const;

/** Settings that every model allows. */
const BASE = {
  pin: Pin.EXTERNAL_INTERRUPT | Pin.NMI,
  primary: Primary.INTERRUPT_WINDOW | Primary.TSC_OFFSETTING | Primary.HLT | Primary.INVLPG |
    Primary.MWAIT | Primary.RDPMC | Primary.RDTSC | Primary.CR3_LOAD | Primary.CR3_STORE |
    Primary.CR8_LOAD | Primary.CR8_STORE | Primary.MOV_DR | Primary.UNCONDITIONAL_IO |
    Primary.IO_BITMAPS | Primary.MONITOR_TRAP_FLAG | Primary.MSR_BITMAPS | Primary.MONITOR |
    Primary.PAUSE | Primary.SECONDARY,
  secondary: Secondary.DESCRIPTOR_TABLES | Secondary.RDTSCP | Secondary.WBINVD,
  exit: ExitControl.SAVE_DEBUG | ExitControl.HOST_64BIT | ExitControl.ACKNOWLEDGE_INTERRUPT |
    ExitControl.SAVE_PAT | ExitControl.LOAD_PAT | ExitControl.SAVE_EFER | ExitControl.LOAD_EFER,
  entry: EntryControl.LOAD_DEBUG | EntryControl.IA32E_GUEST | EntryControl.LOAD_PAT |
    EntryControl.LOAD_EFER,
} as const;

/**
 * log2 of the TSC ticks of one tick of the preemption timer: bits 4:0 of IA32_VMX_MISC. Silicon has 5, with
 * a TSC that makes several ticks an instruction. Here it counts instructions, and a guest would often leave
 * before the first tick: so less.
 */
export const TIMER_RATE = 2;

/**
 * IA32_VMX_MISC: the timer's rate; EFER.LMA stored into the entry controls on exits (5); HLT, shutdown
 * and wait-for-SIPI (8:6); four CR3 targets (24:16); MSR lists of 512 (27:25); VMWRITE to any field
 * (29); injection of software events with length 0 (30).
 */
const MISC = TIMER_RATE | 0x20 | 0x1c0 | (4 << 16) | (1 << 29) | (1 << 30);

/**
 * IA32_VMX_BASIC above its revision: the region's size; memory type write-back in 53:50; information on
 * INS and OUTS (54); TRUE capabilities (55); hardware exceptions with or without error code (56).
 */
const BASIC_HIGH = VmcsRegion.BYTES | (6 << 18) | (1 << 22) | (1 << 23) | (1 << 24);

const pair = (low: number, high: number): bigint => BigInt(low >>> 0) | (BigInt(high >>> 0) << 32n);

/** Settings that come with parts of the instruction set. */
export interface InstructionSettings {
  /** Secondary controls. */
  readonly secondary?: number;
  /** VM-exit controls. */
  readonly exit?: number;
  /** VM-entry controls. */
  readonly entry?: number;
}

/**
 * The values of MSRs 480h and on, for a processor with these parts, these CR4 bits, and these settings
 * besides, which come with instructions.
 */
export function vmxCapabilities(
  features: ReadonlySet<VmxFeatureName>,
  cr4: number,
  instructions: readonly InstructionSettings[] = [],
): readonly bigint[] {
  const sum = { pin: 0, primary: 0, secondary: 0, tertiary: 0, exit: 0, entry: 0, eptVpid: 0 };
  for (const { secondary = 0, exit = 0, entry = 0 } of instructions) {
    sum.secondary |= secondary;
    sum.exit |= exit;
    sum.entry |= entry;
  }
  for (const name of features) {
    const row = VMX_FEATURES[name];
    for (const key of Object.keys(row) as (keyof FeatureRow)[]) {
      if (key !== "extends") sum[key] |= row[key] ?? 0;
    }
  }
  if (sum.tertiary !== 0) sum.primary |= Primary.TERTIARY;
  const allowed = (kind: keyof typeof DEFAULT1): number => BASE[kind] | DEFAULT1[kind] | sum[kind];
  const plain = (kind: keyof typeof DEFAULT1): bigint => pair(DEFAULT1[kind], allowed(kind));
  const exact = (kind: keyof typeof DEFAULT1): bigint =>
    pair(DEFAULT1[kind] & ~FLEXIBLE[kind], allowed(kind));
  const values: Record<number, bigint> = {
    [VmxMsr.BASIC]: pair(VMCS_REVISION, BASIC_HIGH),
    [VmxMsr.PIN]: plain("pin"),
    [VmxMsr.PRIMARY]: plain("primary"),
    [VmxMsr.EXIT]: plain("exit"),
    [VmxMsr.ENTRY]: plain("entry"),
    [VmxMsr.MISC]: pair(MISC, 0),
    // PE, NE and PG must be 1 (an unrestricted guest is excused by its control, not here).
    [VmxMsr.CR0_FIXED0]: pair(0x8000_0021, 0),
    [VmxMsr.CR0_FIXED1]: pair(0xffff_ffff, 0),
    [VmxMsr.CR4_FIXED0]: pair(0x2000, 0),
    [VmxMsr.CR4_FIXED1]: pair(cr4, 0),
    [VmxMsr.VMCS_ENUM]: pair(HIGHEST_INDEX << 1, 0),
    [VmxMsr.SECONDARY]: pair(0, BASE.secondary | sum.secondary),
    [VmxMsr.EPT_VPID]: pair(sum.eptVpid, features.has("vpid") ? INVVPID : 0),
    [VmxMsr.TRUE_PIN]: exact("pin"),
    [VmxMsr.TRUE_PRIMARY]: exact("primary"),
    [VmxMsr.TRUE_EXIT]: exact("exit"),
    [VmxMsr.TRUE_ENTRY]: exact("entry"),
    [VmxMsr.VMFUNC]: pair(features.has("eptp_switching") ? 1 : 0, 0),
    [VmxMsr.TERTIARY]: pair(sum.tertiary, 0),
  };
  return Array.from({ length: VMX_MSRS }, (_, k) => values[FIRST_VMX_MSR + k]!);
}

/** A capability MSR of this processor. */
export function capability(f: FunctionBuilder, msr: number): I64 {
  return f.load64(0, S.vmxMsrs + 8 * (msr - FIRST_VMX_MSR));
}

/** 1 if `value` has a setting that the capability MSR does not allow. */
export function notAllowed(f: FunctionBuilder, value: I32, msr: number): I32 {
  const allowed = capability(f, msr);
  const mustBe = allowed.wrap();
  const mayBe = allowed.shrU(32).wrap();
  return value.and(mustBe).ne(mustBe).or(value.and(mayBe.xor(-1)).ne(0));
}

/** 1 if this processor has any of `bits` in the low half of capability MSR `msr`. */
export function hasCapability(f: FunctionBuilder, msr: number, bits: number): I32 {
  return capability(f, msr).has(i64(BigInt(bits >>> 0)));
}

/** 1 if `value` may be in CR0 (or CR4) in VMX operation, by the two fixed-bit MSRs from `fixed0` on. */
export function fixedBitsHold(f: FunctionBuilder, value: I64, fixed0: number, free = 0): I32 {
  const ones = capability(f, fixed0).and(~free);
  const allowed = capability(f, fixed0 + 1);
  return value.and(ones).eq(ones).and(value.has(allowed.xor(-1)).eqz());
}
