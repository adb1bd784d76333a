/**
 * The order in which plugins are set up, from what they require.
 *
 * @module
 */

import { RequirementError, SlotError } from "./errors.ts";
import type { Plugin } from "./plugin.ts";
import type { Slot } from "./slot.ts";

type Requirement = string | Slot<unknown>;

/**
 * Sorts plugins so that each comes after what it requires, and otherwise in the order given.
 *
 * @param fresh The plugins to sort.
 * @param loaded Plugins that are there already.
 * @throws {RequirementError} If two plugins have one name, or a requirement is missing or cyclic.
 * @throws {SlotError} If two plugins provide one slot.
 */
export function orderPlugins(fresh: readonly Plugin[], loaded: readonly Plugin[] = []): Plugin[] {
  const all = [...loaded, ...fresh];
  checkNames(all);
  const providers = providersOf(all);
  const find = (need: Requirement): Plugin | undefined =>
    typeof need === "string" ? all.find(({ name }) => name === need) : providers.get(need);

  const ordered: Plugin[] = [];
  const path: Plugin[] = [];
  const visit = (plugin: Plugin): void => {
    if (ordered.includes(plugin) || loaded.includes(plugin)) return;
    if (path.includes(plugin)) {
      const cycle = [...path.slice(path.indexOf(plugin)), plugin].map(({ name }) => name);
      throw new RequirementError(`plugins require each other: ${cycle.join(" -> ")}`, cycle);
    }
    path.push(plugin);
    for (const need of plugin.requires ?? []) {
      const found = find(need);
      if (found !== undefined) visit(found);
      else if (typeof need === "string" || need.fallback === undefined) throw missing(plugin, need);
    }
    for (const wish of plugin.optional ?? []) {
      const found = find(wish);
      if (found !== undefined) visit(found);
    }
    path.pop();
    ordered.push(plugin);
  };
  for (const plugin of fresh) visit(plugin);
  return ordered;
}

/** The plugins among `all` that cannot be without `plugin`, by what they declare. */
export function dependents(plugin: Plugin, all: readonly Plugin[]): Plugin[] {
  return all.filter((other) =>
    other !== plugin &&
    (other.requires ?? []).some((need) =>
      typeof need === "string"
        ? need === plugin.name
        : need.fallback === undefined && plugin.provides?.includes(need)
    )
  );
}

function checkNames(all: readonly Plugin[]): void {
  const names = new Set<string>();
  for (const { name } of all) {
    if (names.has(name)) throw new RequirementError(`two plugins are named "${name}"`, [name]);
    names.add(name);
  }
}

function providersOf(all: readonly Plugin[]): Map<Slot<unknown>, Plugin> {
  const providers = new Map<Slot<unknown>, Plugin>();
  for (const plugin of all) {
    for (const slot of plugin.provides ?? []) {
      const other = providers.get(slot);
      if (other !== undefined) {
        throw new SlotError(slot.name, `both "${other.name}" and "${plugin.name}" provide it`);
      }
      providers.set(slot, plugin);
    }
  }
  return providers;
}

function missing(plugin: Plugin, need: Requirement): RequirementError {
  const what = typeof need === "string"
    ? `plugin "${need}", which is not loaded`
    : `slot "${need.name}", which no plugin provides`;
  return new RequirementError(`plugin "${plugin.name}" requires ${what}`, [plugin.name]);
}
