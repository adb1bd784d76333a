/**
 * The registers of a local APIC: where they are, who may read and write them, and which bits
 * (APM vol. 2, table 16-2 and section 16.11; SDM vol. 3A, tables 11-1 and 11-6).
 *
 * @module
 */

/** Offsets into the register page. In x2APIC mode register `o` is MSR 800h + o / 10h. */
export const LapicRegister = {
  /** APIC ID. */
  ID: 0x020,
  /** Version. */
  VERSION: 0x030,
  /** Task priority. */
  TPR: 0x080,
  /** Arbitration priority. */
  APR: 0x090,
  /** Processor priority. */
  PPR: 0x0a0,
  /** End of interrupt. */
  EOI: 0x0b0,
  /** Remote read. */
  RRR: 0x0c0,
  /** Logical destination. */
  LDR: 0x0d0,
  /** Destination format. */
  DFR: 0x0e0,
  /** Spurious-interrupt vector. */
  SVR: 0x0f0,
  /** In-service, the first of eight. */
  ISR: 0x100,
  /** Trigger mode, the first of eight. */
  TMR: 0x180,
  /** Interrupt request, the first of eight. */
  IRR: 0x200,
  /** Error status. */
  ESR: 0x280,
  /** LVT, corrected machine-check interrupt. */
  LVT_CMCI: 0x2f0,
  /** Interrupt command, bits 31:0. */
  ICR: 0x300,
  /** Interrupt command, bits 63:32. */
  ICR_HIGH: 0x310,
  /** LVT, timer. */
  LVT_TIMER: 0x320,
  /** LVT, thermal sensor. */
  LVT_THERMAL: 0x330,
  /** LVT, performance counters. */
  LVT_PERF: 0x340,
  /** LVT, LINT0 pin. */
  LVT_LINT0: 0x350,
  /** LVT, LINT1 pin. */
  LVT_LINT1: 0x360,
  /** LVT, error. */
  LVT_ERROR: 0x370,
  /** Timer, initial count. */
  TIMER_INITIAL: 0x380,
  /** Timer, current count. */
  TIMER_CURRENT: 0x390,
  /** Timer, divide configuration. */
  TIMER_DIVIDE: 0x3e0,
  /** Self IPI, in x2APIC mode only. */
  SELF_IPI: 0x3f0,
  /** Extended APIC feature. */
  EXT_FEATURE: 0x400,
  /** Extended APIC control. */
  EXT_CONTROL: 0x410,
  /** Specific end of interrupt. */
  SEOI: 0x420,
  /** Interrupt enable, the first of eight. */
  IER: 0x480,
  /** Extended LVT, the first of four. */
  EXT_LVT: 0x500,
} as const;

/** Bits of the LVT entries (APM vol. 2, 16.4; SDM vol. 3A, figure 11-8). */
export const Lvt = {
  /** Vector. */
  VECTOR: 0xff,
  /** Message type, as in the ICR. */
  MODE: 0x700,
  /** Delivery status; read only. */
  STATUS: 0x1000,
  /** Polarity of a LINT pin: active low. Intel's only. */
  POLARITY: 0x2000,
  /** Remote IRR of a level-triggered LINT pin; read only. */
  REMOTE_IRR: 0x4000,
  /** Level-triggered LINT pin. */
  LEVEL: 0x8000,
  /** Masked. */
  MASK: 0x1_0000,
  /** Timer mode: 0 one-shot, 1 periodic, 2 TSC deadline. */
  TIMER_MODE: 0x6_0000,
} as const;

/** Bits of the spurious-interrupt vector register. */
export const Svr = {
  /** Spurious vector. */
  VECTOR: 0xff,
  /** The APIC is enabled by software. */
  ENABLE: 0x100,
  /** Focus processor checking is off. */
  NO_FOCUS: 0x200,
  /** No EOI messages to I/O APICs. */
  SUPPRESS_EOI: 0x1000,
} as const;

/** Bits of the error status register (APM vol. 2, 16.4.6; SDM vol. 3A, figure 11-9). */
export const ApicError = {
  /** A message sent was accepted by nobody. */
  SEND_ACCEPT: 0x04,
  /** A message received was not accepted. */
  RECEIVE_ACCEPT: 0x08,
  /** A vector below 16 was to be sent. */
  SEND_VECTOR: 0x20,
  /** A vector below 16 was received, or stands in an LVT entry that fired. */
  RECEIVE_VECTOR: 0x40,
  /** A register that is not there was accessed. */
  REGISTER: 0x80,
} as const;

