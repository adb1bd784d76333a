/**
 * Loads bare-metal kernels and tests, and Linux: multiboot 1 and 2 images, plain ELF executables, bzImages
 * and, by their magic, whatever {@linkcode loadImage} is given formats for.
 *
 * {@linkcode multiboot} takes what GRUB and `qemu -kernel` take, and hands over in the state that QEMU
 * does. {@linkcode elf} takes executables without a multiboot header. {@linkcode loadImage} finds out
 * what a file is. {@linkcode bzImage} takes Linux kernels and enters them without firmware,
 * {@linkcode pvh} executables with an entry point for Xen's PVH mode. All of them check everything before they write anything, and say what is wrong with a
 * file by field and offset.
 *
 * {@linkcode elfSymbols} reads an executable's symbol table, for those who want to name addresses.
 *
 * Limits: no video modes, no symbols for the guest, no APM or VBE tables, no drives and no boot device are reported.
 * Compressed images are not unpacked.
 *
 * @example A kernel with arguments and an initial file system
 * ```ts ignore
 * import { createVm } from "@trapline/trapline/core";
 * import { multiboot } from "@trapline/trapline/multiboot";
 *
 * const image = multiboot(await Deno.readFile("kernel.elf"), {
 *   name: "kernel.elf",
 *   commandLine: "console=ttyS0",
 *   modules: [{ bytes: await Deno.readFile("initrd"), text: "initrd" }],
 * });
 * using vm = await createVm({ memory: 128 * 2 ** 20, plugins, images: [image] });
 * ```
 *
 * @module
 */

export { ImageError, type ImageLoader, type ImageModule, type ImageOptions } from "../flat/mod.ts";
export { bzImage, bzImageLoader, type BzImageOptions } from "./bzimage.ts";
export {
  elfLoader,
  LOADERS,
  loadImage,
  type LoadImageOptions,
  multibootLoader,
  UnknownFormatError,
} from "./load.ts";
export { type ElfSymbol, elfSymbols } from "./elf_symbols.ts";
export { multiboot2, multiboot2Loader } from "./multiboot2.ts";
export { pvh, pvhLoader } from "./pvh.ts";
export { elf, multiboot } from "./multiboot.ts";
