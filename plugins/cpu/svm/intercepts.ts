/**
 * Intercept bits of the VMCB control area (APM vol. 2, appendix B).
 *
 * Bit n of word w stands for exit code 32 × w + n.
 *
 * @module
 */
import { S } from "../state/cpu_state.ts";
import type { FunctionBuilder, I32 } from "../wasm/mod.ts";

/** Offsets of the intercept words in the VMCB. */
export const InterceptWord = {
  CR: 0x00,
  DR: 0x04,
  EXCEPTIONS: 0x08,
  MISC1: 0x0c,
  MISC2: 0x10,
  MISC3: 0x14,
} as const;

/** Bits of the word at 00Ch. */
export const Misc1 = {
  INTR: 0x1,
  NMI: 0x2,
  SMI: 0x4,
  INIT: 0x8,
  VINTR: 0x10,
  CR0_SEL_WRITE: 0x20,
  IDTR_READ: 0x40,
  GDTR_READ: 0x80,
  LDTR_READ: 0x100,
  TR_READ: 0x200,
  IDTR_WRITE: 0x400,
  GDTR_WRITE: 0x800,
  LDTR_WRITE: 0x1000,
  TR_WRITE: 0x2000,
  RDTSC: 0x4000,
  RDPMC: 0x8000,
  PUSHF: 0x1_0000,
  POPF: 0x2_0000,
  CPUID: 0x4_0000,
  RSM: 0x8_0000,
  IRET: 0x10_0000,
  SWINT: 0x20_0000,
  INVD: 0x40_0000,
  PAUSE: 0x80_0000,
  HLT: 0x100_0000,
  INVLPG: 0x200_0000,
  INVLPGA: 0x400_0000,
  IOIO: 0x800_0000,
  MSR: 0x1000_0000,
  TASK_SWITCH: 0x2000_0000,
  FERR_FREEZE: 0x4000_0000,
  SHUTDOWN: 0x8000_0000,
} as const;

/** Bits of the word at 010h. */
export const Misc2 = {
  VMRUN: 0x1,
  VMMCALL: 0x2,
  VMLOAD: 0x4,
  VMSAVE: 0x8,
  STGI: 0x10,
  CLGI: 0x20,
  SKINIT: 0x40,
  RDTSCP: 0x80,
  ICEBP: 0x100,
  WBINVD: 0x200,
  MONITOR: 0x400,
  MWAIT: 0x800,
  MWAIT_CONDITIONAL: 0x1000,
  XSETBV: 0x2000,
  RDPRU: 0x4000,
  EFER_WRITE_TRAP: 0x8000,
  /** Of CR0; shifted left by n for CRn. */
  CR_WRITE_TRAP: 0x1_0000,
} as const;

/** Bits of the word at 014h. */
export const Misc3 = {
  INVPCID: 0x4,
  BUS_LOCK: 0x20,
  IDLE_HLT: 0x40,
} as const;

/** The intercept word at VMCB offset `word`, as loaded by VMRUN. */
export function interceptWord(f: FunctionBuilder, word: number): I32 {
  return f.load32(0, S.intercepts + word);
}
