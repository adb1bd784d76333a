/**
 * What CPUID says about the processor (APM vol. 3, appendix E; SDM vol. 2A, CPUID): only what is
 * implemented.
 *
 * @module
 */
import { type CpuidResult, type CpuidSource, TICKS_PER_SECOND, type Vcpu } from "../../core/mod.ts";
import {
  fillCache,
  fillDescriptors,
  fillLargeTlbs,
  fillLevel1,
  fillLevel2,
  LINE_BYTES,
} from "./cpuid/caches.ts";
import { FeatureBits, markSeveral } from "./cpuid/features.ts";
import { FixedAnswers } from "./cpuid/fixed.ts";
import { characters, fill } from "./cpuid/result.ts";
import {
  coreCount,
  fillExtendedApicId,
  fillExtendedTopology,
  topologyOf,
} from "./cpuid/topology.ts";
import { ISA_FEATURES, linearAddressBits, supportedXcr0, supportedXss } from "./isa_features.ts";
import {
  APX_BYTES,
  AVX_BYTES,
  CET_S_BYTES,
  CET_U_BYTES,
  PKRU_BYTES,
  XsaveArea,
} from "./microcode/extended_state.ts";
import { Cr4, Xcr0, Xss } from "./microcode/registers.ts";
import type { ProcessorModel } from "./models.ts";

const VENDORS = { amd: "AuthenticAMD", intel: "GenuineIntel" } as const;
/** Last standard leaf: the extended topology of AMD's, the second one of Intel's. */
const MAX_LEAF = { amd: 0xd, intel: 0x1f } as const;
const MAX_LEAF_APX = 0x29;
/** Last extended leaf. */
const MAX_EXTENDED_LEAF = { amd: 0x8000_0021, intel: 0x8000_0008 } as const;
/** CPUID 1 ECX bit 27: CR4.OSXSAVE. */
const OSXSAVE = 1 << 27;
/** CPUID (7,0) ECX bit 4: CR4.PKE. */
const OSPKE = 0x10;
/** CPUID (29h,0) EBX bit 0: NDD and NF forms exist for everything that has been promoted. */
const APX_NCI_NDD_NF = 1;
/** XCR0[2]. */
const AVX_COMPONENT = 2;
/** XCR0[9]. */
const PKRU_COMPONENT = 9;
/** XCR0[19]. */
const APX_COMPONENT = 19;
/** Guest address-space identifiers of the SVM unit. */
const ASIDS = 0x8000;
/** Frequency of the TSC in MHz: it counts ticks of VM time. */
const MHZ = TICKS_PER_SECOND / 1e6;

/** CPUID of processors of `model`. */
export function processorCpuid(model: ProcessorModel): CpuidSource {
  const features = new FeatureBits(model);
  const fixed = new FixedAnswers();
  return {
    read(result, vcpu) {
      if (fixed.recall(result)) return;
      fillLeaf(model, result, vcpu);
      features.apply(result);
      fixed.keep(result);
    },
  };
}

/** CR4 31:0 of a vCPU. */
function cr4Of(vcpu: Vcpu): number {
  const vendor = vcpu.vm.vendor.current;
  return vendor.cr4?.(vcpu) ?? Number(BigInt.asIntN(32, vendor.getSystemState(vcpu).cr4));
}

/** XCR0 31:0 of a vCPU. */
function xcr0Of(vcpu: Vcpu): number {
  const vendor = vcpu.vm.vendor.current;
  return vendor.xcr0?.(vcpu) ?? Number(BigInt.asIntN(32, vendor.getSystemState(vcpu).xcr0));
}

/** XSS 31:0 of a vCPU. */
function xssOf(vcpu: Vcpu): number {
  const vendor = vcpu.vm.vendor.current;
  const asked = (): bigint => vendor.getSystemState(vcpu).controlFlow?.xss ?? 0n;
  return vendor.xss?.(vcpu) ?? Number(BigInt.asIntN(32, asked()));
}

