/**
 * The local APICs of the host's processors: what the processor itself asks of its own when it processes
 * posted interrupts or sends a notification (SDM vol. 3, 30.1.6 and 30.6), and what the hypervisor sends.
 *
 * They are in x2APIC mode and take fixed interrupts. The host's own interrupts, which end a guest's turn,
 * do not come by here.
 *
 * @module
 */
import type { Outside, Processor } from "../cpu/mod.ts";
import { MSR_APIC_BASE } from "../lapic/mod.ts";

/** APIC base: enabled, in x2APIC mode, at FEE0_0000h. */
const BASE = 0xfee0_0c00;
const MSR_EOI = 0x80b;
const MSR_ICR = 0x830;
/** ICR bits of a fixed, edge-triggered, physical interrupt, but for the vector and "assert". */
const ICR_OTHERS = 0xc_8f00;
const ALL = 0xffff_ffff;

/** What a host's local APIC asks of the host. */
export interface HostApicBoard {
  /** The local APIC with a physical ID. */
  find(id: number): HostApic | undefined;
  /** A processor that is not in guest mode takes an interrupt. */
  take(pcpu: number, vector: number): void;
}

/** One of them, and everything else outside of its processor, where nobody answers. */
export class HostApic implements Outside {
  /** Number of its processor. */
  readonly pcpu: number;
  /** Physical APIC ID. */
  readonly id: number;
  readonly #processor: Processor;
  readonly #board: HostApicBoard;
  /** Vectors that have been sent and not taken, in ascending order. */
  readonly #waiting: number[] = [];
  /** The vector that is in service, −1 if none is. */
  #inService = -1;
  #guestMode = false;
  /** Whether the processor's INTR pin is high, as far as this knows. */
  #line = false;

  /** Of a processor that is loaded. */
  constructor(processor: Processor, board: HostApicBoard) {
    this.#processor = processor;
    this.pcpu = processor.index;
    this.id = processor.apicId;
    this.#board = board;
  }

  /** Whether the processor is in guest mode, between two turns of it, too. */
  get guestMode(): boolean {
    return this.#guestMode;
  }

  /** Whether a vector waits. */
  waits(vector: number): boolean {
    return this.#waiting.includes(vector);
  }

  /** An interrupt arrives. Outside of guest mode the host takes it at once. */
  arrive(vector: number): void {
    if (!this.#guestMode) {
      this.#board.take(this.pcpu, vector);
      return;
    }
    if (!this.#waiting.includes(vector)) {
      this.#waiting.push(vector);
      this.#waiting.sort((a, b) => a - b);
    }
    // A processor that is not loaded is told when it enters.
    if (this.#processor.loaded) this.#drive();
  }

  #drive(): void {
    const level = this.#inService < 0 && this.#waiting.length > 0;
    if (level === this.#line) return;
    this.#line = level;
    this.#processor.setInterruptLine(level);
  }

  /** The processor, which is loaded, is about to enter the guest. */
  enter(): void {
    this.#guestMode = true;
    this.#drive();
  }

  /** The guest exited with vector `acknowledged`, −1 if it was not an interrupt: the host goes on. */
  exit(acknowledged: number): void {
    this.#guestMode = false;
    this.#inService = -1;
    if (acknowledged >= 0) this.#board.take(this.pcpu, acknowledged);
    this.drain();
  }

  /** The host takes all that waits: the processor leaves guest mode, if it was there. */
  drain(): void {
    this.#guestMode = false;
    if (this.#waiting.length > 0) {
      for (const vector of this.#waiting.splice(0).reverse()) this.#board.take(this.pcpu, vector);
    }
    if (this.#line && this.#processor.loaded) this.#drive();
  }

  // What the processor asks

  /** The highest vector that waits, which is in service then. */
  acknowledge(): number {
    const vector = this.#waiting.pop() ?? -1;
    this.#inService = vector;
    // What else waits raises the pin again behind the EOI.
    this.#drive();
    return vector;
  }

  msrRead(index: number): boolean {
    if (index !== MSR_APIC_BASE) return false;
    const { exchange } = this.#processor;
    exchange[0] = BASE | 0;
    exchange[1] = 0;
    return true;
  }

  msrWrite(index: number): boolean {
    const { exchange } = this.#processor;
    const low = exchange[0]! >>> 0;
    const high = exchange[1]! >>> 0;
    switch (index) {
      case MSR_EOI:
        this.#inService = -1;
        this.#drive();
        return true;
      case MSR_ICR:
        if ((low & ICR_OTHERS) !== 0 || high === ALL) return false;
        this.#board.find(high)?.arrive(low & 0xff);
        return true;
      default:
        return false;
    }
  }

  deviceRead(): void {}
  deviceWrite(): void {}
  portRead(): number {
    return ALL;
  }
  portWrite(): void {}
  cpuid(): void {}
}
