/**
 * "Inject #UD for INVLPGA if EFER.SVME=0", and what was before.
 *
 * @module
 */
import { invlpgaChecked, invlpgaSlot } from "../plugins/svm/mod.ts";
import type { Patch } from "./patch.ts";
import { provider } from "./providers.ts";

/** The patch. */
export const invlpgaUd: Patch = {
  id: "invlpga-ud",
  title: "KVM: SVM: Inject #UD for INVLPGA if EFER.SVME=0",
  posted: {
    author: "Kevin Cheng",
    where: 'linux-kernel, part of the series "Align SVM with APM defined behaviors"',
    date: "2026-02-27",
  },
  state: "merged",
  commits: ["d99df02ff427"],
  changes: "The handler of an intercepted INVLPGA looks at the guest's EFER.SVME first.",
  shows: "INVLPGA with EFER.SVME = 0: executed -> #UD. It exits either way, as often as before.",
  before: {
    name: "before",
    summary: "an intercepted INVLPGA is carried out",
    plugin: provider(invlpgaSlot, { name: "carried out", checked: false }),
  },
  after: {
    name: "after",
    summary: "#UD while EFER.SVME is clear",
    plugin: provider(invlpgaSlot, invlpgaChecked),
  },
  others: [],
  scenarios: [
    {
      name: "amd",
      summary: "a guest that toggles EFER.SVME",
      guest: "svm",
      commandLine: "rounds=100 toggles=2",
      svm: { nested: true },
      sameForGuest: false,
    },
  ],
};
