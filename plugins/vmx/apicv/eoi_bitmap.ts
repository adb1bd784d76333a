/**
 * The EOI-exit bitmap (SDM vol. 3, 25.6.8): vectors whose end the hypervisor must hear of, because an I/O
 * APIC waits for it. All other interrupts end without an exit.
 *
 * @module
 */
import { Vmcs } from "../../cpu/mod.ts";
import { type Lapic, LapicRegister } from "../../lapic/mod.ts";
import type { VmcsFields } from "../mod.ts";
import type { PostedInterruptDescriptor } from "./descriptor.ts";

const R = LapicRegister;
const WORDS = 8;

/** The bitmap of one vCPU. */
export class EoiExitBitmap {
  readonly #wanted: Uint32Array = new Uint32Array(WORDS);
  readonly #written: Uint32Array = new Uint32Array(WORDS);
  #stale = true;

  /** Sources have changed: it is worked out anew before the next entry. */
  invalidate(): void {
    this.#stale = true;
  }

  /** A level-triggered interrupt arrived: its end counts, whoever sent it. */
  arrived(vector: number): void {
    if ((this.#written[vector >> 5]! & (1 << (vector & 31))) === 0) this.#stale = true;
  }

  /** Before an entry. `sources` sets the vectors that may come from elsewhere. */
  update(
    vmcs: VmcsFields,
    lapic: Lapic,
    descriptor: PostedInterruptDescriptor,
    sources: (vectors: Uint32Array) => void,
  ): void {
    if (!this.#stale) return;
    this.#stale = false;
    const wanted = this.#wanted.fill(0);
    sources(wanted);
    // What is on its way or in service already: its source may be set up otherwise by now, and a pin of
    // the local APIC's own has no redirection entry.
    const { registers } = lapic;
    for (let vector = 16; vector < 256; vector++) {
      if (!registers.hasVector(R.TMR, vector)) continue;
      const waits = registers.hasVector(R.IRR, vector) || registers.hasVector(R.ISR, vector) ||
        descriptor.requested(vector);
      if (waits) wanted[vector >> 5]! |= 1 << (vector & 31);
    }
    for (let k = 0; k < 4; k++) {
      const low = wanted[2 * k]!;
      const high = wanted[2 * k + 1]!;
      if (low === this.#written[2 * k] && high === this.#written[2 * k + 1]) continue;
      vmcs.setHalves(Vmcs.EOI_EXIT_BITMAP0 + 2 * k, low, high);
    }
    this.#written.set(wanted);
  }
}
