/**
 * The files of a command line: image, modules, symbols.
 *
 * @module
 */

import type { Image } from "../core/mod.ts";
import { elfSymbols, ImageError } from "../plugins/multiboot/mod.ts";
import { type GuestSymbol, parseSymbolList } from "../plugins/symbols/mod.ts";
import { fileError, usageError } from "./errors.ts";
import type { CliIo } from "./io.ts";
import { makeImage } from "./machine.ts";
import type { Settings } from "./settings.ts";
import { Status } from "./statuses.ts";

/** What the files of a command line hold. */
export interface Input {
  readonly image: Image;
  readonly symbols: readonly GuestSymbol[];
  /** The firmware, if the image is that. */
  readonly firmware: Uint8Array | undefined;
  /** What is on the disks. */
  readonly disks: readonly Uint8Array[];
}

/**
 * Reads the files.
 *
 * @throws {CliError} If one cannot be read, or holds not what it should.
 * @throws {ImageError} If the image is broken.
 */
export async function readInput(settings: Settings, io: CliIo): Promise<Input> {
  const read = (what: string, path: string) =>
    io.readFile(path).catch((error) => {
      throw fileError(Status.INPUT, what, path, error);
    });
  const bytes = await read("image", settings.image);
  const modules = [];
  for (const path of settings.modules) {
    modules.push({ bytes: await read("module", path), text: path });
  }
  if (settings.initrd !== undefined) {
    const text = settings.initrd;
    modules.push({ bytes: await read("--initrd", text), text });
  }
  const { format, entry, loadAddress } = settings;
  const image = makeImage(bytes, { format, entry, address: loadAddress }, {
    name: settings.image,
    modules,
    ...(settings.append === undefined ? {} : { commandLine: settings.append }),
  });
  const symbols = format === "flat" || format === "firmware"
    ? []
    : imageSymbols(settings.image, bytes, io);
  for (const path of settings.symbols) {
    const found = readSymbols(await read("--symbols", path), path);
    if (found.length === 0) throw usageError(`--symbols ${path}: it holds no symbols`);
    symbols.push(...found);
  }
  const disks = [];
  for (const path of settings.disks) disks.push(await read("--disk", path));
  if (disks.length > 0 && settings.machine !== "pc") {
    throw usageError("--disk is for --machine pc, which has a PCI bus");
  }
  const firmware = format === "firmware" ? bytes : undefined;
  return { image, symbols, firmware, disks };
}

/** The image's own symbols. A broken table is said, but is no reason not to run. */
function imageSymbols(path: string, bytes: Uint8Array, io: CliIo): GuestSymbol[] {
  try {
    return elfSymbols(bytes, path);
  } catch (error) {
    if (!(error instanceof ImageError)) throw error;
    io.stderr(`trapline: no symbols: ${error.message}\n`);
    return [];
  }
}

function readSymbols(bytes: Uint8Array, path: string): GuestSymbol[] {
  const symbols = elfSymbols(bytes, path);
  return symbols.length > 0 ? symbols : parseSymbolList(new TextDecoder().decode(bytes));
}
