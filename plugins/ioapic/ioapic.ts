/**
 * One I/O APIC (Intel 82093AA data sheet, 290566; version 20h as in Intel's chipsets since the ICH).
 *
 * @module
 */

import { ArgumentError } from "../../core/mod.ts";
import { ApicMessage, MessageType } from "../lapic/mod.ts";

/** Registers in memory. */
const Window = {
  /** Selects a register. */
  SELECT: 0x00,
  /** The register that is selected. */
  DATA: 0x10,
  /** Ends an interrupt; version 20h. */
  EOI: 0x40,
} as const;

/** Registers behind the window. */
const Index = { ID: 0x00, VERSION: 0x01, ARBITRATION: 0x02, REDIRECTION: 0x10 } as const;

/** ID register, bits 27:24. */
const ID_BITS = 0x0f00_0000;

/** Bits 31:0 of a redirection entry. */
export const Redirection = {
  /** Vector. */
  VECTOR: 0xff,
  /** Message type, as in the ICR of a local APIC. */
  TYPE: 0x700,
  /** The destination is logical. */
  LOGICAL: 0x800,
  /** Delivery status; read only, and always idle. */
  STATUS: 0x1000,
  /** The pin is active low. */
  POLARITY: 0x2000,
  /** A level-triggered interrupt was sent and has not been ended; read only. */
  REMOTE_IRR: 0x4000,
  /** Level-triggered. */
  LEVEL: 0x8000,
  /** Masked. */
  MASK: 0x1_0000,
} as const;

const WRITABLE_LOW = Redirection.VECTOR | Redirection.TYPE | Redirection.LOGICAL |
  Redirection.POLARITY | Redirection.LEVEL | Redirection.MASK;
/** Bits 63:56, the destination. */
const WRITABLE_HIGH = 0xff00_0000;

/** The first version with an EOI register. */
const VERSION_WITH_EOI = 0x20;

/** An I/O APIC's registers and pins, as plain data. */
export type IoApicSaved = {
  /** ID register. */
  readonly id: number;
  /** Register that is selected. */
  readonly select: number;
  /** Pins that are asserted, bit n for pin n. */
  readonly pins: number;
  /** Redirection entries, two words each, bits 31:0 first. */
  readonly entries: readonly number[];
};

/** One I/O APIC. */
export class IoApic {
  readonly #version: number;
  readonly #count: number;
  readonly #send: (message: ApicMessage) => number;
  readonly #message: ApicMessage = new ApicMessage();
  readonly #low: Uint32Array;
  readonly #high: Uint32Array;
  #id = 0;
  #select = 0;
  #pins = 0;

  /**
   * All pins masked and low.
   *
   * @param version Bits 7:0 of the version register.
   * @param count How many pins, at most 32.
   * @param send Sends a message over the bus; how many local APICs accepted it.
   */
  constructor(version: number, count: number, send: (message: ApicMessage) => number) {
    this.#version = version;
    this.#count = count;
    this.#send = send;
    this.#low = new Uint32Array(count);
    this.#high = new Uint32Array(count);
    this.reset();
  }

  /** RESET: all entries masked, edge-triggered, to APIC ID 0; pins stay as they are driven. */
  reset(): void {
    this.#low.fill(Redirection.MASK);
    this.#high.fill(0);
    this.#id = 0;
    this.#select = 0;
  }

  /** Bits 31:0 of a pin's redirection entry. */
  low(pin: number): number {
    return this.#low[pin] ?? 0;
  }

  /** Bits 63:32 of a pin's redirection entry. */
  high(pin: number): number {
    return this.#high[pin] ?? 0;
  }

