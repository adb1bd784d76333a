/**
 * Slots: typed services with exactly one provider, such as the vendor or the clock.
 *
 * @module
 */

import { SlotError } from "./errors.ts";
import type { Binding } from "./registration.ts";

/** A service that exactly one plugin provides: a token that names it and carries its type. */
export interface Slot<T> {
  /** For messages and listings; the token itself, not its name, identifies the slot. */
  readonly name: string;
  /** Makes the implementation that is in force while no plugin provides one. */
  readonly fallback?: () => T;
}

/** A live reference to a slot's provider. */
export interface SlotRef<T> {
  /**
   * The provider's implementation now. Read it at each use: it changes when the provider is swapped.
   */
  readonly current: T;
}

/**
 * Makes a slot. With `fallback` the slot has a provider even where no plugin is one.
 *
 * @example Usage
 * ```ts
 * import { defineSlot, type Slot } from "@trapline/trapline/core";
 *
 * // Where the console's bytes go.
 * export const consoleSlot: Slot<(byte: number) => void> = defineSlot("console");
 * ```
 */
export function defineSlot<T>(name: string, fallback?: () => T): Slot<T> {
  return Object.freeze(fallback === undefined ? { name } : { name, fallback });
}

/** Called when the implementation changed, after all changes of one load, unload or swap. */
export type SlotChanged<T> = (current: T | undefined, previous: T | undefined) => void;

interface User<T> {
  readonly name: string;
  readonly optional: boolean;
  readonly changed: SlotChanged<T> | undefined;
  /** The implementation this user knows of. */
  told: T;
}

class Cell<T> implements SlotRef<T> {
  declare current: T;
  declare readonly slot: Slot<T>;
  declare provider: string | undefined;
  readonly users: Set<User<T>> = new Set();
  #fallback: T | undefined;

  constructor(slot: Slot<T>) {
    this.slot = slot;
    this.current = this.fallback();
  }

  /** Users of an optional slot test for `undefined`; `use` refuses an empty slot to the others. */
  fallback(): T {
    this.#fallback ??= this.slot.fallback?.();
    return this.#fallback as T;
  }
}

/** All slots of one VM. */
export class Slots {
  readonly #cells: Map<Slot<unknown>, Cell<unknown>> = new Map();

  #cell<T>(slot: Slot<T>): Cell<T> {
    let cell = this.#cells.get(slot) as Cell<T> | undefined;
    if (cell === undefined) {
      cell = new Cell(slot);
      // A cell is only ever reached through its own slot, which has its type.
      this.#cells.set(slot, cell as unknown as Cell<unknown>);
    }
    return cell;
  }

  /** The slot's reference, the same object for the life of the VM; `current` may be missing. */
  ref<T>(slot: Slot<T>): SlotRef<T> {
    return this.#cell(slot);
  }

  /** Whether the slot has an implementation, from a plugin or from its fallback. */
  filled(slot: Slot<unknown>): boolean {
    return this.#cell(slot).current !== undefined;
  }

  /** Name of the plugin that provides the slot, `undefined` if none does. */
  providerOf(slot: Slot<unknown>): string | undefined {
    return this.#cell(slot).provider;
  }

  /** Names of plugins that use the slot and cannot do without. */
  usersOf(slot: Slot<unknown>): string[] {
    const users = [...this.#cell(slot).users].filter((user) => !user.optional);
    return [...new Set(users.map((user) => user.name))];
  }

  /**
   * A provision that is not yet in force. Attaching throws {@linkcode SlotError} if the slot has a
   * provider already.
   */
  provide<T>(slot: Slot<T>, implementation: T, plugin: string): Binding {
    const cell = this.#cell(slot);
    return {
      attach: () => {
        if (cell.provider !== undefined) {
          throw new SlotError(slot.name, `both "${cell.provider}" and "${plugin}" provide it`);
        }
        cell.provider = plugin;
        cell.current = implementation;
      },
      detach: () => {
        cell.provider = undefined;
        cell.current = cell.fallback();
      },
    };
  }

  /**
   * A use that is not yet in force.
   *
   * @param name The plugin that uses the slot.
   * @param optional Whether it can do without.
   * @param changed Called when the implementation has changed.
   */
  use<T>(
    slot: Slot<T>,
    name: string,
    optional: boolean,
    changed: SlotChanged<T> | undefined,
  ): Binding {
    const cell = this.#cell(slot);
    const user: User<T> = { name, optional, changed, told: cell.current };
    return {
      attach: () => {
        user.told = cell.current;
        cell.users.add(user);
      },
      detach: () => void cell.users.delete(user),
    };
  }

  /**
   * Tells users of slots whose implementation is not the one they know of: all of them, and throws the
   * first error afterwards.
   */
  settle(): void {
    const errors: unknown[] = [];
    for (const cell of this.#cells.values()) {
      for (const user of [...cell.users]) {
        const previous = user.told;
        if (previous === cell.current) continue;
        user.told = cell.current;
        try {
          user.changed?.(cell.current, previous);
        } catch (error) {
          errors.push(error);
        }
      }
    }
    if (errors.length > 0) throw errors[0];
  }
}
