import { assertEquals, assertThrows } from "@std/assert";
import { ArgumentError, type CpuidResult, type Vcpu } from "../../core/mod.ts";
import { parseCpuChoice } from "./choice.ts";
import { processorCpuid } from "./cpuid.ts";
import { ISA_FEATURES, type IsaFeatureName } from "./isa_features.ts";
import {
  CPU_MODELS,
  type CpuModel,
  type ProcessorModel,
  processorModel,
  type SvmFeatureChoice,
} from "./models.ts";

/** CPUID as processor `id` of `count` has it, outside of any machine. */
function ask(
  model: ProcessorModel,
  leaf: number,
  subleaf = 0,
  [id, count]: readonly [number, number] = [0, 1],
): CpuidResult {
  const result: CpuidResult = { leaf, subleaf, eax: 0, ebx: 0, ecx: 0, edx: 0 };
  const vcpus = Array.from({ length: count }, (_, k) => ({ id: k }));
  const vendor = { current: { getSystemState: () => ({ cr4: 0n, xcr0: 1n }) } };
  processorCpuid(model).read(result, { id, vm: { vcpus, vendor } } as unknown as Vcpu);
  return result;
}

const leaf = (model: CpuModel, number: number): CpuidResult => ask(processorModel(model), number);

Deno.test("every model has its signature", () => {
  const signatures = { zen2: 0x830f10, zen3: 0xa00f11, zen4: 0xa10f11, zen5: 0xb00f21 } as const;
  for (const [model, signature] of Object.entries(signatures)) {
    assertEquals(leaf(model as CpuModel, 1).eax, signature);
    assertEquals(leaf(model as CpuModel, 0x8000_0001).eax, signature);
  }
  assertEquals(processorModel().signature, signatures.zen4);
});

Deno.test("physical addresses have as many bits as is asked for, or 48", () => {
  for (const model of ["zen4", "max", "sapphire-rapids", "max-intel"] as const) {
    assertEquals(leaf(model, 0x8000_0008).eax & 0xff, 48);
    for (const bits of [36, 46, 52]) {
      const { eax } = ask(processorModel(model, {}, bits), 0x8000_0008);
      assertEquals(eax & 0xff, bits);
    }
    for (const bits of [35, 53, 40.5, NaN]) {
      assertThrows(() => processorModel(model, {}, bits), ArgumentError, "from 36 to 52");
    }
  }
  assertEquals(parseCpuChoice("max,phys-bits=39,-smap"), {
    model: "max",
    features: { smap: false },
    vendor: "amd",
    physicalBits: 39,
  });
  assertThrows(() => parseCpuChoice("max,phys-bits=53"), ArgumentError, "53 bits");
});

Deno.test("CPUID reports the features the unit has, in the registers of 8000_000Ah", () => {
  for (const name of ["zen2", "zen3", "zen4", "zen5"] as const) {
    const { svmFeatures, svmFeatures2 } = processorModel(name);
    const { edx, ecx } = leaf(name, 0x8000_000a);
    // Nested paging, nRIP, clean bits, flush by ASID and decode assists are in every model.
    assertEquals(edx, (svmFeatures | 0xe9) >>> 0);
    assertEquals(ecx, svmFeatures2 >>> 0);
  }
});

Deno.test("AMD's models repeat features of leaf 1 EDX in 8000_0001h EDX, and name MmxExt", () => {
  // Bits 17:12, 9:0 but the APIC's, which is the local APIC's to report, 24:23 (APM vol. 3, appendix E.4).
  const repeated = 0x0183_f1ff;
  for (const name of ["zen2", "zen3", "zen4", "zen5", "max"] as const) {
    const [first, extended] = [leaf(name, 1).edx, leaf(name, 0x8000_0001).edx];
    assertEquals((extended & repeated).toString(16), (first & repeated).toString(16), name);
    // FPU, VME, DE, PSE, TSC, MSR, PAE, MCE, CMPXCHG8B; MMX, FXSR.
    assertEquals(first & 0x0180_01ff, 0x0180_01ff);
    assertEquals((extended >>> 22) & 1, 1);
  }
  assertEquals(leaf("sapphire-rapids", 0x8000_0001).edx & 0x01ff_ffff & ~0x10_0800, 0);
});

Deno.test("a model or feature that does not exist is refused", () => {
  assertThrows(() => processorModel("zen9" as CpuModel), ArgumentError, "zen9");
  assertThrows(() => processorModel("zen4", { npt2: true } as object), ArgumentError, "npt2");
});

