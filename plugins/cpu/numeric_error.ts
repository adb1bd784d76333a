/**
 * Where the board meets the FERR# pin.
 *
 * @module
 */
import { defineHook, type Hook, type Vcpu } from "../../core/mod.ts";

/**
 * A processor asserts FERR#: an x87 exception is pending, and CR0.NE is clear. Who makes an interrupt of it
 * answers `true`; if nobody does, the machine stops with an error. The processor waits for an interrupt.
 */
export const numericErrorHook: Hook<(vcpu: Vcpu) => boolean | undefined, "first"> = defineHook({
  name: "numeric-error",
  kind: "first",
  arity: 1,
});
