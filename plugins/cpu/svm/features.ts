/**
 * Optional parts of SVM, as CPUID 8000_000Ah reports them (APM vol. 3, E.4.9).
 *
 * @module
 */

/** Bits of EDX, which `S.svmFeatures` holds. */
export const SvmFeature = {
  /** Nested paging. */
  NESTED_PAGING: 0x1,
  /** Last branch records, saved and restored with the guest. */
  LBR_VIRT: 0x2,
  /** The TSC ratio: a guest's time-stamp counter at another rate. */
  TSC_RATIO: 0x10,
  /** PAUSE is counted before it exits. */
  PAUSE_FILTER: 0x400,
  /** The count is only for PAUSEs that follow each other closely. */
  PAUSE_FILTER_THRESHOLD: 0x1000,
  /** AVIC. */
  AVIC: 0x2000,
  /** VMLOAD and VMSAVE of a guest work on guest physical addresses. */
  VIRTUAL_VMSAVE_VMLOAD: 0x8000,
  /** STGI and CLGI of a guest work on a GIF of its own. */
  VGIF: 0x1_0000,
  /** The guest mode execute trap (GMET). */
  GMET: 0x2_0000,
  /** x2AVIC. */
  X2AVIC: 0x4_0000,
  /** NMIs of a guest need no injection: V_NMI, V_NMI_MASK. */
  VNMI: 0x200_0000,
  /** AVIC's access to the extended LVTs has changed: reading is allowed, writing a trap. */
  EXTLVT_AVIC_ACCESS: 0x800_0000,
  /** Bus locks of a guest are counted and exit. */
  BUS_LOCK_THRESHOLD: 0x2000_0000,
  /** HLT exits only if no virtual interrupt is pending. */
  IDLE_HLT: 0x4000_0000,
} as const;

/** Bits of ECX, which `S.svmFeatures2` holds. */
export const SvmFeature2 = {
  /** x2AVIC with 4096 IDs. */
  X2AVIC_EXT: 0x40,
} as const;
