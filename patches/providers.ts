/**
 * Plugins that do nothing but provide a policy.
 *
 * @module
 */
import type { Plugin, Slot } from "../core/mod.ts";

/** A plugin named after a slot that provides it. */
export function provider<T>(slot: Slot<T>, policy: T): () => Plugin {
  return () => ({
    name: slot.name,
    version: "1.0.0",
    provides: [slot],
    setup: (ctx) => ctx.provide(slot, policy as NoInfer<T>),
  });
}
