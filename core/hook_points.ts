/**
 * The hooks of one VM: who registered what, and the functions to call.
 *
 * @module
 */

import { ArgumentError, PluginError } from "./errors.ts";
import type { Handler, Hook, HookCall, HookKind, HookOrder, HookToken, KeyedHook } from "./hook.ts";
import { type Combined, compileHandlers, emptyCall } from "./hook_compile.ts";
import { type HookEntry, orderEntries } from "./hook_order.ts";
import type { Binding } from "./registration.ts";

/** Finds the id of the vCPU among a call's arguments, to put it into errors. */
export type VcpuIdOf = (argument: unknown) => number | undefined;

/** The hook's declared type is what the compiled text implements; the compiler cannot see that. */
function typed<F extends Handler, K extends HookKind>(call: Combined): HookCall<F, K> {
  return call as unknown as HookCall<F, K>;
}

/**
 * A table of `length` entries, all `undefined`. An array that has never held an object is kept by V8 as one
 * of floating-point numbers, `undefined` among them as a pattern, and looked through accordingly: it is
 * filled with `null` first.
 */
function emptyTable<T>(length: number): (T | undefined)[] {
  const table: (T | undefined | null)[] = new Array(length).fill(null);
  for (let k = 0; k < length; k++) table[k] = undefined;
  return table as (T | undefined)[];
}

/** A list of handlers in order, and the function they were compiled to. */
class HandlerList {
  readonly #label: string;
  readonly #hook: HookToken<Handler, HookKind>;
  readonly #vcpuIdOf: VcpuIdOf;
  readonly #install: (call: Combined) => void;
  #entries: HookEntry[] = [];

  constructor(
    label: string,
    hook: HookToken<Handler, HookKind>,
    vcpuIdOf: VcpuIdOf,
    install: (call: Combined) => void,
  ) {
    this.#label = label;
    this.#hook = hook;
    this.#vcpuIdOf = vcpuIdOf;
    this.#install = install;
  }

  get entries(): readonly HookEntry[] {
    return this.#entries;
  }

  add(entry: HookEntry): void {
    this.#set(orderEntries(this.#label, [...this.#entries, entry]));
  }

  remove(entry: HookEntry): void {
    this.#set(this.#entries.filter((other) => other !== entry));
  }

  /** Compiling waits for the first call: a set-up that registers much compiles each hook once. */
  #set(entries: HookEntry[]): void {
    this.#entries = entries;
    if (entries.length === 0) return this.#install(emptyCall(this.#hook.kind));
    this.#install((...args) => {
      // A handler may have changed the list since this function was fetched, so look again.
      const call = this.#compile();
      if (this.#entries === entries) this.#install(call);
      return call(...args);
    });
  }

  #compile(): Combined {
    const entries = this.#entries;
    const { kind, arity } = this.#hook;
    const handlers = entries.map((entry) => entry.handler);
    return compileHandlers(this.#label, kind, arity, handlers, (error, at, args) => {
      const plugin = entries[at]?.plugin ?? "unknown";
      const vcpuId = args.map(this.#vcpuIdOf).find((id) => id !== undefined);
      return PluginError.wrap(plugin, `hook "${this.#label}"`, vcpuId, error);
    });
  }
}

/** A handler's place in a list, which tells `changed` when it is taken or left. */
function bindingTo(list: HandlerList, entry: HookEntry, changed: () => void): Binding {
  return {
    attach: () => {
      list.add(entry);
      changed();
    },
    detach: () => {
      list.remove(entry);
      changed();
    },
  };
}

/** A hook in one VM. Keep the point, and call {@linkcode HookPoint.call} through it every time. */
export class HookPoint<F extends Handler, K extends HookKind> {
  /** The token. */
  declare readonly hook: Hook<F, K>;
  /**
   * All handlers as one function. The property is replaced when registrations change: read it at
   * each call.
   *
   * Throws {@linkcode PluginError} when a handler throws.
   */
  declare call: HookCall<F, K>;
  readonly #list: HandlerList;
  readonly #changed: () => void;

  /** Made by {@linkcode Hooks.point}; calls `changed` when a handler has come or gone. */
  constructor(hook: Hook<F, K>, vcpuIdOf: VcpuIdOf, changed: () => void) {
    this.hook = hook;
    this.call = typed(emptyCall(hook.kind));
    this.#changed = changed;
    this.#list = new HandlerList(hook.name, hook as HookToken<Handler, K>, vcpuIdOf, (call) => {
      this.call = typed(call);
    });
  }

  /** The handlers in the order in which they are called. */
  get entries(): readonly HookEntry[] {
    return this.#list.entries;
  }

  /** A registration that is not yet in force. */
  bind(entry: HookEntry): Binding {
    return bindingTo(this.#list, entry, this.#changed);
  }
}

/** Eight bits of a sparse key, of which those in use differ at both ends: CPUID leaves, numbers of calls. */
function slotOf(key: number): number {
  return (key ^ (key >>> 24)) & 0xff;
}

