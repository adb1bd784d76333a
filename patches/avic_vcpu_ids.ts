/**
 * vCPUs whose ids AVIC cannot address: refused, or made at the price of AVIC; and the processors that
 * address more of them.
 *
 * @module
 */
import {
  decideAtCreation,
  inhibitTooBig,
  refuseTooBig,
  vcpuIdSlot,
  x2avicExtendedLimit,
  x2avicFormerLimit,
  x2avicLimitSlot,
} from "../plugins/svm/avic/mod.ts";
import type { Patch } from "./patch.ts";
import { provider } from "./providers.ts";

/** A vCPU with a big id inhibits AVIC. */
export const avicIdTooBig: Patch = {
  id: "avic-id-too-big",
  title: "KVM: SVM: Inhibit AVIC if ID is too big instead of rejecting vCPU creation",
  posted: {
    author: "Sean Christopherson",
    where: "kvm and linux-arm-kernel, version 3, 12/62; reviewed by Naveen N Rao on 2025-06-17",
    date: "2025-06-11",
  },
  state: "merged",
  commits: [],
  changes:
    "A vCPU whose id AVIC cannot address is made, and the VM does without AVIC; making it is not " +
    "refused any more.",
  shows:
    "vCPU 255 with AVIC, 512 with x2AVIC: no VM -> a VM without AVIC. The initialization hook from " +
    "the review is the same for the guest, exit by exit.",
  before: {
    name: "before",
    summary: "making such a vCPU fails",
    plugin: provider(vcpuIdSlot, refuseTooBig),
  },
  after: {
    name: "after",
    summary: "such a vCPU inhibits AVIC for the VM, and its own apicv_active is cleared at once",
    plugin: provider(vcpuIdSlot, inhibitTooBig),
  },
  others: [
    {
      name: "hook",
      summary: "apicv_active is decided where the local APIC is made, as asked in the review",
      plugin: provider(vcpuIdSlot, decideAtCreation),
    },
  ],
  scenarios: [
    {
      name: "x2avic-512",
      summary: "vCPUs 0, 1 and 512 on processors with x2AVIC, which addresses 511",
      guest: "apic",
      commandLine: "x2apic rounds=2",
      cpus: [0, 1, 512],
      cpu: { model: "zen4" },
      sameForGuest: false,
    },
    {
      name: "avic-255",
      summary: "vCPUs 0, 1 and 255 on processors without x2AVIC, where 255 is everybody's id",
      guest: "apic",
      commandLine: "x2apic rounds=2",
      cpus: [0, 1, 255],
      cpu: { model: "zen3" },
      sameForGuest: false,
    },
    {
      name: "x2avic-511",
      summary: "vCPUs 0, 1 and 511: small enough, and nothing changes",
      guest: "apic",
      commandLine: "x2apic rounds=2",
      cpus: [0, 1, 511],
      cpu: { model: "zen4" },
      sameForGuest: true,
    },
  ],
};

/** x2AVIC for 4096 vCPUs. */
export const x2avic4k: Patch = {
  id: "x2avic-4k",
  title: "KVM: SVM: Add support for 4k vCPUs with x2AVIC",
  posted: {
    author: "Naveen N Rao",
    where: "kvm, a series of 2025 in four versions",
    date: "2025-09",
  },
  state: "merged",
  commits: [],
  changes:
    "Where CPUID 8000_000Ah ECX bit 6 says so, the physical APIC ID table has up to 4096 entries " +
    "on eight pages.",
  shows:
    "A VM with vCPU 4095: AVIC inhibited -> active, and with it IPIs, EOIs and TPR without exits.",
  before: {
    name: "before",
    summary: "ids up to 511",
    plugin: provider(x2avicLimitSlot, x2avicFormerLimit),
  },
  after: {
    name: "after",
    summary: "ids up to 4095 where the processor has it",
    plugin: provider(x2avicLimitSlot, x2avicExtendedLimit),
  },
  others: [],
  scenarios: [
    {
      name: "4095",
      summary: "vCPUs 0, 1, 512 and 4095 on processors with x2AVIC for 4096 ids",
      guest: "apic",
      commandLine: "x2apic rounds=5",
      cpus: [0, 1, 512, 4095],
      cpu: { model: "zen5" },
      sameForGuest: true,
    },
  ],
};
