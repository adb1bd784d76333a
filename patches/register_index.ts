/**
 * "Support extended register index in exit handling", and what was before.
 *
 * @module
 */
import { apx } from "../plugins/apx/mod.ts";
import { registerFieldsExtended, registerFieldsSlot } from "../plugins/vmx/mod.ts";
import type { Patch } from "./patch.ts";
import { provider } from "./providers.ts";
import { x2apicFastpath } from "./x2apic_fastpath.ts";

/** The patch. */
export const extendedRegisterIndex: Patch = {
  id: "vmx-egpr",
  title: "KVM: VMX: Support extended register index in exit handling",
  posted: {
    author: "Chang S. Bae",
    where: "kvm and linux-kernel, patch 8 of 16",
    date: "2025-12-21",
  },
  state: "posted",
  commits: [],
  changes:
    "Where the processor has APX, register numbers of five bits are read from the extended " +
    "instruction information (2406h) and from bits 12:8 of the qualification, instead of four bits " +
    "from the fields that were there before.",
  shows:
    "WRMSRNS with an immediate from R20: the value of RSP is written -> that of R20. RDMSR to " +
    "R27: R11 is overwritten -> R27 is read into. As many exits.",
  before: {
    name: "before",
    summary: "register numbers have four bits",
    plugin: provider(registerFieldsSlot, { name: "four bits", extended: false }),
  },
  after: {
    name: "after",
    summary: "register numbers have five bits where the processor has APX",
    plugin: provider(registerFieldsSlot, registerFieldsExtended),
  },
  others: [],
  scenarios: [
    {
      name: "vmx",
      summary: "IPIs with ICR written from R20, and an MSR read into R27",
      guest: "egprs",
      commandLine: "ipis=10",
      vendor: "vmx",
      cpu: { model: "diamond-rapids" },
      plugins: () => [apx(), x2apicFastpath()],
      sameForGuest: false,
    },
  ],
};
