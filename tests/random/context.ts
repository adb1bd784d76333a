/**
 * Where a section of a random program runs: mode, privilege, and the segments that go with them.
 *
 * @module
 */
import type { Width } from "./assembler.ts";
import { At, Sel } from "./machine.ts";

/** What a section's code finds. */
export interface Context {
  readonly name: string;
  readonly width: Width;
  readonly ring: 0 | 3;
  /** Selector with RPL, or real mode's. */
  readonly cs: number;
  readonly codeBase: number;
  readonly ss: number;
  readonly stack: number;
  /** Data segments to choose from: selector and base. */
  readonly data: readonly (readonly [selector: number, base: number])[];
  /** Selectors are those of real mode. */
  readonly paragraphs: boolean;
  /** In virtual-8086 mode. */
  readonly virtual: boolean;
}

function context(
  name: string,
  width: Width,
  ring: 0 | 3,
  code: number,
  over: Partial<Context> = {},
): Context {
  return {
    name,
    width,
    ring,
    cs: code | ring,
    codeBase: width === 16 ? At.CODE : 0,
    ss: ring === 0 ? Sel.DATA : Sel.USER_DATA | 3,
    stack: ring === 0 ? At.KERNEL_STACK : At.USER_STACK,
    data: [
      [ring === 0 ? Sel.DATA : Sel.USER_DATA | 3, 0],
      ...(width === 64
        ? []
        : [[ring === 0 ? Sel.DATA16 : Sel.USER_DATA16 | 3, At.DATA] as [number, number]]),
    ],
    paragraphs: false,
    virtual: false,
    ...over,
  };
}

const PARAGRAPHS: Partial<Context> = {
  cs: At.CODE >> 4,
  ss: 0,
  data: [[At.DATA >> 4, At.DATA]],
  paragraphs: true,
};

export const KERNEL64: Context = context("64-bit, ring 0", 64, 0, Sel.CODE64);
export const KERNEL32: Context = context("32-bit, ring 0", 32, 0, Sel.CODE32);
export const KERNEL16: Context = context("16-bit, ring 0", 16, 0, Sel.CODE16, {
  ss: Sel.STACK16,
});
export const USER64: Context = context("64-bit, ring 3", 64, 3, Sel.USER_CODE64);
export const USER32: Context = context("32-bit, ring 3", 32, 3, Sel.USER_CODE32);
export const USER16: Context = context("16-bit, ring 3", 16, 3, Sel.USER_CODE16, {
  ss: Sel.USER_STACK16 | 3,
});
export const VIRTUAL: Context = context("virtual-8086", 16, 3, 0, { ...PARAGRAPHS, virtual: true });
/** Real mode, which 16-bit code of ring 0 goes to and comes back from. */
export const REAL: Context = context("real", 16, 0, 0, { ...PARAGRAPHS });

/** What sections of a program in long mode, and of one without it, run in. */
export const CONTEXTS: Readonly<Record<"long" | "legacy", readonly Context[]>> = {
  long: [KERNEL64, KERNEL64, USER64, USER64, KERNEL32, USER32, KERNEL16, USER16],
  legacy: [KERNEL32, KERNEL32, USER32, USER32, KERNEL16, USER16, VIRTUAL, REAL],
};
