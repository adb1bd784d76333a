/**
 * "Add Idle HLT intercept support", and what was before.
 *
 * @module
 */
import { hltAlways, hltInterceptSlot, hltWhenIdle } from "../plugins/svm/mod.ts";
import type { Patch } from "./patch.ts";
import { provider } from "./providers.ts";

/** The patch. */
export const idleHlt: Patch = {
  id: "idle-hlt",
  title: "KVM: SVM: Add Idle HLT intercept support",
  posted: {
    author: "Manali Shukla",
    where: "kvm and linux-kernel; merged for Linux 6.15",
    date: "2025-01",
  },
  state: "merged",
  commits: [],
  changes:
    "Where the processor has it, the intercept of HLT is replaced by that of an idle HLT, which " +
    "leaves the guest alone while a virtual interrupt or NMI is pending.",
  shows:
    "HLT with an interrupt pending: exit 78h -> none. HLT without one: 78h -> A6h, as many exits.",
  before: {
    name: "before",
    summary: "every HLT exits",
    plugin: provider(hltInterceptSlot, hltAlways),
  },
  after: {
    name: "after",
    summary: "a HLT exits when nothing is pending",
    plugin: provider(hltInterceptSlot, hltWhenIdle),
  },
  others: [],
  scenarios: [
    {
      name: "pending",
      summary:
        "STI and HLT while an interrupt waits, on a processor with idle HLT and without AVIC",
      guest: "apichost",
      commandLine: "pending=100",
      cpu: { model: "zen5" },
      avic: false,
      sameForGuest: true,
    },
    {
      name: "avic",
      summary: "four vCPUs with AVIC that halt until an interrupt comes, or find that it has come",
      guest: "apic",
      commandLine: "x2apic rounds=10",
      cpus: 4,
      cpu: { model: "zen5" },
      sameForGuest: true,
    },
  ],
};
