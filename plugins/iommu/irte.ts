/**
 * Interrupt remapping table entries of 128 bits (AMD I/O Virtualization Technology Specification,
 * "Interrupt Virtualization Tables with Guest Virtual APIC").
 *
 * @module
 */

/** Bytes of an entry. */
export const IRTE_BYTES = 16;

/** Fields of the first word, bits 31:0. */
export const Irte = {
  /** RemapEn: the entry is in use. */
  VALID: 0x1,
  /** In guest mode: log the interrupt if the target does not run. */
  GA_LOG_INTR: 0x4,
  /** In remapped mode: message type, three bits from here on. */
  TYPE_SHIFT: 2,
  /** In guest mode: the target runs on the processor that the destination names. */
  IS_RUN: 0x40,
  /** In remapped mode: the destination is logical. */
  LOGICAL: 0x40,
  /** Guest mode: the interrupt goes to a guest's APIC page; otherwise it is remapped to the host. */
  GUEST_MODE: 0x80,
  /** Destination bits 23:0. */
  DESTINATION_SHIFT: 8,
} as const;

/** What goes into an entry in guest mode. */
export interface GuestEntry {
  /** Host physical address of the target's APIC page. */
  readonly page: number;
  /** Vector. */
  readonly vector: number;
  /** What the log tells of it, 32 bits. */
  readonly tag: number;
  /** Host APIC ID of the processor that the target runs on, −1 if it does not run. */
  readonly destination: number;
  /** Whether an interrupt for one that does not run is logged. */
  readonly logged: boolean;
}

/** What goes into an entry in remapped mode: a fixed interrupt for the host. */
export interface RemappedEntry {
  /** Host APIC ID, 32 bits. */
  readonly destination: number;
  /** Vector. */
  readonly vector: number;
}

const TWO_32 = 0x1_0000_0000;

/** The four words of an entry in guest mode. */
export function guestEntry(entry: GuestEntry): [number, number, number, number] {
  const { page, vector, tag, destination, logged } = entry;
  const runs = destination >= 0;
  const target = runs ? destination : 0;
  const flags = Irte.VALID | Irte.GUEST_MODE | (runs ? Irte.IS_RUN : 0) |
    (logged && !runs ? Irte.GA_LOG_INTR : 0);
  return [
    (flags | (target << Irte.DESTINATION_SHIFT)) >>> 0,
    tag >>> 0,
    ((page % TWO_32) | vector) >>> 0,
    (Math.floor(page / TWO_32) | (target & 0xff00_0000)) >>> 0,
  ];
}

/** The four words of an entry in remapped mode. */
export function remappedEntry(entry: RemappedEntry): [number, number, number, number] {
  const { destination, vector } = entry;
  return [
    (Irte.VALID | (destination << Irte.DESTINATION_SHIFT)) >>> 0,
    0,
    vector,
    (destination & 0xff00_0000) >>> 0,
  ];
}

/** Destination of an entry, from its first and last word. */
export function destinationOf(first: number, last: number): number {
  return ((first >>> Irte.DESTINATION_SHIFT) | (last & 0xff00_0000)) >>> 0;
}
