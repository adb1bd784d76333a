/**
 * The processors there are to choose from, and the parts of SVM that tell them apart.
 *
 * @module
 */
import { ArgumentError } from "../../core/mod.ts";
import { INTEL_MODELS, type IntelModel, intelModel, isIntelModel } from "./intel_models.ts";
import {
  chooseIsa,
  ISA_AVX2,
  ISA_ICE_LAKE,
  ISA_XSAVES,
  type IsaFeatureChoice,
  type IsaFeatureName,
  isaNames,
  vendorChoice,
} from "./isa_features.ts";
import { SvmFeature, SvmFeature2 } from "./svm/features.ts";
import type { VmxFeatureChoice } from "./vmx/capabilities.ts";

/** A processor by its microarchitecture. */
export type CpuModel = AmdModel | IntelModel;

/**
 * An AMD processor by its microarchitecture; `"apx"` is a Zen 4 with Intel APX, which no processor with
 * SVM has yet, and `"max"` a Zen 5 with all there is.
 */
export type AmdModel = "zen2" | "zen3" | "zen4" | "zen5" | "apx" | "max";

/** An optional part of SVM, by a name after the one in CPUID 8000_000Ah (APM vol. 3, E.4.9). */
export type SvmFeatureName =
  | "npt"
  | "lbr_virt"
  | "tsc_scale"
  | "pause_filter"
  | "pause_filter_threshold"
  | "avic"
  | "v_vmsave_vmload"
  | "vgif"
  | "gmet"
  | "x2avic"
  | "vnmi"
  | "avic_extlvt"
  | "bus_lock_threshold"
  | "idle_hlt"
  | "x2avic_ext";

/** Parts of SVM to switch on or off against what the model has. */
export type SvmFeatureChoice = { readonly [K in SvmFeatureName]?: boolean };

/** Parts of the instruction set, and of SVM or VMX, whichever the model has, to switch on or off. */
export type FeatureChoice = SvmFeatureChoice & VmxFeatureChoice & IsaFeatureChoice;

/** Where a feature is reported, and what it cannot be without. */
interface FeatureRow {
  /** Bit of CPUID 8000_000Ah EDX. */
  readonly edx?: number;
  /** Bit of CPUID 8000_000Ah ECX. */
  readonly ecx?: number;
  /** The feature it extends. */
  readonly extends?: SvmFeatureName;
}

const ROWS: Readonly<Record<SvmFeatureName, FeatureRow>> = {
  npt: { edx: SvmFeature.NESTED_PAGING },
  lbr_virt: { edx: SvmFeature.LBR_VIRT },
  tsc_scale: { edx: SvmFeature.TSC_RATIO },
  pause_filter: { edx: SvmFeature.PAUSE_FILTER },
  pause_filter_threshold: { edx: SvmFeature.PAUSE_FILTER_THRESHOLD, extends: "pause_filter" },
  avic: { edx: SvmFeature.AVIC, extends: "npt" },
  v_vmsave_vmload: { edx: SvmFeature.VIRTUAL_VMSAVE_VMLOAD, extends: "npt" },
  vgif: { edx: SvmFeature.VGIF },
  gmet: { edx: SvmFeature.GMET, extends: "npt" },
  x2avic: { edx: SvmFeature.X2AVIC, extends: "avic" },
  vnmi: { edx: SvmFeature.VNMI },
  avic_extlvt: { edx: SvmFeature.EXTLVT_AVIC_ACCESS, extends: "avic" },
  bus_lock_threshold: { edx: SvmFeature.BUS_LOCK_THRESHOLD },
  idle_hlt: { edx: SvmFeature.IDLE_HLT },
  x2avic_ext: { ecx: SvmFeature2.X2AVIC_EXT, extends: "x2avic" },
};

const NAMES: readonly SvmFeatureName[] = Object.keys(ROWS) as SvmFeatureName[];

