/**
 * Bits of the VM-execution, VM-exit and VM-entry controls (SDM vol. 3, 25.6–25.8).
 *
 * @module
 */

/** Pin-based VM-execution controls. */
export const Pin = {
  EXTERNAL_INTERRUPT: 0x1,
  NMI: 0x8,
  VIRTUAL_NMIS: 0x20,
  PREEMPTION_TIMER: 0x40,
  POSTED_INTERRUPTS: 0x80,
} as const;

/** Primary processor-based VM-execution controls. */
export const Primary = {
  INTERRUPT_WINDOW: 0x4,
  TSC_OFFSETTING: 0x8,
  HLT: 0x80,
  INVLPG: 0x200,
  MWAIT: 0x400,
  RDPMC: 0x800,
  RDTSC: 0x1000,
  CR3_LOAD: 0x8000,
  CR3_STORE: 0x1_0000,
  TERTIARY: 0x2_0000,
  CR8_LOAD: 0x8_0000,
  CR8_STORE: 0x10_0000,
  TPR_SHADOW: 0x20_0000,
  NMI_WINDOW: 0x40_0000,
  MOV_DR: 0x80_0000,
  UNCONDITIONAL_IO: 0x100_0000,
  IO_BITMAPS: 0x200_0000,
  MONITOR_TRAP_FLAG: 0x800_0000,
  MSR_BITMAPS: 0x1000_0000,
  MONITOR: 0x2000_0000,
  PAUSE: 0x4000_0000,
  SECONDARY: 0x8000_0000,
} as const;

/** Secondary processor-based VM-execution controls. */
export const Secondary = {
  VIRTUALIZE_APIC_ACCESSES: 0x1,
  EPT: 0x2,
  DESCRIPTOR_TABLES: 0x4,
  RDTSCP: 0x8,
  VIRTUALIZE_X2APIC: 0x10,
  VPID: 0x20,
  WBINVD: 0x40,
  UNRESTRICTED_GUEST: 0x80,
  APIC_REGISTERS: 0x100,
  VIRTUAL_INTERRUPTS: 0x200,
  PAUSE_LOOP: 0x400,
  RDRAND: 0x800,
  INVPCID: 0x1000,
  VM_FUNCTIONS: 0x2000,
  SHADOW_VMCS: 0x4000,
  RDSEED: 0x1_0000,
  PML: 0x2_0000,
  XSAVES: 0x10_0000,
  MODE_BASED_EXECUTE: 0x40_0000,
  TSC_SCALING: 0x200_0000,
  BUS_LOCK_DETECTION: 0x4000_0000,
  NOTIFY: 0x8000_0000,
} as const;

/** Tertiary processor-based VM-execution controls (64 bits). */
export const Tertiary = {
  IPI_VIRTUALIZATION: 0x10,
} as const;

/** Primary VM-exit controls. */
export const ExitControl = {
  SAVE_DEBUG: 0x4,
  HOST_64BIT: 0x200,
  LOAD_PERF_GLOBAL_CTRL: 0x1000,
  ACKNOWLEDGE_INTERRUPT: 0x8000,
  SAVE_PAT: 0x4_0000,
  LOAD_PAT: 0x8_0000,
  SAVE_EFER: 0x10_0000,
  LOAD_EFER: 0x20_0000,
  SAVE_TIMER: 0x40_0000,
  LOAD_CET: 0x1000_0000,
} as const;

/** VM-entry controls. */
export const EntryControl = {
  LOAD_DEBUG: 0x4,
  IA32E_GUEST: 0x200,
  TO_SMM: 0x400,
  DEACTIVATE_DUAL_MONITOR: 0x800,
  LOAD_PERF_GLOBAL_CTRL: 0x2000,
  LOAD_PAT: 0x4000,
  LOAD_EFER: 0x8000,
  LOAD_CET: 0x10_0000,
} as const;

/** Bits of the guest's interruptibility state (SDM vol. 3, table 25-3). */
export const Interruptibility = {
  STI: 0x1,
  MOV_SS: 0x2,
  SMI: 0x4,
  NMI: 0x8,
} as const;

/** Activity states (25.4.2). */
export const Activity = { ACTIVE: 0, HLT: 1, SHUTDOWN: 2, WAIT_FOR_SIPI: 3 } as const;

/** Bits of the pending debug exceptions (table 25-4). */
export const PendingDebug = {
  /** B0–B3. */
  BREAKPOINTS: 0xf,
  /** At least one breakpoint that was met is enabled in DR7. */
  ENABLED: 0x1000,
  BS: 0x4000,
} as const;

/** Bits of the access rights of a segment (table 25-2); 7:0 are those of a descriptor. */
export const AccessRights = {
  L: 0x2000,
  DB: 0x4000,
  G: 0x8000,
  UNUSABLE: 0x1_0000,
} as const;

/** Bits of the EPT pointer (25.6.11). */
export const EptPointer = {
  /** 2:0 memory type. */
  TYPE: 0x7,
  /** 5:3 levels less 1. */
  LEVELS_SHIFT: 3,
  /** Accessed and dirty flags. */
  ACCESSED_DIRTY: 0x40,
  /** Supervisor shadow stacks are only in pages that are marked as such. */
  SUPERVISOR_SHADOW_STACK: 0x80,
} as const;

/** Set in the tag of the TLB context of a VMX guest: the rest is its VPID. */
export const GUEST_CONTEXT = 0x1_0000;
/** `S.nestedPaging` while EPT is in force; 1 is SVM's nested paging. */
export const EPT_IN_FORCE = 2;
