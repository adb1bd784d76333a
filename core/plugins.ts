/**
 * The plugins of one VM: loading, unloading, and swapping one for another.
 *
 * @module
 */

import { PluginError, RequirementError, SlotError } from "./errors.ts";
import { Scope } from "./context.ts";
import { hostMemorySlot } from "./host_memory.ts";
import type { LeaveReason, Plugin } from "./plugin.ts";
import { dependents, orderPlugins } from "./requirements.ts";
import type { SavedState } from "./state.ts";
import type { Vcpu } from "./vcpu.ts";
import type { Vm } from "./vm.ts";

/** The plugins of a VM, as `vm.plugins`. Use `vm.load`, `vm.unload` and `vm.swap` to change them. */
export class Plugins {
  readonly #vm: Vm;
  readonly #settled: () => void;
  #scopes: Scope[] = [];

  /** The core's own. `settled` is called when a change is final, or has been undone. */
  constructor(vm: Vm, settled: () => void) {
    this.#vm = vm;
    this.#settled = settled;
  }

  /** The plugins in the order in which they were set up. */
  get list(): Plugin[] {
    return this.#scopes.map((scope) => scope.plugin);
  }

  /** The plugin of that name, if it is loaded. */
  get(name: string): Plugin | undefined {
    return this.#scopes.find((scope) => scope.name === name)?.plugin;
  }

  /** Sets plugins up, all or none of them. */
  load(plugins: readonly Plugin[]): void {
    const ordered = orderPlugins(plugins, this.list);
    const before = this.#scopes;
    try {
      for (const plugin of ordered) {
        const position = (this.#scopes.at(-1)?.position ?? -1) + 1;
        const scope = new Scope(this.#vm, plugin, position);
        this.#scopes = [...this.#scopes, scope];
        setUp(scope);
      }
      this.#vm.slots.settle();
    } catch (error) {
      const failed = this.#scopes.slice(before.length).reverse();
      this.#scopes = before;
      for (const scope of failed) scope.detach();
      this.#undo(failed);
      throw error;
    }
    this.#settled();
  }

  /** Takes a plugin out and, with `cascade`, those that need it. */
  unload(name: string, cascade: boolean): void {
    const leaving = new Set([this.#scope(name)]);
    for (const scope of leaving) {
      this.#checkRemovable(scope);
      for (const user of this.#usersOf(scope)) leaving.add(user);
    }
    if (leaving.size > 1 && !cascade) {
      const names = [...leaving].slice(1).map((scope) => scope.name);
      const list = names.map((user) => `"${user}"`).join(", ");
      throw new RequirementError(`plugin "${name}" is needed by ${list}`, [name, ...names]);
    }
    this.#remove([...leaving], "unload");
  }

  /** Takes all plugins out, last one first. */
  close(): void {
    this.#remove(this.#scopes, "close");
  }

  /** Puts `plugin` in the place of the one named `name`. If that fails, everything is as before. */
  swap(name: string, plugin: Plugin): void {
    const old = this.#scope(name);
    this.#checkRemovable(old);
    const others = this.list.filter((other) => other !== old.plugin);
    orderPlugins([...others, plugin]);
    const saved = save(old);
    const before = this.#scopes;
    const fresh = new Scope(this.#vm, plugin, old.position, saved);
    old.detach();
    try {
      setUp(fresh);
      this.#scopes = before.map((scope) => scope === old ? fresh : scope);
      this.#checkUsers(old, fresh);
      this.#vm.slots.settle();
    } catch (error) {
      this.#scopes = before;
      fresh.detach();
      old.attach();
      this.#undo([fresh]);
      throw error;
    }
    this.#settled();
    const error = old.leave("swap");
    if (error !== undefined) throw error;
  }

  /** Makes the plugins' state for a vCPU that was just made. */
  addVcpu(vcpu: Vcpu): void {
    for (const scope of this.#scopes) {
      for (const cell of scope.cells) {
        try {
          cell.addVcpu(vcpu);
        } catch (error) {
          throw PluginError.wrap(scope.name, `state "${cell.name}"`, vcpu.id, error);
        }
      }
    }
  }

  #scope(name: string): Scope {
    const scope = this.#scopes.find((one) => one.name === name);
    if (scope === undefined) throw new RequirementError(`no plugin "${name}" is loaded`, [name]);
    return scope;
  }

  #checkRemovable({ name, plugin }: Scope): void {
    if (this.#vm.hasRam && plugin.provides?.includes(hostMemorySlot)) {
      throw new RequirementError(`plugin "${name}" holds the VM's memory and must stay`, [name]);
    }
  }

  /** Plugins that cannot be without this one: by what they declare, and by the slots they use. */
  #usersOf(scope: Scope): Scope[] {
    const { slots } = this.#vm;
    const names = new Set(dependents(scope.plugin, this.list).map((plugin) => plugin.name));
    for (const slot of scope.plugin.provides ?? []) {
      if (slot.fallback !== undefined) continue;
      for (const user of slots.usersOf(slot)) names.add(user);
    }
    return this.#scopes.filter((other) => other !== scope && names.has(other.name));
  }

  /** After a swap: whoever used a slot of the old plugin must still find it filled. */
  #checkUsers(old: Scope, fresh: Scope): void {
    for (const slot of old.plugin.provides ?? []) {
      if (this.#vm.slots.filled(slot)) continue;
      const users = this.#vm.slots.usersOf(slot).filter((user) => user !== fresh.name);
      if (users.length === 0) continue;
      const list = users.map((user) => `"${user}"`).join(", ");
      throw new RequirementError(
        `plugin "${fresh.name}" does not provide slot "${slot.name}", which ${list} uses`,
        [fresh.name, ...users],
      );
    }
  }

  #remove(leaving: readonly Scope[], reason: LeaveReason): void {
    const order = [...leaving].sort((a, b) => b.position - a.position);
    this.#scopes = this.#scopes.filter((scope) => !leaving.includes(scope));
    for (const scope of order) scope.detach();
    // Whatever throws, all of it is done, and the first error reported.
    const errors: unknown[] = [];
    for (const step of [() => this.#vm.slots.settle(), this.#settled]) {
      try {
        step();
      } catch (error) {
        errors.push(error);
      }
    }
    for (const scope of order) {
      const error = scope.leave(reason);
      if (error !== undefined) errors.push(error);
    }
    if (errors.length > 0) throw errors[0];
  }

  /**
   * After a failure: the first error is the one to report, and what undoing it brings up would only
   * hide that.
   */
  #undo(failed: readonly Scope[]): void {
    for (const step of [() => this.#vm.slots.settle(), this.#settled]) {
      try {
        step();
      } catch { /* The caller throws the first error. */ }
    }
    for (const scope of failed) scope.leave("unload");
  }
}

function setUp(scope: Scope): void {
  const { plugin, vm } = scope;
  try {
    plugin.setup(scope);
  } catch (error) {
    throw PluginError.wrap(plugin.name, "setup", undefined, error);
  }
  for (const slot of plugin.provides ?? []) {
    if (vm.slots.providerOf(slot) === plugin.name) continue;
    throw new SlotError(slot.name, `plugin "${plugin.name}" names it and does not provide it`);
  }
}

function save(scope: Scope): SavedState[] {
  return scope.cells.map((cell) => {
    try {
      return cell.save();
    } catch (error) {
      throw PluginError.wrap(scope.name, `saving state "${cell.name}"`, undefined, error);
    }
  });
}
