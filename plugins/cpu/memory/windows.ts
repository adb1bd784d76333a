/**
 * Windows: runs of pages that stand in memory side by side as their linear addresses do.
 *
 * Most of what a loop touches lies in one such run: a large page, a kernel's direct map, all of memory while
 * paging is off. An address in a window needs no look into the TLB, but a subtraction and a comparison, and
 * compiled code asks here first. There is one window each for reading, for writing, and for the stack.
 *
 * A window holds nothing but pages that the TLB had for that kind of access at the present privilege when
 * the window was made; what takes an entry out of the TLB for any other reason than want of room drops all
 * windows of its context. So windows are never right about less than a TLB with more room would be. They are
 * kept for each context and each privilege while another one is in force. Accesses that miss are counted, and
 * every now and then the dispatcher moves a window that misses often to where it was missed last. Nothing of
 * that can be seen by a guest.
 *
 * @module
 */
import type { Microcode } from "../microcode/microcode.ts";
import { S } from "../state/cpu_state.ts";
import { WINDOWS } from "../state/layout.ts";
import { Context, MMU_INDICES, WINDOWS_BYTES, WRITE_OFFSET } from "../state/tlb_layout.ts";
import { type FunctionBuilder, type I32, i32, I32T, type I64, I64T } from "../wasm/mod.ts";
import { tlbSlot } from "./slots.ts";

/** What windows are for: their numbers. */
export const WindowUse = {
  /** Reading. */
  READ: 0,
  /** Writing. */
  WRITE: 1,
  /** Reading and writing the stack. */
  STACK: 2,
} as const;
/** One of {@linkcode WindowUse}. */
export type WindowUse = typeof WindowUse[keyof typeof WindowUse];

const USES: readonly WindowUse[] = [WindowUse.READ, WindowUse.WRITE, WindowUse.STACK];

/** Offsets in a window's record. */
const Window = {
  /** u64: linear address of its first byte. */
  START: 0,
  /** u64: at how many bytes an access may begin: all but the last 127; 0 if there is no window. */
  LENGTH: 8,
  /** u32: what is added to a linear address (its low half) to get where it stands in memory. */
  DELTA: 16,
  /** u32: LENGTH for accesses that know no linear address from 2^32 on; 0 if any of it lies there. */
  LOW_LENGTH: 20,
  /** u32: accesses outside since the last look. */
  MISSES: 24,
  /** u64: linear address of the last of them. */
  MISSED: 32,
  BYTES: 40,
} as const;

/** Most bytes that are looked up in a window at once: an access, or several that lie beside each other. */
export const WIDEST = 128;

/** Most pages that a window reaches to each side of where it was missed. */
const REACH = 512;

/** A window is moved if one in so many (a power of two) instructions missed it. */
const MISSES_SHIFT = 8;

const recordOf = (use: WindowUse): number => WINDOWS + use * Window.BYTES;

/** An address in a window: a condition, and the memory address if it holds. */
export interface WindowProbe {
  /** 1 if an access of up to {@linkcode WIDEST} bytes lies in the window. */
  readonly hit: I32;
  /** Memory address, evaluated where it is used. */
  readonly address: () => I32;
  /** Notes that it does not. */
  readonly miss: () => void;
}

/** Looks `linear` up in the window for `use`. Code that is not `long` has linear addresses of 32 bits. */
export function probeWindow(
  f: FunctionBuilder,
  use: WindowUse,
  linear: I64,
  long: boolean,
): WindowProbe {
  const at = recordOf(use);
  const low = linear.wrap();
  return {
    hit: long
      ? linear.sub(f.load64(0, at + Window.START)).ltU(f.load64(0, at + Window.LENGTH))
      : low.sub(f.load32(0, at + Window.START)).ltU(f.load32(0, at + Window.LOW_LENGTH)),
    // One addition from where a pointer was loaded: the offset in the window would make it two.
    address: () => low.add(f.load32(0, at + Window.DELTA)),
    miss: () => {
      f.store32(0, f.load32(0, at + Window.MISSES).add(1), at + Window.MISSES);
      f.store64(0, linear, at + Window.MISSED);
    },
  };
}

/** Where the windows in force are kept while others are: memory address, 0 for nowhere. */
const HOME = WINDOWS + USES.length * Window.BYTES;

