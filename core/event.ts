/**
 * Events on their way into a vCPU: exceptions, NMIs and interrupts.
 *
 * An event is *pending* until it is handed to the vendor and *injected* from then until the guest was
 * entered with it. An exit in the middle of its delivery gives it back, and it is then injected again
 * before anything else. The rules are those of the processor (SDM vol. 3A, sections 6.9 and 6.15;
 * APM vol. 2, section 8.2.9) in the form that KVM gives them.
 *
 * @module
 */

import { ArgumentError } from "./errors.ts";
import { eventRequest, tripleFaultRequest } from "./request.ts";
import type { Vcpu } from "./vcpu.ts";

/** Exception vectors (SDM vol. 3A, table 6-1). */
export const Vector = {
  /** Divide error. */
  DE: 0,
  /** Debug. */
  DB: 1,
  /** Non-maskable interrupt. */
  NMI: 2,
  /** Breakpoint. */
  BP: 3,
  /** Overflow. */
  OF: 4,
  /** BOUND range exceeded. */
  BR: 5,
  /** Invalid opcode. */
  UD: 6,
  /** Device not available. */
  NM: 7,
  /** Double fault. */
  DF: 8,
  /** Invalid TSS. */
  TS: 10,
  /** Segment not present. */
  NP: 11,
  /** Stack fault. */
  SS: 12,
  /** General protection. */
  GP: 13,
  /** Page fault. */
  PF: 14,
  /** x87 floating-point error. */
  MF: 16,
  /** Alignment check. */
  AC: 17,
  /** Machine check. */
  MC: 18,
  /** SIMD floating-point exception. */
  XM: 19,
  /** Control protection. */
  CP: 21,
} as const;

/** The vendor holds no event for the next entry. */
export const HELD_NOTHING = 0;
/** The vendor holds an exception for the next entry. */
export const HELD_EXCEPTION = 1;
/** The vendor holds an NMI for the next entry. */
export const HELD_NMI = 2;
/** The vendor holds an interrupt for the next entry. */
export const HELD_INTERRUPT = 3;

const BENIGN = 0;
const CONTRIBUTORY = 1;
const PAGE_FAULT = 2;

/** Classes that decide on a double fault (SDM vol. 3A, section 6.15, interrupt 8). */
function exceptionClass(vector: number): number {
  switch (vector) {
    case Vector.DE:
    case Vector.TS:
    case Vector.NP:
    case Vector.SS:
    case Vector.GP:
    case Vector.CP:
      return CONTRIBUTORY;
    case Vector.PF:
      return PAGE_FAULT;
    default:
      return BENIGN;
  }
}

/** An exception on its way into the guest. */
export class PendingException {
  /** Waiting for the next entry. */
  pending = false;
  /** Handed to the vendor. */
  injected = false;
  /** Vector, 0 to 31. */
  vector = 0;
  /** Whether there is an error code. */
  hasErrorCode = false;
  /** Error code, 32 bits. */
  errorCode = 0;
  /** Whether there is a payload: the address of a page fault, the DR6 bits of a debug exception. */
  hasPayload = false;
  /** Payload, bits 31:0. */
  payloadLo = 0;
  /** Payload, bits 63:32. */
  payloadHi = 0;
}

/** The events of one vCPU. */
export class EventQueue {
  readonly #vcpu: Vcpu;
  /** The exception; there is never more than one. */
  readonly exception: PendingException = new PendingException();
  /** An interrupt was handed to the vendor, or an exit gave it back. */
  interruptInjected = false;
  /** Its vector. */
  interruptVector = 0;
  /** Whether it is an INT n that was interrupted. */
  interruptSoft = false;
  /** NMIs that wait, 0 to 2: one being handled can be followed by one latched. */
  nmiPending = 0;
  /** An NMI was handed to the vendor, or an exit gave it back. */
  nmiInjected = false;
  /** What the vendor was handed for the next entry: one of the `HELD_` constants. The core's own. */
  held: number = HELD_NOTHING;

  /** The events of `vcpu`. */
  constructor(vcpu: Vcpu) {
    this.#vcpu = vcpu;
  }

  /**
   * Makes an exception pending for the next entry. Together with one that waits already it becomes a
   * double fault, a triple fault, or replaces it, as the classes of the two say.
   *
   * @param vector 0 to 31.
   * @param errorCode Given for the exceptions that have one.
   * @throws {ArgumentError} If the vector is not that of an exception.
   */
  queueException(vector: number, errorCode?: number): void {
    if (!Number.isInteger(vector) || vector < 0 || vector > 31 || vector === Vector.NMI) {
      throw new ArgumentError(`exception vector ${vector} is not one of 0, 1, 3 to 31`);
    }
    this.#queue(vector, errorCode);
  }

