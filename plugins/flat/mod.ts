/**
 * Flat binaries as images, and what loaders of all formats are made of.
 *
 * {@linkcode flat} puts bytes at an address and enters them in real mode, in 32-bit protected mode or
 * in 64-bit mode: what `objcopy -O binary` and assemblers write, and boot sectors.
 *
 * For loaders of other formats there are {@linkcode ImageReader}, which reads fields and says which of
 * them a broken file lacks; {@linkcode LoadPlan}, which finds out that everything fits before anything
 * is written; and functions that set a vCPU up in each mode. {@linkcode ImageLoader} is how such a
 * format is offered to those who do not know what a file is.
 *
 * Limits: there is no firmware beneath a boot sector, so that it must do without BIOS calls. An image
 * is entered on the first vCPU; others are left as they are after RESET.
 *
 * @example A guest of three instructions: `mov al, 1; out F4h, al; hlt`
 * ```ts
 * import { flat } from "@trapline/trapline/flat";
 *
 * const code = new Uint8Array([0xb0, 0x01, 0xe6, 0xf4, 0xf4]);
 * const image = flat(code, { address: 0x10_0000, entry: { mode: "long64" } });
 * console.assert(image.name === "flat");
 * ```
 *
 * @module
 */

export * from "./entry.ts";
export * from "./error.ts";
export * from "./flat.ts";
export * from "./loader.ts";
export * from "./memory_map.ts";
export * from "./plan.ts";
export * from "./vectors.ts";
