/**
 * The order of a hook's handlers.
 *
 * @module
 */

import { HookOrderError } from "./errors.ts";
import type { Handler, HookOrder } from "./hook.ts";

/** One registered handler. */
export interface HookEntry {
  /** Name of the plugin that registered it. */
  readonly plugin: string;
  /** The plugin's place in the VM's list of plugins. */
  readonly position: number;
  /** Counts registrations; orders the handlers of one plugin. */
  readonly sequence: number;
  /** The handler. */
  readonly handler: Handler;
  /** Where it wants to stand. */
  readonly order: HookOrder;
}

const STAGES = ["pre", "normal", "post"] as const;

/**
 * Sorts handlers: by stage, then by `before` and `after`, then by the plugins' order in the VM and by
 * the order of registration. The result depends on nothing else.
 *
 * @throws {HookOrderError} If `before` and `after` contradict each other within a stage.
 */
export function orderEntries(hook: string, entries: readonly HookEntry[]): HookEntry[] {
  const ordered: HookEntry[] = [];
  for (const stage of STAGES) {
    const members = entries
      .filter((entry) => (entry.order.stage ?? "normal") === stage)
      .sort((a, b) => a.position - b.position || a.sequence - b.sequence);
    orderStage(hook, members, ordered);
  }
  return ordered;
}

function orderStage(hook: string, members: HookEntry[], out: HookEntry[]): void {
  const earlier = new Map<HookEntry, Set<HookEntry>>();
  for (const entry of members) earlier.set(entry, new Set());
  for (const entry of members) {
    for (const other of members) {
      if (entry.order.before?.includes(other.plugin)) earlier.get(other)?.add(entry);
      if (entry.order.after?.includes(other.plugin)) earlier.get(entry)?.add(other);
    }
  }
  let waiting = members;
  while (waiting.length > 0) {
    const next = waiting.find((entry) => earlier.get(entry)?.size === 0);
    if (next === undefined) throw new HookOrderError(hook, findCycle(waiting, earlier));
    out.push(next);
    waiting = waiting.filter((entry) => entry !== next);
    for (const entry of waiting) earlier.get(entry)?.delete(next);
  }
}

/** Every entry still waiting has one that must come earlier, so walking back must repeat one. */
function findCycle(
  waiting: readonly HookEntry[],
  earlier: ReadonlyMap<HookEntry, ReadonlySet<HookEntry>>,
): string[] {
  const path: HookEntry[] = [];
  let entry = waiting[0];
  while (entry !== undefined && !path.includes(entry)) {
    path.unshift(entry);
    entry = earlier.get(entry)?.values().next().value;
  }
  const cycle = path.slice(0, entry === undefined ? 0 : path.indexOf(entry) + 1);
  return [...cycle.slice(-1), ...cycle].map((member) => member.plugin);
}
