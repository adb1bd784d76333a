/**
 * Optional parts of the instruction set, whichever vendor's processor has them.
 *
 * @module
 */
import { ArgumentError } from "../../core/mod.ts";
import { Cr4, Xcr0, Xss } from "./microcode/registers.ts";

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
  | "sse4a"
  | "aes"
  | "pclmulqdq"
  | "sha_ni"
  | "xsave"
  | "xsaveopt"
  | "xsavec"
  | "xgetbv1"
  | "xsaves"
  | "avx"
  | "avx2"
  | "fma"
  | "f16c"
  | "apx"
  | "wrmsrns"
  | "msr_imm"
  | "bmi1"
  | "bmi2"
  | "adx"
  | "movbe"
  | "popcnt"
  | "abm"
  | "lahf_lm"
  | "movdiri"
  | "movdir64b"
  | "movrs"
  | "cmpccxadd"
  | "rao_int"
  | "erms"
  | "fsgsbase"
  | "pcid"
  | "rdtscp"
  | "smap"
  | "smep"
  | "umip"
  | "spec_ctrl"
  | "intel_stibp"
  | "spec_ctrl_ssbd"
  | "flush_l1d"
  | "arch_capabilities"
  | "amd_ibpb"
  | "amd_ibrs"
  | "amd_stibp"
  | "amd_ssbd"
  | "tsc_adjust"
  | "aperfmperf"
  | "rdpru"
  | "clflushopt"
  | "clwb"
  | "clzero"
  | "wbnoinvd"
  | "invpcid"
  | "la57"
  | "monitor"
  | "mwaitx"
  | "pku"
  | "pks"
  | "rdpid"
  | "rdrand"
  | "rdseed"
  | "serialize"
  | "shstk"
  | "ibt";

/** Parts of the instruction set to switch on or off against what the model has. */
export type IsaFeatureChoice = { readonly [K in IsaFeatureName]?: boolean };

/** Register of CPUID that a feature bit is in. */
export type CpuidOutput = "eax" | "ebx" | "ecx" | "edx";

/** Where a feature is reported, and what comes with it. */
export interface IsaFeatureRow {
  /** Place of its bit: leaf of CPUID, subleaf (only leaves 7 and 0Dh have them), register, bit. */
  readonly cpuid: readonly [number, number, CpuidOutput, number];
  /** The feature it cannot be without. */
  readonly extends?: IsaFeatureName;
  /** Whose processors have it, if not both. */
  readonly vendor?: "amd" | "intel";
  /** The bits of CR4 that exist with it. */
  readonly cr4?: number;
  /** Its bit of {@linkcode MicrocodeFeature}. */
  readonly microcode?: number;
}

