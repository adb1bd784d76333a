/**
 * Calls that have not returned, as far as the stack shows them.
 *
 * @module
 */

import type { GuestView } from "./guest_view.ts";

/** A word of the stack that looks like a return address: there is a CALL right before where it points. */
export interface ReturnAddress {
  /** Linear address of the word. */
  readonly slot: bigint;
  /** The word: where the call returns to. */
  readonly address: bigint;
  /** Linear address of the CALL instruction. */
  readonly call: bigint;
  /** What it calls; `undefined` for an indirect call. */
  readonly target: bigint | undefined;
}

/** Words looked at. */
const SCANNED = 512;
/** Return addresses kept. */
const KEPT = 16;
/** The longest indirect CALL without prefixes: opcode, ModRM, SIB, 32 bits of displacement. */
const LONGEST = 7;
const DIRECT_BYTES = 5;

/**
 * Words from the top of the stack on that look like return addresses, innermost first. What an earlier
 * call left behind looks no different. Empty in code of 16 bits.
 */
export function returnAddresses(view: GuestView): ReturnAddress[] {
  const { width, rsp } = view;
  const found: ReturnAddress[] = [];
  if (width === 2) return found;
  for (let k = 0; k < SCANNED && found.length < KEPT; k++) {
    const slot = BigInt.asUintN(64, rsp + BigInt(k * width));
    const address = view.read(slot, width);
    if (address === undefined) break;
    const linear = view.linear(view.system.cs, address);
    const call = callBefore(view, linear);
    if (call !== undefined) found.push({ slot, address, ...call });
  }
  return found;
}

/** The CALL that ends right before a linear address. */
function callBefore(
  view: GuestView,
  linear: bigint,
): Pick<ReturnAddress, "call" | "target"> | undefined {
  if (linear < BigInt(LONGEST)) return undefined;
  const bytes = view.bytes(linear - BigInt(LONGEST), LONGEST);
  const at = (length: number, k: number): number => bytes[LONGEST - length + k] ?? -1;
  if (at(DIRECT_BYTES, 0) === 0xe8) {
    const distance = view.read(linear - 4n, 4);
    if (distance !== undefined) {
      const target = linear + BigInt.asIntN(32, distance);
      return {
        call: linear - BigInt(DIRECT_BYTES),
        target: BigInt.asUintN(view.width * 8, target),
      };
    }
  }
  for (let length = 2; length <= LONGEST; length++) {
    if (at(length, 0) !== 0xff) continue;
    const modrm = at(length, 1);
    if (modrm < 0 || ((modrm >> 3) & 7) !== 2) continue;
    if (length === indirectBytes(modrm, at(length, 2))) {
      return { call: linear - BigInt(length), target: undefined };
    }
  }
  return undefined;
}

/** Length of FF /2 with this ModRM byte and, if it has one, SIB byte (SDM vol. 2, tables 2-2 and 2-3). */
function indirectBytes(modrm: number, sib: number): number {
  const mod = modrm >> 6;
  const rm = modrm & 7;
  if (mod === 3) return 2;
  const hasSib = rm === 4;
  const displacement = mod === 1
    ? 1
    : mod === 2 || (mod === 0 && (rm === 5 || (hasSib && (sib & 7) === 5)))
    ? 4
    : 0;
  return 2 + (hasSib ? 1 : 0) + displacement;
}
