/**
 * The bare processor as a vendor: the guest runs with no hypervisor under it, and may be one itself.
 *
 * Limits: a vCPU is a processor, so a VM needs as many processors as vCPUs. What a
 * handler writes to RFLAGS while a device in memory is accessed is not honoured.
 *
 * @module
 */
import { memslotHook, type Plugin, vendorSlot } from "../../core/mod.ts";
import { processorsSlot } from "../cpu/mod.ts";
import { MetalVendor } from "./vendor.ts";

/** Runs the guest on the bare processor. */
export function metal(): Plugin {
  return {
    name: "metal",
    version: "0.1.0",
    description: "no hypervisor: the guest has the processor to itself",
    requires: ["cpu", processorsSlot],
    provides: [vendorSlot],
    setup(ctx) {
      const vendor = new MetalVendor(
        ctx.vm,
        ctx.use(processorsSlot).current,
        (callback) => ctx.createTimer("wait", callback),
      );
      ctx.provide(vendorSlot, vendor);
      ctx.on(memslotHook, ({ gpa, size, hpa, readonly }, added) => {
        vendor.memslotChanged(gpa, size, hpa, readonly, added);
      });
    },
  };
}
