/**
 * Intel VT-d, as far as interrupts go: remapping, and posting into posted-interrupt descriptors.
 *
 * It is hardware: it reads interrupt remapping table entries from host memory ({@linkcode postedEntry},
 * {@linkcode remappedEntry}), sets requests and the outstanding bit in descriptors there, and sends
 * interrupts and notifications to processors ({@linkcode vtdInterruptHook}, {@linkcode vtdNotifyHook}). Who
 * programs it is a hypervisor, such as the plugin `apicv`.
 *
 * Limits: no DMA remapping, no faults, no invalidation queue, for nothing is cached; remapped interrupts are
 * fixed and edge-triggered; its registers are methods of {@linkcode Vtd}, not device memory.
 *
 * @example A device's interrupt
 * ```ts ignore
 * ctx.use(vtdSlot).current.signal(0x0100, handle);
 * ```
 *
 * @module
 */
import {
  defineHook,
  defineSlot,
  type Hook,
  hostMemorySlot,
  type Plugin,
  type Slot,
} from "../../core/mod.ts";
import { Vtd } from "./vtd.ts";

export {
  Irte,
  IRTE_BYTES,
  type PostedEntry,
  postedEntry,
  type RemappedEntry,
  remappedEntry,
} from "./irte.ts";
export { Vtd, type VtdHost } from "./vtd.ts";

/** The unit; provided by {@linkcode vtd}. */
export const vtdSlot: Slot<Vtd> = defineSlot("vtd");

/** A remapped interrupt arrives at the host: device ID, handle, host APIC ID, vector. */
export const vtdInterruptHook: Hook<
  (deviceId: number, handle: number, destination: number, vector: number) => void,
  "each"
> = defineHook({ name: "vtd-interrupt", kind: "each", arity: 4 });

/** The host processor with an APIC ID is notified, at a vector, that something was posted. */
export const vtdNotifyHook: Hook<(destination: number, vector: number) => void, "each"> =
  defineHook({ name: "vtd-notify", kind: "each", arity: 2 });

/** VT-d in the host. */
export function vtd(): Plugin {
  return {
    name: "vtd",
    version: "0.1.0",
    description: "Intel VT-d: interrupt remapping and posted interrupts",
    requires: [hostMemorySlot],
    provides: [vtdSlot],
    setup(ctx) {
      const { hooks } = ctx.vm;
      const interrupt = hooks.point(vtdInterruptHook);
      const notify = hooks.point(vtdNotifyHook);
      ctx.provide(
        vtdSlot,
        new Vtd(ctx.use(hostMemorySlot).current, {
          interrupt: (...remapped) => interrupt.call(...remapped),
          notify: (destination, vector) => notify.call(destination, vector),
        }),
      );
    },
  };
}