/** Components of XSS: number, bytes, bit. A processor has both or neither. */
const SUPERVISOR: readonly (readonly [number, number, number])[] = [
  [11, CET_U_BYTES, Xss.CET_U],
  [12, CET_S_BYTES, Xss.CET_S],
];
/** ECX of a component's subleaf: XSS enables it, not XCR0. */
const BY_XSS = 1;

/** CPUID 0Dh: the XSAVE area. `xcr0` is that of the guest. */
function extendedState(
  { isa }: ProcessorModel,
  result: CpuidResult,
  xcr0: number,
  vcpu: Vcpu,
): void {
  const legacy = XsaveArea.COMPACTED;
  const standard = (components: number): number => {
    if ((components & Xcr0.APX) !== 0) return XsaveArea.APX + APX_BYTES;
    if ((components & Xcr0.PKRU) !== 0) return XsaveArea.PKRU + PKRU_BYTES;
    return legacy + ((components & Xcr0.AVX) !== 0 ? AVX_BYTES : 0);
  };
  const supported = supportedXcr0(isa);
  if (result.subleaf === 0) fill(result, supported, standard(xcr0), standard(supported));
  else if (result.subleaf === 1) {
    const compacted = legacy + ((xcr0 & Xcr0.AVX) !== 0 ? AVX_BYTES : 0) +
      ((xcr0 & Xcr0.PKRU) !== 0 ? PKRU_BYTES : 0) + ((xcr0 & Xcr0.APX) !== 0 ? APX_BYTES : 0);
    const xss = supportedXss(isa);
    const enabled = xss === 0 ? 0 : xssOf(vcpu);
    const more = SUPERVISOR.reduce((sum, [, size, bit]) => sum + (enabled & bit ? size : 0), 0);
    fill(result, 0, isa.has("xsavec") ? compacted + more : 0, xss);
  } else if (result.subleaf === AVX_COMPONENT && isa.has("avx")) {
    fill(result, AVX_BYTES, XsaveArea.COMPACTED);
  } else if (result.subleaf === PKRU_COMPONENT && isa.has("pku")) {
    fill(result, PKRU_BYTES, XsaveArea.PKRU);
  } else if (result.subleaf === APX_COMPONENT && isa.has("apx")) {
    fill(result, APX_BYTES, XsaveArea.APX);
  } else {
    const row = SUPERVISOR.find(([component]) => component === result.subleaf);
    const has = row !== undefined && (supportedXss(isa) & row[2]) !== 0;
    fill(result, has ? row[1] : 0, 0, has ? BY_XSS : 0);
  }
}

/** The last subleaf of leaf 7. */
function lastSubleaf({ isa }: ProcessorModel): number {
  const places = Array.from(isa, (name) => ISA_FEATURES[name].cpuid);
  return Math.max(0, ...places.map(([leaf, subleaf]) => leaf === 7 ? subleaf : 0));
}

function maxLeaf({ isa, vendor }: ProcessorModel): number {
  return isa.has("apx") ? MAX_LEAF_APX : MAX_LEAF[vendor];
}

function fillVendor(result: CpuidResult, max: number, name: string): void {
  fill(result, max, characters(name, 0), characters(name, 8), characters(name, 4));
}

/** Leaf 1: signature, line size, processors and APIC ID; OSXSAVE is CR4's. */
function fillIdentity(model: ProcessorModel, result: CpuidResult, vcpu: Vcpu): void {
  const { count, idBits } = topologyOf(vcpu);
  // Intel's tells how many APIC IDs the package has, AMD's how many processors.
  const processors = Math.min(model.vendor === "intel" ? 2 ** idBits : count, 0xff);
  const ebx = ((LINE_BYTES / 8) << 8) | (processors << 16) | (vcpu.id << 24);
  fill(result, model.signature, ebx);
  if (model.isa.has("xsave")) {
    if ((cr4Of(vcpu) & Cr4.OSXSAVE) !== 0) result.ecx = OSXSAVE;
  }
  markSeveral(result, model.vendor, count);
}

