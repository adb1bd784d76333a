/**
 * What AVIC reads and writes in memory, and what its exits report (APM vol. 2, 15.29).
 *
 * @module
 */

/** Offsets of registers in the 4 KiB backing page (APM vol. 2, table 16-2). 32 bits each. */
export const ApicOffset = {
  ID: 0x020,
  VERSION: 0x030,
  TPR: 0x080,
  APR: 0x090,
  PPR: 0x0a0,
  EOI: 0x0b0,
  RRR: 0x0c0,
  LDR: 0x0d0,
  DFR: 0x0e0,
  SVR: 0x0f0,
  /** Eight registers, 10h apart; so are TMR and IRR. */
  ISR: 0x100,
  TMR: 0x180,
  IRR: 0x200,
  ESR: 0x280,
  ICR: 0x300,
  ICR_HIGH: 0x310,
  LVT_TIMER: 0x320,
  LVT_THERMAL: 0x330,
  LVT_PERFORMANCE: 0x340,
  LVT_LINT0: 0x350,
  LVT_LINT1: 0x360,
  LVT_ERROR: 0x370,
  INITIAL_COUNT: 0x380,
  CURRENT_COUNT: 0x390,
  DIVIDE: 0x3e0,
  SELF_IPI: 0x3f0,
  /** Extended feature register; 410h control and 420h specific EOI follow it. */
  EXTENDED_FEATURE: 0x400,
  /** Eight interrupt enable registers. */
  IER: 0x480,
  /** Four extended LVTs. */
  EXTENDED_LVT: 0x500,
} as const;

/** An entry of the physical APIC ID table: 8 bytes (APM vol. 2, 15.29.4.2). */
export const AvicPhysicalEntry = {
  /** Bits of the backing page's host physical address. */
  BACKING_PAGE: 0x000f_ffff_ffff_f000n,
  /** Bits of the host physical APIC ID, which means something only with {@linkcode AvicPhysicalEntry.IS_RUNNING}. */
  HOST_APIC_ID: 0xfffn,
  /** A processor is assigned to the guest's. */
  IS_RUNNING: 0x4000_0000_0000_0000n,
  /** The entry is in use. */
  VALID: 0x8000_0000_0000_0000n,
} as const;

/** An entry of the logical APIC ID table: 4 bytes (APM vol. 2, 15.29.4.3). */
export const AvicLogicalEntry = {
  /** Guest physical APIC ID. */
  GUEST_APIC_ID: 0xff,
  /** The entry is in use. */
  VALID: 0x8000_0000,
} as const;

/** Address bits of the VMCB's AVIC pointers, 51:12. */
export const AVIC_POINTER = 0x000f_ffff_ffff_f000n;

/** Bits 11:0 of VMCB 0F8h: highest index of the physical APIC ID table. */
export const AVIC_PHYSICAL_MAX_INDEX = 0xfff;

/** Highest guest physical APIC IDs of the three modes. */
export const AvicMaxId = {
  /** 255 is the broadcast ID. */
  XAVIC: 254,
  X2AVIC: 511,
  /** With CPUID 8000_000Ah ECX bit 6. */
  X2AVIC_EXTENDED: 4095,
} as const;

/** Why an IPI was not delivered, in EXITINFO2 63:32 of exit 401h (APM vol. 2, table 15-24). */
export const IncompleteIpi = {
  /** Message type or trigger mode is not accelerated. */
  INVALID_TYPE: 0,
  /** IRR is set everywhere, but a target is not running. */
  TARGET_NOT_RUNNING: 1,
  /** A target does not exist. */
  INVALID_TARGET: 2,
  /** A target's backing page is in no memory. */
  INVALID_BACKING_PAGE: 3,
  /** The vector is below 16. */
  INVALID_VECTOR: 4,
} as const;

/** Bits of the interrupt command register (APM vol. 2, 16.5). */
export const Icr = {
  VECTOR: 0xff,
  /** 10:8 message type; 0 is fixed. */
  MESSAGE_TYPE: 0x700,
  LOGICAL: 0x800,
  /** Delivery status, xAPIC only. */
  BUSY: 0x1000,
  ASSERT: 0x4000,
  LEVEL: 0x8000,
  /** 19:18 shorthand. */
  SHORTHAND: 0xc_0000,
  SELF: 0x4_0000,
  ALL: 0x8_0000,
  ALL_BUT_SELF: 0xc_0000,
} as const;