const ZEN2: readonly SvmFeatureName[] = [
  "npt",
  "lbr_virt",
  "tsc_scale",
  "pause_filter",
  "pause_filter_threshold",
  "avic",
  "v_vmsave_vmload",
  "vgif",
  "gmet",
];
const ZEN4: readonly SvmFeatureName[] = [...ZEN2, "x2avic", "vnmi", "avic_extlvt"];
const ZEN5: readonly SvmFeatureName[] = [...ZEN4, "bus_lock_threshold", "idle_hlt", "x2avic_ext"];

/** What 64-bit code has been able to count on since Zen 2. */
const ZEN2_ISA: readonly IsaFeatureName[] = [
  ...ISA_ICE_LAKE,
  ...ISA_AVX2,
  ...ISA_XSAVES,
  "sse4a",
  "adx",
  "movbe",
  "popcnt",
  "abm",
  "lahf_lm",
  "fsgsbase",
  "rdtscp",
  "smap",
  "smep",
  "umip",
  "amd_ibpb",
  "amd_ibrs",
  "amd_stibp",
  "amd_ssbd",
  "aperfmperf",
  "rdpru",
  "clflushopt",
  "clwb",
  "clzero",
  "wbnoinvd",
  "mwaitx",
  "rdpid",
  "rdrand",
  "rdseed",
];
const ZEN3_ISA: readonly IsaFeatureName[] = [
  ...ZEN2_ISA,
  "erms",
  "pcid",
  "invpcid",
  "pku",
  "shstk",
];
const ZEN4_ISA: readonly IsaFeatureName[] = [...ZEN3_ISA, "la57"];
const ZEN5_ISA: readonly IsaFeatureName[] = [...ZEN4_ISA, "movdiri", "movdir64b"];
const APX_ISA: readonly IsaFeatureName[] = [...ZEN4_ISA, "apx", "wrmsrns", "msr_imm"];

/** What a model is by itself. */
interface ModelRow {
  /** CPUID 1 EAX of the server part. */
  readonly signature: number;
  /** What the brand string calls it. */
  readonly title: string;
  readonly svm: readonly SvmFeatureName[];
  readonly isa: readonly IsaFeatureName[];
}

/**
 * Of the features, 8000_000Ah EDX of a Zen 4 reads 1EBF_BCFFh; the others follow the order in which
 * Linux learned the bits and the PPRs of the families. What these processors have and is not built here,
 * their models do not report: VAES and VPCLMULQDQ (from Zen 3 on), AVX-512 and GFNI (Zen 4), AVX-VNNI
 * (Zen 5), SEV and SME.
 *
 * MONITOR is built, these processors have it, and their models do not report it all the same: a guest that is
 * told of it waits by MWAIT when it is idle, which hypervisors as KVM intercept and let fall through, so that
 * the guest spins; KVM reports it only to guests whose MWAIT it lets through. A model is the same on the bare
 * processor and under a hypervisor, so that runs can be compared. `+monitor` reports it, and so does `max`.
 */
const MODELS: Readonly<Record<AmdModel, ModelRow>> = {
  zen2: { signature: 0x0083_0f10, title: "Zen 2", svm: ZEN2, isa: ZEN2_ISA },
  zen3: { signature: 0x00a0_0f11, title: "Zen 3", svm: ZEN2, isa: ZEN3_ISA },
  zen4: { signature: 0x00a1_0f11, title: "Zen 4", svm: ZEN4, isa: ZEN4_ISA },
  zen5: { signature: 0x00b0_0f21, title: "Zen 5", svm: ZEN5, isa: ZEN5_ISA },
  apx: { signature: 0x00a1_0f11, title: "Zen 4 with APX", svm: ZEN4, isa: APX_ISA },
  max: { signature: 0x00b0_0f21, title: "Max", svm: NAMES, isa: isaNames("amd") },
};

/** Names of all models. */
export const CPU_MODELS: readonly CpuModel[] = [
  ...(Object.keys(MODELS) as AmdModel[]),
  ...INTEL_MODELS,
];

