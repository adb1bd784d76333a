/**
 * R16–R31 of APX for guests: the sketch that was posted for KVM, what was argued for in its review, and
 * what is without either.
 *
 * @module
 */
import { cpuidHook, type Plugin, roundRobin } from "../core/mod.ts";
import { apx, ApxCpuidBit, type ApxOptions } from "../plugins/apx/mod.ts";
import type { Patch, PatchScenario, PatchVariant } from "./patch.ts";
import { x2apicFastpath } from "./x2apic_fastpath.ts";

const posted: Patch["posted"] = {
  author: "Paolo Bonzini",
  where: 'kvm and linux-kernel, a sketch in the thread "KVM: x86: APX reg prep work"',
  date: "2026-04-04",
};

const variant = (name: string, summary: string, options: ApxOptions): PatchVariant => ({
  name,
  summary,
  plugin: () => apx(options),
});

const scenario = (
  name: string,
  summary: string,
  commandLine: string,
  rest: Partial<PatchScenario> = {},
): PatchScenario => ({
  name,
  summary,
  guest: "egprs",
  commandLine,
  cpu: { model: "apx" },
  avic: false,
  // All of them repair what a guest can see, or its host.
  sameForGuest: false,
  ...rest,
});

/** vCPUs that change places often, in a pattern without a period. */
const restless = (): Plugin => roundRobin({ quantum: 300, timeslice: 700, seed: 19 });

const crowded = { cpus: 4, processors: 2 } as const;

/** R16–R31 are switched at all. */
export const apxSwitch: Patch = {
  id: "apx-switch",
  title: "KVM: x86: load and save R16–R31 around entries",
  posted,
  state: "posted",
  commits: [],
  changes:
    "R16–R31 are loaded as the last thing before an entry and saved as the first behind an " +
    "exit, for no processor does it.",
  shows:
    "A vCPU finds another's values in R16–R31 -> its own. An IPI by WRMSRNS with an immediate " +
    "from R20, which the fastpath sends: what the hypervisor has last saved of R20 -> what the " +
    "guest has there. As many exits as before.",
  before: variant("before", "XCR0 is switched, R16–R31 are not", { variant: "none" }),
  after: variant("after", "as posted: with early_xcr0", { variant: "posted" }),
  others: [variant("reviewed", "as argued for in review: XCR0 of the guest last", {
    variant: "reviewed",
  })],
  scenarios: [
    scenario(
      "leak",
      "four vCPUs on two processors, each with its own values in R16–R31",
      "leak cpus=4 rounds=200",
      { ...crowded, plugins: () => [restless()] },
    ),
    scenario(
      "fastpath",
      "IPIs with ICR written from R20, and an MSR read into R27",
      "ipis=10",
      { plugins: () => [x2apicFastpath()] },
    ),
  ],
};

/** A guest that has no APX, on processors that do. */
function withoutApx(): Plugin {
  return {
    name: "without-apx",
    version: "1.0.0",
    setup(ctx) {
      ctx.on(cpuidHook, 7, (result) => {
        if (result.subleaf === 1) result.edx &= ~(1 << ApxCpuidBit.ARCHITECTURAL);
        return result;
      }, { stage: "post" });
    },
  };
}

/** The order of writing XCR0 and moving R16–R31, and a kernel that uses them itself. */
export const apxOrder: Patch = {
  id: "apx-order",
  title: "KVM: x86: write the real XCR0 after touching R16–R31",
  posted: {
    author: "Sean Christopherson",
    where: 'kvm and linux-kernel, review of the sketch in "KVM: x86: APX reg prep work"',
    date: "2026-04-06",
  },
  state: "posted",
  commits: [],
  changes: "early_xcr0 goes: the host's code runs under the host's XCR0, and R16–R31 are moved " +
    "while XCR0 has APX, with nothing of the host's in between.",
  shows:
    "A host whose kernel is built for APX: loses its values, or meets #UD if the guest has no " +
    "APX -> runs. A kernel without APX, as the sketch assumes: no difference.",
  before: variant("before", "as posted, in a kernel that uses R16–R31", {
    variant: "posted",
    host: "kernel",
  }),
  after: variant("after", "as argued for in review, in such a kernel", {
    variant: "reviewed",
    host: "kernel",
  }),
  others: [
    variant("posted, user", "as posted, and only the host's programs have APX", {
      variant: "posted",
      host: "user",
    }),
    variant("posted, off", "as posted, in a host without APX", { variant: "posted" }),
    variant("reviewed, off", "as argued for in review, in a host without APX", {
      variant: "reviewed",
    }),
  ],
  scenarios: [
    scenario("apx", "four vCPUs on two processors, with APX", "leak switch cpus=4 rounds=100", {
      ...crowded,
      plugins: () => [restless()],
    }),
    scenario("without", "a guest whose CPUID has no APX", "", { plugins: () => [withoutApx()] }),
  ],
};

/** Where CPUID has APX_F. */
export const apxCpuid: Patch = {
  id: "apx-cpuid",
  title: "KVM: x86: APX is bit 21 of CPUID (7,1) EDX",
  posted: {
    where: "Intel APX architecture specification, against the sketch of 4 April 2026",
    date: "2026-04",
  },
  state: "posted",
  commits: [],
  changes: "X86_FEATURE_APX of KVM stands for EDX[21]; the sketch has EDX[7].",
  shows: "EDX[7] set, which is reserved, and no APX where a guest looks for it -> APX.",
  before: variant("before", "bit 7, as posted", {
    variant: "posted",
    cpuidBit: ApxCpuidBit.POSTED,
  }),
  after: variant("after", "bit 21", { variant: "posted" }),
  others: [],
  scenarios: [scenario("cpuid", "a guest that looks for APX and uses it", "switch")],
};
