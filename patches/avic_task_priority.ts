/**
 * The task priority while AVIC is active: exits of CR8, and values that software loads.
 *
 * @module
 */
import {
  cr8FollowsAvic,
  cr8InterceptSlot,
  cr8Untouched,
  syncAlways,
  syncWhileInactive,
  taskPrioritySyncSlot,
} from "../plugins/svm/avic/mod.ts";
import { apicHost } from "./apic_host.ts";
import type { Patch } from "./patch.ts";
import { provider } from "./providers.ts";

/** CR8 writes do not exit while AVIC is active. */
export const avicCr8: Patch = {
  id: "avic-cr8",
  title: "KVM: SVM: Set/clear CR8 write interception when AVIC is (de)activated",
  posted: { author: "Sean Christopherson", where: "kvm and linux-kernel", date: "2026-03" },
  state: "merged",
  commits: ["87d0f901a9bd"],
  changes:
    "Activating AVIC takes the intercept of CR8 writes away, which updates of the task priority " +
    "leave alone from then on.",
  shows:
    "After a spell without AVIC in which an interrupt waited for a lower task priority, every MOV " +
    "to CR8: exit 18h -> none.",
  before: {
    name: "before",
    summary: "an intercept that was set when AVIC becomes active stays",
    plugin: provider(cr8InterceptSlot, cr8Untouched),
  },
  after: {
    name: "after",
    summary: "no intercept while AVIC is active",
    plugin: provider(cr8InterceptSlot, cr8FollowsAvic),
  },
  others: [],
  scenarios: [
    {
      name: "toggled",
      summary: "the host inhibits AVIC while an IPI waits, and lets it be again",
      guest: "apichost",
      commandLine: "x2apic cr8=100",
      cpu: { model: "zen4" },
      plugins: () => [apicHost()],
      sameForGuest: true,
    },
  ],
};

/** V_TPR follows the local APIC also while AVIC is active. */
export const avicTprSync: Patch = {
  id: "avic-tpr-sync",
  title: "KVM: SVM: Sync TPR from LAPIC into VMCB::V_TPR even if AVIC is active",
  posted: { author: "Maciej S. Szmigiero", where: "kvm and linux-kernel", date: "2025-08" },
  state: "merged",
  commits: ["d02e48830e3f"],
  changes:
    "Before an entry V_TPR is taken from the local APIC whether or not AVIC is active: hardware " +
    "keeps the two equal only for what the guest writes.",
  shows:
    "A task priority that the host loads, with a saved state or a reset: ignored -> in force, and " +
    "interrupts that it lets in are delivered.",
  before: {
    name: "before",
    summary: "not while AVIC is active",
    plugin: provider(taskPrioritySyncSlot, syncWhileInactive),
  },
  after: {
    name: "after",
    summary: "before every entry",
    plugin: provider(taskPrioritySyncSlot, syncAlways),
  },
  others: [],
  scenarios: [
    {
      name: "restored",
      summary: "the host loads a task priority of 0 over the guest's 15 while an IPI waits",
      guest: "apichost",
      commandLine: "x2apic restore",
      cpu: { model: "zen4" },
      plugins: () => [apicHost()],
      sameForGuest: false,
    },
  ],
};
