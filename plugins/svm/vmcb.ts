/**
 * A VMCB as the hypervisor sees it: architectural bytes in host physical memory.
 *
 * @module
 */
import type { HostMemory } from "../../core/mod.ts";
import { Clean, Control as ImportedControl, type SegmentState, VMCB_BYTES } from "../cpu/mod.ts";

// V8 folds constants of the module itself into compiled code, and loads and checks imported ones at each use.
const Control = ImportedControl;

/** Clean bits of everything this hypervisor uses: all but last-branch records. */
export const CLEAN_ALL: number = Clean.INTERCEPTS | Clean.PERMISSION_MAPS | Clean.ASID |
  Clean.INTERRUPTS | Clean.NESTED | Clean.CONTROL_REGISTERS | Clean.DEBUG_REGISTERS |
  Clean.TABLES | Clean.SEGMENTS | Clean.CR2 | Clean.AVIC | Clean.CET;

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
    this.words[Control.CLEAN_BITS >> 2] = CLEAN_ALL;
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
