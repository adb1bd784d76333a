/**
 * MSRs that only Intel's processors have (SDM vol. 4).
 *
 * @module
 */
import { ALL, type MsrRow, NONE } from "./row.ts";

/** Ratio to the bus clock of 100 MHz that makes the TSC's 1 GHz. */
const RATIO = 10;

/** IA32_MISC_ENABLE, SDM vol. 4, table 2-2. */
export const MiscEnable = {
  FAST_STRINGS: 0x1,
  THERMAL_CONTROL: 0x8,
  PERFMON_AVAILABLE: 0x80,
  /** Set where there is no branch-trace store; read-only. */
  BTS_UNAVAILABLE: 0x800,
  /** Set where there is no PEBS; read-only. */
  PEBS_UNAVAILABLE: 0x1000,
  SPEEDSTEP: 0x1_0000,
  MONITOR: 0x4_0000,
  LIMIT_CPUID: 0x40_0000,
  XTPR_DISABLE: 0x80_0000,
  /** Bit 34, in the high half. */
  XD_DISABLE_HIGH: 0x4,
} as const;

const MISC_WRITABLE = MiscEnable.FAST_STRINGS | MiscEnable.THERMAL_CONTROL |
  MiscEnable.SPEEDSTEP | MiscEnable.MONITOR | MiscEnable.LIMIT_CPUID | MiscEnable.XTPR_DISABLE;
const MISC_READ_ONLY = MiscEnable.PERFMON_AVAILABLE | MiscEnable.BTS_UNAVAILABLE |
  MiscEnable.PEBS_UNAVAILABLE;
const MISC_RESET = MiscEnable.FAST_STRINGS | MiscEnable.BTS_UNAVAILABLE |
  MiscEnable.PEBS_UNAVAILABLE | MiscEnable.SPEEDSTEP | MiscEnable.MONITOR;

/** Index of IA32_MISC_ENABLE. */
export const MISC_ENABLE = 0x1a0;

/** Those of all models; `revision` is that of their microcode. */
export function intelMsrs(revision: number): readonly MsrRow[] {
  return [
    { name: "PLATFORM_ID", index: 0x17, readOnly: true },
    // Updates are examined and none fits this processor, which is no fault (SDM vol. 3A, 10.11.6).
    { name: "BIOS_UPDT_TRIG", index: 0x79, writable: ALL, command: true },
    // Software writes 0, executes CPUID and finds the revision in 63:32.
    { name: "BIOS_SIGN_ID", index: 0x8b, reset: [0, revision], writable: NONE, others: "ignored" },
    // Maximum non-turbo ratio in 15:8; nothing programmable, no CPUID faulting.
    { name: "PLATFORM_INFO", index: 0xce, reset: [RATIO << 8, 0], readOnly: true },
    // C-states beyond C0 are not demoted; locked (15).
    { name: "PKG_CST_CONFIG_CONTROL", index: 0xe2, reset: [0x8000, 0], readOnly: true },
    { name: "MISC_FEATURES_ENABLES", index: 0x140, writable: NONE },
    { name: "PERF_STATUS", index: 0x198, reset: [RATIO << 8, 0], readOnly: true },
    { name: "PERF_CTL", index: 0x199, reset: [RATIO << 8, 0], writable: [0xff00, 0] },
    {
      name: "MISC_ENABLE",
      index: MISC_ENABLE,
      reset: [MISC_RESET, 0],
      writable: [MISC_WRITABLE, MiscEnable.XD_DISABLE_HIGH],
      // The read-only bits keep their value; of all others it is an error to set one.
      others: "ignored",
      check: (lo, hi) =>
        (lo & ~(MISC_WRITABLE | MISC_READ_ONLY)) === 0 &&
        (hi & ~MiscEnable.XD_DISABLE_HIGH) === 0,
    },
    // Ratios with one to eight cores active.
    {
      name: "TURBO_RATIO_LIMIT",
      index: 0x1ad,
      reset: [RATIO * 0x0101_0101, RATIO * 0x0101_0101],
      readOnly: true,
    },
    { name: "POWER_CTL", index: 0x1fc, writable: [0x2, 0] },
  ];
}
