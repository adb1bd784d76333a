/**
 * Intel processors to choose from, and the parts of VMX that tell them apart.
 *
 * @module
 */
import { ArgumentError } from "../../core/mod.ts";
import { CR4_IMPLEMENTED } from "./microcode/control.ts";
import {
  chooseIsa,
  ISA_HASWELL,
  ISA_ICE_LAKE,
  type IsaFeatureChoice,
  type IsaFeatureName,
} from "./isa_features.ts";
import { Cr4 } from "./microcode/registers.ts";
import {
  VMX_FEATURES,
  vmxCapabilities,
  type VmxFeatureChoice,
  type VmxFeatureName,
} from "./vmx/capabilities.ts";

/** An Intel processor by its microarchitecture. */
export type IntelModel = "haswell" | "skylake-sp" | "sapphire-rapids" | "diamond-rapids";

const NAMES: readonly VmxFeatureName[] = Object.keys(VMX_FEATURES) as VmxFeatureName[];

const HASWELL: readonly VmxFeatureName[] = [
  "vnmi",
  "preemption_timer",
  "vapic",
  "ept",
  "ept_ad",
  "ept_1gb",
  "vpid",
  "unrestricted_guest",
  "ple",
  "shadow_vmcs",
  "eptp_switching",
  "flexpriority",
  "virtual_x2apic",
  "vapic_reg",
  "vid",
  "posted_intr",
];
const SKYLAKE: readonly VmxFeatureName[] = [...HASWELL, "pml", "mbec", "tsc_scaling"];
const SAPPHIRE_RAPIDS: readonly VmxFeatureName[] = [
  ...SKYLAKE,
  "ept_5level",
  "ipi_virt",
  "bus_lock_detection",
  "notify_vm_exiting",
];
const DIAMOND_RAPIDS: readonly VmxFeatureName[] = [...SAPPHIRE_RAPIDS, "xsaves"];

const APX: readonly IsaFeatureName[] = [
  ...ISA_ICE_LAKE,
  "xsave",
  "apx",
  "wrmsrns",
  "msr_imm",
  "movdiri",
  "movdir64b",
  "movrs",
  "cmpccxadd",
];

/**
 * Signatures are those of the server parts; Diamond Rapids, the first with APX, is family 19 (13h), model
 * 1 in Linux's list. Only models with APX have XSAVE unless they are asked for it, as with AMD's.
 */
const MODELS: Readonly<
  Record<IntelModel, readonly [number, readonly VmxFeatureName[], readonly IsaFeatureName[]]>
> = {
  "haswell": [0x0003_06f2, HASWELL, ISA_HASWELL],
  "skylake-sp": [0x0005_0654, SKYLAKE, ISA_HASWELL],
  "sapphire-rapids": [0x0008_06f8, SAPPHIRE_RAPIDS, ISA_ICE_LAKE],
  "diamond-rapids": [0x0040_0f10, DIAMOND_RAPIDS, APX],
};

/** Names of the Intel models. */
export const INTEL_MODELS: readonly string[] = Object.keys(MODELS);

/** Whether a model is one of Intel's. */
export function isIntelModel(model: string): model is IntelModel {
  return model in MODELS;
}

/** What there is to say about an Intel processor. */
interface IntelProcessor {
  /** CPUID 1 EAX. */
  readonly signature: number;
  /** Capability MSRs from 480h on. */
  readonly vmxMsrs: readonly bigint[];
  /** Optional parts of the instruction set. */
  readonly isa: ReadonlySet<IsaFeatureName>;
}

/** A model with features of VMX and of the instruction set switched on or off. */
export function intelModel(
  model: IntelModel,
  choice: VmxFeatureChoice,
  isaChoice: IsaFeatureChoice,
): IntelProcessor {
  const unknown = Object.keys(choice).find((name) => !(name in VMX_FEATURES));
  if (unknown !== undefined) {
    throw new ArgumentError(`cpu: no feature ${unknown}; there are ${NAMES.join(", ")}`);
  }
  const [signature, own, ownIsa] = MODELS[model];
  const isa = chooseIsa(ownIsa, isaChoice);
  const on = new Set<VmxFeatureName>();
  for (const name of NAMES) {
    const wanted = choice[name];
    // A feature stands behind the one it extends in the table.
    const { extends: base, needs } = VMX_FEATURES[name];
    const based = (base === undefined || on.has(base)) && (needs === undefined || isa.has(needs));
    if (wanted === true && !based) {
      throw new ArgumentError(`cpu: ${name} cannot be without ${base ?? needs}`);
    }
    if ((wanted ?? own.includes(name)) && based) on.add(name);
  }
  const cr4 = CR4_IMPLEMENTED | Cr4.VMXE | (isa.has("xsave") ? Cr4.OSXSAVE : 0);
  return { signature, vmxMsrs: vmxCapabilities(on, cr4), isa };
}
