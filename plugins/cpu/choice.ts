/**
 * The choice of a processor as one word: a model's name, and features with `+` or `-` in front.
 *
 * @module
 */
import { ArgumentError, type CpuidSource } from "../../core/mod.ts";
import { processorCpuid } from "./cpuid.ts";
import { ISA_NAMES, type IsaFeatureChoice, type IsaFeatureName } from "./isa_features.ts";
import { CPU_MODELS, type CpuModel, type FeatureChoice, processorModel } from "./models.ts";

/** Other names of models, as emulators and cloud providers have them. */
const ALIASES: Readonly<Record<string, CpuModel>> = {
  "epyc-zen2": "zen2",
  "epyc-zen3": "zen3",
  "epyc-zen4": "zen4",
  "epyc-zen5": "zen5",
  "epyc-rome": "zen2",
  "epyc-milan": "zen3",
  "epyc-genoa": "zen4",
  "epyc-turin": "zen5",
  "skylake": "skylake-sp",
};

/** CPUID as processors of a model have it, for a VM that is to show another processor than its own. */
export function modelCpuid(model: CpuModel, features: FeatureChoice = {}): CpuidSource {
  return processorCpuid(processorModel(model, features));
}

/** The optional parts of the instruction set that all of `models` have. */
function commonIsa(models: readonly CpuModel[]): ReadonlySet<IsaFeatureName> {
  const sets = models.map((model) => processorModel(model).isa);
  return new Set(ISA_NAMES.filter((name) => sets.every((isa) => isa.has(name))));
}

/** The parts of the instruction set that `model` has, but not all of `others`, switched off. */
export function withoutOthers(model: CpuModel, others: readonly CpuModel[]): IsaFeatureChoice {
  const common = commonIsa([model, ...others]);
  const extra = [...processorModel(model).isa].filter((name) => !common.has(name));
  return Object.fromEntries(extra.map((name) => [name, false]));
}

/** A model, and features to switch on or off. */
export interface CpuChoice {
  /** The model. */
  readonly model: CpuModel;
  /** What it is to have or not to have, against what it has by itself. */
  readonly features: FeatureChoice;
  /** Whose processors the model is one of. */
  readonly vendor: "amd" | "intel";
  /** Bits of a physical address, if not as many as the model has. */
  readonly physicalBits?: number;
}

/**
 * Reads `NAME,+FEATURE,-FEATURE…`. Names are those of models, and such as `epyc-zen4` for `zen4`. Among the
 * features may be `phys-bits=N`.
 *
 * @throws {ArgumentError} If there is no such model or feature, a feature has neither sign, or features
 *   do not go together.
 */
export function parseCpuChoice(text: string): CpuChoice {
  const [name = "", ...words] = text.split(",").map((word) => word.trim());
  const model = ALIASES[name] ?? CPU_MODELS.find((known) => known === name);
  if (model === undefined) {
    const names = [...CPU_MODELS, ...Object.keys(ALIASES)].join(", ");
    throw new ArgumentError(`there is no processor "${name}"; there are ${names}`);
  }
  const features: Record<string, boolean> = {};
  let physicalBits: number | undefined;
  for (const word of words) {
    const [, bits] = /^phys-bits=(\d{1,2})$/.exec(word) ?? [];
    if (bits !== undefined) {
      physicalBits = Number(bits);
      continue;
    }
    const [, sign, feature = ""] = /^([+-])([a-z0-9_]+)$/.exec(word) ?? [];
    if (sign === undefined) {
      throw new ArgumentError(`"${word}" is no feature with + or - in front, as in ${name},-smap`);
    }
    features[feature] = sign === "+";
  }
  return {
    model,
    features,
    vendor: processorModel(model, features, physicalBits).vendor,
    ...(physicalBits === undefined ? {} : { physicalBits }),
  };
}
