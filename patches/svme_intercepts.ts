/**
 * "Recalc instructions intercepts when EFER.SVME is toggled", its earlier versions, and what was before.
 *
 * The processor always sees EFER.SVME set, because VMRUN demands it. A guest with SVME clear that
 * executes VMLOAD must therefore exit, or it gets the instruction instead of #UD.
 *
 * @module
 */
import {
  type InstructionInterceptInput,
  type InstructionInterceptPolicy,
  instructionInterceptSlot,
  POLICY_INTERCEPTS,
  recalculatedOnSvmeToggle,
  STGI_CLGI,
  VMLOAD_VMSAVE,
} from "../plugins/svm/mod.ts";
import { guestMaker } from "./guest_maker.ts";
import type { Patch, PatchScenario } from "./patch.ts";
import { provider } from "./providers.ts";

/** As the VMCB is made: STGI and CLGI do not exit where the processor has a GIF for the guest. */
const clearedWithVirtualGif = ({ virtualGif }: InstructionInterceptInput): number =>
  virtualGif ? POLICY_INTERCEPTS & ~STGI_CLGI : POLICY_INTERCEPTS;

const neverRecalculated: InstructionInterceptPolicy = {
  name: "decided by CPUID alone",
  followsSvme: false,
  initial: clearedWithVirtualGif,
  recalculate(current, { intelCompatible, virtualVmload }) {
    if (intelCompatible) return current | VMLOAD_VMSAVE;
    return virtualVmload ? current & ~VMLOAD_VMSAVE : current;
  },
};

/**
 * Versions 3 and 4, as their change log and the review describe them: for an Intel-compatible guest STGI
 * and CLGI are treated as VMLOAD and VMSAVE are.
 */
function withMakerFirst(
  current: number,
  { svme, intelCompatible, virtualVmload, virtualGif }: InstructionInterceptInput,
): number {
  if (!svme || intelCompatible) return POLICY_INTERCEPTS;
  let intercepts = current;
  if (virtualVmload) intercepts &= ~VMLOAD_VMSAVE;
  if (virtualGif) intercepts &= ~STGI_CLGI;
  return intercepts;
}

const version3: InstructionInterceptPolicy = {
  name: "version 3: the maker decides on STGI and CLGI as well",
  followsSvme: true,
  initial: () => POLICY_INTERCEPTS,
  recalculate: withMakerFirst,
};

const version4: InstructionInterceptPolicy = {
  name: "version 4: as version 3, from clear STGI and CLGI intercepts",
  followsSvme: true,
  initial: clearedWithVirtualGif,
  recalculate: withMakerFirst,
};

const scenario = (
  name: string,
  summary: string,
  rest: Partial<PatchScenario> = {},
): PatchScenario => ({
  name,
  summary,
  guest: "svm",
  commandLine: "rounds=100 toggles=2",
  svm: { nested: true },
  // The point of the patch is what the guest sees.
  sameForGuest: false,
  ...rest,
});

/** The patch. */
export const svmeIntercepts: Patch = {
  id: "svme-intercepts",
  title: "KVM: SVM: Recalc instructions intercepts when EFER.SVME is toggled",
  posted: {
    author: "Kevin Cheng, put together anew by Sean Christopherson",
    where: "linux-kernel, https://lkml.iu.edu/hypermail/linux/kernel/2603.0/02994.html",
    date: "2026-03-02",
  },
  state: "merged",
  commits: ["69f779f79e0d", "460c7eb2e759"],
  changes:
    "While EFER.SVME is clear, VMLOAD, VMSAVE, STGI and CLGI exit, so that they can be made " +
    "undefined; while it is set, they exit only where the processor cannot execute them for the guest.",
  shows:
    "EFER.SVME = 0: executed -> #UD, one exit each. EFER.SVME = 1: no exits where the processor " +
    "has virtual VMLOAD/VMSAVE and virtual GIF; versions 3 and 4 let STGI and CLGI of an " +
    "Intel-compatible guest exit, both alike.",
  before: {
    name: "before",
    summary: "intercepts follow CPUID, never EFER.SVME",
    plugin: provider(instructionInterceptSlot, neverRecalculated),
  },
  after: {
    name: "after",
    summary: "intercepts follow EFER.SVME; the guest's maker only matters to VMLOAD and VMSAVE",
    plugin: provider(instructionInterceptSlot, recalculatedOnSvmeToggle),
  },
  others: [
    {
      name: "v3",
      summary: "the guest's maker decides on STGI and CLGI, too",
      plugin: provider(instructionInterceptSlot, version3),
    },
    {
      name: "v4",
      summary: "as v3, with STGI and CLGI not intercepted when the VMCB is made",
      plugin: provider(instructionInterceptSlot, version4),
    },
  ],
  scenarios: [
    scenario("amd", "a guest that toggles EFER.SVME, on an AMD processor"),
    scenario("intel-compatible", "the same guest, told that it has an Intel processor", {
      plugins: () => [guestMaker("GenuineIntel")],
    }),
  ],
};
