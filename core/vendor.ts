/**
 * The vendor: who enters the guest and says why it left.
 *
 * KVM's table of operations for each vendor is the model. A vendor may be a hypervisor for one kind of
 * processor, the bare processor without a hypervisor, or another program's hypervisor.
 *
 * @module
 */

import type { PendingException } from "./event.ts";
import type { ExitAction } from "./exit.ts";
import type { MemoryRange } from "./memory_layout.ts";
import type { MsrAccess } from "./msr.ts";
import type { Saved } from "./saved.ts";
import { defineSlot, type Slot } from "./slot.ts";
import type { SystemState } from "./system_state.ts";
import type { Vcpu } from "./vcpu.ts";

/** Counts of one vCPU's branches: instructions that transfer control or, conditional ones, may. */
export interface BranchCounts {
  /** Whether branches are counted; otherwise the counts stand. */
  counting: boolean;
  /** Branches retired. */
  readonly retired: number;
  /** Of these, those that went elsewhere than predicted. */
  readonly mispredicted: number;
  /** Forgets what is predicted of indirect branches. */
  forgetPredictions(): void;
}

/**
 * What the core asks of a vendor.
 *
 * General registers are in the storage that {@linkcode Vendor.createVcpu} returns. The core and
 * plugins read and write them there between entries and while an exit is handled; the vendor sees to
 * it that they are current then, and that what is written takes effect.
 *
 * What a method throws stops the vCPU with an error that names the vendor's plugin.
 */
export interface Vendor {
  /** Short name for reports. A vendor of the same name takes over what `saveVcpu` saves. */
  readonly name: string;

  /**
   * Makes what the vendor needs for a vCPU and returns the storage of its registers, laid out as
   * `Registers` says. The vCPU's declared state exists already. Registers and system state are left
   * as after RESET.
   */
  createVcpu(vcpu: Vcpu): Uint32Array;
  /** Gives back what {@linkcode Vendor.createVcpu} made. */
  destroyVcpu(vcpu: Vcpu): void;
  /** Puts registers and system state to what they are after RESET or, with `init`, after INIT. */
  resetVcpu(vcpu: Vcpu, init: boolean): void;

  /**
   * Runs the guest until an exit that the core must see, or until exactly `budget` more instructions
   * are retired (reason `BUDGET`). Fills in `vcpu.exit` and adds to `vcpu.instructions`. An injected
   * event whose delivery an exit interrupted goes back with `vcpu.events.returnException` and the like
   * before that exit is handled.
   *
   * A vendor that meets exits while it is inside the guest may hand them to `handleExit(vcpu)` itself,
   * any number of times. That returns how many instructions may be retired from there on; at 0 the
   * vendor leaves, at an instruction boundary, with reason `BUDGET`. `vcpu.instructions` is current at
   * each such call, and errors thrown by it are passed on with the guest at the start of the
   * instruction.
   */
  enter(vcpu: Vcpu, budget: number): void;
  /**
   * Commits the answer in `vcpu.exit` (data of an IN, CPUID's registers, an MSR's value) to the guest
   * and moves RIP past the instruction.
   *
   * A vendor that called `handleExit` from inside the instruction learns here that the instruction is
   * to complete, which it does when `handleExit` has returned. If neither this nor
   * {@linkcode Vendor.fault} was called by then, the instruction is to be executed again.
   */
  complete(vcpu: Vcpu): void;
  /**
   * Makes the instruction at the current exit end in an exception instead; RIP stays. The handler
   * answers `ExitAction.RESUME`.
   *
   * @param errorCode Given for the exceptions that have one.
   */
  fault(vcpu: Vcpu, vector: number, errorCode?: number): void;
  /**
   * Decodes and carries out the instruction at the current exit in software: accesses to device
   * memory, string I/O, and instructions that were intercepted and have no handler. Accesses go to
   * `vm.memory`, `vm.mmio` and `vm.pio`. Answers what the exit's handler is to answer.
   *
   * Throws `UnimplementedError` with the bytes for what it cannot do.
   *
   * @param gpa Guest physical address of the access to memory that made the instruction exit, where the exit
   *   tells it: neither a fetch of code nor one of a page table.
   */
  emulate(vcpu: Vcpu, gpa?: number): ExitAction;

