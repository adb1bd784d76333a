/**
 * Declared state: what a plugin keeps for a VM or for each of its vCPUs, in a form that can be saved.
 *
 * State that is declared goes along without the plugin's doing: to another plugin in a hot swap, into
 * a snapshot, to another host.
 *
 * @module
 */

import { StateError } from "./errors.ts";
import type { Saved } from "./saved.ts";
import type { Vcpu } from "./vcpu.ts";
import type { Vm } from "./vm.ts";

/** A declaration of state that exists once for each `Target`. */
export interface StateDefinition<T, Target> {
  /** Name of the state within the plugin; a plugin that is swapped in finds it by this name. */
  readonly name: string;
  /** Version of the saved form: a positive integer, raised when the form changes. */
  readonly version: number;
  /** Makes the state anew. */
  init(target: Target): T;
  /** Saves it: plain data that shares nothing with the live state. */
  save(state: T, target: Target): Saved;
  /** Makes it from what {@linkcode StateDefinition.save} of the same version returned. */
  load(saved: Saved, target: Target): T;
  /**
   * Turns what another version saved into what this version would have. Without it, or when it throws,
   * state of other versions is refused.
   */
  migrate?(saved: Saved, version: number): Saved;
}

/** A plugin's state for the VM. */
export interface VmState<T> {
  /** The state. */
  readonly current: T;
}

/** A plugin's state for each vCPU. */
export interface VcpuState<T> {
  /** The state for `vcpu`; an array element, so it may be asked for on every exit. */
  of(vcpu: Vcpu): T;
}

/** State of one declaration, saved. */
export interface SavedState {
  /** Whether there is one value, or one for each vCPU. */
  readonly kind: "vm" | "vcpu";
  /** Name of the declaration. */
  readonly name: string;
  /** Its version. */
  readonly version: number;
  /** The values: a single one, or those of the vCPUs in the order of their indexes. */
  readonly values: readonly Saved[];
}

/** A declaration in force, as the framework sees it. */
export interface StateCell {
  /** Whether there is one value, or one for each vCPU. */
  readonly kind: "vm" | "vcpu";
  /** Name of the declaration. */
  readonly name: string;
  /** Saves all values. */
  save(): SavedState;
  /** Makes the value for a vCPU that was just made; nothing for state of the VM. */
  addVcpu(vcpu: Vcpu): void;
}

class VmCell<T> implements StateCell, VmState<T> {
  readonly kind = "vm";
  readonly name: string;
  readonly current: T;
  readonly #definition: StateDefinition<T, Vm>;
  readonly #vm: Vm;

  constructor(definition: StateDefinition<T, Vm>, vm: Vm, handed: SavedState | undefined) {
    this.name = definition.name;
    this.#definition = definition;
    this.#vm = vm;
    this.current = make(definition, vm, handed, 0);
  }

  save(): SavedState {
    const { name, version } = this.#definition;
    const values = [this.#definition.save(this.current, this.#vm)];
    return { kind: "vm", name, version, values };
  }

  addVcpu(): void {}
}

class VcpuCell<T> implements StateCell, VcpuState<T> {
  readonly kind = "vcpu";
  readonly name: string;
  readonly #definition: StateDefinition<T, Vcpu>;
  readonly #vm: Vm;
  readonly #values: T[] = [];

  constructor(definition: StateDefinition<T, Vcpu>, vm: Vm, handed: SavedState | undefined) {
    this.name = definition.name;
    this.#definition = definition;
    this.#vm = vm;
    for (const vcpu of vm.vcpus) {
      this.#values[vcpu.index] = make(definition, vcpu, handed, vcpu.index);
    }
  }

  of(vcpu: Vcpu): T {
    return this.#values[vcpu.index] as T;
  }

  save(): SavedState {
    const { name, version } = this.#definition;
    const values = this.#vm.vcpus.map((vcpu) => this.#definition.save(this.of(vcpu), vcpu));
    return { kind: "vcpu", name, version, values };
  }

  addVcpu(vcpu: Vcpu): void {
    this.#values[vcpu.index] = this.#definition.init(vcpu);
  }
}

/** Declares state of the VM. `handed` is what another plugin left under this name. */
export function vmCell<T>(
  definition: StateDefinition<T, Vm>,
  vm: Vm,
  handed: SavedState | undefined,
): StateCell & VmState<T> {
  checkVersion(definition.name, definition.version);
  return new VmCell(definition, vm, handed);
}

/** Declares state of each vCPU. `handed` is what another plugin left under this name. */
export function vcpuCell<T>(
  definition: StateDefinition<T, Vcpu>,
  vm: Vm,
  handed: SavedState | undefined,
): StateCell & VcpuState<T> {
  checkVersion(definition.name, definition.version);
  return new VcpuCell(definition, vm, handed);
}

function checkVersion(name: string, version: number): void {
  if (!Number.isSafeInteger(version) || version < 1) {
    throw new StateError(`state "${name}": version ${version} is not a positive integer`);
  }
}

function make<T, Target>(
  definition: StateDefinition<T, Target>,
  target: Target,
  handed: SavedState | undefined,
  index: number,
): T {
  const { name, version } = definition;
  if (handed === undefined) return definition.init(target);
  let saved = handed.values[index] as Saved;
  if (handed.version !== version) {
    if (definition.migrate === undefined) {
      throw new StateError(
        `state "${name}": saved as version ${handed.version}; version ${version} cannot take it over`,
      );
    }
    saved = definition.migrate(saved, handed.version);
  }
  return definition.load(saved, target);
}