const ZEN2 = [
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
const ZEN4 = [...ZEN2, "x2avic", "vnmi", "avic_extlvt"];
const ZEN5 = [...ZEN4, "bus_lock_threshold", "idle_hlt", "x2avic_ext"];

/** Bit of EDX, or 64 and more for bits of ECX. */
const BITS: Readonly<Record<string, number>> = {
  npt: 0,
  lbr_virt: 1,
  tsc_scale: 4,
  pause_filter: 10,
  pause_filter_threshold: 12,
  avic: 13,
  v_vmsave_vmload: 15,
  vgif: 16,
  gmet: 17,
  x2avic: 18,
  vnmi: 25,
  avic_extlvt: 27,
  bus_lock_threshold: 29,
  idle_hlt: 30,
  x2avic_ext: 64 + 6,
};

/** Names of the features that are on. */
function names(model: CpuModel, choice: SvmFeatureChoice = {}): string[] {
  const { svmFeatures, svmFeatures2 } = processorModel(model, choice);
  return Object.entries(BITS)
    .filter(([, bit]) => ((bit < 64 ? svmFeatures >>> bit : svmFeatures2 >>> (bit - 64)) & 1) !== 0)
    .map(([name]) => name);
}

Deno.test("each model has its parts of SVM", () => {
  const models = { zen2: ZEN2, zen3: ZEN2, zen4: ZEN4, zen5: ZEN5 } as const;
  for (const [model, expected] of Object.entries(models)) {
    assertEquals(names(model as CpuModel).sort(), [...expected].sort(), model);
  }
});

Deno.test("a part can be switched off and on; what extends it goes with it", () => {
  for (const name of Object.keys(BITS)) {
    const without = names("zen5", { [name]: false });
    assertEquals(without.includes(name), false, name);
    const lost = ZEN5.filter((other) => !without.includes(other)).sort();
    const expected: Readonly<Record<string, string[]>> = {
      pause_filter: ["pause_filter", "pause_filter_threshold"],
      npt: ["avic", "avic_extlvt", "gmet", "npt", "v_vmsave_vmload", "x2avic", "x2avic_ext"],
      avic: ["avic", "avic_extlvt", "x2avic", "x2avic_ext"],
      x2avic: ["x2avic", "x2avic_ext"],
    };
    assertEquals(lost, expected[name] ?? [name], name);
  }
  assertEquals(names("zen2", { idle_hlt: true }).includes("idle_hlt"), true);
  assertEquals(names("zen2", { x2avic: true, x2avic_ext: true }).includes("x2avic_ext"), true);
  assertThrows(() => processorModel("zen2", { x2avic_ext: true }), ArgumentError, "without x2avic");
  assertThrows(
    () => processorModel("zen5", { avic: false, x2avic: true }),
    ArgumentError,
    "x2avic cannot be without avic",
  );
});

Deno.test("Diamond Rapids has APX; XSAVES of VMX comes with the instructions", () => {
  const { signature, isa, vmxMsrs } = processorModel("diamond-rapids");
  assertEquals(signature, 0x40_0f10);
  assertEquals([isa.has("apx"), isa.has("msr_imm"), isa.has("wrmsrns")], [true, true, true]);
  // Secondary controls (MSR 48Bh) allow bit 20, and CR4 (489h) may have OSXSAVE.
  const may = (msrs: readonly bigint[], msr: number, bit: bigint): bigint =>
    (msrs[msr - 0x480]! >> bit) & 1n;
  assertEquals([may(vmxMsrs, 0x48b, 52n), may(vmxMsrs, 0x489, 18n)], [1n, 1n]);
  const plain = processorModel("sapphire-rapids", { xsave: false });
  assertEquals([may(plain.vmxMsrs, 0x48b, 52n), may(plain.vmxMsrs, 0x489, 18n)], [0n, 0n]);
  const haswell = processorModel("haswell");
  assertEquals([may(haswell.vmxMsrs, 0x48b, 52n), may(haswell.vmxMsrs, 0x489, 18n)], [0n, 1n]);
  assertThrows(
    () => processorModel("sapphire-rapids", { xsave: false, xsaves: true }),
    ArgumentError,
    "xsaves cannot be without xsavec",
  );
  const { isa: more } = processorModel("sapphire-rapids", { apx: true });
  assertEquals([more.has("apx"), more.has("msr_imm")], [true, false]);
});

/**
 * What Linux calls the parts of the instruction set from which on a processor has them (GCC's lists of
 * -march): each model has those of its row and of the rows before it, and none of those behind it.
 */
const GENERATIONS: readonly (readonly [readonly CpuModel[], readonly IsaFeatureName[]])[] = [
  [["haswell", "zen2"], ["avx", "avx2", "fma", "f16c", "bmi1", "bmi2", "movbe", "xsaveopt"]],
  [["skylake-sp"], ["adx", "rdseed", "smap", "clflushopt", "clwb", "xsavec", "xgetbv1", "xsaves"]],
  [["zen2"], ["sha_ni", "clzero", "rdpid", "umip", "wbnoinvd"]],
  [["skylake-sp", "zen3"], ["invpcid", "pku", "pcid"]],
  [["sapphire-rapids", "zen4"], ["la57"]],
  [["sapphire-rapids", "zen5"], ["movdiri", "movdir64b"]],
  [["diamond-rapids", "apx"], ["apx"]],
];

Deno.test("each model has what came with it and with those before it", () => {
  const orders: readonly (readonly CpuModel[])[] = [
    ["haswell", "skylake-sp", "sapphire-rapids", "diamond-rapids"],
    ["zen2", "zen3", "zen4", "zen5"],
  ];
  for (const [first, names] of GENERATIONS) {
    for (const order of orders) {
      const from = order.findIndex((model) => first.includes(model));
      if (from < 0) continue;
      for (const [k, model] of order.entries()) {
        const { isa } = processorModel(model);
        for (const name of names) {
          // INVPCID and PCIDs are older than Skylake.
          if (k < from && order[0] === "haswell" && name.endsWith("pcid")) continue;
          assertEquals(isa.has(name), k >= from, `${name} of ${model}`);
        }
      }
    }
  }
});

Deno.test("the default has AVX2, and CPUID's leaves of XSAVE say so", () => {
  const model = processorModel();
  assertEquals((ask(model, 1).ecx >>> 26) & 1, 1);
  assertEquals(ask(model, 0xd).eax, 0x207);
  assertEquals(ask(model, 0xd, 1).eax, 0xf);
  // Nothing of AVX-512, whose bits are EBX 16, 17, 21, 28, 30 and 31.
  assertEquals(ask(model, 7).ebx & 0xd023_0000, 0);
});

Deno.test("every optional part of the instruction set has its bit, and loses it when it is off", () => {
  const places = new Set<string>();
  for (const [name, row] of Object.entries(ISA_FEATURES)) {
    const [number, subleaf, output, bit] = row.cpuid;
    places.add(row.cpuid.join(" "));
    const base = row.extends === undefined ? {} : { [row.extends]: true };
    for (const on of [true, false]) {
      const model = processorModel(row.vendor === "intel" ? "max-intel" : "max", {
        ...base,
        [name]: on,
      });
      const value = ask(model, number, subleaf)[output];
      assertEquals((value >>> bit) & 1, Number(on), name);
    }
  }
  assertEquals(places.size, Object.keys(ISA_FEATURES).length, "two features have one bit");
});

/** A register of 16 characters in the brand string or of 4 in the vendor's name. */
const text = (...words: number[]): string =>
  words.flatMap((word) => [0, 8, 16, 24].map((shift) => String.fromCharCode(word >>> shift & 0xff)))
    .join("").replace(/\0+$/, "");

Deno.test("CPUID's largest leaves, names and sizes agree with each other", () => {
  for (const name of CPU_MODELS) {
    const model = processorModel(name);
    const first = ask(model, 0);
    const vendor = model.vendor === "amd" ? "AuthenticAMD" : "GenuineIntel";
    assertEquals(text(first.ebx, first.edx, first.ecx), vendor);
    const extended = ask(model, 0x8000_0000);
    assertEquals(extended.eax >= 0x8000_0008, true);
    const brand = [2, 3, 4].map((k) => ask(model, 0x8000_0000 + k))
      .map(({ eax, ebx, ecx, edx }) => text(eax, ebx, ecx, edx)).join("");
    assertEquals(brand, `Trapline ${model.title} Processor @ 1.00GHz`);
    // Nothing lies behind the largest leaves.
    const after = ask(model, first.eax + 1);
    assertEquals([after.eax, after.ebx, after.ecx, after.edx], [0, 0, 0, 0]);
    assertEquals(ask(model, 0x8000_0008).eax & 0xff, 48);
  }
});

Deno.test("caches have the size that ways, lines, partitions and sets make", () => {
  const sizes = { amd: [32, 32, 1024, 32768], intel: [48, 32, 2048, 30720] };
  for (const [name, number] of [["zen4", 0x8000_001d], ["sapphire-rapids", 4]] as const) {
    const model = processorModel(name);
    for (const [subleaf, kib] of sizes[model.vendor].entries()) {
      const { eax, ebx, ecx } = ask(model, number, subleaf, [0, 6]);
      const bytes = ((ebx & 0xfff) + 1) * (((ebx >>> 12) & 0x3ff) + 1) * ((ebx >>> 22) + 1) *
        (ecx + 1);
      assertEquals(bytes, kib * 1024, `${name} ${subleaf}`);
      assertEquals((eax >>> 5) & 7, [1, 1, 2, 3][subleaf]);
      // Only the last one is shared, by as many IDs as six processors need.
      assertEquals((eax >>> 14) & 0xfff, subleaf === 3 ? 7 : 0);
    }
    assertEquals(ask(model, number, 4).eax & 0x1f, 0);
  }
  // The L2 once more (KiB in 31:16).
  assertEquals(ask(processorModel("zen4"), 0x8000_0006).ecx >>> 16, 1024);
  assertEquals(ask(processorModel("sapphire-rapids"), 0x8000_0006).ecx >>> 16, 2048);
});

Deno.test("every leaf that has the APIC ID or the number of processors tells the same", () => {
  for (const name of ["zen4", "sapphire-rapids"] as const) {
    const model = processorModel(name);
    for (const [id, count, bits] of [[0, 1, 0], [1, 2, 1], [3, 6, 3], [7, 8, 3]] as const) {
      const at = (leaf: number, subleaf = 0): CpuidResult => ask(model, leaf, subleaf, [id, count]);
      assertEquals(at(1).ebx >>> 24, id);
      const processors = (at(1).ebx >>> 16) & 0xff;
      assertEquals(processors, model.vendor === "amd" ? count : 2 ** bits);
      assertEquals((at(1).edx >>> 28) & 1, Number(count > 1));
      for (const leaf of model.vendor === "amd" ? [0xb] : [0xb, 0x1f]) {
        assertEquals([at(leaf).eax, at(leaf).ebx, at(leaf).ecx, at(leaf).edx], [0, 1, 0x100, id]);
        const core = at(leaf, 1);
        assertEquals([core.eax, core.ebx, core.ecx, core.edx], [bits, count, 0x201, id]);
        assertEquals(at(leaf, 2).ecx, 2);
      }
      if (model.vendor === "intel") continue;
      assertEquals(at(0x8000_0008).ecx, (bits << 12) | (count - 1));
      assertEquals([at(0x8000_001e).eax, at(0x8000_001e).ebx], [id, id]);
      assertEquals((at(0x8000_0001).ecx >>> 1) & 1, Number(count > 1));
    }
  }
});

Deno.test("what CPUID remembers of one vCPU's question does not answer another's", () => {
  const leaves = [0, 0x8000_0000].flatMap((first) =>
    Array.from({ length: 64 }, (_, k) => first + k)
  );
  const state = (cr4: bigint, xcr0: bigint, xss?: bigint) => ({
    getSystemState: () => ({ cr4, xcr0, ...(xss === undefined ? {} : { controlFlow: { xss } }) }),
  });
  const vm = (vendor: unknown, count: number) => ({
    vcpus: Array.from({ length: count }, (_, id) => ({ id })),
    vendor: { current: vendor },
  });
  const vcpus = [
    { id: 0, vm: vm(state(0n, 1n), 1) },
    { id: 5, vm: vm(state(0x44_0000n, 7n, 0x800n), 6) },
    { id: 0, vm: vm({ cr4: () => 0x4_0000, xcr0: () => 3, xss: () => 0x1800 }, 2) },
  ] as unknown as Vcpu[];
  for (const name of CPU_MODELS) {
    const model = processorModel(name);
    const one = processorCpuid(model);
    // The second time everything that is remembered has been met.
    for (const vcpu of [...vcpus, ...vcpus]) {
      for (const leaf of leaves) {
        for (const subleaf of [0, 1, 2, 19]) {
          const result: CpuidResult = { leaf, subleaf, eax: 0, ebx: 0, ecx: 0, edx: 0 };
          const fresh = { ...result };
          one.read(result, vcpu);
          processorCpuid(model).read(fresh, vcpu);
          assertEquals(result, fresh, `${name}, leaf ${leaf.toString(16)}h, subleaf ${subleaf}`);
        }
      }
    }
  }
});

Deno.test("a choice of a processor in one word", () => {
  assertEquals(parseCpuChoice("zen5"), { model: "zen5", features: {}, vendor: "amd" });
  assertEquals(parseCpuChoice("epyc-zen4, -smap,+movdiri"), {
    model: "zen4",
    features: { smap: false, movdiri: true },
    vendor: "amd",
  });
  assertEquals(parseCpuChoice("sapphire-rapids,-ipi_virt").vendor, "intel");
  const wrong: readonly (readonly [string, string])[] = [
    ["zen9", 'no processor "zen9"; there are zen2, '],
    ["zen4,smap", '"smap" is no feature with + or -'],
    ["zen4,+nosuch", "no feature nosuch of zen4; there are npt, lbr_virt, "],
    ["zen4,+ipi_virt", "no feature ipi_virt of zen4"],
    ["haswell,+avic", "no feature avic of haswell"],
    ["zen4,+msr_imm", "msr_imm cannot be without wrmsrns"],
    ["zen4,-xsave,+avx", "avx cannot be without xsave"],
    ["zen4,-avx,+avx2", "avx2 cannot be without avx"],
  ];
  for (const [choice, message] of wrong) {
    assertThrows(() => parseCpuChoice(choice), ArgumentError, message);
  }
});
