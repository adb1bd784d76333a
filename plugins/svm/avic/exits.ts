/**
 * Exits that AVIC takes when it leaves something to software: 401h and 402h (APM vol. 2, 15.29.9).
 *
 * @module
 */
import {
  eventRequest,
  ExitAction,
  TraplineError,
  type Vcpu,
  type VmExit,
} from "../../../core/mod.ts";
import {
  type ApicBus,
  ApicMessage,
  extendedLogicalId,
  Icr,
  type Lapic,
  LapicMode,
  LapicRegister,
} from "../../lapic/mod.ts";
import type { AvicVcpu } from "./avic_vcpu.ts";

/** Why an IPI is incomplete: EXITINFO2 bits 63:32 of exit 401h (APM vol. 2, table 15-24). */
export const IncompleteIpi = {
  /** The message type or the trigger mode is not accelerated; nothing was delivered. */
  INVALID_TYPE: 0,
  /** IRR is set in all targets, one of which was not running. */
  TARGET_NOT_RUNNING: 1,
  /** A target is not in the tables; nothing was delivered. */
  INVALID_TARGET: 2,
  /** A target's backing page is not in memory; nothing was delivered. */
  INVALID_BACKING_PAGE: 3,
  /** The vector is below 16; nothing was delivered. */
  INVALID_VECTOR: 4,
} as const;

/** EXITINFO1 of exit 402h: the register's offset. */
const OFFSET = 0xff0;
/** The same, high half: a write. */
const WRITE_HIGH = 1;

/** EXITINFO2 bits 11:0 of exit 401h: index in the table where the target was looked for. */
export const INDEX = 0xfff;

const R = LapicRegister;

/**
 * Registers whose writes hardware carries out in the page before it exits behind the instruction
 * (table 15-22, column "trap"); all other exits 402h are faults at the instruction.
 */
const TRAPPED: ReadonlySet<number> = new Set<number>([
  R.ID,
  R.EOI,
  R.RRR,
  R.LDR,
  R.DFR,
  R.SVR,
  R.ESR,
  R.ICR,
  R.LVT_TIMER,
  R.LVT_THERMAL,
  R.LVT_PERF,
  R.LVT_LINT0,
  R.LVT_LINT1,
  R.LVT_ERROR,
  R.TIMER_INITIAL,
  R.TIMER_DIVIDE,
]);

/** Extended LVT entries: writes are traps where CPUID 8000_000Ah EDX bit 27 is set, else faults. */
const EXTENDED_LVT_END: number = R.EXT_LVT + 0x40;

/** Handles the exits of all vCPUs of a VM. */
export class AvicExits {
  readonly #bus: ApicBus;
  readonly #of: (vcpu: Vcpu) => AvicVcpu | undefined;
  readonly #extendedLvt: boolean;
  readonly #message: ApicMessage = new ApicMessage();

  /** `extendedLvt` is CPUID 8000_000Ah EDX bit 27. */
  constructor(bus: ApicBus, extendedLvt: boolean, of: (vcpu: Vcpu) => AvicVcpu | undefined) {
    this.#bus = bus;
    this.#extendedLvt = extendedLvt;
    this.#of = of;
  }

  /** Exit 401h: a trap, the ICR holds what was written. */
  incompleteIpi(vcpu: Vcpu, exit: VmExit): ExitAction {
    const lapic = this.#bus.of(vcpu);
    const { info1Lo: low, info1Hi: high } = exit;
    switch (exit.info2Hi) {
      case IncompleteIpi.INVALID_TYPE:
      case IncompleteIpi.INVALID_TARGET:
        send(lapic, low, high);
        break;
      case IncompleteIpi.TARGET_NOT_RUNNING:
        this.#wakeTargets(lapic, low, high);
        break;
      case IncompleteIpi.INVALID_VECTOR:
        // KVM drops it. The manual has a send-illegal-vector error for it, which is the local APIC's
        // business with AVIC as without.
        send(lapic, low, high);
        break;
      case IncompleteIpi.INVALID_BACKING_PAGE:
        throw new TraplineError(
          `vCPU ${vcpu.id}: AVIC has an IPI's target ${
            exit.info2Lo & INDEX
          } in its table, and no backing page`,
        );
      default:
        throw new TraplineError(
          `vCPU ${vcpu.id}: AVIC says that an IPI is incomplete for reason ${exit.info2Hi}, which is none`,
        );
    }
    return ExitAction.RESUME;
  }

  /** IRR is set in all targets already: those that do not run are to look. */
  #wakeTargets(sender: Lapic, low: number, high: number): void {
    const message = this.#message;
    message.setIcr(low, high, sender.mode === LapicMode.X2APIC);
    for (const target of sender.vcpu.vm.vcpus) {
      if (this.#of(target)?.running && target.accelerated) continue;
      if (this.#bus.matches(this.#bus.of(target), message, sender)) target.request(eventRequest);
    }
  }

  /** Exit 402h. */
  unaccelerated(vcpu: Vcpu, exit: VmExit): ExitAction {
    const offset = exit.info1Lo & OFFSET;
    const write = (exit.info1Hi & WRITE_HIGH) !== 0;
    const lapic = this.#bus.of(vcpu);
    if (!write || !this.#trapped(offset)) {
      const gpa = lapic.mode === LapicMode.X2APIC ? undefined : lapic.base + offset;
      return vcpu.vm.vendor.current.emulate(vcpu, gpa);
    }
    switch (offset) {
      case R.EOI:
        this.#endLevel(lapic, exit.info2Lo & 0xff);
        break;
      case R.RRR:
        // Read only, whatever hardware has put there.
        lapic.registers.set(offset, 0);
        break;
      case R.LDR:
        // In x2APIC mode it follows from the ID, and cannot be written; but hardware has.
        if (lapic.mode === LapicMode.X2APIC) {
          lapic.registers.set(offset, extendedLogicalId(lapic.id));
          break;
        }
        lapic.replayWrite(offset);
        break;
      default:
        lapic.replayWrite(offset);
    }
    return ExitAction.RESUME;
  }

  #trapped(offset: number): boolean {
    if (TRAPPED.has(offset)) return true;
    return this.#extendedLvt && offset >= R.EXT_LVT && offset < EXTENDED_LVT_END;
  }

  /**
   * The end of a level-triggered interrupt. Table 15-22 calls it a trap, 15.29.9.2 a fault, and neither
   * says whether ISR is clear already: both are taken.
   */
  #endLevel(lapic: Lapic, vector: number): void {
    if (lapic.registers.hasVector(R.ISR, vector)) lapic.endSpecific(vector);
    else lapic.acceleratedEnd(vector);
  }
}

/** Does in software what hardware has not. The busy bit, if hardware left it, goes with a write. */
function send(lapic: Lapic, low: number, high: number): void {
  if ((low & Icr.BUSY) !== 0) lapic.replayWrite(R.ICR);
  else lapic.sendIpi(low, high);
}
