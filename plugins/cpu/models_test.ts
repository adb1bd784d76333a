import { assertEquals, assertThrows } from "@std/assert";
import { ArgumentError, type CpuidResult, type Vcpu } from "../../core/mod.ts";
import { processorCpuid } from "./cpuid.ts";
import { type CpuModel, processorModel } from "./models.ts";

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
