/**
 * Names for the guest's addresses, for everybody who shows addresses: `profile` and `postmortem` say
 * `handle_irq+1fh` where they know it.
 *
 * Symbols come from an ELF file's symbol table (`elfSymbols` of the `multiboot` module) or from a list
 * like `System.map` ({@linkcode parseSymbolList}).
 *
 * @example A kernel with its symbols
 * ```ts ignore
 * import { createVm } from "@trapline/trapline/core";
 * import { elfSymbols, loadImage } from "@trapline/trapline/multiboot";
 * import { symbols } from "@trapline/trapline/symbols";
 *
 * const kernel = await Deno.readFile("kernel.elf");
 * using vm = await createVm({
 *   memory: 64 * 2 ** 20,
 *   plugins: [...machine, symbols(elfSymbols(kernel))],
 *   images: [loadImage(kernel)],
 * });
 * ```
 *
 * Limits: one set of names for all vCPUs and address spaces; nothing is known of code that moves itself.
 *
 * @module
 */

import { defineSlot, type Plugin, type Slot } from "../../core/mod.ts";
import { type GuestSymbol, type Symbolizer, SymbolTable } from "./table.ts";

export { parseSymbolList } from "./list.ts";
export {
  type GuestSymbol,
  placeText,
  type Symbolizer,
  type SymbolPlace,
  SymbolTable,
} from "./table.ts";

/** Who knows the names of the guest's addresses. */
export const symbolsSlot: Slot<Symbolizer> = defineSlot("symbols");

/** Gives the addresses of a guest names. */
export function symbols(list: Iterable<GuestSymbol>): Plugin {
  const table = new SymbolTable(list);
  return {
    name: "symbols",
    version: "1.0.0",
    description: "Names for the guest's addresses",
    provides: [symbolsSlot],
    setup: (ctx) => ctx.provide(symbolsSlot, table),
  };
}
