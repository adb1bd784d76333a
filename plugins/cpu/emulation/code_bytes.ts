/**
 * The bytes of a guest's code, as a hypervisor fetches them whose processor does not tell.
 *
 * @module
 */
import type { HostMemory, Vm } from "../../../core/mod.ts";
import { MAX_INSTRUCTION_BYTES } from "../decode/decoder.ts";
import { Cr0, Cr4 } from "../microcode/registers.ts";

/** Where a guest's code is, and how its linear addresses are translated. */
export interface CodePlace {
  /** Bits 31:0 of the linear address. */
  readonly linearLow: number;
  /** Its bits 63:32. */
  readonly linearHigh: number;
  /** EFER.LMA. */
  readonly longMode: boolean;
  /** CR0, bits 31:0. */
  readonly cr0: number;
  /** CR3, bits 31:0. */
  readonly cr3Low: number;
  /** CR3, bits 63:32. */
  readonly cr3High: number;
  /** CR4, bits 31:0. */
  readonly cr4: number;
}

const PAGE = 0x1000;
const TWO_32 = 0x1_0000_0000;
const PRESENT = 1;
const LARGE = 0x80;
/** Bits 51:32 of an address in the upper half of an entry or of CR3. */
const ADDRESS_HIGH = 0xf_ffff;
/** PSE-36: bits 39:32 of the address of a page of 4 MiB are bits 20:13 of its entry. */
const PSE_HIGH = 0x1f_e000;

/** Fetches code. It was executed a moment ago, so permissions are not looked at and nothing is marked. */
export class CodeBytes {
  /** What was fetched. */
  readonly bytes: Uint8Array = new Uint8Array(MAX_INSTRUCTION_BYTES);
  readonly #vm: Vm;
  readonly #memory: HostMemory;

  constructor(vm: Vm, memory: HostMemory) {
    this.#vm = vm;
    this.#memory = memory;
  }

  /**
   * Fetches the bytes at `place` up to the end of the page, at most 15, into {@linkcode CodeBytes.bytes};
   * how many. None where no memory is found, or by PAE paging outside of long mode, whose first entries are
   * the processor's.
   */
  fetch(place: CodePlace): number {
    const gpa = this.#translate(place);
    if (gpa < 0) return 0;
    const hpa = this.#vm.memory.translate(gpa);
    if (hpa === undefined) return 0;
    const count = Math.min(MAX_INSTRUCTION_BYTES, PAGE - gpa % PAGE);
    // Words that are aligned cost least to read.
    const { bytes } = this;
    let at = hpa - gpa % 4;
    let word = this.#memory.readU32(at);
    let shift = gpa % 4 * 8;
    for (let k = 0; k < count; k++) {
      if (shift === 32) {
        word = this.#memory.readU32(at += 4);
        shift = 0;
      }
      bytes[k] = word >>> shift;
      shift += 8;
    }
    return count;
  }

  /** Guest physical address; −1 for none. */
  #translate(place: CodePlace): number {
    if ((place.cr0 & Cr0.PG) === 0) return place.linearLow >>> 0;
    if (place.longMode) return this.#translateLong(place);
    return (place.cr4 & Cr4.PAE) === 0 ? this.#translateNarrow(place) : -1;
  }

  /** Four or five levels of 8-byte entries. */
  #translateLong({ linearLow, linearHigh, cr3Low, cr3High, cr4 }: CodePlace): number {
    let table = (cr3High & ADDRESS_HIGH) * TWO_32 + ((cr3Low & ~0xfff) >>> 0);
    for (let level = (cr4 & Cr4.LA57) !== 0 ? 5 : 4;; level--) {
      const shift = 12 + 9 * (level - 1);
      const index = shift >= 32
        ? linearHigh >>> (shift - 32)
        : (linearLow >>> shift) | (shift > 23 ? linearHigh << (32 - shift) : 0);
      const at = this.#vm.memory.translate(table + (index & 0x1ff) * 8);
      if (at === undefined) return -1;
      const low = this.#memory.readU32(at);
      if ((low & PRESENT) === 0) return -1;
      const high = (this.#memory.readU32(at + 4) & ADDRESS_HIGH) * TWO_32;
      if (level === 1) return high + (((low & ~0xfff) | (linearLow & 0xfff)) >>> 0);
      if ((low & LARGE) === 0) table = high + ((low & ~0xfff) >>> 0);
      else if (level > 3) return -1;
      else {
        const within = (1 << shift) - 1;
        return high + (((low & ~within) | (linearLow & within)) >>> 0);
      }
    }
  }

  /** Two levels of 4-byte entries. */
  #translateNarrow({ linearLow, cr3Low, cr4 }: CodePlace): number {
    const first = this.#entry((cr3Low & ~0xfff) + (linearLow >>> 22) * 4);
    if ((first & PRESENT) === 0) return -1;
    if ((first & LARGE) !== 0 && (cr4 & Cr4.PSE) !== 0) {
      const high = ((first & PSE_HIGH) >>> 13) * TWO_32;
      return high + (((first & ~0x3f_ffff) | (linearLow & 0x3f_ffff)) >>> 0);
    }
    const second = this.#entry((first & ~0xfff) + ((linearLow >>> 12) & 0x3ff) * 4);
    return (second & PRESENT) === 0 ? -1 : ((second & ~0xfff) | (linearLow & 0xfff)) >>> 0;
  }

  /** The 32-bit entry at `gpa`; 0 where there is no memory. */
  #entry(gpa: number): number {
    const hpa = this.#vm.memory.translate(gpa >>> 0);
    return hpa === undefined ? 0 : this.#memory.readU32(hpa);
  }
}