/** Bits of the extended APIC feature and control registers (APM vol. 2, 16.3.4 and 16.3.5). */
export const Extended = {
  /** Interrupt enable registers. */
  IER: 0x1,
  /** Specific end of interrupt. */
  SEOI: 0x2,
  /** Eight-bit APIC IDs. */
  WIDE_ID: 0x4,
} as const;

/** What one mode lets software do with a register. */
export type Access = "none" | "r" | "w" | "rw";

/** A register, or several in a row. */
export interface RegisterRow {
  /** Name, as the manuals abbreviate it. */
  readonly name: string;
  /** Offset of the first. */
  readonly offset: number;
  /** How many at steps of 10h; 1 if not given. */
  readonly count?: number;
  /** Through the register page, in xAPIC mode. */
  readonly xapic: Access;
  /** Through MSRs, in x2APIC mode. */
  readonly x2apic: Access;
  /** Bits that a write stores. */
  readonly writable: number;
  /** Bits 31:0 that must be 0 in a WRMSR. */
  readonly reserved: number;
  /** Value after RESET and INIT. */
  readonly reset: number;
}

/** Whose local APIC it is. The two differ in registers, reserved bits and the layout of the ICR. */
export type LapicVendor = "amd" | "intel";

/** What a local APIC has. */
export interface LapicFeatures {
  /** Whose it is. */
  readonly vendor: LapicVendor;
  /** x2APIC mode. */
  readonly x2apic: boolean;
  /** TSC-deadline mode of the timer. */
  readonly tscDeadline: boolean;
  /** LVT entry for corrected machine checks. */
  readonly cmci: boolean;
  /** EOI messages can be suppressed. */
  readonly eoiSuppression: boolean;
  /** The extended APIC register space. */
  readonly extended: boolean;
}

const LVT_COMMON: number = Lvt.VECTOR | Lvt.MODE | Lvt.MASK;
/** The timer and, on Intel, the error entry are always fixed. */
const LVT_FIXED: number = Lvt.VECTOR | Lvt.MASK;

/** Bits 15:13 and 11, and all from 17 on: what is reserved in an LVT entry with a message type. */
const RESERVED_COMMON = 0xfffe_e800;
/** As above, with bits 10:8. */
const RESERVED_FIXED = 0xfffe_ef00;

/** Number of extended LVT entries. */
export const EXTENDED_LVTS = 4;

/** Extended APIC feature register: four LVT entries, SEOI and IER (APM vol. 2, 16.3.4). */
const EXTENDED_FEATURE: number = (EXTENDED_LVTS << 16) | Extended.WIDE_ID | Extended.SEOI |
  Extended.IER;

/**
 * Version register (APM vol. 2, 16.3.3; SDM vol. 3A, 11.4.8). 10h is what AMD's processors report;
 * for Intel 14h, or 15h with CMCI, as KVM and Bochs have it.
 */
export function versionOf(features: LapicFeatures): number {
  const { vendor, cmci, eoiSuppression, extended } = features;
  const maxLvt = cmci ? 6 : 5;
  const version = vendor === "amd" ? 0x10 : cmci ? 0x15 : 0x14;
  const extendedBit = extended ? 0x8000_0000 : 0;
  const suppressionBit = eoiSuppression ? 0x0100_0000 : 0;
  return (extendedBit | suppressionBit | (maxLvt << 16) | version) >>> 0;
}

