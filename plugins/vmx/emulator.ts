/**
 * The instruction emulator: what a hypervisor needs for accesses to device memory, string I/O and
 * control registers.
 *
 * A hypervisor's emulator is a processor in software, and there is one: an instruction is carried out on
 * the spare processor, bare, attached to guest physical memory. What it meets outside goes to the VM's
 * buses. So that an exception comes back here instead of being delivered, the spare processor has an IDT
 * without entries: the first exception becomes a shutdown, which leaves the state of before, and the
 * processor's log says which it was.
 *
 * @module
 */
import { ExitAction, Gpr, type SystemState, UnimplementedError, type Vm } from "../../core/mod.ts";
import {
  BusOutside,
  type Processors,
  readProcessorState,
  S,
  Stop,
  Vector,
  writeProcessorState,
} from "../cpu/mod.ts";
import type { GuestCpu } from "./guest_cpu.ts";
import { readSystemState, writeSystemState } from "./system_state.ts";

/** The physical address space the spare processor is attached to: the guest's. */
const GUEST_SPACE = 1;
/** General registers, R16–R31 among them, RIP and RFLAGS stand where the spare processor has them. */
const GENERAL_WORDS = 2 * 32;
/** DR6.B0 to B3 and BS: what a debug exception reports. */
const DR6_CAUSES = 0x400f;

/** Emulates instructions for all vCPUs of a VM. */
export class Emulator {
  readonly #vm: Vm;
  readonly #processors: Processors;
  readonly #outside: BusOutside;

  constructor(vm: Vm, processors: Processors) {
    this.#vm = vm;
    this.#processors = processors;
    this.#outside = new BusOutside(vm, processors.spare);
    processors.spare.attach(this.#outside, GUEST_SPACE);
    processors.spare.reset();
    for (const { gpa, size, hpa, readonly } of vm.memory.slots) {
      processors.mapAlias(GUEST_SPACE, gpa, size, hpa, readonly);
    }
  }

  /** A memslot came or went. */
  memslotChanged(gpa: number, size: number, hpa: number, readonly: boolean, added: boolean): void {
    if (added) this.#processors.mapAlias(GUEST_SPACE, gpa, size, hpa, readonly);
    else this.#processors.unmapAlias(GUEST_SPACE, gpa, size);
  }

  /** Carries out the instruction at the guest's RIP. */
  step(guest: GuestCpu): ExitAction {
    const { spare } = this.#processors;
    const { vcpu } = guest;
    const before = readSystemState(guest);
    const noHandlers = { base: before.idt.base, limit: 0 };
    writeProcessorState(spare, { ...before, idt: noHandlers }, vcpu.regs.rflags);
    this.#copyRegisters(guest, true);
    spare.xsave = guest.xsave;
    spare.setTsc(this.#vm.clock.current.now());
    const events = spare.state.get32(S.eventCount);
    this.#outside.vcpu = guest.vcpu;
    let stop: Stop;
    try {
      spare.absorbFlags();
      stop = spare.run(1);
    } finally {
      spare.exposeFlags();
      this.#outside.vcpu = undefined;
    }
    this.#copyRegisters(guest, false);
    guest.xsave = spare.xsave;
    vcpu.instructions += spare.retired;
    const after = readProcessorState(spare);
    if (after.idt.limit === 0) after.idt = before.idt;
    if (stop === Stop.SHUTDOWN) {
      spare.clearShutdown();
      this.#raise(guest, before, after, events);
    } else if (stop !== Stop.BUDGET) {
      throw new UnimplementedError(`vCPU ${vcpu.id}: the emulated instruction did not end`);
    }
    writeSystemState(this.#vm, guest, after);
    return ExitAction.RESUME;
  }

  /** Moves the general registers, RIP and RFLAGS to the spare processor or back. */
  #copyRegisters({ registers }: GuestCpu, there: boolean): void {
    const own = this.#processors.spare.registerStorage;
    const [from, to] = there ? [registers, own] : [own, registers];
    for (let k = 0; k < GENERAL_WORDS; k++) to[k] = from[k]!;
    for (const slot of [Gpr.RIP, Gpr.RFLAGS]) {
      to[2 * slot] = from[2 * slot]!;
      to[2 * slot + 1] = from[2 * slot + 1]!;
    }
  }

  /** The instruction ended in an exception: the first that was to be delivered since `events`. */
  #raise(guest: GuestCpu, before: SystemState, after: SystemState, events: number): void {
    const { spare } = this.#processors;
    const recent = spare.recentEvents();
    const first = recent[recent.length - (spare.state.get32(S.eventCount) - events)];
    if (first === undefined) throw new UnimplementedError("the spare processor shut down");
    const { events: queue } = guest.vcpu;
    const { vector, errorCode, cr2 } = first;
    if (vector === Vector.PF) {
      queue.queuePageFault(errorCode ?? 0, Number(cr2 & 0xffff_ffffn), Number(cr2 >> 32n));
    } else if (vector === Vector.DB) {
      queue.queueDebug(Number(after.dr6) & DR6_CAUSES & ~Number(before.dr6));
    } else queue.queueException(vector, errorCode);
    // Delivery changes these; it has not taken place.
    after.cr2 = before.cr2;
    after.dr6 = before.dr6;
    after.dr7 = before.dr7;
  }

  /** Gives everything back. */
  free(): void {
    this.#processors.spare.detach();
    for (const { gpa, size } of this.#vm.memory.slots) {
      this.#processors.unmapAlias(GUEST_SPACE, gpa, size);
    }
  }
}