  /** Reads at an offset into the memory window; what is not there is 0. */
  read(offset: number): number {
    if (offset === Window.SELECT) return this.#select;
    if (offset !== Window.DATA) return 0;
    switch (this.#select) {
      case Index.ID:
      // The arbitration ID is loaded with the ID.
      case Index.ARBITRATION:
        return this.#id;
      case Index.VERSION:
        return ((this.#count - 1) << 16) | this.#version;
    }
    const pin = this.#selectedPin;
    if (pin < 0) return 0;
    return (this.#select & 1) === 0 ? this.#low[pin]! : this.#high[pin]!;
  }

  /** Writes at an offset into the memory window. */
  write(offset: number, value: number): void {
    if (offset === Window.SELECT) this.#select = value & 0xff;
    else if (offset === Window.EOI && this.#version >= VERSION_WITH_EOI) this.end(value & 0xff);
    else if (offset === Window.DATA) this.#writeData(value);
  }

  get #selectedPin(): number {
    const pin = (this.#select - Index.REDIRECTION) >> 1;
    return pin >= 0 && pin < this.#count ? pin : -1;
  }

  #writeData(value: number): void {
    if (this.#select === Index.ID) {
      this.#id = value & ID_BITS;
      return;
    }
    const pin = this.#selectedPin;
    if (pin < 0) return;
    if ((this.#select & 1) !== 0) {
      this.#high[pin] = value & WRITABLE_HIGH;
      return;
    }
    const kept = this.#low[pin]! & Redirection.REMOTE_IRR;
    let entry = (value & WRITABLE_LOW) | kept;
    // Remote IRR has no meaning for edge-triggered entries: making an entry edge-triggered and level
    // again is how software without an EOI register clears it (as Linux does).
    if ((entry & Redirection.LEVEL) === 0) entry &= ~Redirection.REMOTE_IRR;
    this.#low[pin] = entry;
    this.#serviceLevel(pin);
  }

  /**
   * Drives a pin. `asserted` is what the device means, whatever the polarity that software sets: as
   * with KVM, it is taken for right.
   */
  setPin(pin: number, asserted: boolean): void {
    const bit = 1 << pin;
    const was = (this.#pins & bit) !== 0;
    this.#pins = asserted ? this.#pins | bit : this.#pins & ~bit;
    const entry = this.#low[pin]!;
    if ((entry & Redirection.LEVEL) !== 0) this.#serviceLevel(pin);
    // An edge at a masked pin is not remembered (data sheet, 3.2.4, bit 16).
    else if (asserted && !was && (entry & Redirection.MASK) === 0) this.#deliver(pin);
  }

  /** A level-triggered pin that is asserted sends, unless what it sent has not been ended yet. */
  #serviceLevel(pin: number): void {
    const entry = this.#low[pin]!;
    const asserted = (this.#pins & (1 << pin)) !== 0;
    const open = Redirection.LEVEL | Redirection.MASK | Redirection.REMOTE_IRR;
    if (!asserted || (entry & open) !== Redirection.LEVEL) return;
    const remembered = isFixed((entry & Redirection.TYPE) >> 8);
    if (this.#deliver(pin) > 0 && remembered) this.#low[pin] = entry | Redirection.REMOTE_IRR;
  }

  /**
   * Sets, in 256 bits, the vectors of level-triggered entries whose messages are for whom `matches` says.
   * Masked entries count: what they sent before may not have been ended.
   */
  levelVectors(vectors: Uint32Array, matches: (message: ApicMessage) => boolean): void {
    for (let pin = 0; pin < this.#count; pin++) {
      const entry = this.#low[pin]!;
      const type = (entry & Redirection.TYPE) >> 8;
      if ((entry & Redirection.LEVEL) === 0 || !isFixed(type)) continue;
      if (!matches(this.#fill(pin))) continue;
      const vector = entry & Redirection.VECTOR;
      vectors[vector >> 5]! |= 1 << (vector & 31);
    }
  }

  #deliver(pin: number): number {
    return this.#send(this.#fill(pin));
  }

  /** The message that a pin sends. */
  #fill(pin: number): ApicMessage {
    const message = this.#message;
    const entry = this.#low[pin]!;
    message.vector = entry & Redirection.VECTOR;
    message.type = (entry & Redirection.TYPE) >> 8;
    message.logical = (entry & Redirection.LOGICAL) !== 0;
    message.level = (entry & Redirection.LEVEL) !== 0;
    message.assert = true;
    message.destination = this.#high[pin]! >>> 24;
    return message;
  }

  /** The EOI message of a vector: what is still asserted is sent again. */
  end(vector: number): void {
    for (let pin = 0; pin < this.#count; pin++) {
      const entry = this.#low[pin]!;
      const waits = (entry & Redirection.REMOTE_IRR) !== 0;
      if (!waits || (entry & Redirection.VECTOR) !== vector) continue;
      this.#low[pin] = entry & ~Redirection.REMOTE_IRR;
      this.#serviceLevel(pin);
    }
  }

  /** Everything that is needed to make it again. */
  save(): IoApicSaved {
    const entries = Array.from(this.#low, (low, pin) => [low, this.#high[pin]!]).flat();
    return { id: this.#id, select: this.#select, pins: this.#pins, entries };
  }

  /**
   * Takes what {@linkcode IoApic.save} returned.
   *
   * @throws {ArgumentError} If that has another number of pins.
   */
  load(saved: IoApicSaved): void {
    if (saved.entries.length !== 2 * this.#count) {
      throw new ArgumentError(
        `ioapic: saved state has ${saved.entries.length / 2} pins, not ${this.#count}`,
      );
    }
    this.#id = saved.id;
    this.#select = saved.select;
    this.#pins = saved.pins;
    for (let pin = 0; pin < this.#count; pin++) {
      this.#low[pin] = saved.entries[2 * pin]!;
      this.#high[pin] = saved.entries[2 * pin + 1]!;
    }
  }
}

/** Whether interrupts of a type are ended by the vCPU that takes them. */
const isFixed = (type: number): boolean =>
  type === MessageType.FIXED || type === MessageType.LOWEST;
