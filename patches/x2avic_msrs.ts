/**
 * Which x2APIC MSRs a guest with x2AVIC accesses without an exit: the list that KVM had for reads and
 * writes alike, and what two patches of 2026 made of it.
 *
 * @module
 */
import {
  acceleratedMsrs,
  formerMsrs,
  readableMsrs,
  x2apicReadSlot,
  x2apicWriteSlot,
} from "../plugins/svm/avic/mod.ts";
import type { Patch, PatchScenario } from "./patch.ts";
import { provider } from "./providers.ts";

const apic: PatchScenario = {
  name: "apic",
  summary: "four vCPUs program their local APICs, take timer interrupts and send IPIs",
  guest: "apic",
  commandLine: "x2apic rounds=10",
  cpus: 4,
  cpu: { model: "zen4" },
  sameForGuest: true,
};

/** Only writes that hardware accelerates pass. */
export const x2avicWrmsr: Patch = {
  id: "x2avic-wrmsr",
  title: "KVM: SVM: Only disable x2AVIC WRMSR interception for MSRs that are accelerated",
  posted: { author: "Sean Christopherson", where: "linux-kernel", date: "2026-04-09" },
  state: "merged",
  commits: ["8ba621f335a5", "8c63179d975f"],
  changes:
    "Writes of TPR, EOI, ICR and SELF_IPI pass, as with Intel's IPI virtualization; all others " +
    "are intercepted.",
  shows: "Writes that hardware does not accelerate: exit 402h -> 7Ch, which needs no decoding. " +
    "SELF_IPI: 7Ch -> no exit, for the old list had forgotten it.",
  before: {
    name: "before",
    summary: "one list for reads and writes, without SELF_IPI",
    plugin: provider(x2apicWriteSlot, formerMsrs),
  },
  after: {
    name: "after",
    summary: "writes of TPR, EOI, ICR and SELF_IPI pass",
    plugin: provider(x2apicWriteSlot, acceleratedMsrs),
  },
  others: [],
  scenarios: [apic],
};

/** Reads pass where the local APIC has the register. */
export const x2avicRdmsr: Patch = {
  id: "x2avic-rdmsr",
  title: "KVM: SVM: Disable x2AVIC RDMSR interception for MSRs KVM actually supports",
  posted: { author: "Sean Christopherson", where: "linux-kernel", date: "2026-04-09" },
  state: "merged",
  commits: ["7f4b7092d9a1"],
  changes:
    "Reads pass for the registers that the local APIC has in x2APIC mode, and that hardware " +
    "answers: all of ISR, TMR and IRR instead of the first of each, LVTT, and not the current count.",
  shows: "Reads of 811h to 817h, 819h to 81Fh, 821h to 827h and 832h: exit 7Ch -> none. " +
    "Reads of the current count: exit 402h, which has to be decoded -> 7Ch.",
  before: {
    name: "before",
    summary: "one list for reads and writes, with the first registers of ISR, TMR and IRR",
    plugin: provider(x2apicReadSlot, formerMsrs),
  },
  after: {
    name: "after",
    summary: "reads pass for all registers that there are and that hardware answers",
    plugin: provider(x2apicReadSlot, readableMsrs),
  },
  others: [],
  scenarios: [apic],
};