/** All registers of a local APIC with the features given. */
export function registerRows(features: LapicFeatures): readonly RegisterRow[] {
  const amd = features.vendor === "amd";
  const R = LapicRegister;
  const ro = (name: string, offset: number, more: Partial<RegisterRow> = {}): RegisterRow => ({
    name,
    offset,
    xapic: "r",
    x2apic: "r",
    writable: 0,
    reserved: 0,
    reset: 0,
    ...more,
  });
  const rw = (name: string, offset: number, more: Partial<RegisterRow>): RegisterRow =>
    ro(name, offset, { xapic: "rw", x2apic: "rw", ...more });
  const lvt = (name: string, offset: number, writable: number, reserved: number): RegisterRow =>
    rw(name, offset, { writable, reserved, reset: Lvt.MASK });

  const deadline = features.tscDeadline;
  const timerBits = LVT_FIXED | (deadline ? Lvt.TIMER_MODE : 0x2_0000);
  // Bit 18 is the second bit of the timer mode where there is a TSC-deadline mode, else reserved.
  const timerReserved = deadline ? 0xfff8_ef00 : 0xfffc_ef00;
  // AMD's pins have no polarity.
  const lintBits = LVT_COMMON | Lvt.LEVEL | (amd ? 0 : Lvt.POLARITY);
  const lintReserved = amd ? 0xfffe_2800 : 0xfffe_0800;
  const svrBits = Svr.VECTOR | Svr.ENABLE | Svr.NO_FOCUS |
    (features.eoiSuppression ? Svr.SUPPRESS_EOI : 0);
  const error = amd
    ? lvt("LVTERR", R.LVT_ERROR, LVT_COMMON, RESERVED_COMMON)
    : lvt("LVTERR", R.LVT_ERROR, LVT_FIXED, RESERVED_FIXED);

  const rows: RegisterRow[] = [
    // On current processors the xAPIC ID is read-only; KVM and older ones let it be written.
    rw("ID", R.ID, { x2apic: "r", writable: 0xff00_0000 }),
    ro("VERSION", R.VERSION, { reset: versionOf(features) }),
    rw("TPR", R.TPR, { writable: 0xff, reserved: 0xffff_ff00 }),
    // AMD keeps the arbitration priority in x2APIC mode, Intel does not.
    ro("APR", R.APR, { x2apic: amd ? "r" : "none" }),
    ro("PPR", R.PPR),
    ro("EOI", R.EOI, { xapic: "w", x2apic: "w", reserved: 0xffff_ffff }),
    ro("RRR", R.RRR, { x2apic: "none" }),
    rw("LDR", R.LDR, { x2apic: "r", writable: 0xff00_0000 }),
    rw("DFR", R.DFR, { x2apic: "none", writable: 0xf000_0000, reset: 0xffff_ffff }),
    rw("SVR", R.SVR, { writable: svrBits, reserved: ~svrBits >>> 0, reset: 0xff }),
    ro("ISR", R.ISR, { count: 8 }),
    ro("TMR", R.TMR, { count: 8 }),
    ro("IRR", R.IRR, { count: 8 }),
    rw("ESR", R.ESR, { reserved: 0xffff_ffff }),
    rw("ICR", R.ICR, { writable: 0x000c_cfff, reserved: 0xfff3_3000 }),
    rw("ICR2", R.ICR_HIGH, { x2apic: "none", writable: 0xff00_0000 }),
    lvt("LVTT", R.LVT_TIMER, timerBits, timerReserved),
    lvt("LVTTHMR", R.LVT_THERMAL, LVT_COMMON, RESERVED_COMMON),
    lvt("LVTPC", R.LVT_PERF, LVT_COMMON, RESERVED_COMMON),
    lvt("LVT0", R.LVT_LINT0, lintBits, lintReserved),
    lvt("LVT1", R.LVT_LINT1, lintBits, lintReserved),
    error,
    rw("TMICT", R.TIMER_INITIAL, { writable: 0xffff_ffff }),
    ro("TMCCT", R.TIMER_CURRENT),
    rw("TDCR", R.TIMER_DIVIDE, { writable: 0xb, reserved: 0xffff_fff4 }),
    ro("SELF_IPI", R.SELF_IPI, { xapic: "none", x2apic: "w", reserved: 0xffff_ff00 }),
  ];
  if (features.cmci) rows.push(lvt("LVTCMCI", R.LVT_CMCI, LVT_COMMON, RESERVED_COMMON));
  if (features.extended) {
    rows.push(
      ro("EXT_FEATURE", R.EXT_FEATURE, { reset: EXTENDED_FEATURE }),
      rw("EXT_CONTROL", R.EXT_CONTROL, { writable: 7, reserved: 0xffff_fff8 }),
      rw("SEOI", R.SEOI, { writable: 0xff, reserved: 0xffff_ff00 }),
      rw("IER", R.IER, { count: 8, writable: 0xffff_ffff, reset: 0xffff_ffff }),
      { ...lvt("EXT_LVT", R.EXT_LVT, LVT_COMMON, RESERVED_COMMON), count: EXTENDED_LVTS },
    );
  }
  return rows;
}

/** The registers by place, offset / 10h; `undefined` where there is none. */
export class RegisterMap {
  readonly #rows: (RegisterRow | undefined)[] = new Array(0x100).fill(undefined);
  /** All registers. */
  readonly rows: readonly RegisterRow[];
  /** Offsets of the LVT entries. */
  readonly lvts: readonly number[];

  /** The registers of a local APIC with the features given. */
  constructor(features: LapicFeatures) {
    this.rows = registerRows(features);
    const lvts: number[] = [];
    for (const row of this.rows) {
      for (let k = 0; k < (row.count ?? 1); k++) {
        const offset = row.offset + 0x10 * k;
        this.#rows[offset >> 4] = row;
        if (row.name.startsWith("LVT") || row.name === "EXT_LVT") lvts.push(offset);
      }
    }
    this.lvts = lvts;
  }

  /** The register at `offset`, a multiple of 10h below 1000h. */
  at(offset: number): RegisterRow | undefined {
    return this.#rows[offset >> 4];
  }
}
