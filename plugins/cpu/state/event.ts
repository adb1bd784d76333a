/**
 * What the dispatcher looks at between blocks, and what of events is kept for reports.
 *
 * @module
 */

/** What the dispatcher has to look at before the next block (bits of `S.events`). */
export const Event = {
  /** An exception is to be delivered. */
  EXCEPTION: 1,
  /** A system management interrupt is latched. */
  SMI: 2,
  /** The INTR line is asserted. */
  INTR: 4,
  /** A non-maskable interrupt is latched. */
  NMI: 8,
  /** A virtual interrupt is requested (V_IRQ in guest mode). */
  VINTR: 0x10,
  /** The next instruction runs in the shadow of STI or MOV SS. */
  SHADOW: 0x20,
  /** STI or MOV SS has just run: the shadow begins with the next instruction. */
  SHADOW_NEW: 0x40,
  /** RFLAGS.TF is set: trap after each instruction. */
  SINGLE_STEP: 0x80,
  /** A debug trap is to be delivered before the next instruction. */
  TRAP: 0x100,
  /** The processor is halted. */
  HALTED: 0x200,
  /** INIT is latched. */
  INIT: 0x400,
  /** An exit to the hypervisor outside has been taken: leave the loop. */
  EXIT: 0x800,
  /** The processor has shut down. */
  SHUTDOWN: 0x1000,
  /** `S.limit` has to be applied to the budget. */
  LIMIT: 0x1_0000,
  /** The next instruction runs alone (it was interrupted to run alone, for exact state). */
  ALONE: 0x2000,
  /** VMRUN has an event to inject. */
  INJECT: 0x8000,
  /** Waiting for a start-up IPI. */
  WAIT_SIPI: 0x4000,
  /** DR7 enables a breakpoint: instructions run one by one. */
  BREAKPOINTS: 0x2_0000,
  /** The shadow is that of MOV SS or POP SS: debug exceptions wait, too. */
  SHADOW_SS: 0x4_0000,
  /** RFLAGS.RF is set: the next instruction meets no instruction breakpoint. */
  RESUME: 0x8_0000,
  /** The instruction at hand has set RFLAGS.RF. */
  RESUME_NEW: 0x10_0000,
  /** AVIC found an interrupt with enough priority in the backing page. */
  AVIC: 0x20_0000,
  /** A doorbell was rung. */
  DOORBELL: 0x40_0000,
  /** A #VMEXIT is to be taken behind the instruction: `S.trap*`. */
  VMEXIT_TRAP: 0x80_0000,
  /** A virtual NMI is pending (V_NMI in guest mode). */
  VNMI: 0x100_0000,
  /** Control transfers are recorded, or single-stepped: instructions run one by one. */
  BRANCHES: 0x200_0000,
  /** VMX: an interrupt or NMI window is waited for. */
  VMX_WINDOW: 0x400_0000,
  /** VMX: the monitor trap flag is on: instructions run one by one. */
  MTF: 0x800_0000,
  /** VMX: the exit of the monitor trap flag is pending. */
  MTF_PENDING: 0x1000_0000,
  /** VMX: the preemption timer has expired. */
  VMX_TIMER: 0x2000_0000,
  /** VMX: a virtual interrupt has been recognized. */
  VMX_INTERRUPT: 0x4000_0000,
  /** VMX: the instruction has locked the bus, and the exit for it is pending. */
  BUS_LOCK: 0x8000_0000,
} as const;

/** How an MWAIT waits (bits of `S.monitorWait`). */
export const MonitorWait = {
  /** It does. */
  WAITS: 1,
  /** Interrupts end it though RFLAGS.IF masks them. */
  MASKED: 2,
  /** Time ends it. */
  TIMER: 4,
} as const;

/** DR6.BS: a single-step trap (also in `S.trapBits`). */
export const DR6_BS = 0x4000;

/** A ring of the events that were delivered, for reports. */
export const EventLog = {
  /** Entries of the ring. */
  ENTRIES: 16,
  /** Bytes of an entry. */
  BYTES: 32,
  /** u32: the event, EVENTINJ format. */
  EVENT: 0,
  /** u32: its error code. */
  ERROR: 4,
  /** u64: RIP that it interrupts. */
  RIP: 8,
  /** u64: CR2. */
  CR2: 16,
  /** u32: 1 once it has been delivered. */
  DELIVERED: 24,
} as const;
