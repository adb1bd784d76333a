/**
 * A VM with the test doubles in place.
 *
 * @module
 */

import {
  createVmSync,
  type Image,
  type MemoryRange,
  type Plugin,
  type Vcpu,
  type Vm,
} from "../mod.ts";
import { flatMemory } from "./flat_memory.ts";
import { ScriptedVendor, scriptedVendor, type ScriptedVendorOptions } from "./scripted_vendor.ts";

/** Options of {@linkcode scriptedVm}. */
export interface ScriptedVmOptions extends ScriptedVendorOptions {
  /** Further plugins. */
  readonly plugins?: readonly Plugin[];
  /** As for `createVm`; one MiB if not given. */
  readonly memory?: number | readonly MemoryRange[];
  /** As for `createVm`. */
  readonly cpus?: number | readonly number[];
  /** As for `createVm`. */
  readonly processors?: number;
  /** As for `createVm`. */
  readonly images?: readonly Image[];
}

/** A VM whose guest is a script. Closing it is left to `using`. */
export interface ScriptedVm extends Disposable {
  /** The VM. */
  readonly vm: Vm;
  /** Its first vCPU. */
  readonly vcpu: Vcpu;
  /** Its vendor. */
  readonly vendor: ScriptedVendor;
}

/** Makes a VM of {@linkcode FlatMemory}, a {@linkcode ScriptedVendor} and the plugins given. */
export function scriptedVm(options: ScriptedVmOptions = {}): ScriptedVm {
  const { plugins = [], memory = 2 ** 20, cpus = 1, images = [] } = options;
  const vendor = new ScriptedVendor(options);
  const vm = createVmSync({
    memory,
    cpus,
    images,
    plugins: [flatMemory(), scriptedVendor(vendor), ...plugins],
    ...(options.processors === undefined ? {} : { processors: options.processors }),
  });
  const vcpu = vm.vcpus[0] as Vcpu;
  return { vm, vcpu, vendor, [Symbol.dispose]: () => vm.close() };
}
