/**
 * The files of a command line: image, modules, symbols.
 *
 * @module
 */

import type { Image } from "../core/mod.ts";
import type { FwCfgOptions } from "../plugins/fwcfg/mod.ts";
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
  /** What the firmware configuration device tells. */
  readonly fwCfg: FwCfgOptions;
}

/**
 * Where SeaBIOS finds the port of the serial console that takes the place of a display (its
 * `docs/Runtime_config`), and that of COM1, 16 bits, the least significant byte first.
 */
const SERIAL_CONSOLE = "etc/sercon-port";
const COM1: Uint8Array = Uint8Array.of(0xf8, 0x03);

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
  const { format, entry, loadAddress, initrd } = settings;
  const ramdisk = initrd === undefined ? undefined : await read("--initrd", initrd);
  const kernel = settings.kernel === undefined
    ? undefined
    : await read("--kernel", settings.kernel);
  if (kernel !== undefined && format !== "firmware") {
    throw usageError("--kernel is for --format firmware; without it the kernel is the image");
  }
  if (ramdisk !== undefined && kernel === undefined) {
    modules.push({ bytes: ramdisk, text: initrd ?? "" });
  }
  const image = makeImage(bytes, { format, entry, address: loadAddress }, {
    name: settings.image,
    modules,
    ...(settings.append === undefined || kernel !== undefined
      ? {}
      : { commandLine: settings.append }),
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
  const files = new Map<string, Uint8Array>();
  if (format === "firmware") files.set(SERIAL_CONSOLE, COM1);
  for (const [name, path] of settings.firmwareFiles) files.set(name, await read("--fw-cfg", path));
  const fwCfg: FwCfgOptions = {
    files,
    ...(kernel === undefined ? {} : {
      kernel: {
        image: kernel,
        commandLine: settings.append ?? "",
        ...(ramdisk === undefined ? {} : { initrd: ramdisk }),
      },
    }),
  };
  return {
    image,
    symbols,
    firmware: format === "firmware" ? bytes : undefined,
    disks,
    fwCfg,
  };
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
