/**
 * What a format of images is to those who are handed a file and do not know its format.
 *
 * @module
 */

import { ArgumentError, type Image } from "../../core/mod.ts";
import { flat } from "./flat.ts";

/** A file that is handed to the guest along with the image: an initial file system, a configuration. */
export interface ImageModule {
  /** What it holds. */
  readonly bytes: Uint8Array;
  /** Text that the guest is given with it, by custom its name and arguments; empty if not given. */
  readonly text?: string;
}

/** What is to be loaded besides the file itself. */
export interface ImageOptions {
  /**
   * Name of the image, for messages, and as the first word of a command line: the file's name or path
   * is good, because guests that look for a program's name there tell it by a dot or slash.
   */
  readonly name?: string;
  /** Arguments for the guest. */
  readonly commandLine?: string;
  /** Files for the guest. */
  readonly modules?: readonly ImageModule[];
}

/** A format of images. */
export interface ImageLoader {
  /** Name of the format. */
  readonly name: string;
  /** Loaders whose public parts it is made of, as a plugin names the plugins that it needs. */
  readonly requires?: readonly string[];
  /** Whether a file is of this format, by its magic. That it is sound is found out by loading it. */
  recognizes(bytes: Uint8Array): boolean;
  /**
   * Makes an image of a file of this format.
   *
   * Throws `ImageError` if it is broken, and `ArgumentError` for options that the format cannot carry.
   */
  load(bytes: Uint8Array, options: ImageOptions): Image;
}

const SECTOR = 512;

/**
 * Boot sectors: flat binaries of whole sectors of 512 bytes, the first of which ends in 55h AAh. All of
 * them are put at 7C00h and entered in real mode, as {@linkcode flat} does it.
 */
export const bootSectorLoader: ImageLoader = {
  name: "boot sector",
  recognizes: (bytes) =>
    bytes.length > 0 && bytes.length % SECTOR === 0 && bytes[510] === 0x55 && bytes[511] === 0xaa,
  load(bytes, { name, commandLine, modules }) {
    if (commandLine !== undefined || (modules?.length ?? 0) > 0) {
      throw new ArgumentError(
        `image "${name ?? "flat"}": a boot sector takes neither command line nor modules`,
      );
    }
    return flat(bytes, name === undefined ? {} : { name });
  },
};
