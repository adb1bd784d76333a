/**
 * Exits that APIC virtualization takes when it leaves something to software: 44, 45 and 56 (SDM vol. 3,
 * 30.4 to 30.6).
 *
 * @module
 */
import { ExitAction, type Vcpu, type VmExit } from "../../../core/mod.ts";
import type { ApicBus } from "../../lapic/mod.ts";

/** The register's offset in the qualification of exit 56. */
const OFFSET = 0xff0;

/** The same of exit 44, and what kind of access it was: reads are 0 (SDM vol. 3, table 28-6). */
const ACCESS_OFFSET = 0xfff;
const ACCESS_TYPE = 0xf000;
const DATA_WRITE = 0x1000;

/** Handles the exits of all vCPUs of a VM. */
export class ApicvExits {
  readonly #bus: ApicBus;
  #ending = false;

  constructor(bus: ApicBus) {
    this.#bus = bus;
  }

  /** Whether an interrupt is being announced that hardware has ended. */
  get ending(): boolean {
    return this.#ending;
  }

  /** Exit 44, a fault: a register that hardware does not virtualize, or an access that it does not. */
  access(vcpu: Vcpu, exit: VmExit): ExitAction {
    const { info1Lo: qualification } = exit;
    const data = (qualification & ACCESS_TYPE) <= DATA_WRITE;
    const gpa = this.#bus.of(vcpu).base + (qualification & ACCESS_OFFSET);
    return vcpu.vm.vendor.current.emulate(vcpu, data ? gpa : undefined);
  }

  /** Exit 45, a trap: ISR and SVI are hardware's work already. */
  ended(vcpu: Vcpu, exit: VmExit): ExitAction {
    this.#ending = true;
    try {
      this.#bus.of(vcpu).acceleratedEnd(exit.info1Lo & 0xff);
    } finally {
      this.#ending = false;
    }
    return ExitAction.RESUME;
  }

  /** Exit 56, a trap: the page has the value. An IPI that hardware has not sent comes by here, too. */
  written(vcpu: Vcpu, exit: VmExit): ExitAction {
    this.#bus.of(vcpu).replayWrite(exit.info1Lo & OFFSET);
    return ExitAction.RESUME;
  }
}
