/**
 * Posted-interrupt descriptors (SDM vol. 3, table 30-2): 64 bytes in host memory for each vCPU, into which
 * hardware and software put requests without stopping it.
 *
 * @module
 */
import { type HostMemory, PAGE_SIZE } from "../../../core/mod.ts";
import { LapicRegister, type RegisterPage } from "../../lapic/mod.ts";

/** Words: eight of requests (PIR), then control bits, then the destination. */
const CONTROL = 8;
const DESTINATION = 9;
const WORDS = 16;

/** Bits of the control word. */
export const DescriptorControl = {
  /** ON: a notification is outstanding. */
  OUTSTANDING: 0x1,
  /** SN: no notifications. */
  SUPPRESS: 0x2,
  /** NV: the notification vector. */
  VECTOR: 0xff_0000,
} as const;
const VECTOR_SHIFT = 16;

const { OUTSTANDING, SUPPRESS, VECTOR } = DescriptorControl;

/** One descriptor. */
export class PostedInterruptDescriptor {
  /** Host physical address, a multiple of 64. */
  readonly hpa: number;
  readonly #memory: HostMemory;
  readonly #words: Uint32Array;

  /** Empty and suppressed, as that of a vCPU that is nowhere, with a notification vector. */
  constructor(memory: HostMemory, vector: number) {
    this.#memory = memory;
    this.hpa = memory.alloc(PAGE_SIZE);
    const bytes = memory.view(this.hpa, PAGE_SIZE);
    this.#words = new Uint32Array(bytes.buffer, bytes.byteOffset, WORDS);
    this.#words.fill(0);
    this.#words[CONTROL] = SUPPRESS | (vector << VECTOR_SHIFT);
  }

  /** Requests a vector; whether it had been requested before. */
  request(vector: number): boolean {
    const bit = 1 << (vector & 31);
    const old = this.#words[vector >> 5]!;
    this.#words[vector >> 5] = old | bit;
    return (old & bit) !== 0;
  }

  /** Whether a vector has been requested. */
  requested(vector: number): boolean {
    return (this.#words[vector >> 5]! & (1 << (vector & 31))) !== 0;
  }

  /** Whether nothing has been requested. */
  get empty(): boolean {
    for (let k = 0; k < CONTROL; k++) if (this.#words[k] !== 0) return false;
    return true;
  }

  /** ON: a notification has been sent, or is to be thought of as sent, and nobody has looked since. */
  get outstanding(): boolean {
    return (this.#words[CONTROL]! & OUTSTANDING) !== 0;
  }

  set outstanding(value: boolean) {
    this.#set(OUTSTANDING, value);
  }

  /** SN: requests are noted without a notification. */
  get suppressed(): boolean {
    return (this.#words[CONTROL]! & SUPPRESS) !== 0;
  }

  set suppressed(value: boolean) {
    this.#set(SUPPRESS, value);
  }

  #set(bit: number, value: boolean): void {
    const control = this.#words[CONTROL]!;
    this.#words[CONTROL] = value ? control | bit : control & ~bit;
  }

  /** NV: the vector of notifications. */
  get vector(): number {
    return (this.#words[CONTROL]! & VECTOR) >>> VECTOR_SHIFT;
  }

  set vector(vector: number) {
    this.#words[CONTROL] = (this.#words[CONTROL]! & ~VECTOR) | (vector << VECTOR_SHIFT);
  }

  /** NDST: APIC ID of the host processor that is notified; the host is in x2APIC mode. */
  get destination(): number {
    return this.#words[DESTINATION]!;
  }

  set destination(id: number) {
    this.#words[DESTINATION] = id;
  }

  /** Moves all requests into IRR, and with them ON. */
  collect(registers: RegisterPage): void {
    this.outstanding = false;
    const words = this.#words;
    for (let k = 0; k < CONTROL; k++) {
      const requests = words[k]!;
      if (requests === 0) continue;
      words[k] = 0;
      const offset = LapicRegister.IRR + 0x10 * k;
      registers.set(offset, registers.get(offset) | requests);
    }
  }

  /** Forgets all requests. */
  clear(): void {
    this.#words.fill(0, 0, CONTROL);
    this.outstanding = false;
  }

  /** Gives the memory back. */
  free(): void {
    this.#memory.free(this.hpa);
  }
}
