/**
 * The unit: the interrupt remapping table, and posting into descriptors.
 *
 * @module
 */
import { ArgumentError, type HostMemory } from "../../core/mod.ts";
import { Irte, IRTE_BYTES } from "./irte.ts";

/** Parts of a posted-interrupt descriptor (5.2.3): PIR, then control bits, then the destination. */
const CONTROL = 32;
const DESTINATION = 36;
const OUTSTANDING = 0x1;
const SUPPRESS = 0x2;
const NOTIFICATION_SHIFT = 16;

const TWO_32 = 0x1_0000_0000;
/** Bits of the first half of a descriptor's address in an entry. */
const ADDRESS_LOW = 0xffff_ffc0;

/** Where the unit's interrupts go. */
export interface VtdHost {
  /** A remapped interrupt, for the host processor with that APIC ID. */
  interrupt(deviceId: number, handle: number, destination: number, vector: number): void;
  /** A notification of posted interrupts, for the host processor with that APIC ID. */
  notify(destination: number, vector: number): void;
}

/** One unit. Everything it knows of interrupts it reads from memory. */
export class Vtd {
  readonly #memory: HostMemory;
  readonly #host: VtdHost;
  #table = 0;
  #entries = 0;

  /** Made by the plugin. */
  constructor(memory: HostMemory, host: VtdHost) {
    this.#memory = memory;
    this.#host = host;
  }

  /**
   * Says where the interrupt remapping table is: the register IRTA.
   *
   * @param hpa Host physical address, `undefined` for none.
   * @param entries Number of entries, a power of two from 2 to 65536.
   * @throws {ArgumentError} If the number is out of range.
   */
  setTable(hpa: number | undefined, entries = 0): void {
    if (hpa === undefined) {
      this.#entries = 0;
      return;
    }
    const power = Number.isInteger(entries) && entries >= 2 && entries <= 65536 &&
      (entries & (entries - 1)) === 0;
    if (!power) throw new ArgumentError(`an interrupt remapping table of ${entries} entries`);
    this.#table = hpa;
    this.#entries = entries;
  }

  /** Host physical address of the table, `undefined` if there is none. */
  get table(): number | undefined {
    return this.#entries === 0 ? undefined : this.#table;
  }

  /**
   * A device sends an interrupt request in remappable format with a handle (5.1.3). Atomic, as all of it
   * is here (5.2.5).
   *
   * @returns Whether there is an entry for it that the device may use; otherwise it is dropped.
   */
  signal(deviceId: number, handle: number): boolean {
    if (handle < 0 || handle >= this.#entries) return false;
    const memory = this.#memory;
    const at = this.#table + IRTE_BYTES * handle;
    const first = memory.readU32(at);
    if ((first & Irte.PRESENT) === 0) return false;
    const verification = memory.readU32(at + 8);
    const verified = (verification & Irte.VERIFICATION) === 0 ||
      ((verification & Irte.VERIFICATION) === Irte.VERIFY &&
        (verification & Irte.SID) === deviceId);
    if (!verified) return false;
    const vector = (first >>> Irte.VECTOR_SHIFT) & 0xff;
    const second = memory.readU32(at + 4);
    if ((first & Irte.POSTED) === 0) {
      if ((first & Irte.OTHERS) !== 0) return false;
      this.#host.interrupt(deviceId, handle, second, vector);
      return true;
    }
    const high = memory.readU32(at + 12);
    this.#post(high * TWO_32 + ((second & ADDRESS_LOW) >>> 0), vector, (first & Irte.URGENT) !== 0);
    return true;
  }

  /** Posts a vector, and notifies if nobody has yet and it is wanted, or urgent. */
  #post(descriptor: number, vector: number, urgent: boolean): void {
    const memory = this.#memory;
    const word = descriptor + 4 * (vector >> 5);
    memory.writeU32(word, (memory.readU32(word) | (1 << (vector & 31))) >>> 0);
    const control = memory.readU32(descriptor + CONTROL);
    if ((control & OUTSTANDING) !== 0 || ((control & SUPPRESS) !== 0 && !urgent)) return;
    memory.writeU32(descriptor + CONTROL, (control | OUTSTANDING) >>> 0);
    const notification = (control >>> NOTIFICATION_SHIFT) & 0xff;
    this.#host.notify(memory.readU32(descriptor + DESTINATION), notification);
  }
}