/** A keyed hook in one VM. */
export class KeyedHookPoint<F extends Handler, K extends HookKind> {
  /** The token. */
  declare readonly hook: KeyedHook<F, K>;
  /**
   * For dense keys: the combined function for each key, `undefined` where nobody registered. Empty
   * for sparse keys. Entries are replaced when registrations change.
   */
  readonly table: (HookCall<F, K> | undefined)[];
  readonly #sparse: Map<number, HookCall<F, K>> = new Map();
  /** For sparse keys: 0 where the map has no key with these bits, which it is then not asked for. */
  readonly #mayHave: Uint8Array = new Uint8Array(256);
  readonly #lists: Map<number, HandlerList> = new Map();
  readonly #vcpuIdOf: VcpuIdOf;
  readonly #changed: () => void;

  /** Made by {@linkcode Hooks.keyedPoint}; calls `changed` when a handler has come or gone. */
  constructor(hook: KeyedHook<F, K>, vcpuIdOf: VcpuIdOf, changed: () => void) {
    this.hook = hook;
    this.#changed = changed;
    this.#vcpuIdOf = vcpuIdOf;
    this.table = emptyTable(hook.keys === "sparse" ? 0 : hook.keys);
  }

  /** The combined function for `key`, or `undefined` where nobody registered. */
  get(key: number): HookCall<F, K> | undefined {
    if (this.hook.keys !== "sparse") return this.table[key];
    return this.#mayHave[slotOf(key)] === 0 ? undefined : this.#sparse.get(key);
  }

  /** Keys with handlers, ascending. */
  get keys(): number[] {
    return [...this.#lists.keys()]
      .filter((key) => this.entries(key).length > 0)
      .sort((a, b) => a - b);
  }

  /** The handlers for `key` in the order in which they are called. */
  entries(key: number): readonly HookEntry[] {
    return this.#lists.get(key)?.entries ?? [];
  }

  /**
   * A registration that is not yet in force.
   *
   * @throws {ArgumentError} If the key is out of the hook's range.
   */
  bind(key: number, entry: HookEntry): Binding {
    const { name, keys } = this.hook;
    const limit = keys === "sparse" ? 2 ** 32 : keys;
    if (!Number.isInteger(key) || key < 0 || key >= limit) {
      throw new ArgumentError(
        `hook "${name}": key ${key} is not an integer from 0 to ${limit - 1}`,
      );
    }
    return bindingTo(this.#list(key), entry, this.#changed);
  }

  #list(key: number): HandlerList {
    const { name, keys } = this.hook;
    let list = this.#lists.get(key);
    if (list === undefined) {
      const hook = this.hook as HookToken<Handler, HookKind>;
      list = new HandlerList(`${name}[${key}]`, hook, this.#vcpuIdOf, (call) => {
        const empty = this.entries(key).length === 0;
        if (keys !== "sparse") this.table[key] = empty ? undefined : typed<F, K>(call);
        else if (empty) this.#sparse.delete(key);
        else {
          this.#sparse.set(key, typed<F, K>(call));
          this.#mayHave[slotOf(key)] = 1;
        }
      });
      this.#lists.set(key, list);
    }
    return list;
  }
}

/** The type of the point that a hook has in a VM. */
export type PointOf<H> = H extends Hook<infer F, infer K> ? HookPoint<F, K>
  : H extends KeyedHook<infer F, infer K> ? KeyedHookPoint<F, K>
  : never;

/** Who registers: the plugin's name and its place in the VM's list. */
export interface HookOwner {
  /** Plugin name. */
  readonly name: string;
  /** Place in the VM's list of plugins. */
  readonly position: number;
}

/** All hooks of one VM. Points come into being when first asked for. */
export class Hooks {
  readonly #vcpuIdOf: VcpuIdOf;
  readonly #points: Map<object, unknown> = new Map();
  readonly #listeners: (() => void)[] = [];
  #sequence = 0;

  /** `vcpuIdOf` recognises the vCPU among a handler's arguments. */
  constructor(vcpuIdOf: VcpuIdOf = () => undefined) {
    this.#vcpuIdOf = vcpuIdOf;
  }

  /** The point of `hook` in this VM; the same object for the life of the VM. */
  point<F extends Handler, K extends HookKind>(hook: Hook<F, K>): HookPoint<F, K> {
    let point = this.#points.get(hook) as HookPoint<F, K> | undefined;
    if (point === undefined) {
      point = new HookPoint(hook, this.#vcpuIdOf, () => this.#changed());
      this.#points.set(hook, point);
    }
    return point;
  }

  /** The point of a keyed hook in this VM; the same object for the life of the VM. */
  keyedPoint<F extends Handler, K extends HookKind>(hook: KeyedHook<F, K>): KeyedHookPoint<F, K> {
    let point = this.#points.get(hook) as KeyedHookPoint<F, K> | undefined;
    if (point === undefined) {
      point = new KeyedHookPoint(hook, this.#vcpuIdOf, () => this.#changed());
      this.#points.set(hook, point);
    }
    return point;
  }

  /** Has `listener` called whenever a handler of any hook has come or gone. */
  whenChanged(listener: () => void): void {
    this.#listeners.push(listener);
  }

  #changed(): void {
    for (const listener of this.#listeners) listener();
  }

  /** The record of a handler, numbered in the order of registration. */
  entry(owner: HookOwner, handler: Handler, order: HookOrder = {}): HookEntry {
    const { name: plugin, position } = owner;
    return { plugin, position, sequence: this.#sequence++, handler, order };
  }
}
