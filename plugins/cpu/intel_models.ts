/**
 * Intel processors to choose from, and the parts of VMX that tell them apart.
 *
 * @module
 */
import { ArgumentError } from "../../core/mod.ts";
import {
  chooseIsa,
  implementedCr4,
  ISA_AVX2,
  ISA_HASWELL,
  ISA_XSAVES,
  type IsaFeatureChoice,
  type IsaFeatureName,
  isaNames,
} from "./isa_features.ts";
import { EntryControl, ExitControl, Secondary } from "./vmx/controls.ts";
import {
  type InstructionSettings,
  VMX_FEATURES,
  vmxCapabilities,
  type VmxFeatureChoice,
  type VmxFeatureName,
} from "./vmx/capabilities.ts";

/** An Intel processor by its microarchitecture; `"max-intel"` is one with all there is. */
export type IntelModel =
  | "haswell"
  | "skylake-sp"
  | "sapphire-rapids"
  | "diamond-rapids"
  | "max-intel";

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
  "load_perf_global_ctrl",
];
const SKYLAKE: readonly VmxFeatureName[] = [...HASWELL, "pml", "mbec", "tsc_scaling"];
const SAPPHIRE_RAPIDS: readonly VmxFeatureName[] = [
  ...SKYLAKE,
  "ept_5level",
  "ipi_virt",
  "bus_lock_detection",
  "notify_vm_exiting",
  "ept_sss",
];

const HASWELL_ISA: readonly IsaFeatureName[] = [
  ...ISA_HASWELL,
  ...ISA_AVX2,
  "movbe",
  "popcnt",
  "abm",
  "lahf_lm",
  "erms",
  "fsgsbase",
  "pcid",
  "rdtscp",
  "smep",
  "tsc_adjust",
  "spec_ctrl",
  "intel_stibp",
  "spec_ctrl_ssbd",
  "flush_l1d",
  "arch_capabilities",
  "aperfmperf",
  "invpcid",
  "rdrand",
];
const SKYLAKE_ISA: readonly IsaFeatureName[] = [
  ...HASWELL_ISA,
  ...ISA_XSAVES,
  "adx",
  "smap",
  "clflushopt",
  "clwb",
  "pku",
  "rdseed",
];
const SAPPHIRE_RAPIDS_ISA: readonly IsaFeatureName[] = [
  ...SKYLAKE_ISA,
  "sha_ni",
  "la57",
  "umip",
  "pks",
  "rdpid",
  "serialize",
  "wbnoinvd",
  "movdiri",
  "movdir64b",
  "shstk",
  "ibt",
];

const DIAMOND_RAPIDS_ISA: readonly IsaFeatureName[] = [
  ...SAPPHIRE_RAPIDS_ISA,
  "apx",
  "wrmsrns",
  "msr_imm",
  "movrs",
  "cmpccxadd",
];

/** What a model is by itself. */
interface ModelRow {
  /** CPUID 1 EAX of the server part. */
  readonly signature: number;
  /** What the brand string calls it. */
  readonly title: string;
  readonly vmx: readonly VmxFeatureName[];
  readonly isa: readonly IsaFeatureName[];
}

/**
 * Diamond Rapids, the first with APX, is family 19 (13h), model 1 in Linux's list. What these processors
 * have and is not built here, their models do not report: AVX-512, AVX-VNNI, VAES, VPCLMULQDQ, GFNI and AMX,
 * TSX, MPX.
 */
const MODELS: Readonly<Record<IntelModel, ModelRow>> = {
  "haswell": { signature: 0x0003_06f2, title: "Haswell", vmx: HASWELL, isa: HASWELL_ISA },
  "skylake-sp": { signature: 0x0005_0654, title: "Skylake", vmx: SKYLAKE, isa: SKYLAKE_ISA },
  "sapphire-rapids": {
    signature: 0x0008_06f8,
    title: "Sapphire Rapids",
    vmx: SAPPHIRE_RAPIDS,
    isa: SAPPHIRE_RAPIDS_ISA,
  },
  "diamond-rapids": {
    signature: 0x0040_0f10,
    title: "Diamond Rapids",
    vmx: SAPPHIRE_RAPIDS,
    isa: DIAMOND_RAPIDS_ISA,
  },
  "max-intel": { signature: 0x0008_06f8, title: "Max", vmx: NAMES, isa: isaNames("intel") },
};

/** What VMX has to switch of control-flow enforcement. */
const LOAD_CET: InstructionSettings = {
  exit: ExitControl.LOAD_CET,
  entry: EntryControl.LOAD_CET,
};

/** Settings of VMX that come with instructions. */
const SETTINGS: { readonly [K in IsaFeatureName]?: InstructionSettings } = {
  invpcid: { secondary: Secondary.INVPCID },
  rdrand: { secondary: Secondary.RDRAND },
  rdseed: { secondary: Secondary.RDSEED },
  xsaves: { secondary: Secondary.XSAVES },
  shstk: LOAD_CET,
  ibt: LOAD_CET,
};

/** Names of the Intel models. */
export const INTEL_MODELS: readonly IntelModel[] = Object.keys(MODELS) as IntelModel[];

/** Whether a model is one of Intel's. */
export function isIntelModel(model: string): model is IntelModel {
  return Object.hasOwn(MODELS, model);
}

/** What there is to say about an Intel processor. */
interface IntelProcessor {
  /** CPUID 1 EAX. */
  readonly signature: number;
  /** What the brand string calls it. */
  readonly title: string;
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
  const unknown = Object.keys(choice).find((name) => !Object.hasOwn(VMX_FEATURES, name));
  if (unknown !== undefined) {
    throw new ArgumentError(
      `cpu: no feature ${unknown} of ${model}; there are ${
        [...NAMES, ...isaNames("intel")].join(", ")
      }`,
    );
  }
  const { signature, title, vmx, isa: ownIsa } = MODELS[model];
  const isa = chooseIsa(ownIsa, isaChoice, "intel");
  const on = new Set<VmxFeatureName>();
  for (const name of NAMES) {
    const wanted = choice[name];
    // A feature stands behind the one it extends in the table.
    const base = VMX_FEATURES[name].extends;
    const based = base === undefined || on.has(base);
    if (wanted === true && !based) {
      throw new ArgumentError(`cpu: ${name} cannot be without ${base}`);
    }
    if ((wanted ?? vmx.includes(name)) && based) on.add(name);
  }
  if (!isa.has("shstk")) on.delete("ept_sss");
  const settings = [...isa].map((name) => SETTINGS[name] ?? {});
  const vmxMsrs = vmxCapabilities(on, implementedCr4(isa, "intel"), settings);
  return { signature, title, vmxMsrs, isa };
}
