/**
 * Whether a VM has AVIC when nobody has asked for it: KVM's module parameter `avic`.
 *
 * @module
 */
import { CpuidResult, cpuidSlot, type Plugin, type Vcpu, vcpuCreatedHook } from "../core/mod.ts";
import { SvmFeature } from "../plugins/cpu/mod.ts";
import { AvicInhibit } from "../plugins/svm/avic/mod.ts";
import type { Patch } from "./patch.ts";

/** SVM features of the processor: CPUID leaf, of which EDX counts. */
const SVM_FEATURES = 0x8000_000a;

/** Inhibits AVIC for good unless `enables` says otherwise, given CPUID 8000_000Ah EDX. */
function avicParameter(enables: (features: number) => boolean): Plugin {
  return {
    name: "avic-parameter",
    version: "1.0.0",
    setup(ctx) {
      const source = ctx.use(cpuidSlot);
      const decide = (vcpu: Vcpu): void => {
        const result = new CpuidResult();
        result.leaf = SVM_FEATURES;
        source.current.read(result, vcpu);
        if (!enables(result.edx)) ctx.inhibit(AvicInhibit.DISABLED);
      };
      const [first] = ctx.vm.vcpus;
      if (first !== undefined) return decide(first);
      // There is nobody to ask before the first vCPU is there.
      ctx.on(vcpuCreatedHook, (vcpu) => vcpu.index === 0 ? decide(vcpu) : undefined, {
        stage: "pre",
      });
    },
  };
}

/** The patch. */
export const avicDefault: Patch = {
  id: "avic-default",
  title: "KVM: SVM: Enable AVIC by default on Zen 4 and later with x2AVIC",
  posted: {
    author: "Naveen N Rao and Sean Christopherson",
    where: "kvm and linux-kernel",
    date: "2025",
  },
  state: "merged",
  commits: [],
  changes:
    'The parameter avic becomes "auto": on where the processor has x2AVIC, off elsewhere, unless ' +
    "somebody says otherwise. It was off.",
  shows:
    "On Zen 4: EOI, TPR, IPIs and most reads of the local APIC: an exit each -> none. On Zen 3 " +
    "nothing.",
  before: {
    name: "before",
    summary: "AVIC is off unless it is asked for",
    plugin: () => avicParameter(() => false),
  },
  after: {
    name: "after",
    summary: "AVIC is on where the processor has x2AVIC",
    plugin: () => avicParameter((features) => (features & SvmFeature.X2AVIC) !== 0),
  },
  others: [],
  scenarios: [
    {
      name: "zen4",
      summary: "four vCPUs program their local APICs, take timer interrupts and send IPIs",
      guest: "apic",
      commandLine: "x2apic rounds=10",
      cpus: 4,
      cpu: { model: "zen4" },
      sameForGuest: true,
    },
    {
      name: "zen3",
      summary: "the same on processors that have AVIC and not x2AVIC",
      guest: "apic",
      commandLine: "x2apic rounds=10",
      cpus: 4,
      cpu: { model: "zen3" },
      sameForGuest: true,
    },
  ],
};
