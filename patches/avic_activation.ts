/**
 * What happens when AVIC is switched on, and what hardware is told of who is running.
 *
 * @module
 */
import {
  activationFlushSlot,
  flushBothModes,
  flushXavicOnly,
  initializeActive,
  initializeAlways,
  ipiVirtualizationAlways,
  ipiVirtualizationByFamily,
  ipiVirtualizationSlot,
  vmcbInitSlot,
} from "../plugins/svm/avic/mod.ts";
import { apicHost } from "./apic_host.ts";
import type { Patch } from "./patch.ts";
import { provider } from "./providers.ts";

/** VMCBs are set up for AVIC whether or not it is active when they are made. */
export const avicVmcbInit: Patch = {
  id: "avic-vmcb-init",
  title: "KVM: SVM: Initialize AVIC VMCB fields if AVIC is enabled with in-kernel APIC",
  posted: { author: "Sean Christopherson", where: "kvm and linux-kernel", date: "2026" },
  state: "merged",
  commits: [],
  changes:
    "A new vCPU's VMCB gets AVIC's pointers if the VM can have AVIC at all, not only if nothing " +
    "inhibits it just then.",
  shows:
    "AVIC inhibited while the vCPU is made, and active later: the vCPU is entered with null pointers, " +
    "which the processor refuses -> with its own page.",
  before: {
    name: "before",
    summary: "only if nothing inhibits AVIC when the vCPU is made",
    plugin: provider(vmcbInitSlot, initializeActive),
  },
  after: {
    name: "after",
    summary: "always",
    plugin: provider(vmcbInitSlot, initializeAlways),
  },
  others: [],
  scenarios: [
    {
      name: "late",
      summary: "AVIC is inhibited until the guest runs",
      guest: "apichost",
      commandLine: "x2apic late",
      cpu: { model: "zen4" },
      plugins: () => [apicHost({ inhibited: true })],
      sameForGuest: false,
    },
  ],
};

/** Entering x2AVIC mode flushes, too. */
export const x2avicFlush: Patch = {
  id: "x2avic-flush",
  title: "KVM: SVM: Flush the TLB when enabling x2AVIC, too",
  posted: { where: "stable kernels of June 2026", date: "2026-06" },
  state: "merged",
  commits: [],
  changes: "The flush of translations at activation moves to the path that both modes share.",
  shows: "After a change from xAPIC to x2APIC mode, a read at FEE0_0000h: still the local APIC's " +
    "register -> memory that means nothing.",
  before: {
    name: "before",
    summary: "activation flushes into xAVIC mode only",
    plugin: provider(activationFlushSlot, flushXavicOnly),
  },
  after: {
    name: "after",
    summary: "activation flushes into both modes",
    plugin: provider(activationFlushSlot, flushBothModes),
  },
  others: [],
  scenarios: [
    {
      name: "switch",
      summary: "a guest changes to x2APIC mode and looks at where the registers were",
      guest: "apichost",
      commandLine: "switch",
      cpu: { model: "zen4" },
      sameForGuest: false,
    },
  ],
};

/** No IPI virtualization where an erratum forbids it. */
export const avicIpiv: Patch = {
  id: "avic-ipiv",
  title: "KVM: SVM: Disable (x2)AVIC IPI virtualization if CPU has erratum #1235",
  posted: {
    author: "Maxim Levitsky",
    where: "kvm and linux-kernel, merged with Sean Christopherson's series of June 2025",
    date: "2025-06",
  },
  state: "merged",
  commits: [],
  changes:
    "On processors of family 17h hardware never sees IsRunning set, because it may miss that it " +
    "was cleared and then nobody wakes the target.",
  shows:
    "On family 17h every IPI to another vCPU: no exit -> exit 401h, target not running. Elsewhere " +
    "nothing.",
  before: {
    name: "before",
    summary: "hardware sees who is running",
    plugin: provider(ipiVirtualizationSlot, ipiVirtualizationAlways),
  },
  after: {
    name: "after",
    summary: "not on family 17h",
    plugin: provider(ipiVirtualizationSlot, ipiVirtualizationByFamily),
  },
  others: [],
  scenarios: [
    {
      name: "family-17h",
      summary: "four vCPUs send each other 200 IPIs on processors of family 17h",
      guest: "apic",
      commandLine: "rounds=50",
      cpus: 4,
      cpu: { model: "zen2" },
      sameForGuest: true,
    },
    {
      name: "family-19h",
      summary: "the same on processors of family 19h",
      guest: "apic",
      commandLine: "rounds=50",
      cpus: 4,
      cpu: { model: "zen4" },
      sameForGuest: true,
    },
    {
      name: "storm",
      summary: "eight vCPUs on three processors of family 17h send each other IPIs at random",
      guest: "ipistorm",
      commandLine: "ipis=2000",
      cpus: 8,
      processors: 3,
      cpu: { model: "zen2" },
      sameForGuest: true,
    },
  ],
};
