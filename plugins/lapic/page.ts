/**
 * The register page: 4 KiB of host physical memory that hold the registers where the architecture has
 * them, so that a processor which accelerates interrupts can use the very page.
 *
 * Nothing here keeps a copy of what is in the page: a processor may change IRR, ISR, TPR and PPR at
 * any time.
 *
 * @module
 */

/** Words of the page. */
export const PAGE_WORDS = 1024;

/** The page, as 32-bit words. */
export class RegisterPage {
  /** The words; register `o` is word `o / 4`. */
  readonly words: Uint32Array;

  /** On `words`, 1024 of them. */
  constructor(words: Uint32Array) {
    this.words = words;
  }

  /** Bits 31:0 of the register at `offset`. */
  get(offset: number): number {
    return this.words[offset >> 2]!;
  }

  /** Sets bits 31:0 of the register at `offset`. */
  set(offset: number, value: number): void {
    this.words[offset >> 2] = value;
  }

  /** Bit `vector` of the 256 bits that begin at register `offset`. */
  hasVector(offset: number, vector: number): boolean {
    return (this.words[wordOf(offset, vector)]! & (1 << (vector & 31))) !== 0;
  }

  /** Sets bit `vector`; returns whether it was set before. */
  setVector(offset: number, vector: number): boolean {
    const index = wordOf(offset, vector);
    const old = this.words[index]!;
    const bit = 1 << (vector & 31);
    this.words[index] = old | bit;
    return (old & bit) !== 0;
  }

  /** Clears bit `vector`. */
  clearVector(offset: number, vector: number): void {
    const index = wordOf(offset, vector);
    this.words[index] = this.words[index]! & ~(1 << (vector & 31));
  }

  /** The highest vector whose bit is set, −1 if none is. */
  highest(offset: number): number {
    const { words } = this;
    for (let k = 7; k >= 0; k--) {
      const word = words[(offset >> 2) + 4 * k]!;
      if (word !== 0) return 32 * k + 31 - Math.clz32(word);
    }
    return -1;
  }

  /** As {@linkcode RegisterPage.highest}, of the bits that are set at `mask`, too. */
  highestOf(offset: number, mask: number): number {
    const { words } = this;
    for (let k = 7; k >= 0; k--) {
      const word = words[(offset >> 2) + 4 * k]! & words[(mask >> 2) + 4 * k]!;
      if (word !== 0) return 32 * k + 31 - Math.clz32(word);
    }
    return -1;
  }
}

/** The word with bit `vector` of the 256 bits at `offset`: 32 bits in each 16 bytes. */
function wordOf(offset: number, vector: number): number {
  return (offset >> 2) + ((vector >> 5) << 2);
}
