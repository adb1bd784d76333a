/**
 * Makes one flat function of a hook's handlers.
 *
 * Generated text keeps the handlers in variables of their own, so that a call is direct: no array is
 * walked, and there is no closure per handler for the optimizer to look through.
 *
 * @module
 */

import type { Handler, HookKind } from "./hook.ts";

/** Turns what handler number `at` threw into what the hook throws. */
export type HookFailure = (error: unknown, at: number, args: readonly unknown[]) => unknown;

/** A combined function; the caller knows its true type from the hook. */
export type Combined = (...args: unknown[]) => unknown;

const NOTHING: Combined = () => undefined;
const SAME: Combined = (value) => value;
const NO_ANSWERS: Combined = () => [];

const BODIES: Record<HookKind, { start: string; step: (call: string) => string; end: string }> = {
  first: {
    start: "let r;",
    step: (call) => `r = ${call}; if (r !== undefined) return r;`,
    end: "return undefined;",
  },
  each: { start: "", step: (call) => `${call};`, end: "" },
  fold: { start: "", step: (call) => `a0 = ${call};`, end: "return a0;" },
  gather: {
    start: "let r; const all = [];",
    step: (call) => `r = ${call}; if (r !== undefined) all.push(r);`,
    end: "return all;",
  },
};

/** What a hook without handlers does. */
export function emptyCall(kind: HookKind): Combined {
  return kind === "fold" ? SAME : kind === "gather" ? NO_ANSWERS : NOTHING;
}

/**
 * Compiles `handlers`, called in the order given with `arity` arguments, into one function.
 * What a handler throws goes through `fail`.
 */
export function compileHandlers(
  name: string,
  kind: HookKind,
  arity: number,
  handlers: readonly Handler[],
  fail: HookFailure,
): Combined {
  if (handlers.length === 0) return emptyCall(kind);
  const args = Array.from({ length: arity }, (_, i) => `a${i}`).join(", ");
  const { start, step, end } = BODIES[kind];
  const steps = handlers.map((_, i) => `at = ${i}; ${step(`h${i}(${args})`)}`);
  // `fold` reassigns its first argument: an error reports the value the failing handler was given.
  const text = `"use strict";
return function (${args}) {
  let at = 0;
  try {
    ${start}
    ${steps.join("\n    ")}
    ${end}
  } catch (error) {
    throw fail(error, at, [${args}]);
  }
};
//# sourceURL=trapline:hook/${encodeURIComponent(name)}`;
  const make = new Function("fail", ...handlers.map((_, i) => `h${i}`), text);
  return make(fail, ...handlers) as Combined;
}
