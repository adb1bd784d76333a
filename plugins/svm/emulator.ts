/**
 * The instruction emulator: what a hypervisor needs for accesses to device memory and string I/O.
 *
 * A hypervisor's emulator is a processor in software, and there is one: an instruction is carried out on
 * the spare processor, attached to guest physical memory, from a copy of the VMCB in which nothing is
 * intercepted but exceptions. What it meets outside goes to the VM's buses.
 *
 * @module
 */
import { ExitAction, type HostMemory, UnimplementedError, type Vm } from "../../core/mod.ts";
import {
  BusOutside,
  Control,
  EventFormat,
  IntControl,
  InterceptWord,
  Misc1,
  Misc2,
  type Processors,
  Save,
  SvmExit,
  Vector,
  VMCB_BYTES,
  Xcr0,
} from "../cpu/mod.ts";
import type { GuestCpu } from "./guest_cpu.ts";
import { HostCpu } from "./host.ts";
import { CLEAN_ALL, Vmcb } from "./vmcb.ts";

/** The physical address space the spare processor is attached to: the guest's. */
const GUEST_SPACE = 1;
/** First byte of the save area. */
const SAVE_AREA = 0x400;
/** The emulator's ASID; its translations are dropped before every instruction. */
const ASID = 1;
/** DR6.B0 to B3: the breakpoints that were met. */
const DR6_BREAKPOINTS = 0xf;
/** Exceptions that end an instruction; those that INT3 and INTO are for are delivered. */
const ALL_BUT_TRAPS: number = ~((1 << Vector.BP) | (1 << Vector.OF));
/** Exits of instructions that drop translations. */
const DROPPING: ReadonlySet<number> = new Set([
  SvmExit.CR0_SEL_WRITE,
  SvmExit.CR_WRITE + 4,
  SvmExit.TASK_SWITCH,
]);
/** TLB_CONTROL: flush everything. */
const FLUSH_ALL = 1;

/** Emulates instructions for all vCPUs of a VM. */
export class Emulator {
  readonly #vm: Vm;
  readonly #processors: Processors;
  readonly #memory: HostMemory;
  readonly #vmcb: Vmcb;
  readonly #host: HostCpu;
  readonly #outside: BusOutside;

  constructor(vm: Vm, processors: Processors, memory: HostMemory) {
    this.#vm = vm;
    this.#processors = processors;
    this.#memory = memory;
    this.#vmcb = new Vmcb(memory, memory.alloc(VMCB_BYTES));
    const { spare } = processors;
    this.#outside = new BusOutside(vm, spare);
    this.#host = new HostCpu(spare, memory);
    spare.attach(this.#outside, 0);
    spare.setGuestSpace(GUEST_SPACE);
    for (const { gpa, size, hpa, readonly } of vm.memory.slots) {
      processors.mapAlias(GUEST_SPACE, gpa, size, hpa, readonly);
    }
  }

  /** A memslot came or went. */
  memslotChanged(gpa: number, size: number, hpa: number, readonly: boolean, added: boolean): void {
    if (added) this.#processors.mapAlias(GUEST_SPACE, gpa, size, hpa, readonly);
    else this.#processors.unmapAlias(GUEST_SPACE, gpa, size);
  }

  /** Carries out the instruction at the guest's RIP, or delivers the event that went to a task gate. */
  step(guest: GuestCpu): ExitAction {
    const { vmcb } = guest;
    const scratch = this.#vmcb;
    const { spare } = this.#processors;
    scratch.bytes.set(vmcb.bytes);
    scratch.dirty(CLEAN_ALL);
    scratch.set32(InterceptWord.CR, 0);
    scratch.set32(InterceptWord.DR, 0);
    scratch.set32(InterceptWord.EXCEPTIONS, ALL_BUT_TRAPS);
    scratch.set32(InterceptWord.MISC1, Misc1.SHUTDOWN | Misc1.INTR);
    scratch.set32(InterceptWord.MISC2, Misc2.VMRUN);
    scratch.set32(InterceptWord.MISC3, 0);
    scratch.set32(Control.NESTED_CONTROL, 0);
    scratch.set32(Control.ASID, ASID);
    scratch.bytes[Control.TLB_CONTROL] = FLUSH_ALL;
    scratch.set32(
      Control.INT_CONTROL,
      scratch.get32(Control.INT_CONTROL) &
        ~(IntControl.V_IRQ | IntControl.AVIC | IntControl.X2AVIC),
    );
    injectTaskEvent(scratch);
    this.#outside.vcpu = guest.vcpu;
    spare.setTsc(this.#vm.clock.current.now());
    spare.setTscAux(guest.tscAux);
    this.#host.adopt(guest);
    this.#loadExtended(guest);
    try {
      spare.enterGuest(scratch.hpa, guest.registers, 1);
    } finally {
      this.#storeExtended(guest);
      this.#host.release();
      this.#outside.vcpu = undefined;
    }
    guest.vcpu.instructions += spare.retired;
    return this.#finish(guest);
  }

  /**
   * An emulator reads R16–R31 where the vCPU's registers are kept, whatever is switched around entries,
   * and an instruction that it carries out may be XSETBV.
   */
  #loadExtended(guest: GuestCpu): void {
    const host = this.#host.extended;
    host.xcr0 = guest.xcr0Low;
    if ((guest.xcr0Low & Xcr0.APX) !== 0) host.loadExtendedRegisters(guest.registers);
  }

  #storeExtended(guest: GuestCpu): void {
    const host = this.#host.extended;
    if ((guest.xcr0Low & Xcr0.APX) !== 0) {
      const after = host.xcr0;
      // XSETBV may just have made them inaccessible, not lost.
      host.xcr0 = guest.xcr0Low;
      host.storeExtendedRegisters(guest.registers);
      host.xcr0 = after;
    }
    guest.xcr0Low = host.xcr0;
  }

