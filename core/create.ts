/**
 * Making a VM.
 *
 * @module
 */

import { ArgumentError, SlotError } from "./errors.ts";
import { hostMemorySlot } from "./host_memory.ts";
import type { Image } from "./image.ts";
import { type MemoryRange, pcMemoryLayout } from "./memory_layout.ts";
import type { Plugin } from "./plugin.ts";
import { vendorSlot } from "./vendor.ts";
import { Vm } from "./vm.ts";

/** What a VM is made of. */
export interface VmOptions {
  /** For listings; `"vm"` if not given. */
  readonly name?: string;
  /**
   * RAM: bytes, laid out as on a PC (see `pcMemoryLayout`), or ranges of guest physical addresses.
   * Ranges that plugins claim for devices or memory of their own are left out.
   */
  readonly memory: number | readonly MemoryRange[];
  /** How many vCPUs, with ids from 0 on, or the ids; 1 if not given. */
  readonly cpus?: number | readonly number[];
  /** Host processors to place vCPUs on; as many as vCPUs if not given. */
  readonly processors?: number;
  /** The plugins, in any order that their requirements allow. */
  readonly plugins: readonly Plugin[];
  /** What to load before the guest starts. */
  readonly images?: readonly Image[];
}

/** {@linkcode VmOptions}, some of it still to come. */
export interface AsyncVmOptions extends Omit<VmOptions, "plugins" | "images"> {
  /** As in {@linkcode VmOptions}; factories may be asynchronous. */
  readonly plugins: readonly (Plugin | Promise<Plugin>)[];
  /** As in {@linkcode VmOptions}; images may still be on their way. */
  readonly images?: readonly (Image | Promise<Image>)[];
}

/**
 * Makes a VM, waiting for plugins and images that are on their way.
 *
 * @throws {ArgumentError} If an option is out of range.
 * @throws {RequirementError} If the plugins' requirements cannot be met.
 * @throws {SlotError} If no plugin is a vendor or has host memory, or a slot has two providers.
 * @throws {PluginError} If a plugin throws.
 */
export async function createVm(options: AsyncVmOptions): Promise<Vm> {
  const [plugins, images] = await Promise.all([
    Promise.all(options.plugins),
    Promise.all(options.images ?? []),
  ]);
  return createVmSync({ ...options, plugins, images });
}

/** As {@linkcode createVm}, at once. Throws the same errors. */
export function createVmSync(options: VmOptions): Vm {
  const ids = typeof options.cpus === "object"
    ? options.cpus
    : Array.from({ length: count("cpus", options.cpus ?? 1) }, (_, id) => id);
  if (ids.length === 0) throw new ArgumentError("a VM needs at least one vCPU");
  const processors = count("processors", options.processors ?? ids.length);
  const ranges = typeof options.memory === "number"
    ? pcMemoryLayout(options.memory)
    : options.memory;

  const vm = new Vm(options.name ?? "vm", processors);
  try {
    vm.load(...options.plugins);
    for (const slot of [hostMemorySlot, vendorSlot]) {
      if (!vm.slots.filled(slot)) throw new SlotError(slot.name, "no plugin provides it");
    }
    vm.addRam(ranges);
    for (const id of ids) vm.addVcpu(id);
    vm.loadImages(options.images ?? []);
    return vm;
  } catch (error) {
    try {
      vm.close();
    } catch { /* The first error is the one to report. */ }
    throw error;
  }
}

function count(name: string, value: number): number {
  if (!Number.isInteger(value) || value < 1 || value > 4096) {
    throw new ArgumentError(`${name}: ${value} is not an integer from 1 to 4096`);
  }
  return value;
}
