/**
 * The unit: interrupt remapping tables, delivery to guests' APIC pages, and the log.
 *
 * @module
 */
import { ArgumentError, type HostMemory } from "../../core/mod.ts";
import { destinationOf, Irte, IRTE_BYTES } from "./irte.ts";

/** Offset of IRR in an APIC page. */
const IRR = 0x200;

/** Bytes of an entry of the log. */
export const GA_LOG_BYTES = 8;
/** Type in bits 63:60 of a log entry: an interrupt for a guest that does not run. */
export const GA_LOG_GUEST_NOT_RUNNING = 1;

const TWO_32 = 0x1_0000_0000;

/** What hears of it when the unit wants something of a processor. */
export interface IommuHost {
  /** An interrupt in remapped mode: for the host processor with that APIC ID. */
  interrupt(deviceId: number, index: number, destination: number, vector: number): void;
  /** Rings the doorbell of a host processor, by its APIC ID. */
  doorbell(apicId: number): void;
  /** Entries are in the log. */
  logged(): void;
}

interface Table {
  readonly hpa: number;
  readonly entries: number;
}

/** One IOMMU. Everything it knows of interrupts it reads from memory. */
export class Iommu {
  readonly #memory: HostMemory;
  readonly #host: IommuHost;
  readonly #tables: Map<number, Table> = new Map();
  #log: Table | undefined;
  #tail = 0;
  /** Index of the log entry that software reads next; software writes it. */
  logHead = 0;
  /** The log was full: nothing more is logged until software clears this. */
  logOverflow = false;

  /** Made by the plugin. */
  constructor(memory: HostMemory, host: IommuHost) {
    this.#memory = memory;
    this.#host = host;
  }

  /**
   * Gives a device its interrupt remapping table, or takes it away.
   *
   * @param deviceId Bus, device and function: 16 bits.
   * @param hpa Host physical address, `undefined` for none.
   * @param entries Number of entries, 1 to 2048.
   * @throws {ArgumentError} If a number is out of range.
   */
  setTable(deviceId: number, hpa: number | undefined, entries = 0): void {
    if (hpa === undefined) {
      this.#tables.delete(deviceId);
      return;
    }
    if (!Number.isInteger(entries) || entries < 1 || entries > 2048) {
      throw new ArgumentError(`an interrupt remapping table of ${entries} entries`);
    }
    this.#tables.set(deviceId, { hpa, entries });
  }

  /** Host physical address of a device's table, `undefined` if it has none. */
  tableOf(deviceId: number): number | undefined {
    return this.#tables.get(deviceId)?.hpa;
  }

  /**
   * Says where the log is: a ring of `entries` entries of 8 bytes, empty now.
   *
   * @throws {ArgumentError} If it has fewer than two entries.
   */
  setLog(hpa: number, entries: number): void {
    if (!Number.isInteger(entries) || entries < 2) {
      throw new ArgumentError(`a log of ${entries} entries`);
    }
    this.#log = { hpa, entries };
    this.#tail = this.logHead = 0;
    this.logOverflow = false;
  }

  /** Index of the log entry that is written next. */
  get logTail(): number {
    return this.#tail;
  }

  /**
   * A device sends the interrupt with an index, bits 10:0 of its message's data.
   *
   * @returns Whether there is an entry for it; otherwise it is dropped.
   */
  signal(deviceId: number, index: number): boolean {
    const table = this.#tables.get(deviceId);
    if (table === undefined || index >= table.entries) return false;
    const memory = this.#memory;
    const at = table.hpa + IRTE_BYTES * index;
    const first = memory.readU32(at);
    if ((first & Irte.VALID) === 0) return false;
    const third = memory.readU32(at + 8);
    const last = memory.readU32(at + 12);
    const vector = third & 0xff;
    const destination = destinationOf(first, last);
    if ((first & Irte.GUEST_MODE) === 0) {
      this.#host.interrupt(deviceId, index, destination, vector);
      return true;
    }
    const page = (last & 0xf_ffff) * TWO_32 + ((third & ~0xfff) >>> 0);
    const register = page + IRR + 16 * (vector >> 5);
    memory.writeU32(register, memory.readU32(register) | (1 << (vector & 31)));
    if ((first & Irte.IS_RUN) !== 0) this.#host.doorbell(destination);
    else if ((first & Irte.GA_LOG_INTR) !== 0) this.#record(deviceId, memory.readU32(at + 4));
    return true;
  }

  #record(deviceId: number, tag: number): void {
    const log = this.#log;
    if (log === undefined || this.logOverflow) return;
    const next = (this.#tail + 1) % log.entries;
    if (next === this.logHead) {
      this.logOverflow = true;
    } else {
      const at = log.hpa + GA_LOG_BYTES * this.#tail;
      this.#memory.writeU32(at, tag);
      this.#memory.writeU32(at + 4, deviceId | (GA_LOG_GUEST_NOT_RUNNING << 28));
      this.#tail = next;
    }
    this.#host.logged();
  }
}
