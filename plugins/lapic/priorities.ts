/**
 * What waits, what is in service, and which comes first (APM vol. 2, 16.6; SDM vol. 3A, 11.8.3).
 *
 * @module
 */

import type { RegisterPage } from "./page.ts";
import { Extended, LapicRegister, Svr } from "./registers.ts";

const R = LapicRegister;

/** Requests, interrupts in service and priorities of one local APIC: all of it is in its page. */
export class Priorities {
  /** The register page. */
  readonly registers: RegisterPage;

  /** Of what is in `registers`. */
  constructor(registers: RegisterPage) {
    this.registers = registers;
  }

  /** The highest vector requested, −1 if none is. */
  get highestIrr(): number {
    const { registers } = this;
    const enables = (registers.get(R.EXT_CONTROL) & Extended.IER) !== 0;
    return enables ? registers.highestOf(R.IRR, R.IER) : registers.highest(R.IRR);
  }

  /** The highest vector in service, −1 if none is. */
  get highestIsr(): number {
    return this.registers.highest(R.ISR);
  }

  /** Works the processor priority out anew, puts it into the page and returns it. */
  updatePpr(): number {
    const { registers } = this;
    const tpr = registers.get(R.TPR) & 0xff;
    const isr = Math.max(0, this.highestIsr);
    const ppr = tpr >> 4 >= isr >> 4 ? tpr : isr & 0xf0;
    registers.set(R.PPR, ppr);
    return ppr;
  }

  /**
   * The arbitration priority: the highest class of task priority, ISR and IRR; its sub-class is that of
   * the task priority if no other class is higher (APM vol. 2, 16.6.1).
   */
  get arbitrationPriority(): number {
    const tpr = this.registers.get(R.TPR) & 0xff;
    const isr = Math.max(0, this.highestIsr) >> 4;
    const irr = Math.max(0, this.registers.highest(R.IRR)) >> 4;
    const others = Math.max(isr, irr);
    return tpr >> 4 >= others ? tpr : others << 4;
  }

  /** The task priority register, 8 bits. */
  get taskPriority(): number {
    return this.registers.get(R.TPR) & 0xff;
  }

  /** Whether it is the focus processor of a vector. */
  isFocus(vector: number): boolean {
    const { registers } = this;
    if ((registers.get(R.SVR) & Svr.NO_FOCUS) !== 0) return false;
    return registers.hasVector(R.ISR, vector) || registers.hasVector(R.IRR, vector);
  }

  /** Sets the request bit of a vector, and nothing else; returns whether it was set before. */
  setIrr(vector: number): boolean {
    return this.registers.setVector(R.IRR, vector);
  }
}
