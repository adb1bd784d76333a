/**
 * Interrupt remapping table entries of 128 bits (Intel Virtualization Technology for Directed I/O, 9.9 and
 * 9.10).
 *
 * @module
 */

/** Bytes of an entry. */
export const IRTE_BYTES = 16;

/** Fields of the first word, bits 31:0, and of the third, bits 95:64. */
export const Irte = {
  /** P: the entry is in use. */
  PRESENT: 0x1,
  /** In posted format: URG, notify even if notifications are suppressed. */
  URGENT: 0x4000,
  /** IM: posted format; otherwise the interrupt is remapped to the host. */
  POSTED: 0x8000,
  /** The vector, 23:16. */
  VECTOR_SHIFT: 16,
  /** In remapped format: what a fixed, edge-triggered, physical interrupt has clear (DM, RH, TM, DLM). */
  OTHERS: 0xfc,
  /** Third word: SID, the requester that may use the entry. */
  SID: 0xffff,
  /** Third word: SVT 1, SID is verified, all of it (SQ is 0). */
  VERIFY: 0x4_0000,
  /** Third word: SVT and SQ, 19:16. */
  VERIFICATION: 0xf_0000,
} as const;

/** What goes into an entry in posted format. */
export interface PostedEntry {
  /** Device that may use it: bus, device and function. */
  readonly deviceId: number;
  /** Host physical address of the posted-interrupt descriptor, a multiple of 64. */
  readonly descriptor: number;
  /** Virtual vector. */
  readonly vector: number;
  /** Whether notifications are sent though they are suppressed; `false` if not given. */
  readonly urgent?: boolean;
}

/** What goes into an entry in remapped format: a fixed interrupt for the host. */
export interface RemappedEntry {
  /** Device that may use it. */
  readonly deviceId: number;
  /** Host APIC ID, 32 bits: the host is in x2APIC mode. */
  readonly destination: number;
  /** Vector. */
  readonly vector: number;
}

const TWO_32 = 0x1_0000_0000;

/** The four words of an entry in posted format. */
export function postedEntry(entry: PostedEntry): [number, number, number, number] {
  const { deviceId, descriptor, vector, urgent = false } = entry;
  const flags = Irte.PRESENT | Irte.POSTED | (urgent ? Irte.URGENT : 0);
  return [
    (flags | (vector << Irte.VECTOR_SHIFT)) >>> 0,
    // 63:38 are bits 31:6 of the address, 127:96 are bits 63:32.
    descriptor % TWO_32,
    Irte.VERIFY | deviceId,
    Math.floor(descriptor / TWO_32),
  ];
}

/** The four words of an entry in remapped format. */
export function remappedEntry(entry: RemappedEntry): [number, number, number, number] {
  const { deviceId, destination, vector } = entry;
  return [
    (Irte.PRESENT | (vector << Irte.VECTOR_SHIFT)) >>> 0,
    destination >>> 0,
    Irte.VERIFY | deviceId,
    0,
  ];
}
