/**
 * The fastpath of an x2APIC write of ICR: an IPI is sent before anything else of the exit is handled.
 *
 * @module
 */
import { ExitAction, ExitReason, fastpathHook, type Plugin } from "../core/mod.ts";

/** MSR of ICR in x2APIC mode. */
const X2APIC_ICR = 0x830;

/**
 * Writes of ICR are carried out in the fastpath, as KVM does it
 * (`handle_fastpath_wrmsr`). A write that raises #GP is left to the exit's own handler.
 */
export function x2apicFastpath(): Plugin {
  return {
    name: "x2apic-fastpath",
    version: "1.0.0",
    setup(ctx) {
      const { msrs, vendor } = ctx.vm;
      ctx.on(fastpathHook, ExitReason.WRMSR, (vcpu, exit) => {
        if (exit.msr !== X2APIC_ICR) return undefined;
        const access = msrs.guestAccess(exit.msr, true, exit.lo, exit.hi);
        if (!msrs.access(access, vcpu)) return undefined;
        vendor.current.complete(vcpu);
        return ExitAction.RESUME;
      });
    },
  };
}
