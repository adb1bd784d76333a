/**
 * What CPUID says about the processor (APM vol. 3, appendix E): only what is implemented.
 *
 * @module
 */
import type { CpuidResult, CpuidSource, Vcpu } from "../../core/mod.ts";
import { PHYSICAL_ADDRESS_BITS } from "./engine/reset.ts";
import { ISA_FEATURES, supportedXcr0 } from "./isa_features.ts";
import { APX_BYTES, AVX_BYTES, XsaveArea } from "./microcode/extended_state.ts";
import { Cr4, Xcr0 } from "./microcode/registers.ts";
import type { ProcessorModel } from "./models.ts";

/** Register that a feature bit is in. */
export type CpuidOutput = "eax" | "ebx" | "ecx" | "edx";

/** Features by name: leaf, register, bit. Every AMD model has all of them. */
export const FEATURES: Readonly<Record<string, readonly [number, CpuidOutput, number]>> = {
  cx16: [1, "ecx", 13],
  movbe: [1, "ecx", 22],
  popcnt: [1, "ecx", 23],
  fpu: [1, "edx", 0],
  de: [1, "edx", 2],
  pse: [1, "edx", 3],
  tsc: [1, "edx", 4],
  msr: [1, "edx", 5],
  pae: [1, "edx", 6],
  cx8: [1, "edx", 8],
  sep: [1, "edx", 11],
  pge: [1, "edx", 13],
  cmov: [1, "edx", 15],
  pat: [1, "edx", 16],
  pse36: [1, "edx", 17],
  clfsh: [1, "edx", 19],
  pcid: [1, "ecx", 17],
  fsgsbase: [7, "ebx", 0],
  smep: [7, "ebx", 7],
  erms: [7, "ebx", 9],
  adx: [7, "ebx", 19],
  smap: [7, "ebx", 20],
  umip: [7, "ecx", 2],
  lahf: [0x8000_0001, "ecx", 0],
  svm: [0x8000_0001, "ecx", 2],
  lzcnt: [0x8000_0001, "ecx", 5],
  syscall: [0x8000_0001, "edx", 11],
  nx: [0x8000_0001, "edx", 20],
  ffxsr: [0x8000_0001, "edx", 25],
  page1gb: [0x8000_0001, "edx", 26],
  rdtscp: [0x8000_0001, "edx", 27],
  lm: [0x8000_0001, "edx", 29],
  invariant_tsc: [0x8000_0007, "edx", 8],
  nested_paging: [0x8000_000a, "edx", 0],
  nrips: [0x8000_000a, "edx", 3],
  vmcb_clean: [0x8000_000a, "edx", 5],
  flush_by_asid: [0x8000_000a, "edx", 6],
  decode_assists: [0x8000_000a, "edx", 7],
  null_select_clears_base: [0x8000_0021, "eax", 6],
};

const VENDORS = { amd: "AuthenticAMD", intel: "GenuineIntel" } as const;
const BRAND = "Trapline Processor";
const MAX_LEAF = 7;
const MAX_LEAF_XSAVE = 0xd;
const MAX_LEAF_APX = 0x29;
/** CPUID 1 ECX bit 27: CR4.OSXSAVE. */
const OSXSAVE = 1 << 27;
/** CPUID (0Dh,1) EAX: XSAVEOPT, XSAVEC, XGETBV of ECX = 1, XSAVES. */
const XSAVE_EXTENSIONS = 0xf;
/** CPUID (29h,0) EBX bit 0: NDD and NF forms exist for everything that has been promoted. */
const APX_NCI_NDD_NF = 1;
/** XCR0[2]. */
const AVX_COMPONENT = 2;
/** XCR0[19]. */
const APX_COMPONENT = 19;
const MAX_EXTENDED_LEAF = 0x8000_0021;
/** Guest address-space identifiers of the SVM unit. */
const ASIDS = 0x8000;
/** Bytes of a cache line in units of eight, in bits 15:8 of leaf 1 EBX. */
const CLFLUSH_SIZE = 8 << 8;
/** Bits of linear addresses. */
const LINEAR_ADDRESS_BITS = 48;

/** Four characters from `at` on, as a register holds them. */
function characters(text: string, at: number): number {
  let value = 0;
  for (let k = 0; k < 4; k++) value |= (text.charCodeAt(at + k) || 0) << (8 * k);
  return value >>> 0;
}

function fill(result: CpuidResult, eax: number, ebx = 0, ecx = 0, edx = 0): void {
  result.eax = eax >>> 0;
  result.ebx = ebx >>> 0;
  result.ecx = ecx >>> 0;
  result.edx = edx >>> 0;
}

/** Features of {@linkcode FEATURES} that only AMD's models have: SVM and what belongs to it. */
const AMD_ONLY: ReadonlySet<string> = new Set([
  "svm",
  "ffxsr",
  "nested_paging",
  "nrips",
  "vmcb_clean",
  "flush_by_asid",
  "decode_assists",
  "null_select_clears_base",
]);

/** Features that only Intel's models have. */
const INTEL_ONLY: typeof FEATURES = { vmx: [1, "ecx", 5] };

type Bits = ReadonlyMap<number, Record<CpuidOutput, number>>;

function bitsOf(features: readonly (readonly [number, CpuidOutput, number])[]): Bits {
  const bits = new Map<number, Record<CpuidOutput, number>>();
  for (const [leaf, output, bit] of features) {
    const outputs = bits.get(leaf) ?? { eax: 0, ebx: 0, ecx: 0, edx: 0 };
    outputs[output] |= 1 << bit;
    bits.set(leaf, outputs);
  }
  return bits;
}

