/**
 * What a guest's access to each APIC register does under AVIC (APM vol. 2, table 15-22), and which
 * x2APIC MSRs exist (table 16-6).
 *
 * The table stands in the machine's memory at {@linkcode AVIC_TABLES}: a byte for each register, by
 * offset / 16, then masks of reserved bits for the MSRs from 800h on.
 *
 * @module
 */
import { AVIC_TABLES } from "../../state/layout.ts";
import { ApicOffset } from "./layout.ts";

/** Bits of a register's byte. */
export const RegisterAccess = {
  /** Reading: exit 402h as a fault; else the page answers. */
  READ_FAULT: 0x01,
  /** Reading the MSR is #GP. */
  MSR_READ_GP: 0x02,
  /** Writing the MSR is #GP. */
  MSR_WRITE_GP: 0x04,
  /** Shift of {@linkcode WriteKind}. */
  WRITE_SHIFT: 4,
} as const;

/** What writing does. */
export const WriteKind = {
  /** The page takes the value. */
  ALLOW: 0,
  /** Nothing is done; exit 402h with RIP at the instruction. */
  FAULT: 1,
  /** The page takes the value; exit 402h behind the instruction. */
  TRAP: 2,
  TPR: 3,
  EOI: 4,
  ICR: 5,
  SELF_IPI: 6,
} as const;

type Write = keyof typeof WriteKind;

interface Row {
  readonly offset: number;
  /** How many registers, 10h apart. */
  readonly count?: number;
  readonly read: "ALLOW" | "FAULT";
  readonly write: Write;
  /** Whether it is an MSR in x2APIC mode; which accesses of it are #GP. */
  readonly msr?: "read-write" | "write-only" | "id" | "none";
}

const read = "ALLOW";
/** Table 15-22 row by row. What it does not list below 540h is allowed, and from there on faults. */
const ROWS: readonly Row[] = [
  { offset: ApicOffset.ID, read, write: "TRAP", msr: "id" },
  { offset: ApicOffset.VERSION, read, write: "FAULT", msr: "read-write" },
  { offset: ApicOffset.TPR, read, write: "TPR", msr: "read-write" },
  { offset: ApicOffset.APR, read: "FAULT", write: "FAULT", msr: "read-write" },
  { offset: ApicOffset.PPR, read, write: "FAULT", msr: "read-write" },
  { offset: ApicOffset.EOI, read, write: "EOI", msr: "read-write" },
  { offset: ApicOffset.RRR, read, write: "TRAP" },
  { offset: ApicOffset.LDR, read, write: "TRAP", msr: "read-write" },
  { offset: ApicOffset.DFR, read, write: "TRAP" },
  { offset: ApicOffset.SVR, read, write: "TRAP", msr: "read-write" },
  { offset: ApicOffset.ISR, count: 8, read, write: "FAULT", msr: "read-write" },
  { offset: ApicOffset.TMR, count: 8, read, write: "FAULT", msr: "read-write" },
  { offset: ApicOffset.IRR, count: 8, read, write: "FAULT", msr: "read-write" },
  { offset: ApicOffset.ESR, read, write: "TRAP", msr: "read-write" },
  { offset: ApicOffset.ICR, read, write: "ICR", msr: "read-write" },
  { offset: ApicOffset.ICR_HIGH, read, write: "ALLOW" },
  { offset: ApicOffset.LVT_TIMER, count: 7, read, write: "TRAP", msr: "read-write" },
  {
    offset: ApicOffset.CURRENT_COUNT,
    read: "FAULT",
    write: "FAULT",
    msr: "read-write",
  },
  { offset: ApicOffset.DIVIDE, read, write: "TRAP", msr: "read-write" },
  { offset: ApicOffset.SELF_IPI, read, write: "SELF_IPI", msr: "write-only" },
  {
    offset: ApicOffset.EXTENDED_FEATURE,
    count: 3,
    read: "FAULT",
    write: "FAULT",
    msr: "read-write",
  },
  { offset: ApicOffset.IER, count: 8, read: "FAULT", write: "FAULT", msr: "read-write" },
  { offset: ApicOffset.EXTENDED_LVT, count: 4, read: "FAULT", write: "FAULT", msr: "read-write" },
];

const MSR_BITS = {
  "read-write": 0,
  "write-only": RegisterAccess.MSR_READ_GP,
  id: RegisterAccess.MSR_WRITE_GP,
  none: RegisterAccess.MSR_READ_GP | RegisterAccess.MSR_WRITE_GP,
} as const;

/** Registers in the page: 4 KiB / 16. */
const REGISTERS = 0x100;
/** First register that is reserved from there to the end of the page. */
const RESERVED_FROM = 0x54;
/** MSRs from 800h on that can exist. */
export const MSR_REGISTERS: number = RESERVED_FROM;

/** Reserved bits of MSRs that are written, where they are not just bits 63:32 (APM vol. 2, 16.11). */
const RESERVED_BITS: Readonly<Record<number, bigint>> = {
  [ApicOffset.TPR]: ~0xffn,
  [ApicOffset.EOI]: ~0n,
  [ApicOffset.SVR]: ~0x3ffn,
  [ApicOffset.ESR]: ~0n,
  [ApicOffset.ICR]: 0xfff3_3000n,
  // Bit 18, the TSC-deadline mode, is reserved on AMD: selecting it is #GP, not an exit.
  [ApicOffset.LVT_TIMER]: ~0x3_10ffn,
  [ApicOffset.LVT_THERMAL]: ~0x1_17ffn,
  [ApicOffset.LVT_PERFORMANCE]: ~0x1_17ffn,
  [ApicOffset.LVT_LINT0]: ~0x1_d7ffn,
  [ApicOffset.LVT_LINT1]: ~0x1_d7ffn,
  [ApicOffset.LVT_ERROR]: ~0x1_17ffn,
  [ApicOffset.DIVIDE]: ~0xbn,
  [ApicOffset.SELF_IPI]: ~0xffn,
};

/** Address of the masks, 8 bytes each. */
export const RESERVED_MASKS: number = AVIC_TABLES + REGISTERS;

/** Fills the tables in `memory`; `extendedLvt` is CPUID 8000_000Ah EDX bit 27. */
export function fillAvicTables(memory: Uint8Array, extendedLvt: boolean): void {
  const table = memory.subarray(AVIC_TABLES, AVIC_TABLES + REGISTERS);
  const reserved = RegisterAccess.READ_FAULT | (WriteKind.FAULT << RegisterAccess.WRITE_SHIFT);
  table.fill(MSR_BITS.none);
  table.fill(MSR_BITS.none | reserved, RESERVED_FROM);
  for (const { offset, count = 1, read, write, msr = "none" } of ROWS) {
    const code = MSR_BITS[msr] | (read === "FAULT" ? RegisterAccess.READ_FAULT : 0) |
      (WriteKind[write] << RegisterAccess.WRITE_SHIFT);
    table.fill(code, offset >> 4, (offset >> 4) + count);
  }
  if (extendedLvt) {
    const code = MSR_BITS["read-write"] | (WriteKind.TRAP << RegisterAccess.WRITE_SHIFT);
    table.fill(code, ApicOffset.EXTENDED_LVT >> 4, (ApicOffset.EXTENDED_LVT >> 4) + 4);
  }
  const masks = new BigUint64Array(
    memory.buffer,
    memory.byteOffset + RESERVED_MASKS,
    MSR_REGISTERS,
  );
  for (let register = 0; register < masks.length; register++) {
    masks[register] = BigInt.asUintN(64, RESERVED_BITS[register << 4] ?? ~0xffff_ffffn);
  }
}