/** Bits of `S.features`: what microcode has to know to be there. */
export const MicrocodeFeature = {
  /** IA32_TSC_ADJUST. */
  TSC_ADJUST: 0x1,
  /** MPERF and APERF. */
  APERFMPERF: 0x2,
  /** IA32_PKRS. */
  PKS: 0x4,
  /** XGETBV of ECX = 1. */
  XGETBV1: 0x8,
  /** IA32_XSS. */
  XSAVES: 0x10,
  /** Shadow stacks. */
  SHSTK: 0x20,
  /** Indirect-branch tracking. */
  IBT: 0x40,
} as const;

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
  sse4a: { cpuid: [0x8000_0001, 0, "ecx", 6], extends: "pni", vendor: "amd" },
  aes: { cpuid: [1, 0, "ecx", 25], extends: "sse2" },
  pclmulqdq: { cpuid: [1, 0, "ecx", 1], extends: "sse2" },
  sha_ni: { cpuid: [7, 0, "ebx", 29], extends: "sse2" },
  xsave: { cpuid: [1, 0, "ecx", 26], cr4: Cr4.OSXSAVE },
  xsaveopt: { cpuid: [0xd, 1, "eax", 0], extends: "xsave" },
  xsavec: { cpuid: [0xd, 1, "eax", 1], extends: "xsave" },
  // XGETBV of ECX = 1: which components are in use.
  xgetbv1: {
    cpuid: [0xd, 1, "eax", 2],
    extends: "xsave",
    microcode: MicrocodeFeature.XGETBV1,
  },
  xsaves: { cpuid: [0xd, 1, "eax", 3], extends: "xsavec", microcode: MicrocodeFeature.XSAVES },
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
  adx: { cpuid: [7, 0, "ebx", 19] },
  movbe: { cpuid: [1, 0, "ecx", 22] },
  popcnt: { cpuid: [1, 0, "ecx", 23] },
  // LZCNT: without it the same bytes are BSR.
  abm: { cpuid: [0x8000_0001, 0, "ecx", 5] },
  // LAHF and SAHF in 64-bit mode.
  lahf_lm: { cpuid: [0x8000_0001, 0, "ecx", 0] },
  movdiri: { cpuid: [7, 0, "ecx", 27] },
  movdir64b: { cpuid: [7, 0, "ecx", 28] },
  movrs: { cpuid: [7, 1, "eax", 31] },
  cmpccxadd: { cpuid: [7, 1, "eax", 7] },
  rao_int: { cpuid: [7, 1, "eax", 3] },
  erms: { cpuid: [7, 0, "ebx", 9] },
  fsgsbase: { cpuid: [7, 0, "ebx", 0], cr4: Cr4.FSGSBASE },
  pcid: { cpuid: [1, 0, "ecx", 17], cr4: Cr4.PCIDE },
  rdtscp: { cpuid: [0x8000_0001, 0, "edx", 27] },
  smap: { cpuid: [7, 0, "ebx", 20], cr4: Cr4.SMAP },
  smep: { cpuid: [7, 0, "ebx", 7], cr4: Cr4.SMEP },
  umip: { cpuid: [7, 0, "ecx", 2], cr4: Cr4.UMIP },
  spec_ctrl: { cpuid: [7, 0, "edx", 26], vendor: "intel" },
  intel_stibp: { cpuid: [7, 0, "edx", 27], vendor: "intel" },
  flush_l1d: { cpuid: [7, 0, "edx", 28], vendor: "intel" },
  arch_capabilities: { cpuid: [7, 0, "edx", 29], vendor: "intel" },
  spec_ctrl_ssbd: { cpuid: [7, 0, "edx", 31], vendor: "intel" },
  amd_ibpb: { cpuid: [0x8000_0008, 0, "ebx", 12], vendor: "amd" },
  amd_ibrs: { cpuid: [0x8000_0008, 0, "ebx", 14], vendor: "amd" },
  amd_stibp: { cpuid: [0x8000_0008, 0, "ebx", 15], vendor: "amd" },
  amd_ssbd: { cpuid: [0x8000_0008, 0, "ebx", 24], vendor: "amd" },
  aperfmperf: { cpuid: [6, 0, "ecx", 0], microcode: MicrocodeFeature.APERFMPERF },
  rdpru: { cpuid: [0x8000_0008, 0, "ebx", 4], extends: "aperfmperf", vendor: "amd" },
  clflushopt: { cpuid: [7, 0, "ebx", 23] },
  clwb: { cpuid: [7, 0, "ebx", 24] },
  clzero: { cpuid: [0x8000_0008, 0, "ebx", 0], vendor: "amd" },
  // Without it the same bytes are WBINVD.
  wbnoinvd: { cpuid: [0x8000_0008, 0, "ebx", 9] },
  invpcid: { cpuid: [7, 0, "ebx", 10] },
  la57: { cpuid: [7, 0, "ecx", 16], cr4: Cr4.LA57 },
  monitor: { cpuid: [1, 0, "ecx", 3] },
  mwaitx: { cpuid: [0x8000_0001, 0, "ecx", 29], vendor: "amd" },
  pku: { cpuid: [7, 0, "ecx", 3], cr4: Cr4.PKE },
  pks: { cpuid: [7, 0, "ecx", 31], cr4: Cr4.PKS, microcode: MicrocodeFeature.PKS, vendor: "intel" },
  rdpid: { cpuid: [7, 0, "ecx", 22] },
  rdrand: { cpuid: [1, 0, "ecx", 30] },
  rdseed: { cpuid: [7, 0, "ebx", 18] },
  serialize: { cpuid: [7, 0, "edx", 14] },
  shstk: { cpuid: [7, 0, "ecx", 7], cr4: Cr4.CET, microcode: MicrocodeFeature.SHSTK },
  ibt: {
    cpuid: [7, 0, "edx", 20],
    cr4: Cr4.CET,
    microcode: MicrocodeFeature.IBT,
    vendor: "intel",
  },
  tsc_adjust: { cpuid: [7, 0, "ebx", 1], microcode: MicrocodeFeature.TSC_ADJUST },
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
/** AVX2 and what Haswell brought with it, or had before. */
export const ISA_AVX2: readonly IsaFeatureName[] = [
  ...["xsave", "xsaveopt", "avx", "avx2", "fma", "f16c"] as const,
];
/** The rest of the XSAVE family, from Skylake and Zen on. */
export const ISA_XSAVES: readonly IsaFeatureName[] = ["xsavec", "xgetbv1", "xsaves"];
/** What AMD's models have, and Intel's from Ice Lake on. */
export const ISA_ICE_LAKE: readonly IsaFeatureName[] = [...ISA_HASWELL, "sha_ni"];

