/**
 * A VMCB as the hypervisor sees it: architectural bytes in host physical memory.
 *
 * @module
 */
import type { HostMemory } from "../../core/mod.ts";
import { Control, type SegmentState, VMCB_BYTES } from "../cpu/mod.ts";

/** Groups of fields that a clean bit covers (APM vol. 2, 15.15.3). */
export const Clean = {
  /** Intercepts, TSC offset, PAUSE filter. */
  INTERCEPTS: 0x1,
  /** IOPM and MSRPM addresses. */
  PERMISSION_MAPS: 0x2,
  /** ASID. */
  ASID: 0x4,
  /** V_TPR, V_IRQ and the rest of 060h. */
  INTERRUPTS: 0x8,
  /** Nested paging: N_CR3, G_PAT. */
  NESTED: 0x10,
  /** CR0, CR3, CR4, EFER. */
  CONTROL_REGISTERS: 0x20,
  /** DR6, DR7. */
  DEBUG_REGISTERS: 0x40,
  /** GDTR, IDTR. */
  TABLES: 0x80,
  /** CS, DS, SS, ES, CPL. */
  SEGMENTS: 0x100,
  /** CR2. */
  CR2: 0x200,
  /** AVIC: APIC_BAR, backing page, logical and physical table. */
  AVIC: 0x800,
  /** Everything this hypervisor uses. */
  ALL: 0xbff,
} as const;

/** One VMCB. 64-bit fields are read and written as halves where an exit needs them. */
export class Vmcb {
  /** Host physical address. */
  readonly hpa: number;
  /** Its bytes. */
  readonly bytes: Uint8Array;
  /** Its 32-bit words. */
  readonly words: Uint32Array;
  readonly #quads: BigUint64Array;

  /** The VMCB at `hpa`, 4 KiB aligned. */
  constructor(memory: HostMemory, hpa: number) {
    this.hpa = hpa;
    this.bytes = memory.view(hpa, VMCB_BYTES);
    const { buffer, byteOffset } = this.bytes;
    this.words = new Uint32Array(buffer, byteOffset, VMCB_BYTES / 4);
    this.#quads = new BigUint64Array(buffer, byteOffset, VMCB_BYTES / 8);
  }

  /** 32 bits at `offset`. */
  get32(offset: number): number {
    return this.words[offset >> 2]!;
  }

  /** Writes 32 bits. */
  set32(offset: number, value: number): void {
    this.words[offset >> 2] = value;
  }

  /** 64 bits at `offset`. */
  get64(offset: number): bigint {
    return this.#quads[offset >> 3]!;
  }

  /** Writes 64 bits. */
  set64(offset: number, value: bigint): void {
    this.#quads[offset >> 3] = value;
  }

  /** A host physical address: a number below 2^52. */
  setAddress(offset: number, value: number): void {
    this.set32(offset, value % 0x1_0000_0000);
    this.set32(offset + 4, Math.floor(value / 0x1_0000_0000));
  }

  /** Says that fields of these groups have changed since the last VMRUN. */
  dirty(groups: number): void {
    this.words[Control.CLEAN_BITS >> 2]! &= ~groups;
  }

  /** Says that nothing has changed. */
  markClean(): void {
    this.words[Control.CLEAN_BITS >> 2] = Clean.ALL;
  }

  /** A segment of the save area. */
  segment(offset: number): SegmentState {
    const first = this.get32(offset);
    return {
      selector: first & 0xffff,
      attributes: (first >>> 16) & 0xfff,
      limit: this.get32(offset + 4),
      base: this.get64(offset + 8),
    };
  }

  /** Writes a segment of the save area. */
  setSegment(offset: number, { selector, attributes, limit, base }: SegmentState): void {
    this.set32(offset, (selector & 0xffff) | (attributes << 16));
    this.set32(offset + 4, limit);
    this.set64(offset + 8, base);
  }
}
