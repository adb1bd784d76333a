/**
 * Optional parts of the instruction set, whichever vendor's processor has them.
 *
 * @module
 */
import { ArgumentError } from "../../core/mod.ts";
import { Xcr0 } from "./microcode/registers.ts";

/** An optional part of the instruction set, by the name that Linux has for it. */
export type IsaFeatureName =
  | "mmx"
  | "fxsr"
  | "sse"
  | "sse2"
  | "pni"
  | "ssse3"
  | "sse4_1"
  | "sse4_2"
  | "aes"
  | "pclmulqdq"
  | "sha_ni"
  | "xsave"
  | "avx"
  | "avx2"
  | "fma"
  | "f16c"
  | "apx"
  | "wrmsrns"
  | "msr_imm"
  | "bmi1"
  | "bmi2"
  | "movdiri"
  | "movdir64b"
  | "movrs"
  | "cmpccxadd"
  | "rao_int";

/** Parts of the instruction set to switch on or off against what the model has. */
export type IsaFeatureChoice = { readonly [K in IsaFeatureName]?: boolean };

/** Where a feature is reported: leaf of CPUID, subleaf (leaf 1 has none), register, bit. */
export interface IsaFeatureRow {
  /** Place of its bit. */
  readonly cpuid: readonly [number, number, "eax" | "ebx" | "ecx" | "edx", number];
  /** The feature it cannot be without. */
  readonly extends?: IsaFeatureName;
}

/** All of them. */
export const ISA_FEATURES: Readonly<Record<IsaFeatureName, IsaFeatureRow>> = {
  mmx: { cpuid: [1, 0, "edx", 23] },
  fxsr: { cpuid: [1, 0, "edx", 24] },
  sse: { cpuid: [1, 0, "edx", 25], extends: "fxsr" },
  sse2: { cpuid: [1, 0, "edx", 26], extends: "sse" },
  // SSE3, which Linux knows as Prescott New Instructions.
  pni: { cpuid: [1, 0, "ecx", 0], extends: "sse2" },
  ssse3: { cpuid: [1, 0, "ecx", 9], extends: "pni" },
  sse4_1: { cpuid: [1, 0, "ecx", 19], extends: "ssse3" },
  sse4_2: { cpuid: [1, 0, "ecx", 20], extends: "sse4_1" },
  aes: { cpuid: [1, 0, "ecx", 25], extends: "sse2" },
  pclmulqdq: { cpuid: [1, 0, "ecx", 1], extends: "sse2" },
  sha_ni: { cpuid: [7, 0, "ebx", 29], extends: "sse2" },
  // XSAVEOPT, XSAVEC, XGETBV of ECX = 1 and XSAVES come with it: they are (0Dh,1) EAX.
  xsave: { cpuid: [1, 0, "ecx", 26] },
  avx: { cpuid: [1, 0, "ecx", 28], extends: "xsave" },
  avx2: { cpuid: [7, 0, "ebx", 5], extends: "avx" },
  fma: { cpuid: [1, 0, "ecx", 12], extends: "avx" },
  f16c: { cpuid: [1, 0, "ecx", 29], extends: "avx" },
  // R16–R31 are usable only where XCR0 says so.
  apx: { cpuid: [7, 1, "edx", 21], extends: "xsave" },
  wrmsrns: { cpuid: [7, 1, "eax", 19] },
  msr_imm: { cpuid: [7, 1, "ecx", 5], extends: "wrmsrns" },
  bmi1: { cpuid: [7, 0, "ebx", 3] },
  bmi2: { cpuid: [7, 0, "ebx", 8] },
  movdiri: { cpuid: [7, 0, "ecx", 27] },
  movdir64b: { cpuid: [7, 0, "ecx", 28] },
  movrs: { cpuid: [7, 1, "eax", 31] },
  cmpccxadd: { cpuid: [7, 1, "eax", 7] },
  rao_int: { cpuid: [7, 1, "eax", 3] },
};

/** Their names; a feature stands behind the one it extends. */
export const ISA_NAMES: readonly IsaFeatureName[] = Object.keys(ISA_FEATURES) as IsaFeatureName[];

/** What all the models have, from Zen 2 and Haswell on. */
export const ISA_HASWELL: readonly IsaFeatureName[] = [
  ...[
    "mmx",
    "fxsr",
    "sse",
    "sse2",
    "pni",
    "ssse3",
    "sse4_1",
    "sse4_2",
    "aes",
    "pclmulqdq",
  ] as const,
  ...["bmi1", "bmi2"] as const,
];
/** What AMD's models have, and Intel's from Ice Lake on. */
export const ISA_ICE_LAKE: readonly IsaFeatureName[] = [...ISA_HASWELL, "sha_ni"];

/** Whether `name` is one of them. */
export function isIsaFeature(name: string): name is IsaFeatureName {
  return name in ISA_FEATURES;
}

/** Takes the parts of the instruction set out of a choice, so that the rest is the vendor's. */
export function vendorChoice<T extends object>(choice: T & IsaFeatureChoice): T {
  const rest = Object.entries(choice).filter(([name]) => !isIsaFeature(name));
  return Object.fromEntries(rest) as T;
}

/** What a model that has `own` has after `choice`; what extends something switched off goes with it. */
export function chooseIsa(
  own: readonly IsaFeatureName[],
  choice: IsaFeatureChoice,
): ReadonlySet<IsaFeatureName> {
  const on = new Set<IsaFeatureName>();
  for (const name of ISA_NAMES) {
    const wanted = choice[name];
    const base = ISA_FEATURES[name].extends;
    const based = base === undefined || on.has(base);
    if (wanted === true && !based) {
      throw new ArgumentError(`cpu: ${name} cannot be without ${base}`);
    }
    if ((wanted ?? own.includes(name)) && based) on.add(name);
  }
  return on;
}

/** Bits that XCR0 can have; 0 without XSAVE. */
export function supportedXcr0(isa: ReadonlySet<IsaFeatureName>): number {
  if (!isa.has("xsave")) return 0;
  return Xcr0.X87 | Xcr0.SSE | (isa.has("avx") ? Xcr0.AVX : 0) | (isa.has("apx") ? Xcr0.APX : 0);
}
