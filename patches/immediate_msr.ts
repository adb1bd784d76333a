/**
 * "Add support for RDMSR/WRMSRNS w/ immediate on Intel", and what was before.
 *
 * @module
 */
import { apx } from "../plugins/apx/mod.ts";
import { immediateMsrHandled, immediateMsrSlot } from "../plugins/vmx/mod.ts";
import type { Patch } from "./patch.ts";
import { provider } from "./providers.ts";
import { x2apicFastpath } from "./x2apic_fastpath.ts";

/** The patch. */
export const immediateMsr: Patch = {
  id: "msr-imm",
  title: "KVM: x86: Add support for RDMSR/WRMSRNS w/ immediate on Intel",
  posted: {
    author: "Xin Li",
    where: "kvm and linux-kernel, version 3, patch 4 of 6",
    date: "2025-08-05",
  },
  state: "merged",
  commits: [],
  changes: "VM exits 84 and 85 are handled: the exit qualification is the MSR, the instruction " +
    "information has the register. WRMSRNS with an immediate has the fastpath of WRMSR.",
  shows: "RDMSR or WRMSRNS with an immediate that exits: an exit that the hypervisor does not " +
    "know, and the end of the VM -> RDMSR and WRMSR like any other.",
  before: {
    name: "before",
    summary: "exits 84 and 85 are unknown",
    plugin: provider(immediateMsrSlot, { name: "unknown", handled: false }),
  },
  after: {
    name: "after",
    summary: "exits 84 and 85 are handled as RDMSR and WRMSR",
    plugin: provider(immediateMsrSlot, immediateMsrHandled),
  },
  others: [],
  scenarios: [
    {
      name: "vmx",
      summary: "IPIs with ICR written by WRMSRNS, and an MSR read, both with immediates",
      guest: "egprs",
      commandLine: "ipis=10",
      vendor: "vmx",
      cpu: { model: "diamond-rapids" },
      plugins: () => [apx(), x2apicFastpath()],
      sameForGuest: false,
    },
  ],
};