/** Whether `name` is one of them. */
export function isIsaFeature(name: string): name is IsaFeatureName {
  return Object.hasOwn(ISA_FEATURES, name);
}

/** Those that the processors of one vendor can have. */
export function isaNames(vendor: "amd" | "intel"): readonly IsaFeatureName[] {
  return ISA_NAMES.filter((name) => (ISA_FEATURES[name].vendor ?? vendor) === vendor);
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
  vendor: "amd" | "intel",
): ReadonlySet<IsaFeatureName> {
  const on = new Set<IsaFeatureName>();
  for (const name of ISA_NAMES) {
    const wanted = choice[name];
    const row = ISA_FEATURES[name];
    if (wanted === true && (row.vendor ?? vendor) !== vendor) {
      const whose = vendor === "amd" ? "AMD" : "Intel";
      throw new ArgumentError(`cpu: no processor of ${whose}'s has ${name}`);
    }
    const base = row.extends;
    const based = base === undefined || on.has(base);
    if (wanted === true && !based) {
      throw new ArgumentError(`cpu: ${name} cannot be without ${base}`);
    }
    if ((wanted ?? own.includes(name)) && based) on.add(name);
  }
  return on;
}

/** Bits of CR4 that every model has; what processors do without is not optional here. */
const CR4_ALWAYS: number = Cr4.VME | Cr4.PVI | Cr4.TSD | Cr4.DE | Cr4.PSE | Cr4.PAE | Cr4.MCE |
  Cr4.PGE | Cr4.PCE |
  Cr4.OSFXSR | Cr4.OSXMMEXCPT;

/** Bits that CR4 has on a processor with `isa`; writing another raises #GP. */
export function implementedCr4(isa: ReadonlySet<IsaFeatureName>, vendor: "amd" | "intel"): number {
  let bits = CR4_ALWAYS | (vendor === "intel" ? Cr4.VMXE : 0);
  for (const name of isa) bits |= ISA_FEATURES[name].cr4 ?? 0;
  return bits;
}

/** Bits of {@linkcode MicrocodeFeature} on a processor with `isa`. */
export function microcodeFeatures(isa: ReadonlySet<IsaFeatureName>): number {
  let bits = 0;
  for (const name of isa) bits |= ISA_FEATURES[name].microcode ?? 0;
  return bits;
}

/** Bits of a linear address at most. */
export function linearAddressBits(isa: ReadonlySet<IsaFeatureName>): number {
  return isa.has("la57") ? 57 : 48;
}

/** Whether an address is canonical for `bits` bits, by its bits 63:32. */
export function isCanonical(high: number, bits: number): boolean {
  const top = high >> (bits - 33);
  return top === 0 || top === -1;
}

/** Bits that XCR0 can have; 0 without XSAVE. */
export function supportedXcr0(isa: ReadonlySet<IsaFeatureName>): number {
  if (!isa.has("xsave")) return 0;
  return Xcr0.X87 | Xcr0.SSE | (isa.has("avx") ? Xcr0.AVX : 0) |
    (isa.has("pku") ? Xcr0.PKRU : 0) | (isa.has("apx") ? Xcr0.APX : 0);
}

/** Bits that XSS can have: what XSAVES saves of control-flow enforcement. */
export function supportedXss(isa: ReadonlySet<IsaFeatureName>): number {
  const enforces = isa.has("shstk") || isa.has("ibt");
  return enforces && isa.has("xsaves") ? Xss.CET_U | Xss.CET_S : 0;
}