  /** Whether the guest could take a maskable interrupt at its next entry. */
  interruptAllowed(vcpu: Vcpu): boolean;
  /** Whether the guest could take an NMI at its next entry. */
  nmiAllowed(vcpu: Vcpu): boolean;
  /** Whether NMIs are blocked until the next IRET. */
  nmiMasked(vcpu: Vcpu): boolean;
  /**
   * Delivers an exception at the next entry, instead of what was to be delivered before, including the effects of its payload: CR2 for a page
   * fault; DR6, and DR7.GD cleared, for a debug exception. The core has set RFLAGS.RF where it must be.
   */
  injectException(vcpu: Vcpu, exception: PendingException): void;
  /**
   * Delivers an interrupt at the next entry, instead of what was to be delivered before.
   *
   * @param soft Whether it is an INT n that an exit interrupted, not an external interrupt.
   */
  injectInterrupt(vcpu: Vcpu, vector: number, soft: boolean): void;
  /** Delivers an NMI at the next entry, instead of what was to be delivered before. */
  injectNmi(vcpu: Vcpu): void;
  /** Makes the guest exit with `INTERRUPT_WINDOW` as soon as it can take an interrupt. */
  requestInterruptWindow(vcpu: Vcpu): void;
  /** Makes the guest exit with `NMI_WINDOW` as soon as it can take an NMI. */
  requestNmiWindow(vcpu: Vcpu): void;

  /**
   * An INIT signal arrives. A processor may hold it back, or make something else of it.
   *
   * @returns Whether the vendor keeps it: an exit with reason `INIT` then says when it is to be carried
   *   out, if ever. If not, or without this method, that is now.
   */
  keepInit?(vcpu: Vcpu): boolean;
  /**
   * A start-up IPI with `vector`, 0 to 255, arrives. A processor may make something else of it than to
   * start.
   *
   * @returns Whether the vendor has taken it. If not, or without this method, it starts a vCPU that has
   *   received an INIT, and is lost on any other.
   */
  keepStartup?(vcpu: Vcpu, vector: number): boolean;

  /**
   * A system management interrupt arrives; the processor takes it when it can. A vendor without this
   * method gives its guests no system management mode, and the interrupt is lost.
   */
  raiseSmi?(vcpu: Vcpu): void;
  /**
   * Makes pieces of memory reachable for vCPUs in system management mode alone, in place of those that were
   * before; elsewhere no memory is there. Memslots, and what devices and tools reach, stay as they are. A
   * vendor that has no such mode does not have this method either.
   *
   * @param ranges Whole pages.
   */
  setSmram?(ranges: readonly MemoryRange[]): void;

  /** The branches of a vCPU, if the vendor can count them. */
  branchCounts?(vcpu: Vcpu): BranchCounts;

  /** Current privilege level, 0 to 3. */
  cpl(vcpu: Vcpu): number;
  /** Whether the guest runs 64-bit code. */
  is64Bit(vcpu: Vcpu): boolean;
  /** CR4 bits 31:0 as the guest sees it. Without it {@linkcode Vendor.getSystemState} is asked. */
  cr4?(vcpu: Vcpu): number;
  /** XCR0 bits 31:0. Without it {@linkcode Vendor.getSystemState} is asked. */
  xcr0?(vcpu: Vcpu): number;
  /** XSS bits 31:0. Without it {@linkcode Vendor.getSystemState} is asked. */
  xss?(vcpu: Vcpu): number;
  /**
   * Reads an MSR that no plugin registered into `access.lo` and `access.hi`.
   *
   * @returns Whether the MSR exists; if not, the guest gets #GP.
   */
  readMsr(vcpu: Vcpu, access: MsrAccess): boolean;
  /**
   * Writes an MSR that no plugin registered.
   *
   * @returns Whether the MSR exists and takes the value; if not, the guest gets #GP.
   */
  writeMsr(vcpu: Vcpu, access: MsrAccess): boolean;
  /**
   * Translates a guest linear address as a supervisor read would be, without faults or accessed bits.
   *
   * @returns The guest physical address, `undefined` if there is none.
   */
  translate(vcpu: Vcpu, gva: bigint): number | undefined;

  /** System registers, in a new object. */
  getSystemState(vcpu: Vcpu): SystemState;
  /** Writes all system registers. */
  setSystemState(vcpu: Vcpu, state: SystemState): void;
  /** x87, SSE and further extended state, as an XSAVE area in standard format (SDM vol. 1, 13.4). */
  getXsave(vcpu: Vcpu): Uint8Array;
  /** Writes the same. */
  setXsave(vcpu: Vcpu, area: Uint8Array): void;
  /** Per-vCPU state of the vendor's own that the methods above do not carry. */
  saveVcpu(vcpu: Vcpu): Saved;
  /** Takes what {@linkcode Vendor.saveVcpu} of the same vendor returned. */
  loadVcpu(vcpu: Vcpu, saved: Saved): void;
}

/** The vendor. A VM needs one to run. */
export const vendorSlot: Slot<Vendor> = defineSlot("vendor");