const SHARED = Object.entries(FEATURES).filter(([name]) => !AMD_ONLY.has(name))
  .map(([, place]) => place);

/** Feature bits by leaf. */
const BITS: Readonly<Record<ProcessorModel["vendor"], Bits>> = {
  amd: bitsOf(Object.values(FEATURES)),
  intel: bitsOf([...SHARED, ...Object.values(INTEL_ONLY)]),
};

/** CPUID of processors of `model`. */
export function processorCpuid(model: ProcessorModel): CpuidSource {
  return { read: (result, vcpu) => readCpuid(model, result, vcpu) };
}

/** CPUID 0Dh: the XSAVE area. `xcr0` is that of the guest. */
function extendedState({ isa }: ProcessorModel, result: CpuidResult, xcr0: number): void {
  const legacy = XsaveArea.COMPACTED;
  const standard = (components: number): number =>
    (components & Xcr0.APX) !== 0
      ? XsaveArea.APX + APX_BYTES
      : legacy + ((components & Xcr0.AVX) !== 0 ? AVX_BYTES : 0);
  const supported = supportedXcr0(isa);
  if (result.subleaf === 0) fill(result, supported, standard(xcr0), standard(supported));
  else if (result.subleaf === 1) {
    const compacted = legacy + ((xcr0 & Xcr0.AVX) !== 0 ? AVX_BYTES : 0) +
      ((xcr0 & Xcr0.APX) !== 0 ? APX_BYTES : 0);
    fill(result, XSAVE_EXTENSIONS, compacted);
  } else if (result.subleaf === AVX_COMPONENT && isa.has("avx")) {
    fill(result, AVX_BYTES, XsaveArea.COMPACTED);
  } else if (result.subleaf === APX_COMPONENT && isa.has("apx")) {
    fill(result, APX_BYTES, XsaveArea.APX);
  } else fill(result, 0);
}

/** Sets the bits of the model's own features. */
function modelFeatures({ isa }: ProcessorModel, result: CpuidResult): void {
  for (const name of isa) {
    const [leaf, subleaf, output, bit] = ISA_FEATURES[name].cpuid;
    if (result.leaf !== leaf || (leaf === 7 && result.subleaf !== subleaf)) continue;
    result[output] = (result[output] | (1 << bit)) >>> 0;
  }
}

/** The last subleaf of leaf 7. */
function lastSubleaf({ isa }: ProcessorModel): number {
  return Math.max(0, ...Array.from(isa, (name) => ISA_FEATURES[name].cpuid[1]));
}

function maxLeaf({ isa }: ProcessorModel): number {
  return isa.has("apx") ? MAX_LEAF_APX : isa.has("xsave") ? MAX_LEAF_XSAVE : MAX_LEAF;
}

function readCpuid(model: ProcessorModel, result: CpuidResult, vcpu: Vcpu): void {
  const { leaf, subleaf } = result;
  const vendor = VENDORS[model.vendor];
  switch (leaf) {
    case 0:
      fill(
        result,
        maxLeaf(model),
        characters(vendor, 0),
        characters(vendor, 8),
        characters(vendor, 4),
      );
      return;
    case 1:
      fill(result, model.signature, CLFLUSH_SIZE | (vcpu.id << 24));
      if (model.isa.has("xsave")) {
        const { cr4 } = vcpu.vm.vendor.current.getSystemState(vcpu);
        if ((cr4 & BigInt(Cr4.OSXSAVE)) !== 0n) result.ecx = OSXSAVE;
      }
      break;
    case 7:
      fill(result, subleaf === 0 ? lastSubleaf(model) : 0);
      break;
    case 0xd:
      fill(result, 0);
      if (model.isa.has("xsave")) {
        const { xcr0 } = vcpu.vm.vendor.current.getSystemState(vcpu);
        extendedState(model, result, Number(xcr0));
      }
      return;
    case 0x29:
      fill(result, 0, subleaf === 0 && model.isa.has("apx") ? APX_NCI_NDD_NF : 0);
      return;
    case 0x8000_0000:
      fill(
        result,
        MAX_EXTENDED_LEAF,
        characters(vendor, 0),
        characters(vendor, 8),
        characters(vendor, 4),
      );
      return;
    case 0x8000_0001:
      fill(result, model.vendor === "amd" ? model.signature : 0);
      break;
    case 0x8000_0002:
    case 0x8000_0003:
    case 0x8000_0004: {
      const at = (leaf - 0x8000_0002) * 16;
      const part = (k: number): number => characters(BRAND, at + 4 * k);
      fill(result, part(0), part(1), part(2), part(3));
      return;
    }
    case 0x8000_0008:
      fill(result, PHYSICAL_ADDRESS_BITS | (LINEAR_ADDRESS_BITS << 8));
      return;
    case 0x8000_000a:
      if (model.vendor === "intel") {
        fill(result, 0);
        return;
      }
      fill(result, 1, ASIDS, model.svmFeatures2, model.svmFeatures);
      break;
    default:
      fill(result, 0);
  }
  modelFeatures(model, result);
  if (subleaf !== 0 && leaf === 7) return;
  const bits = BITS[model.vendor].get(leaf);
  if (bits === undefined) return;
  result.eax = (result.eax | bits.eax) >>> 0;
  result.ebx = (result.ebx | bits.ebx) >>> 0;
  result.ecx = (result.ecx | bits.ecx) >>> 0;
  result.edx = (result.edx | bits.edx) >>> 0;
}
