/**
 * SVI when APICv is activated for a vCPU that runs.
 *
 * @module
 */
import { servicingFromIsr, servicingSlot, servicingStale } from "../plugins/vmx/apicv/mod.ts";
import { apicHost } from "./apic_host.ts";
import type { Patch } from "./patch.ts";
import { provider } from "./providers.ts";

/** The interrupt in service follows ISR. */
export const apicvServicing: Patch = {
  id: "apicv-svi",
  title: "KVM: VMX: Update SVI during runtime APICv activation",
  posted: { author: "Dongli Zhang", where: "kvm and linux-kernel", date: "2025-11-10" },
  state: "merged",
  commits: ["b2849bec936b"],
  changes: "Activating APICv for a vCPU sets SVI to the highest vector in its ISR.",
  shows:
    "The EOI of an interrupt that was taken while APICv was inhibited and is ended while it is " +
    "active: lost, the vector stays in service and holds its class back -> ends it.",
  before: {
    name: "before",
    summary: "SVI stays what it was when APICv was deactivated",
    plugin: provider(servicingSlot, servicingStale),
  },
  after: {
    name: "after",
    summary: "SVI is the highest vector in ISR",
    plugin: provider(servicingSlot, servicingFromIsr),
  },
  others: [],
  scenarios: [
    {
      name: "serving",
      summary: "the host lets APICv begin in the handler of an interrupt",
      guest: "apichost",
      commandLine: "x2apic serving",
      vendor: "vmx",
      apicv: true,
      plugins: () => [apicHost()],
      sameForGuest: false,
    },
  ],
};
