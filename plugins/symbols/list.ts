/**
 * Lists of symbols as text: what `nm` prints, and a kernel's `System.map`.
 *
 * @module
 */

import type { GuestSymbol } from "./table.ts";

const LINE = /^([0-9a-f]+)(?: ([0-9a-f]+))? ([a-z?-]) (\S+)/i;

/** Letters of what has no address of its own: undefined, absolute, debugging. */
const NO_ADDRESS = new Set(["U", "A", "N", "-", "?"]);

/**
 * Reads a list of symbols, one in a line: address, with `nm -S` the size, a letter, the name. Lines of
 * another form are passed over, and so are symbols that name no place (undefined and absolute ones;
 * a weak one that is not defined has no address and is of another form).
 *
 * @returns The symbols in the order of the lines; empty if the text is no such list.
 */
export function parseSymbolList(text: string): GuestSymbol[] {
  const found: GuestSymbol[] = [];
  for (const line of text.split("\n")) {
    const [, address, size = "0", letter, name] = LINE.exec(line) ?? [];
    if (address === undefined || letter === undefined || name === undefined) continue;
    if (NO_ADDRESS.has(letter.toUpperCase())) continue;
    found.push({ name, address: BigInt(`0x${address}`), size: BigInt(`0x${size}`) });
  }
  return found;
}
