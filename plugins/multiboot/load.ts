/**
 * Loading a file whose format is not known beforehand.
 *
 * @module
 */

import type { Image } from "../../core/mod.ts";
import { bootSectorLoader, ImageError, type ImageLoader, type ImageOptions } from "../flat/mod.ts";
import { bzImageLoader } from "./bzimage.ts";
import { isElf } from "./elf.ts";
import { findHeader } from "./header.ts";
import { multiboot2Loader } from "./multiboot2.ts";
import { pvhLoader } from "./pvh.ts";
import { elf, multiboot } from "./multiboot.ts";

/** A file that no format recognizes. */
export class UnknownFormatError extends ImageError {}

/** Multiboot 1 images. An ELF file with a broken multiboot header is one, too, and says so. */
export const multibootLoader: ImageLoader = {
  name: "multiboot",
  requires: ["flat"],
  recognizes(bytes) {
    const header = findHeader(bytes);
    return header !== undefined && (header.sound || isElf(bytes));
  },
  load: multiboot,
};

/** ELF executables without a multiboot header. */
export const elfLoader: ImageLoader = {
  name: "ELF",
  requires: ["flat"],
  recognizes: isElf,
  load: elf,
};

/** The formats that {@linkcode loadImage} knows by itself, in the order in which they are tried. */
export const LOADERS: readonly ImageLoader[] = [
  bzImageLoader,
  multibootLoader,
  multiboot2Loader,
  pvhLoader,
  elfLoader,
  bootSectorLoader,
];

/** Options of {@linkcode loadImage}. */
export interface LoadImageOptions extends ImageOptions {
  /** The formats to try, in order; {@linkcode LOADERS} if not given. */
  readonly loaders?: readonly ImageLoader[];
}

/**
 * Makes an image of a file, by the first format that recognizes it.
 *
 * A flat binary has nothing to recognize it by unless it is a boot sector: use `flat` for it.
 *
 * @throws {UnknownFormatError} If no format recognizes it.
 * @throws {ImageError} If it is broken.
 * @throws {ArgumentError} If its format cannot carry a command line or modules that were given.
 */
export function loadImage(bytes: Uint8Array, options: LoadImageOptions = {}): Image {
  const { loaders = LOADERS, ...rest } = options;
  const loader = loaders.find((candidate) => candidate.recognizes(bytes));
  if (loader === undefined) {
    const names = loaders.map(({ name }) => name).join(", ");
    const message = `its ${bytes.length} bytes are of none of the formats known: ${names}`;
    throw new UnknownFormatError(options.name ?? "image", "the file", undefined, message);
  }
  return loader.load(bytes, rest);
}
