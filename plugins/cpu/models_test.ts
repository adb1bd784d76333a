import { assertEquals, assertThrows } from "@std/assert";
import { ArgumentError, type CpuidResult, type Vcpu } from "../../core/mod.ts";
import { processorCpuid } from "./cpuid.ts";
import { type CpuModel, processorModel, type SvmFeatureChoice } from "./models.ts";

function leaf(model: CpuModel, leaf: number): CpuidResult {
  const result: CpuidResult = { leaf, subleaf: 0, eax: 0, ebx: 0, ecx: 0, edx: 0 };
  processorCpuid(processorModel(model)).read(result, { id: 0 } as Vcpu);
  return result;
}

Deno.test("every model has its signature", () => {
  const signatures = { zen2: 0x830f10, zen3: 0xa00f11, zen4: 0xa10f11, zen5: 0xb00f21 } as const;
  for (const [model, signature] of Object.entries(signatures)) {
    assertEquals(leaf(model as CpuModel, 1).eax, signature);
    assertEquals(leaf(model as CpuModel, 0x8000_0001).eax, signature);
  }
  assertEquals(processorModel().signature, signatures.zen4);
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

Deno.test("a model or feature that does not exist is refused", () => {
  assertThrows(() => processorModel("zen9" as CpuModel), ArgumentError, "zen9");
  assertThrows(() => processorModel("zen4", { npt2: true } as object), ArgumentError, "npt2");
});

const ZEN2 = [
  "lbr_virt",
  "pause_filter",
  "pause_filter_threshold",
  "avic",
  "v_vmsave_vmload",
  "vgif",
];
const ZEN4 = [...ZEN2, "x2avic", "vnmi", "avic_extlvt"];
const ZEN5 = [...ZEN4, "bus_lock_threshold", "idle_hlt", "x2avic_ext"];

/** Bit of EDX, or 64 and more for bits of ECX. */
const BITS: Readonly<Record<string, number>> = {
  lbr_virt: 1,
  pause_filter: 10,
  pause_filter_threshold: 12,
  avic: 13,
  v_vmsave_vmload: 15,
  vgif: 16,
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

Deno.test("Diamond Rapids has APX, and with it XSAVES of VMX", () => {
  const { signature, isa, vmxMsrs } = processorModel("diamond-rapids");
  assertEquals(signature, 0x40_0f10);
  assertEquals([isa.has("apx"), isa.has("msr_imm"), isa.has("wrmsrns")], [true, true, true]);
  // Secondary controls (MSR 48Bh) allow bit 20, and CR4 (489h) may have OSXSAVE.
  const may = (msrs: readonly bigint[], msr: number, bit: bigint): bigint =>
    (msrs[msr - 0x480]! >> bit) & 1n;
  assertEquals([may(vmxMsrs, 0x48b, 52n), may(vmxMsrs, 0x489, 18n)], [1n, 1n]);
  const plain = processorModel("sapphire-rapids");
  assertEquals([may(plain.vmxMsrs, 0x48b, 52n), may(plain.vmxMsrs, 0x489, 18n)], [0n, 0n]);
  assertThrows(() => processorModel("sapphire-rapids", { xsaves: true }), ArgumentError, "xsave");
  const { isa: more } = processorModel("sapphire-rapids", { xsave: true, apx: true });
  assertEquals([more.has("apx"), more.has("msr_imm")], [true, false]);
});
