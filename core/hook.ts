/**
 * Hooks: typed places where plugins put handlers.
 *
 * A hook is a value that somebody exports with an explicit type. The core's hooks stand on one page,
 * `hooks.ts`; a plugin may export hooks of its own, typed in exactly the same way.
 *
 * @module
 */

import { ArgumentError } from "./errors.ts";

/** Any function; the constraint of a hook's handler type. */
export type Handler = (...args: never[]) => unknown;

/**
 * How the handlers of a hook are combined.
 *
 * - `first`: called in order until one answers with something other than `undefined`.
 * - `each`: all are called, in order.
 * - `fold`: the first argument passes through all of them; each returns the next one's.
 * - `gather`: all are called; answers other than `undefined` are collected in order.
 */
export type HookKind = "first" | "each" | "fold" | "gather";

/** The type of the one function that a hook's handlers become. */
export type HookCall<F extends Handler, K extends HookKind> = K extends "each"
  ? (...args: Parameters<F>) => void
  : K extends "gather" ? (...args: Parameters<F>) => Exclude<ReturnType<F>, undefined>[]
  : K extends "first" ? (...args: Parameters<F>) => ReturnType<F> | undefined
  : F;

/** What hooks and keyed hooks have in common. */
export interface HookToken<F extends Handler, K extends HookKind> {
  /** For messages and listings; the token itself, not its name, identifies the hook. */
  readonly name: string;
  /** How handlers are combined. */
  readonly kind: K;
  /** Number of arguments that handlers are called with. */
  readonly arity: number;
  /** Never set. Carries the handler type. */
  readonly handler?: F;
}

/** A hook: a token that names a place and carries the type of its handlers. */
export interface Hook<F extends Handler, K extends HookKind> extends HookToken<F, K> {
  /** A hook with keys is a {@linkcode KeyedHook}. */
  readonly keys?: undefined;
}

/**
 * A hook whose handlers are registered for one key each: an exit reason, a request, a CPUID leaf.
 * A key without handlers costs its caller one look-up.
 */
export interface KeyedHook<F extends Handler, K extends HookKind> extends HookToken<F, K> {
  /**
   * For small dense keys the number of keys, 0 to `keys - 1`, held in an array; `"sparse"` for keys
   * anywhere in 0 to FFFF_FFFFh, held in a map.
   */
  readonly keys: number | "sparse";
}

/** What {@linkcode defineHook} wants to know. */
export interface HookOptions<F extends Handler, K extends HookKind> {
  /** For messages and listings. */
  readonly name: string;
  /** How handlers are combined. */
  readonly kind: K;
  /** Number of arguments that handlers are called with; checked against `F`. */
  readonly arity: Parameters<F>["length"];
}

/** What {@linkcode defineKeyedHook} wants to know. */
export interface KeyedHookOptions<F extends Handler, K extends HookKind> extends HookOptions<F, K> {
  /** See {@linkcode KeyedHook.keys}. */
  readonly keys: number | "sparse";
}

/**
 * Makes a hook.
 *
 * @example Usage
 * ```ts
 * import { defineHook, type Hook, type Vcpu } from "@trapline/trapline/core";
 *
 * // Called when the watchdog barks.
 * export const barkHook: Hook<(vcpu: Vcpu, ticks: number) => void, "each"> = defineHook({
 *   name: "bark",
 *   kind: "each",
 *   arity: 2,
 * });
 * ```
 *
 * @throws {ArgumentError} If the arity is not a small integer, or a `fold` has no argument.
 */
export function defineHook<F extends Handler, K extends HookKind>(
  options: HookOptions<F, K>,
): Hook<F, K> {
  const { name, kind, arity } = options;
  if (!Number.isInteger(arity) || arity < 0 || arity > 16) {
    throw new ArgumentError(`hook "${name}": arity ${arity} is not an integer from 0 to 16`);
  }
  if (kind === "fold" && arity === 0) {
    throw new ArgumentError(`hook "${name}": a fold needs an argument to pass through`);
  }
  return Object.freeze({ name, kind, arity });
}

/**
 * Makes a keyed hook.
 *
 * @throws {ArgumentError} As {@linkcode defineHook}, and if the number of keys is not from 1 to 65536.
 */
export function defineKeyedHook<F extends Handler, K extends HookKind>(
  options: KeyedHookOptions<F, K>,
): KeyedHook<F, K> {
  const { keys } = options;
  if (keys !== "sparse" && (!Number.isInteger(keys) || keys < 1 || keys > 65536)) {
    throw new ArgumentError(`hook "${options.name}": ${keys} keys; wanted 1 to 65536 or "sparse"`);
  }
  return Object.freeze({ ...defineHook(options), keys });
}

/** Where among a hook's handlers one wants to stand. */
export interface HookOrder {
  /** All of `pre` come before all of `normal` (the default), all of `post` after them. */
  readonly stage?: "pre" | "normal" | "post";
  /** Plugins whose handlers in the same stage must come later. Plugins not there are ignored. */
  readonly before?: readonly string[];
  /** Plugins whose handlers in the same stage must come earlier. Plugins not there are ignored. */
  readonly after?: readonly string[];
}
