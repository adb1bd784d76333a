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
 * Limits: no DMA interface, no writable items, and no files: the directory is empty.
 *
 * @module
 */

import { ArgumentError, type Plugin, resetHook, type Vm } from "../../core/mod.ts";

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
}

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
 * @throws {ArgumentError} If an item's key is not an integer from 0 to FFFFh.
 */
export function fwCfg(options: FwCfgOptions = {}): Plugin {
  const { items = new Map<number, Uint8Array>() } = options;
  for (const key of items.keys()) {
    if (Number.isInteger(key) && key >= 0 && key <= 0xffff) continue;
    throw new ArgumentError(`fw_cfg: key ${key} is not an integer from 0 to FFFFh`);
  }
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
    case FwCfgItem.FILE_DIR:
      return littleEndian(0, 4);
    default:
      return new Uint8Array();
  }
}

function littleEndian(value: number, bytes: number): Uint8Array {
  return Uint8Array.from({ length: bytes }, (_, i) => Math.floor(value / 2 ** (8 * i)) & 0xff);
}
