/**
 * Layout of the virtual machine control block (APM vol. 2, appendix B).
 *
 * @module
 */

/** Offsets in the control area. Widths in bits are given where they are not 64. */
export const Control = {
  /** 32: CR reads 15:0, CR writes 31:16. The six words up to 014h are all 32 bits. */
  INTERCEPTS: 0x000,
  /** 16: PAUSE filter threshold. */
  PAUSE_THRESHOLD: 0x03c,
  /** 16: PAUSE filter count. */
  PAUSE_COUNT: 0x03e,
  IOPM_BASE_PA: 0x040,
  MSRPM_BASE_PA: 0x048,
  TSC_OFFSET: 0x050,
  /** 32 */
  ASID: 0x058,
  /** 8: 0 nothing, 1 all, 3 this ASID, 7 this ASID's non-global. */
  TLB_CONTROL: 0x05c,
  /** 7:0 V_TPR, 8 V_IRQ, 9 VGIF, 19:16 V_INTR_PRIO, 20 V_IGN_TPR, 24 V_INTR_MASKING, 39:32 vector. */
  INT_CONTROL: 0x060,
  /** 0 INTERRUPT_SHADOW, 1 GUEST_INTERRUPT_MASK. */
  INT_STATE: 0x068,
  EXITCODE: 0x070,
  EXITINFO1: 0x078,
  EXITINFO2: 0x080,
  EXITINTINFO: 0x088,
  /** 0 NP_ENABLE, 1 SEV, 2 SEV-ES, 3 GMET … */
  NESTED_CONTROL: 0x090,
  AVIC_APIC_BAR: 0x098,
  GHCB: 0x0a0,
  EVENTINJ: 0x0a8,
  N_CR3: 0x0b0,
  /** 0 LBR virtualization, 1 VMLOAD/VMSAVE virtualization. */
  VIRT_EXT: 0x0b8,
  /** 32 */
  CLEAN_BITS: 0x0c0,
  NRIP: 0x0c8,
  /** 8: number of bytes fetched; the bytes follow. */
  FETCHED: 0x0d0,
  AVIC_BACKING_PAGE: 0x0e0,
  AVIC_LOGICAL_TABLE: 0x0f0,
  AVIC_PHYSICAL_TABLE: 0x0f8,
  /** 16: bus locks that the guest may still make. */
  BUS_LOCK_COUNT: 0x120,
} as const;

/** Offsets in the save area, from the start of the VMCB. */
export const Save = {
  ES: 0x400,
  CS: 0x410,
  SS: 0x420,
  DS: 0x430,
  FS: 0x440,
  GS: 0x450,
  GDTR: 0x460,
  LDTR: 0x470,
  IDTR: 0x480,
  TR: 0x490,
  /** 8 */
  CPL: 0x4cb,
  EFER: 0x4d0,
  CR4: 0x548,
  CR3: 0x550,
  CR0: 0x558,
  DR7: 0x560,
  DR6: 0x568,
  RFLAGS: 0x570,
  RIP: 0x578,
  RSP: 0x5d8,
  S_CET: 0x5e0,
  SSP: 0x5e8,
  ISST_ADDR: 0x5f0,
  RAX: 0x5f8,
  STAR: 0x600,
  LSTAR: 0x608,
  CSTAR: 0x610,
  SFMASK: 0x618,
  KERNEL_GS_BASE: 0x620,
  SYSENTER_CS: 0x628,
  SYSENTER_ESP: 0x630,
  SYSENTER_EIP: 0x638,
  CR2: 0x640,
  G_PAT: 0x668,
  DBGCTL: 0x670,
  BR_FROM: 0x678,
  BR_TO: 0x680,
  LASTEXCPFROM: 0x688,
  LASTEXCPTO: 0x690,
} as const;

/** Offsets in a segment of the save area (16 bytes). */
export const SaveSegment = {
  /** 16 */
  SELECTOR: 0,
  /** 16, of which 12 are used. */
  ATTRIBUTES: 2,
  /** 32 */
  LIMIT: 4,
  BASE: 8,
} as const;

/** Bits of {@linkcode Control.NESTED_CONTROL}. */
export const NestedControl = {
  NP_ENABLE: 0x1,
  /** The guest mode execute trap. */
  GMET: 0x8,
} as const;

/** Bits of the low half of {@linkcode Control.INT_CONTROL}. */
export const IntControl = {
  V_TPR: 0xff,
  V_IRQ: 0x100,
  V_GIF: 0x200,
  V_NMI: 0x800,
  V_NMI_MASK: 0x1000,
  V_INTR_PRIO_SHIFT: 16,
  V_IGN_TPR: 0x10_0000,
  V_INTR_MASKING: 0x100_0000,
  V_GIF_ENABLE: 0x200_0000,
  V_NMI_ENABLE: 0x400_0000,
  X2AVIC: 0x4000_0000,
  AVIC: 0x8000_0000,
} as const;

/** Bits of {@linkcode Control.VIRT_EXT}. */
export const VirtExt = {
  LBR: 0x1,
  VMLOAD_VMSAVE: 0x2,
} as const;

/** Groups of fields that a clean bit covers (APM vol. 2, 15.15.3). */
export const Clean = {
  /** Intercepts, TSC offset, PAUSE filter. */
  INTERCEPTS: 0x1,
  /** IOPM and MSRPM addresses. */
  PERMISSION_MAPS: 0x2,
  /** ASID. */
  ASID: 0x4,
  /** V_TPR, V_IRQ and the rest of 060h. */
  INTERRUPTS: 0x8,
  /** Nested paging: N_CR3, G_PAT. */
  NESTED: 0x10,
  /** CR0, CR3, CR4, EFER. */
  CONTROL_REGISTERS: 0x20,
  /** DR6, DR7. */
  DEBUG_REGISTERS: 0x40,
  /** GDTR, IDTR. */
  TABLES: 0x80,
  /** CS, DS, SS, ES, CPL. */
  SEGMENTS: 0x100,
  /** CR2. */
  CR2: 0x200,
  /** Last-branch records. */
  LBR: 0x400,
  /** AVIC: APIC_BAR, backing page, logical and physical table. */
  AVIC: 0x800,
  /** S_CET, SSP, ISST_ADDR. */
  CET: 0x1000,
} as const;

/** Bytes of a VMCB. */
export const VMCB_BYTES = 0x1000;