/** Leaf 5: lines for MONITOR; ECX: there are these bits (0), masked interrupts end a wait (1). */
function fillMonitor({ isa }: ProcessorModel, result: CpuidResult): void {
  if (!isa.has("monitor") && !isa.has("mwaitx")) return fill(result, 0);
  fill(result, LINE_BYTES, LINE_BYTES, 3, 0);
}

/** What has no feature bits. */
function fillLeaf(model: ProcessorModel, result: CpuidResult, vcpu: Vcpu): void {
  const { leaf, subleaf } = result;
  const { vendor } = model;
  switch (leaf) {
    case 0:
      return fillVendor(result, maxLeaf(model), VENDORS[vendor]);
    case 1:
      return fillIdentity(model, result, vcpu);
    case 5:
      return fillMonitor(model, result);
    case 7: {
      fill(result, subleaf === 0 ? lastSubleaf(model) : 0);
      if (subleaf !== 0 || !model.isa.has("pku")) return;
      if ((cr4Of(vcpu) & Cr4.PKE) !== 0) result.ecx = OSPKE;
      return;
    }
    case 0xb:
      return fillExtendedTopology(result, topologyOf(vcpu));
    case 0xd:
      fill(result, 0);
      if (model.isa.has("xsave")) {
        extendedState(model, result, xcr0Of(vcpu), vcpu);
      }
      return;
    case 0x29:
      return fill(result, 0, subleaf === 0 && model.isa.has("apx") ? APX_NCI_NDD_NF : 0);
    case 0x8000_0000:
      return fillVendor(result, MAX_EXTENDED_LEAF[vendor], VENDORS[vendor]);
    case 0x8000_0001:
      fill(result, vendor === "amd" ? model.signature : 0);
      return markSeveral(result, vendor, topologyOf(vcpu).count);
    case 0x8000_0002:
    case 0x8000_0003:
    case 0x8000_0004: {
      const brand = `Trapline ${model.title} Processor @ ${(MHZ / 1000).toFixed(2)}GHz`;
      const at = (leaf - 0x8000_0002) * 16;
      const part = (k: number): number => characters(brand, at + 4 * k);
      return fill(result, part(0), part(1), part(2), part(3));
    }
    case 0x8000_0006:
      return fillLevel2(result, vendor);
    default:
      return vendor === "amd" ? fillAmd(model, result, vcpu) : fillIntel(model, result, vcpu);
  }
}

function fillAmd(model: ProcessorModel, result: CpuidResult, vcpu: Vcpu): void {
  switch (result.leaf) {
    case 0x8000_0005:
      return fillLevel1(result);
    case 0x8000_0008: {
      const sizes = model.physicalBits | (linearAddressBits(model.isa) << 8);
      // EDX 31:16: the last register that RDPRU reads.
      const rdpru = model.isa.has("rdpru") ? 1 << 16 : 0;
      return fill(result, sizes, 0, coreCount(topologyOf(vcpu)), rdpru);
    }
    case 0x8000_000a:
      return fill(result, 1, ASIDS, model.svmFeatures2, model.svmFeatures);
    case 0x8000_0019:
      return fillLargeTlbs(result);
    case 0x8000_001d:
      return fillCache(result, "amd", topologyOf(vcpu));
    case 0x8000_001e:
      return fillExtendedApicId(result, topologyOf(vcpu));
    default:
      return fill(result, 0);
  }
}

function fillIntel(model: ProcessorModel, result: CpuidResult, vcpu: Vcpu): void {
  switch (result.leaf) {
    case 2:
      return fillDescriptors(result);
    case 4:
      return fillCache(result, "intel", topologyOf(vcpu));
    case 0x15:
      // The TSC counts the core crystal clock, whose frequency is in ECX.
      return fill(result, 1, 1, TICKS_PER_SECOND);
    case 0x16:
      // Base, maximum and bus frequency in MHz.
      return fill(result, MHZ, MHZ, MHZ);
    case 0x1f:
      return fillExtendedTopology(result, topologyOf(vcpu));
    case 0x8000_0008:
      return fill(result, model.physicalBits | (linearAddressBits(model.isa) << 8));
    default:
      return fill(result, 0);
  }
}
