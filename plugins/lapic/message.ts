/**
 * Interrupt messages: what ICRs, I/O APICs and message-signalled interrupts send to local APICs.
 *
 * @module
 */

/** Message types: bits 10:8 of the ICR, LVT entries, redirection entries and MSI data. */
export const MessageType = {
  /** Fixed. */
  FIXED: 0,
  /** Lowest priority. */
  LOWEST: 1,
  /** System management interrupt. */
  SMI: 2,
  /** Remote read; no current processor has it. */
  REMOTE_READ: 3,
  /** Non-maskable interrupt. */
  NMI: 4,
  /** INIT. */
  INIT: 5,
  /** Start-up. */
  STARTUP: 6,
  /** The vector comes from an external controller. */
  EXTINT: 7,
} as const;

/** Destination shorthands: bits 19:18 of the ICR. */
export const Shorthand = {
  /** None: the destination field counts. */
  NONE: 0,
  /** Oneself. */
  SELF: 1,
  /** All. */
  ALL: 2,
  /** All but oneself. */
  OTHERS: 3,
} as const;

/** Bits of the ICR. */
export const Icr = {
  /** Vector. */
  VECTOR: 0xff,
  /** Shift of the message type. */
  TYPE_SHIFT: 8,
  /** Logical destination. */
  LOGICAL: 0x800,
  /** Delivery status; read only, and always idle. */
  BUSY: 0x1000,
  /** Assert. */
  ASSERT: 0x4000,
  /** Level-triggered. */
  LEVEL: 0x8000,
  /** Shift of the shorthand. */
  SHORTHAND_SHIFT: 18,
} as const;

/** A broadcast in a destination field of 8 bits. */
export const BROADCAST = 0xff;
/** A broadcast in a destination field of 32 bits. */
export const WIDE_BROADCAST = 0xffff_ffff;

/** One message. Senders keep one and use it again: copy what is to be kept. */
export class ApicMessage {
  /** One of {@linkcode MessageType}. */
  type = 0;
  /** Vector; the page number for a start-up message. */
  vector = 0;
  /** Level-triggered, not edge-triggered. */
  level = false;
  /** Assert; a level-triggered INIT without it is the old de-assert, which has no effect. */
  assert = true;
  /** The destination is logical. */
  logical = false;
  /** Destination: 8 bits, or 32 if {@linkcode ApicMessage.wide}. */
  destination = 0;
  /** The destination is one of 32 bits: the sender is in x2APIC mode. */
  wide = false;
  /** One of {@linkcode Shorthand}. */
  shorthand = 0;

  /** Takes apart an ICR. `high` is bits 63:32; `wide` says that they are all destination. */
  setIcr(low: number, high: number, wide: boolean): void {
    this.vector = low & Icr.VECTOR;
    this.type = (low >>> Icr.TYPE_SHIFT) & 7;
    this.logical = (low & Icr.LOGICAL) !== 0;
    this.assert = (low & Icr.ASSERT) !== 0;
    // An IPI is level-triggered in name only: the trigger mode counts for INIT alone, as the
    // manuals ask for edge with every other type. KVM takes it as given, and so does this.
    this.level = (low & Icr.LEVEL) !== 0;
    this.shorthand = (low >>> Icr.SHORTHAND_SHIFT) & 3;
    this.wide = wide;
    this.destination = wide ? high >>> 0 : high >>> 24;
  }

  /**
   * Takes apart a message-signalled interrupt (SDM vol. 3A, 11.11; APM vol. 2, 16.10): bits 19:12 of
   * the address are the destination, bit 2 says whether it is logical, and bit 3, the redirection
   * hint, asks for the one with the lowest priority.
   */
  setMsi(address: number, data: number): void {
    this.vector = data & 0xff;
    this.type = (data >>> 8) & 7;
    this.assert = (data & 0x4000) !== 0;
    this.level = (data & 0x8000) !== 0;
    const low = address % 0x1_0000_0000;
    this.destination = (low >>> 12) & 0xff;
    this.logical = (low & 4) !== 0;
    if ((low & 8) !== 0 && this.type === MessageType.FIXED) this.type = MessageType.LOWEST;
    this.wide = false;
    this.shorthand = Shorthand.NONE;
  }
}
