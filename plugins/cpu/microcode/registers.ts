/**
 * Bits of the control registers and of RFLAGS (APM vol. 2, 3.1).
 *
 * @module
 */

/** RFLAGS */
export const Rflags = {
  CF: 0x1,
  ONE: 0x2,
  PF: 0x4,
  AF: 0x10,
  ZF: 0x40,
  SF: 0x80,
  TF: 0x100,
  IF: 0x200,
  DF: 0x400,
  OF: 0x800,
  IOPL: 0x3000,
  NT: 0x4000,
  RF: 0x1_0000,
  VM: 0x2_0000,
  AC: 0x4_0000,
  VIF: 0x8_0000,
  VIP: 0x10_0000,
  ID: 0x20_0000,
  /** OF SF ZF AF PF CF: kept apart, lazily. */
  ARITHMETIC: 0x8d5,
  /** All defined bits but the fixed one. */
  ALL: 0x3f_7fd5,
} as const;

/** CR0 */
export const Cr0 = {
  PE: 0x1,
  MP: 0x2,
  EM: 0x4,
  TS: 0x8,
  ET: 0x10,
  NE: 0x20,
  WP: 0x1_0000,
  AM: 0x4_0000,
  NW: 0x2000_0000,
  CD: 0x4000_0000,
  PG: 0x8000_0000,
} as const;

/** CR4 */
export const Cr4 = {
  VME: 0x1,
  PVI: 0x2,
  TSD: 0x4,
  DE: 0x8,
  PSE: 0x10,
  PAE: 0x20,
  MCE: 0x40,
  PGE: 0x80,
  PCE: 0x100,
  OSFXSR: 0x200,
  OSXMMEXCPT: 0x400,
  UMIP: 0x800,
  LA57: 0x1000,
  VMXE: 0x2000,
  FSGSBASE: 0x1_0000,
  PCIDE: 0x2_0000,
  OSXSAVE: 0x4_0000,
  SMEP: 0x10_0000,
  SMAP: 0x20_0000,
  PKE: 0x40_0000,
  /** Control-flow enforcement: shadow stacks and indirect-branch tracking. */
  CET: 0x80_0000,
  PKS: 0x100_0000,
} as const;

/** XCR0: the state components that software has enabled (SDM vol. 1, 13.3). */
export const Xcr0 = {
  X87: 0x1,
  SSE: 0x2,
  /** Upper halves of YMM0–YMM15. */
  AVX: 0x4,
  /** PKRU. */
  PKRU: 0x200,
  /** R16–R31. */
  APX: 0x8_0000,
} as const;

/** XSS: the state components that XSAVES saves besides (SDM vol. 1, 13.3). */
export const Xss = {
  /** U_CET and PL3_SSP. */
  CET_U: 0x800,
  /** PL0_SSP to PL2_SSP. */
  CET_S: 0x1000,
} as const;

/** DR6 */
export const Dr6 = {
  /** Breakpoints 3:0 met, BD, BS, BT. */
  WRITABLE: 0xe00f,
  /** Bits that read as ones. */
  FIXED: 0xffff_0ff0,
} as const;

/** DR7 */
export const Dr7 = {
  /** The local and the global enable of the four breakpoints. */
  ENABLES: 0xff,
  /** General detect: any access to a debug register is a #DB. */
  GD: 0x2000,
  /** Bits that can be written. */
  WRITABLE: 0xffff_23ff,
  /** The bit that reads as one. */
  FIXED: 0x400,
} as const;

/** DebugCtl */
export const DebugCtl = {
  /** Control transfers are recorded. */
  LBR: 0x1,
  /** RFLAGS.TF traps behind control transfers only. */
  BTF: 0x2,
  /** Bits that read as zero whatever is written (10:7). */
  IGNORED: 0x780,
} as const;

/** EFER */
export const Efer = {
  SCE: 0x1,
  LME: 0x100,
  LMA: 0x400,
  NXE: 0x800,
  SVME: 0x1000,
  LMSLE: 0x2000,
  FFXSR: 0x4000,
  TCE: 0x8000,
} as const;