/** Bits of a physical address that processors have if nothing else is asked for. */
const PHYSICAL_BITS = 48;
/** Fewest and most that there are (APM vol. 2, 5.1; SDM vol. 3A, 5.1.4). The board's memory ends below the 36th. */
const PHYSICAL_BITS_RANGE = [36, 52] as const;

/** What a processor tells about itself. */
export interface ProcessorModel {
  /** Whose it is: AMD's processors have SVM, Intel's VMX. */
  readonly vendor: "amd" | "intel";
  /** Family, model and stepping as CPUID 1 EAX reports them. */
  readonly signature: number;
  /** What the brand string calls it. */
  readonly title: string;
  /** Optional bits of CPUID 8000_000Ah EDX. */
  readonly svmFeatures: number;
  /** Optional bits of CPUID 8000_000Ah ECX. */
  readonly svmFeatures2: number;
  /** VMX capability MSRs from 480h on. */
  readonly vmxMsrs: readonly bigint[];
  /** Optional parts of the instruction set. */
  readonly isa: ReadonlySet<IsaFeatureName>;
  /** Bits of a physical address (MAXPHYADDR), as CPUID 8000_0008h EAX 7:0 reports them. */
  readonly physicalBits: number;
}

/**
 * A model with features switched on or off. What extends a feature that was switched off goes with it.
 * Physical addresses have 48 bits if not given.
 *
 * @throws {ArgumentError} If there is no such model or feature, a feature is switched on without the
 *   one it extends, or `physicalBits` is not from 36 to 52.
 */
export function processorModel(
  model: CpuModel = "zen4",
  features: FeatureChoice = {},
  physicalBits: number = PHYSICAL_BITS,
): ProcessorModel {
  const [fewest, most] = PHYSICAL_BITS_RANGE;
  if (!Number.isInteger(physicalBits) || physicalBits < fewest || physicalBits > most) {
    throw new ArgumentError(
      `cpu: physical addresses of ${physicalBits} bits; there are from ${fewest} to ${most}`,
    );
  }
  const choice = vendorChoice<SvmFeatureChoice & VmxFeatureChoice>(features);
  if (isIntelModel(model)) {
    return {
      vendor: "intel",
      svmFeatures: 0,
      svmFeatures2: 0,
      physicalBits,
      ...intelModel(model, choice, features),
    };
  }
  if (!Object.hasOwn(MODELS, model)) {
    throw new ArgumentError(`cpu: no model ${model}; there are ${CPU_MODELS.join(", ")}`);
  }
  const unknown = Object.keys(choice).find((name) => !Object.hasOwn(ROWS, name));
  if (unknown !== undefined) {
    throw new ArgumentError(
      `cpu: no feature ${unknown} of ${model}; there are ${
        [...NAMES, ...isaNames("amd")].join(", ")
      }`,
    );
  }
  const { signature, title, svm: own, isa: ownIsa } = MODELS[model];
  const on = new Set<SvmFeatureName>();
  for (const name of NAMES) {
    const wanted = choice[name];
    // A feature stands behind the one it extends in the table.
    const base = ROWS[name].extends;
    const based = base === undefined || on.has(base);
    if (wanted === true && !based) {
      throw new ArgumentError(`cpu: ${name} cannot be without ${base}`);
    }
    if ((wanted ?? own.includes(name)) && based) on.add(name);
  }
  let svmFeatures = 0;
  let svmFeatures2 = 0;
  for (const name of on) {
    svmFeatures |= ROWS[name].edx ?? 0;
    svmFeatures2 |= ROWS[name].ecx ?? 0;
  }
  return {
    vendor: "amd",
    signature,
    title,
    svmFeatures,
    svmFeatures2,
    vmxMsrs: [],
    isa: chooseIsa(ownIsa, features, "amd"),
    physicalBits,
  };
}