  /**
   * Makes a page fault pending.
   *
   * @param errorCode Page-fault error code.
   * @param lo Bits 31:0 of the faulting linear address, for CR2.
   * @param hi Bits 63:32 of it.
   */
  queuePageFault(errorCode: number, lo: number, hi: number): void {
    if (this.#queue(Vector.PF, errorCode)) this.#payload(lo, hi);
  }

  /**
   * Makes a debug exception pending.
   *
   * @param dr6 The bits of DR6 that it sets.
   */
  queueDebug(dr6: number): void {
    if (this.#queue(Vector.DB, undefined)) this.#payload(dr6, 0);
  }

  /** Makes an NMI pending. A third one is lost, as on the processor. */
  queueNmi(): void {
    const vcpu = this.#vcpu;
    const limit = this.nmiInjected || vcpu.vm.vendor.current.nmiMasked(vcpu) ? 1 : 2;
    this.nmiPending = Math.min(this.nmiPending + 1, limit);
    vcpu.request(eventRequest);
  }

  /**
   * Makes an interrupt injected that does not come from the interrupt controller.
   *
   * @param vector 0 to 255.
   */
  queueInterrupt(vector: number): void {
    this.returnInterrupt(vector, false);
  }

  /**
   * For the vendor: an exit came while an exception was being delivered. To be called before the exit
   * is handled.
   */
  returnException(vector: number, errorCode: number | undefined): void {
    this.#set(vector, errorCode);
    this.exception.pending = false;
    this.exception.injected = true;
    this.#vcpu.request(eventRequest);
  }

  /** For the vendor: an exit came while an interrupt was being delivered. See above. */
  returnInterrupt(vector: number, soft: boolean): void {
    this.interruptInjected = true;
    this.interruptVector = vector;
    this.interruptSoft = soft;
    this.#vcpu.request(eventRequest);
  }

  /** For the vendor: an exit came while an NMI was being delivered. See above. */
  returnNmi(): void {
    this.nmiInjected = true;
    this.#vcpu.request(eventRequest);
  }

  /** Whether an event was injected and not delivered: nothing else can be injected at the next entry. */
  get needsReinjection(): boolean {
    return this.exception.injected || this.interruptInjected || this.nmiInjected;
  }

  /**
   * For the run loop, on entry: the event that the vendor holds is the vendor's from here on. Another
   * that waits behind it stays.
   */
  handOver(): void {
    if (this.held === HELD_EXCEPTION) this.exception.injected = false;
    else if (this.held === HELD_NMI) this.nmiInjected = false;
    else if (this.held === HELD_INTERRUPT) this.interruptInjected = false;
    this.held = HELD_NOTHING;
    if (this.needsReinjection) this.#vcpu.request(eventRequest);
  }

  /** Forgets everything, as a reset does. */
  clear(): void {
    this.held = HELD_NOTHING;
    this.exception.injected = false;
    this.interruptInjected = false;
    this.nmiInjected = false;
    this.exception.pending = false;
    this.nmiPending = 0;
  }

  /** Whether the vector went in unchanged (and not as, or lost to, a double or triple fault). */
  #queue(vector: number, errorCode: number | undefined): boolean {
    const { exception } = this;
    const vcpu = this.#vcpu;
    vcpu.request(eventRequest);
    if (exception.pending || exception.injected) {
      const previous = exception.vector;
      if (previous === Vector.DF) {
        exception.pending = false;
        exception.injected = false;
        vcpu.request(tripleFaultRequest);
        return false;
      }
      const first = exceptionClass(previous);
      const second = exceptionClass(vector);
      if (
        (first === CONTRIBUTORY && second === CONTRIBUTORY) ||
        (first === PAGE_FAULT && second !== BENIGN)
      ) {
        vector = Vector.DF;
        errorCode = 0;
      }
      // Otherwise the new one takes its place; executing the instruction again brings the old one back.
    }
    const unchanged = vector !== Vector.DF;
    this.#set(vector, errorCode);
    exception.pending = true;
    exception.injected = false;
    return unchanged;
  }

  #set(vector: number, errorCode: number | undefined): void {
    const { exception } = this;
    exception.vector = vector;
    exception.hasErrorCode = errorCode !== undefined;
    exception.errorCode = errorCode ?? 0;
    exception.hasPayload = false;
  }

  #payload(lo: number, hi: number): void {
    this.exception.hasPayload = true;
    this.exception.payloadLo = lo;
    this.exception.payloadHi = hi;
  }
}
