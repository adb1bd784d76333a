/**
 * The part of a vCPU's architectural state that is not general registers, as a plain object.
 *
 * This is for loaders, reports and tests, for moving a vCPU to another vendor, and for saving it; it
 * is built anew at each call and never used while the guest runs. KVM's `kvm_sregs`, `kvm_debugregs`
 * and `kvm_vcpu_events` are the model.
 *
 * @module
 */

/** A segment register with its hidden part. */
export interface Segment {
  /** Selector, 16 bits. */
  selector: number;
  /** Base, a linear address of 64 bits. */
  base: bigint;
  /** Limit in bytes, granularity applied: the last valid offset, 32 bits. */
  limit: number;
  /**
   * Bits of the descriptor, packed: 3:0 type, 4 S, 6:5 DPL, 7 P, 8 AVL, 9 L, 10 D/B, 11 G.
   * Not present (P = 0) means that the register holds no usable segment.
   */
  attributes: number;
}

/** The GDTR or IDTR. */
export interface DescriptorTable {
  /** Base, a linear address of 64 bits. */
  base: bigint;
  /** Limit in bytes, 16 bits. */
  limit: number;
}

/** Registers of control-flow enforcement: shadow stacks and indirect-branch tracking. */
export interface ControlFlowState {
  /** U_CET, MSR 6A0h. */
  uCet: bigint;
  /** S_CET, MSR 6A2h. */
  sCet: bigint;
  /** SSP, the shadow stack pointer. */
  ssp: bigint;
  /** PL0_SSP to PL3_SSP, MSRs 6A4h to 6A7h. */
  plSsp: readonly bigint[];
  /** INTERRUPT_SSP_TABLE_ADDR, MSR 6A8h. */
  sspTable: bigint;
  /** XSS, MSR DA0h. */
  xss: bigint;
}

/** Control, system and debug registers of one vCPU, and the MSRs that the processor itself uses. */
export interface SystemState {
  /** Code segment. */
  cs: Segment;
  /** Data segment. */
  ds: Segment;
  /** Extra segment. */
  es: Segment;
  /** FS; its base is also MSR C000_0100h. */
  fs: Segment;
  /** GS; its base is also MSR C000_0101h. */
  gs: Segment;
  /** Stack segment. Its DPL is the current privilege level in protected mode, as in `kvm_sregs`. */
  ss: Segment;
  /** Task register. */
  tr: Segment;
  /** Local descriptor table register. */
  ldt: Segment;
  /** Global descriptor table register. */
  gdt: DescriptorTable;
  /** Interrupt descriptor table register. */
  idt: DescriptorTable;
  /** CR0. */
  cr0: bigint;
  /** CR2, the address of the last page fault. */
  cr2: bigint;
  /** CR3. */
  cr3: bigint;
  /** CR4. */
  cr4: bigint;
  /** CR8, bits 3:0: the task priority class. */
  cr8: number;
  /** XCR0. */
  xcr0: bigint;
  /** EFER, MSR C000_0080h. */
  efer: bigint;
  /** Local APIC base, MSR 1Bh. */
  apicBase: bigint;
  /** DR0. */
  dr0: bigint;
  /** DR1. */
  dr1: bigint;
  /** DR2. */
  dr2: bigint;
  /** DR3. */
  dr3: bigint;
  /** DR6, debug status. */
  dr6: bigint;
  /** DR7, debug control. */
  dr7: bigint;
  /** STAR, MSR C000_0081h. */
  star: bigint;
  /** LSTAR, MSR C000_0082h. */
  lstar: bigint;
  /** CSTAR, MSR C000_0083h. */
  cstar: bigint;
  /** SYSCALL flag mask, MSR C000_0084h. */
  sfmask: bigint;
  /** KernelGSbase, MSR C000_0102h. */
  kernelGsBase: bigint;
  /** SYSENTER_CS, MSR 174h. */
  sysenterCs: bigint;
  /** SYSENTER_ESP, MSR 175h. */
  sysenterEsp: bigint;
  /** SYSENTER_EIP, MSR 176h. */
  sysenterEip: bigint;
  /** Page attribute table, MSR 277h. */
  pat: bigint;
  /** TSC_AUX, MSR C000_0103h. */
  tscAux: bigint;
  /** Offset of the guest's time-stamp counter from VM time, modulo 2^64. */
  tscOffset: bigint;
  /** Whether the instruction before was an STI or a MOV SS that holds off interrupts. */
  interruptShadow: boolean;
  /** Whether NMIs are blocked until the next IRET. */
  nmiMasked: boolean;
  /** Control-flow enforcement, where the processor has it; else all of it is 0. */
  controlFlow?: ControlFlowState | undefined;
}

/** A segment that points at nothing: real-mode data segments after a reset. */
function resetSegment(attributes: number): Segment {
  return { selector: 0, base: 0n, limit: 0xffff, attributes };
}

/**
 * The state of a processor after power-up or RESET: real mode, about to fetch its first instruction
 * at FFFF_FFF0h (SDM vol. 3A, table 10-1; APM vol. 2, table 14-1). RIP is FFF0h, RFLAGS 2, and RDX
 * holds the processor's signature; those are general registers and not part of this.
 */
export function resetSystemState(): SystemState {
  const data = 0x093;
  return {
    cs: { selector: 0xf000, base: 0xffff_0000n, limit: 0xffff, attributes: 0x09b },
    ds: resetSegment(data),
    es: resetSegment(data),
    fs: resetSegment(data),
    gs: resetSegment(data),
    ss: resetSegment(data),
    tr: resetSegment(0x08b),
    ldt: resetSegment(0x082),
    gdt: { base: 0n, limit: 0xffff },
    idt: { base: 0n, limit: 0xffff },
    cr0: 0x6000_0010n,
    cr2: 0n,
    cr3: 0n,
    cr4: 0n,
    cr8: 0,
    xcr0: 1n,
    efer: 0n,
    apicBase: 0xfee0_0800n,
    dr0: 0n,
    dr1: 0n,
    dr2: 0n,
    dr3: 0n,
    dr6: 0xffff_0ff0n,
    dr7: 0x400n,
    star: 0n,
    lstar: 0n,
    cstar: 0n,
    sfmask: 0n,
    kernelGsBase: 0n,
    sysenterCs: 0n,
    sysenterEsp: 0n,
    sysenterEip: 0n,
    pat: 0x0007_0406_0007_0406n,
    tscAux: 0n,
    tscOffset: 0n,
    interruptShadow: false,
    nmiMasked: false,
  };
}

/**
 * The state after INIT of a processor that was in state `before`: that after RESET, but for what INIT
 * leaves alone: MSRs, XCR0, the time-stamp counter (SDM vol. 3A, table 10-1; APM vol. 2, table 14-1).
 */
export function initSystemState(before: SystemState): SystemState {
  const kept = Object.fromEntries(KEPT_BY_INIT.map((name) => [name, before[name]]));
  const { controlFlow } = before;
  return {
    ...resetSystemState(),
    ...kept,
    ...(controlFlow === undefined ? {} : { controlFlow: { ...controlFlow, ssp: 0n } }),
  };
}

const KEPT_BY_INIT: readonly (keyof SystemState)[] = [
  "xcr0",
  "apicBase",
  "star",
  "lstar",
  "cstar",
  "sfmask",
  "kernelGsBase",
  "sysenterCs",
  "sysenterEsp",
  "sysenterEip",
  "pat",
  "tscAux",
  "tscOffset",
];
