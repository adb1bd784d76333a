/**
 * The firmware configuration device: by two ports a guest asks what machine it runs on.
 *
 * A 16-bit write to port 510h selects an item; each byte read from 511h is the item's next one, and 0
 * behind its end and in items that do not exist. It is the traditional interface of QEMU's `fw_cfg`, by
 * which its firmware, and kvm-unit-tests, learn the number of processors and the size of RAM.
 *
 * @example The number of processors, as a guest reads it
 * ```ts
 * import { scriptedVm } from "@trapline/trapline/core/testing";
 * import { FwCfgItem, fwCfg } from "@trapline/trapline/fwcfg";
 *
 * using machine = scriptedVm({ plugins: [fwCfg()] });
 * machine.vm.pio.write(0x510, 2, FwCfgItem.NB_CPUS);
 * console.assert(machine.vm.pio.read(0x511, 1) === 1);
 * ```
 *
 * Limits: no DMA interface and no writable items.
 *
 * @module
 */

import { ArgumentError, type Plugin, resetHook, type Vm } from "../../core/mod.ts";
import { type FwCfgKernel, kernelItems } from "./kernel.ts";

export { type FwCfgKernel, KernelItem } from "./kernel.ts";

/** Items that every machine has, by their keys (QEMU, `docs/specs/fw_cfg.rst` and `standard-headers`). */
export const FwCfgItem = {
  /** The characters `QEMU`. */
  SIGNATURE: 0x0000,
  /** 32 bits of features: bit 0 the traditional interface, bit 1 DMA. */
  ID: 0x0001,
  /** Bytes of RAM, 64 bits. */
  RAM_SIZE: 0x0003,
  /** Number of processors, 16 bits. */
  NB_CPUS: 0x0005,
  /** Number of processors there can be, 16 bits. */
  MAX_CPUS: 0x000f,
  /** Number of files, 32 bits, the most significant byte first, and their descriptions. */
  FILE_DIR: 0x0019,
} as const;

/** Options of {@linkcode fwCfg}. */
export interface FwCfgOptions {
  /** Further items, or others instead of {@linkcode FwCfgItem}, by key (0 to FFFFh). */
  readonly items?: ReadonlyMap<number, Uint8Array>;
  /** Files by name, of at most 55 bytes; their keys count from 20h on in the order of their names. */
  readonly files?: ReadonlyMap<string, Uint8Array>;
  /** A kernel for firmware to start. */
  readonly kernel?: FwCfgKernel;
}

/** The first key of files, and how many keys there are for them. */
const FIRST_FILE = 0x20;
const MOST_FILES = 0x3fe0;
/** Bytes of a file's description, and of the name in it with the zero at its end. */
const DESCRIPTION = 64;
const NAME_AT = 8;
const NAME_MOST: number = DESCRIPTION - NAME_AT - 1;

/** The features: the traditional interface, and no DMA. */
const FEATURES = 1;

/** What has been selected, and how much of it has been read. */
interface Position {
  key: number;
  offset: number;
}

/**
 * The firmware configuration device as a plugin.
 *
 * @throws {ArgumentError} If an item's key is not an integer from 0 to FFFFh, or a file's name is too long
 * or empty, or not ASCII, or there are too many files, or the kernel is no bzImage. A guest that asks for a
 * kernel whose RAM disk does not fit into memory is stopped by such an error as well.
 */
export function fwCfg(options: FwCfgOptions = {}): Plugin {
  for (const key of options.items?.keys() ?? []) {
    if (Number.isInteger(key) && key >= 0 && key <= 0xffff) continue;
    throw new ArgumentError(`fw_cfg: key ${key} is not an integer from 0 to FFFFh`);
  }
  const files = fileItems(options.files ?? new Map());
  const ofKernel = options.kernel === undefined ? undefined : kernelItems(options.kernel);
  return {
    name: "fwcfg",
    version: "1.0.0",
    description: "Tells a guest about its machine through ports 510h and 511h",
    setup(ctx) {
      const { vm } = ctx;
      const state = ctx.vmState<Position>({
        name: "position",
        version: 1,
        init: () => ({ key: 0, offset: 0 }),
        save: ({ key, offset }) => ({ key, offset }),
        load: (saved) => ({ ...saved as unknown as Position }),
      });
      const position = state.current;
      // Made when the first item is read: only then the machine has all its memory.
      let items: ReadonlyMap<number, Uint8Array> | undefined;
      const select = (key: number): void => {
        position.key = key;
        position.offset = 0;
      };
      ctx.on(resetHook, () => select(0));
      ctx.registerPio({
        name: "fw_cfg",
        base: 0x510,
        length: 2,
        width: 2,
        read(offset, size) {
          // Only the data port can be read.
          if (size !== 1 || offset !== 1) return 0xffff;
          items ??= new Map([...files, ...ofKernel?.(vm) ?? [], ...options.items ?? []]);
          const item = items.get(position.key) ?? standardItem(vm, position.key);
          return item[position.offset++] ?? 0;
        },
        write(offset, size, value) {
          if (size === 2 && offset === 0) select(value);
        },
      });
    },
  };
}

/** The files' directory and the files themselves, by key (QEMU, `docs/specs/fw_cfg.rst`). */
function fileItems(files: ReadonlyMap<string, Uint8Array>): ReadonlyMap<number, Uint8Array> {
  if (files.size > MOST_FILES) {
    throw new ArgumentError(`fw_cfg: ${files.size} files, of at most ${MOST_FILES}`);
  }
  const sorted = [...files].sort(([a], [b]) => a < b ? -1 : 1);
  const directory = new Uint8Array(4 + DESCRIPTION * sorted.length);
  const view = new DataView(directory.buffer);
  view.setUint32(0, sorted.length);
  const items = new Map<number, Uint8Array>([[FwCfgItem.FILE_DIR, directory]]);
  for (const [k, [name, bytes]] of sorted.entries()) {
    if (!/^[ -~]+$/.test(name) || name.length > NAME_MOST) {
      throw new ArgumentError(
        `fw_cfg: "${name}" is not a name of 1 to ${NAME_MOST} ASCII characters`,
      );
    }
    const at = 4 + DESCRIPTION * k;
    view.setUint32(at, bytes.length);
    view.setUint16(at + 4, FIRST_FILE + k);
    directory.set(new TextEncoder().encode(name), at + NAME_AT);
    items.set(FIRST_FILE + k, bytes);
  }
  return items;
}

/** The item `key` of a machine; empty if there is no such item. */
function standardItem(vm: Vm, key: number): Uint8Array {
  switch (key) {
    case FwCfgItem.SIGNATURE:
      return new TextEncoder().encode("QEMU");
    case FwCfgItem.ID:
      return littleEndian(FEATURES, 4);
    case FwCfgItem.RAM_SIZE: {
      const ram = vm.memory.slots.filter((slot) => !slot.readonly);
      return littleEndian(ram.reduce((sum, { size }) => sum + size, 0), 8);
    }
    case FwCfgItem.NB_CPUS:
    case FwCfgItem.MAX_CPUS:
      return littleEndian(vm.vcpus.length, 2);
    default:
      return new Uint8Array();
  }
}

function littleEndian(value: number, bytes: number): Uint8Array {
  return Uint8Array.from({ length: bytes }, (_, i) => Math.floor(value / 2 ** (8 * i)) & 0xff);
}
