/**
 * Feature bits of CPUID (APM vol. 3, appendix E; SDM vol. 2A, CPUID).
 *
 * @module
 */
import type { CpuidResult } from "../../../core/mod.ts";
import { type CpuidOutput, ISA_FEATURES } from "../isa_features.ts";
import type { ProcessorModel } from "../models.ts";
import { LEAF_PLACES, leafPlace } from "./fixed.ts";

type Place = readonly [leaf: number, output: CpuidOutput, bit: number];

/** Features that every model has. */
const ALWAYS: Readonly<Record<string, Place>> = {
  cx16: [1, "ecx", 13],
  fpu: [1, "edx", 0],
  vme: [1, "edx", 1],
  de: [1, "edx", 2],
  pse: [1, "edx", 3],
  tsc: [1, "edx", 4],
  msr: [1, "edx", 5],
  pae: [1, "edx", 6],
  mce: [1, "edx", 7],
  cx8: [1, "edx", 8],
  sep: [1, "edx", 11],
  mtrr: [1, "edx", 12],
  pge: [1, "edx", 13],
  mca: [1, "edx", 14],
  cmov: [1, "edx", 15],
  pat: [1, "edx", 16],
  pse36: [1, "edx", 17],
  clfsh: [1, "edx", 19],
  syscall: [0x8000_0001, "edx", 11],
  nx: [0x8000_0001, "edx", 20],
  page1gb: [0x8000_0001, "edx", 26],
  lm: [0x8000_0001, "edx", 29],
  invariant_tsc: [0x8000_0007, "edx", 8],
};

/** Features that every model of one vendor has: SVM and what belongs to it, VMX. */
const BY_VENDOR: Readonly<Record<ProcessorModel["vendor"], Readonly<Record<string, Place>>>> = {
  amd: {
    svm: [0x8000_0001, "ecx", 2],
    topoext: [0x8000_0001, "ecx", 22],
    ffxsr: [0x8000_0001, "edx", 25],
    nrips: [0x8000_000a, "edx", 3],
    vmcb_clean: [0x8000_000a, "edx", 5],
    flush_by_asid: [0x8000_000a, "edx", 6],
    decode_assists: [0x8000_000a, "edx", 7],
    null_select_clears_base: [0x8000_0021, "eax", 6],
  },
  intel: { vmx: [1, "ecx", 5] },
};

/** Bits of leaf 1 EDX that AMD's processors repeat in 8000_0001h EDX: 17:12, 9:0, 24:23. */
const REPEATED = 0x0183_f3ff;
/** 8000_0001h EDX bit 22: what SSE adds to MMX, under the name that it had before. */
const MMX_EXT = 1 << 22;
/** Leaf 1 EDX bit 28: the package has several processors. */
const HTT = 1 << 28;
/** 8000_0001h ECX bit 1: they are cores, not threads of one. */
const CMP_LEGACY = 2;

const OUTPUTS = ["eax", "ebx", "ecx", "edx"] as const;

/** What a leaf has set, by output. */
type Bits = Record<CpuidOutput, number>;

/** The feature bits of a model, by leaf and subleaf. */
export class FeatureBits {
  /** By {@linkcode leafPlace}, then by subleaf. */
  readonly #bits: Bits[][] = Array.from({ length: LEAF_PLACES }, () => []);

  /** Works them out. */
  constructor({ vendor, isa }: ProcessorModel) {
    for (const [leaf, output, bit] of Object.values({ ...ALWAYS, ...BY_VENDOR[vendor] })) {
      this.#of(leaf, 0)[output] |= 1 << bit;
    }
    for (const name of isa) {
      const [leaf, subleaf, output, bit] = ISA_FEATURES[name].cpuid;
      this.#of(leaf, subleaf)[output] |= 1 << bit;
    }
    if (vendor === "amd") {
      this.#of(0x8000_0001, 0).edx |= this.#of(1, 0).edx & REPEATED;
      if (isa.has("sse") && isa.has("mmx")) this.#of(0x8000_0001, 0).edx |= MMX_EXT;
    }
  }

  #of(leaf: number, subleaf: number): Bits {
    return this.#bits[leafPlace(leaf)]![subleaf] ??= { eax: 0, ebx: 0, ecx: 0, edx: 0 };
  }

  /** Sets the bits of the leaf asked for. Only leaves 7 and 0Dh have subleaves with features. */
  apply(result: CpuidResult): void {
    const place = leafPlace(result.leaf);
    if (place < 0) return;
    const subleaf = result.leaf === 7 || result.leaf === 0xd ? result.subleaf : 0;
    const bits = this.#bits[place]![subleaf];
    if (bits === undefined) return;
    for (const output of OUTPUTS) result[output] = (result[output] | bits[output]) >>> 0;
  }
}

/** Sets what says that there are `count` processors. */
export function markSeveral(result: CpuidResult, vendor: "amd" | "intel", count: number): void {
  if (count < 2) return;
  if (result.leaf === 1) result.edx = (result.edx | HTT) >>> 0;
  else if (vendor === "amd") result.ecx = (result.ecx | CMP_LEGACY) >>> 0;
}