  #finish(guest: GuestCpu): ExitAction {
    const { vmcb } = guest;
    const scratch = this.#vmcb;
    const code = scratch.get32(Control.EXITCODE);
    // These drop translations: those of the spare processor, not the guest's.
    const met = vmcb.get32(Control.EXITCODE);
    if (DROPPING.has(met)) guest.flush = true;
    vmcb.bytes.set(scratch.bytes.subarray(SAVE_AREA), SAVE_AREA);
    vmcb.set32(Control.INT_STATE, scratch.get32(Control.INT_STATE));
    const priority = scratch.get32(Control.INT_CONTROL) & IntControl.V_TPR;
    const control = vmcb.get32(Control.INT_CONTROL) & ~IntControl.V_TPR;
    vmcb.set32(Control.INT_CONTROL, control | priority);
    vmcb.dirty(CLEAN_ALL);
    if (code === SvmExit.INTR) return ExitAction.RESUME;
    if (code >= SvmExit.EXCEPTION && code < SvmExit.EXCEPTION + 32) {
      this.#raise(guest, code - SvmExit.EXCEPTION);
      return ExitAction.RESUME;
    }
    if (code === SvmExit.VMLOAD || code === SvmExit.VMSAVE) {
      // They only get here by a nested page fault where there is no memory: as where they are
      // intercepted, that is #GP.
      guest.vcpu.events.queueException(Vector.GP, 0);
      return ExitAction.RESUME;
    }
    throw new UnimplementedError(
      `vCPU ${guest.vcpu.id}: the emulated instruction ended with exit code ${code.toString(16)}h`,
    );
  }

  /** The instruction ends in an exception of the guest's. */
  #raise({ vcpu: { events } }: GuestCpu, vector: number): void {
    const scratch = this.#vmcb;
    const errorCode = scratch.get32(Control.EXITINFO1);
    if (vector === Vector.PF) {
      const lo = scratch.get32(Control.EXITINFO2);
      events.queuePageFault(errorCode, lo, scratch.get32(Control.EXITINFO2 + 4));
    } else if (vector === Vector.DB) {
      // DR6 is already what the handler is to see (APM vol. 2, 15.12.2); injection sets B0–B3 anew.
      events.queueDebug(scratch.get32(Save.DR6) & DR6_BREAKPOINTS);
    } else events.queueException(vector, WITH_ERROR.has(vector) ? errorCode : undefined);
  }

  /** Gives everything back. */
  free(): void {
    this.#processors.spare.detach();
    for (const { gpa, size } of this.#vm.memory.slots) {
      this.#processors.unmapAlias(GUEST_SPACE, gpa, size);
    }
    this.#memory.free(this.#vmcb.hpa);
    this.#memory.free(this.#host.hsave);
  }
}

/**
 * Asks for the event whose delivery a task switch was part of, if any. INT n, INT3 and INTO are
 * executed instead: RIP points at them.
 */
function injectTaskEvent(vmcb: Vmcb): void {
  const info = vmcb.get32(Control.EXITINTINFO);
  const vector = info & 0xff;
  const executed = (info & EventFormat.TYPE) === EventFormat.SOFTWARE ||
    vector === Vector.BP || vector === Vector.OF;
  const inject = vmcb.get32(Control.EXITCODE) === SvmExit.TASK_SWITCH && !executed;
  vmcb.set32(Control.EVENTINJ, inject ? info : 0);
  vmcb.set32(Control.EVENTINJ + 4, inject ? vmcb.get32(Control.EXITINTINFO + 4) : 0);
}

/** Exceptions that push an error code. */
const WITH_ERROR: ReadonlySet<number> = new Set([
  Vector.DF,
  Vector.TS,
  Vector.NP,
  Vector.SS,
  Vector.GP,
  Vector.AC,
]);