/** What of a window is kept. */
const KEPT = [Window.START, Window.LENGTH, Window.DELTA] as const;

const keptAt = (use: WindowUse, k: number): number => (use * KEPT.length + k) * 8;

/** Puts windows in force that were kept at `home` (0 for none), and keeps those that were. */
export function exchangeWindows(f: FunctionBuilder, home: I32): void {
  const each = (copy: (place: number, kept: number) => void): void => {
    for (const use of USES) {
      for (const [k, field] of KEPT.entries()) copy(recordOf(use) + field, keptAt(use, k));
    }
  };
  const before = f.load32(0, HOME);
  f.if(before, () => each((place, kept) => f.store64(before, f.load64(0, place), kept)));
  f.store32(0, home, HOME);
  f.if(
    home,
    () => each((place, kept) => f.store64(0, f.load64(home, kept), place)),
    () => dropPresent(f),
  );
}

function dropPresent(f: FunctionBuilder): void {
  for (const use of USES) {
    f.store64(0, 0, recordOf(use) + Window.LENGTH);
    f.store64(0, 0, recordOf(use) + Window.DELTA);
  }
}

/** Drops the windows in force, and all that are kept for `context`. */
export function dropWindows(f: FunctionBuilder, context: I32): void {
  dropPresent(f);
  for (let index = 0; index < MMU_INDICES; index++) {
    for (const use of USES) {
      const kept = Context.WINDOWS + index * WINDOWS_BYTES;
      f.store64(context, 0, kept + keptAt(use, KEPT.indexOf(Window.LENGTH)));
      f.store64(context, 0, kept + keptAt(use, KEPT.indexOf(Window.DELTA)));
    }
  }
}

/** Drops the windows in force, from outside; nothing is kept of them. */
export function clearWindows(bytes: Uint8Array): void {
  bytes.fill(0, WINDOWS, HOME + 4);
}

/** Drops the windows that are kept for the TLB context at `context`, from outside. */
export function clearKeptWindows(bytes: Uint8Array, context: number): void {
  const at = context + Context.WINDOWS;
  bytes.fill(0, at, at + MMU_INDICES * WINDOWS_BYTES);
}

/** Gives the function that moves windows its body. */
export function defineWindows(mc: Microcode): void {
  const { module } = mc;

  /** Puts `use`'s window around where it was missed, as far as the TLB's entries go on. */
  const move = (f: FunctionBuilder, use: WindowUse): void => {
    const at = recordOf(use);
    const offset = use === WindowUse.READ ? 0 : WRITE_OFFSET;
    const page = f.load64(0, at + Window.MISSED).and(~0xfff);
    const entryOf = (linear: I64): I32 => S.tlbRead.get(f).add(tlbSlot(linear.wrap()));
    const entry = entryOf(page);
    f.if(f.load64(entry, offset).eq(page), () => {
      const delta = f.load32(entry, offset + 8);
      const start = f.variable(I64T, page);
      const end = f.variable(I64T, page.add(0x1000));
      const reach = (next: () => I64, take: () => void): void => {
        const left = f.variable(I32T, REACH);
        f.loop((again) => {
          const linear = next();
          const neighbour = entryOf(linear);
          const same = f.load64(neighbour, offset).eq(linear)
            .and(f.load32(neighbour, offset + 8).eq(delta));
          f.if(same.and(left.get().ne(0)), () => {
            take();
            left.set(left.get().sub(1));
            f.branch(again);
          });
        });
      };
      reach(() => start.get().sub(0x1000), () => start.set(start.get().sub(0x1000)));
      reach(() => end.get(), () => end.set(end.get().add(0x1000)));
      f.store64(0, start.get(), at + Window.START);
      f.store32(0, delta, at + Window.DELTA);
      const length = end.get().sub(start.get()).sub(WIDEST - 1);
      f.store64(0, length, at + Window.LENGTH);
      const low = end.get().sub(1).shrU(32).eqz();
      f.store32(0, low.select(length.wrap(), i32(0)), at + Window.LOW_LENGTH);
    });
  };

  module.body(mc.moveWindows, (f, instructions) => {
    for (const use of USES) {
      const at = recordOf(use);
      const often = f.load32(0, at + Window.MISSES).gtU(instructions.shrU(MISSES_SHIFT));
      f.store32(0, 0, at + Window.MISSES);
      f.if(often, () => move(f, use));
    }
  });
}
