/**
 * An AMD IOMMU, as far as interrupts go: remapping tables, posting into guests' APIC pages, and the
 * guest virtual APIC log.
 *
 * It is hardware: it reads interrupt remapping table entries from host memory ({@linkcode guestEntry},
 * {@linkcode remappedEntry}), sets IRR bits in APIC pages and writes its log there, and tells processors
 * of doorbells ({@linkcode doorbellHook}), interrupts ({@linkcode remappedInterruptHook}) and log entries
 * ({@linkcode gaLogHook}). Who programs it is a hypervisor, such as the plugin `avic`.
 *
 * Limits: no DMA remapping, no faults and no event log; its registers are methods of {@linkcode Iommu},
 * not device memory, and what a device's table is, which the device table would say, is one of them.
 *
 * @example A device's second interrupt
 * ```ts ignore
 * ctx.use(iommuSlot).current.signal(0x0100, 1);
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
import { Iommu } from "./iommu.ts";

export { GA_LOG_BYTES, GA_LOG_GUEST_NOT_RUNNING, Iommu, type IommuHost } from "./iommu.ts";
export {
  destinationOf,
  type GuestEntry,
  guestEntry,
  Irte,
  IRTE_BYTES,
  type RemappedEntry,
  remappedEntry,
} from "./irte.ts";

/** The IOMMU; provided by {@linkcode iommu}. */
export const iommuSlot: Slot<Iommu> = defineSlot("iommu");

/**
 * An interrupt of a device arrives at the host, in remapped mode: device ID, index in its table, host
 * APIC ID, vector.
 */
export const remappedInterruptHook: Hook<
  (deviceId: number, index: number, destination: number, vector: number) => void,
  "each"
> = defineHook({ name: "remapped-interrupt", kind: "each", arity: 4 });

/**
 * The doorbell of the host processor with an APIC ID is rung: a running guest's IRR has changed. The
 * processors of `cpu` take turns, so that none is in a guest while a device acts, and VMRUN looks at
 * IRR; other processors must hear it.
 */
export const doorbellHook: Hook<(apicId: number) => void, "each"> = defineHook({
  name: "iommu-doorbell",
  kind: "each",
  arity: 1,
});

/** The guest virtual APIC log has entries, or overflowed: the IOMMU's own interrupt. */
export const gaLogHook: Hook<() => void, "each"> = defineHook({
  name: "ga-log",
  kind: "each",
  arity: 0,
});

/** An IOMMU in the host. */
export function iommu(): Plugin {
  return {
    name: "iommu",
    version: "0.1.0",
    description: "AMD IOMMU: interrupt remapping, posted interrupts and the guest virtual APIC log",
    requires: [hostMemorySlot],
    provides: [iommuSlot],
    setup(ctx) {
      const { hooks } = ctx.vm;
      const remapped = hooks.point(remappedInterruptHook);
      const doorbell = hooks.point(doorbellHook);
      const log = hooks.point(gaLogHook);
      ctx.provide(
        iommuSlot,
        new Iommu(ctx.use(hostMemorySlot).current, {
          interrupt: (...interrupt) => remapped.call(...interrupt),
          doorbell: (apicId) => doorbell.call(apicId),
          logged: () => log.call(),
        }),
      );
    },
  };
}
