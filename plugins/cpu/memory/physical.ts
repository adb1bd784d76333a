/**
 * Physical addresses: where in the WebAssembly memory a byte of physical memory stands.
 *
 * A chunk map has one word for each 2 MiB of the 64 GiB that can hold memory. A word is
 * {@linkcode ChunkEntry.NONE}, or the address of the chunk, or that of a table with one word per page,
 * or says that the chunk gets its backing when it is first touched. What is no memory is a device's.
 *
 * @module
 */
import { S } from "../state/cpu_state.ts";
import { CHUNK_SHIFT, CODE_BITS, PHYSICAL_SHIFT } from "../state/layout.ts";
import type { FunctionBuilder, I32 } from "../wasm/mod.ts";
import { I64T } from "../wasm/mod.ts";
import type { Microcode } from "../microcode/microcode.ts";

/** Flags of a chunk-map word; a word without any is no memory. */
export const ChunkEntry = {
  /** No memory. */
  NONE: 0,
  /** Memory: bits 31:21 are its address. */
  BACKED: 1,
  /** Mixed: bits 31:11 are the address of 512 page words. */
  PAGES: 2,
  /** Memory without backing yet. */
  LAZY: 4,
} as const;

/** Flag of a page word whose bits 31:12 are the page's address. */
export const PAGE_BACKED = 1;
/**
 * Flag of such a word: processors can read the page; a write is a device's. What a page walk marks in
 * tables there is written all the same.
 */
export const PAGE_READ_ONLY = 2;

/** Address of the byte of code bits for the 32-byte piece that `address` is in. */
function codeByte(f: FunctionBuilder, address: I32): I32 {
  return f.load8(address.shrU(12).shl(4).add(address.shrU(8).and(15)), CODE_BITS);
}

/** 1 if the 32 bytes around memory address `address` hold decoded code. */
export function holdsCode(f: FunctionBuilder, address: I32): I32 {
  return codeByte(f, address).shrU(address.shrU(5).and(7)).and(1);
}

/** 1 if the page around memory address `address` holds any decoded code. */
export function pageHoldsCode(f: FunctionBuilder, address: I32): I32 {
  const bits = address.shrU(12).shl(4);
  return f.load64(bits, CODE_BITS).or(f.load64(bits, CODE_BITS + 8)).ne(0);
}

/** Gives the physical-memory functions their bodies. */
export function definePhysical(mc: Microcode): void {
  const { module } = mc;

  module.body(mc.physical, (f, pa) => {
    f.if(pa.shrU(PHYSICAL_SHIFT).ne(0), () => f.return(0), undefined, "unlikely");
    const chunk = pa.shrU(CHUNK_SHIFT).wrap();
    const low = pa.wrap();
    const word = f.load32(S.physicalMap.get(f).add(chunk.shl(2)));
    f.if(
      word.and(ChunkEntry.BACKED).ne(0),
      () => {
        const mask = (1 << CHUNK_SHIFT) - 1;
        f.return(word.and(~mask).or(low.and(mask)));
      },
      undefined,
      "likely",
    );
    f.if(word.and(ChunkEntry.PAGES).ne(0), () => {
      const page = f.load32(word.and(~7).add(low.shrU(12).and(0x1ff).shl(2)));
      f.if(page.and(PAGE_BACKED).ne(0), () => {
        f.return(page.and(~0xfff).or(low.and(0xfff)));
      });
      f.return(0);
    });
    f.if(word.and(ChunkEntry.LAZY).ne(0), () => {
      const address = f.call(mc.allocateChunk, chunk);
      f.return(address.add(low.and((1 << CHUNK_SHIFT) - 1)));
    });
    f.return(0);
  });

  module.body(mc.physicalForWrite, (f, pa) => {
    f.if(pa.shrU(PHYSICAL_SHIFT).ne(0), () => f.return(0), undefined, "unlikely");
    const word = f.load32(S.physicalMap.get(f).add(pa.shrU(CHUNK_SHIFT).wrap().shl(2)));
    f.if(
      word.and(ChunkEntry.PAGES).ne(0),
      () => {
        const page = f.load32(word.and(~7).add(pa.wrap().shrU(12).and(0x1ff).shl(2)));
        f.if(page.and(PAGE_READ_ONLY).ne(0), () => f.return(0));
      },
      undefined,
      "unlikely",
    );
    f.return(f.call(mc.physical, pa));
  });

  module.body(mc.readPhysical, (f, pa) => {
    const address = f.call(mc.physical, pa);
    f.return(f.choose(I64T, address.ne(0), () => f.load64(address), () => -1));
  });
}
