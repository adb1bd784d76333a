/**
 * Machine-check registers (APM vol. 2, 9.3; SDM vol. 3B, 16.3). Nothing here makes errors: the host can,
 * by writing a bank and raising #MC.
 *
 * @module
 */
import { ALL, type MsrRow, type MsrValues } from "./row.ts";

/** Banks of error-reporting registers. */
export const MACHINE_CHECK_BANKS = 10;

/** MCG_CAP bit 8: MCG_CTL is there. */
const MCG_CTL_P = 0x100;
/** MCG_STATUS: RIPV, EIPV, MCIP. */
const MCG_STATUS_BITS = 7;

/** AMD's HWCR, and its bit that lets software write error status. */
const HWCR = 0xc001_0015;
const MC_STATUS_WR_EN = 0x4_0000;

/** Control registers take all zeros or all ones; another pattern is not architectural (SDM 16.3.1.3). */
const allOrNothing = (lo: number, hi: number): boolean =>
  (lo === 0 && hi === 0) || (lo === 0xffff_ffff && hi === 0xffff_ffff);

/** Status is software's to clear only, but on AMD's processors with HWCR[McStatusWrEn]. */
const clearing = (lo: number, hi: number, values: MsrValues): boolean =>
  (lo === 0 && hi === 0) || (values.low(HWCR) & MC_STATUS_WR_EN) !== 0;

/** The machine-check MSRs. */
export const MACHINE_CHECK: readonly MsrRow[] = [
  {
    name: "MCG_CAP",
    index: 0x179,
    reset: [MACHINE_CHECK_BANKS | MCG_CTL_P, 0],
    readOnly: true,
  },
  { name: "MCG_STATUS", index: 0x17a, writable: [MCG_STATUS_BITS, 0] },
  { name: "MCG_CTL", index: 0x17b, writable: ALL, check: allOrNothing },
  ...Array.from({ length: MACHINE_CHECK_BANKS }, (_, k): readonly MsrRow[] => [
    { name: `MC${k}_CTL`, index: 0x400 + 4 * k, writable: ALL, check: allOrNothing },
    { name: `MC${k}_STATUS`, index: 0x401 + 4 * k, writable: ALL, check: clearing },
    { name: `MC${k}_ADDR`, index: 0x402 + 4 * k, writable: ALL },
    { name: `MC${k}_MISC`, index: 0x403 + 4 * k, writable: ALL },
  ]).flat(),
];
