/**
 * #VMEXIT codes (APM vol. 2, appendix C).
 *
 * @module
 */

/** Exit codes, by the manual's names; ranges by their first code. */
export const SvmExit = {
  /** Read of CR0–CR15. */
  CR_READ: 0x00,
  /** Write of CR0–CR15. */
  CR_WRITE: 0x10,
  /** Read of DR0–DR15. */
  DR_READ: 0x20,
  /** Write of DR0–DR15. */
  DR_WRITE: 0x30,
  /** Exception vectors 0–31. */
  EXCEPTION: 0x40,
  INTR: 0x60,
  NMI: 0x61,
  SMI: 0x62,
  INIT: 0x63,
  VINTR: 0x64,
  CR0_SEL_WRITE: 0x65,
  IDTR_READ: 0x66,
  GDTR_READ: 0x67,
  LDTR_READ: 0x68,
  TR_READ: 0x69,
  IDTR_WRITE: 0x6a,
  GDTR_WRITE: 0x6b,
  LDTR_WRITE: 0x6c,
  TR_WRITE: 0x6d,
  RDTSC: 0x6e,
  RDPMC: 0x6f,
  PUSHF: 0x70,
  POPF: 0x71,
  CPUID: 0x72,
  RSM: 0x73,
  IRET: 0x74,
  SWINT: 0x75,
  INVD: 0x76,
  PAUSE: 0x77,
  HLT: 0x78,
  INVLPG: 0x79,
  INVLPGA: 0x7a,
  IOIO: 0x7b,
  MSR: 0x7c,
  TASK_SWITCH: 0x7d,
  FERR_FREEZE: 0x7e,
  SHUTDOWN: 0x7f,
  VMRUN: 0x80,
  VMMCALL: 0x81,
  VMLOAD: 0x82,
  VMSAVE: 0x83,
  STGI: 0x84,
  CLGI: 0x85,
  SKINIT: 0x86,
  RDTSCP: 0x87,
  ICEBP: 0x88,
  WBINVD: 0x89,
  MONITOR: 0x8a,
  MWAIT: 0x8b,
  MWAIT_CONDITIONAL: 0x8c,
  XSETBV: 0x8d,
  RDPRU: 0x8e,
  EFER_WRITE_TRAP: 0x8f,
  CR_WRITE_TRAP: 0x90,
  INVPCID: 0xa2,
  BUS_LOCK: 0xa5,
  IDLE_HLT: 0xa6,
  NPF: 0x400,
  AVIC_INCOMPLETE_IPI: 0x401,
  AVIC_NOACCEL: 0x402,
  VMGEXIT: 0x403,
} as const;

/** VMEXIT_INVALID: all ones in 64 bits. */
export const SVM_EXIT_INVALID: bigint = -1n;
