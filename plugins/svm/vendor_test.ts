import { assertEquals, assertStringIncludes } from "@std/assert";
import { createVmSync, ExitReason, PluginError } from "../../core/mod.ts";
import { cpu, type CpuOptions } from "../cpu/mod.ts";
import { svm } from "./mod.ts";

Deno.test("processors without SVM are refused by name", () => {
  const refused = (options: CpuOptions): string => {
    try {
      createVmSync({ memory: 2 ** 21, plugins: [cpu(options), svm()] }).close();
    } catch (error) {
      return error instanceof PluginError ? error.message : String(error);
    }
    return "accepted";
  };
  assertStringIncludes(refused({ model: "sapphire-rapids" }), "the processor has no SVM");
  const unpaged = refused({ model: "zen3", features: { npt: false } });
  assertStringIncludes(unpaged, "the processor has no nested paging");
  assertEquals(refused({ model: "zen3" }), "accepted");
});

Deno.test("a VMCB that the processor refuses ends the run, and says so", () => {
  using vm = createVmSync({ memory: 2 ** 21, plugins: [cpu(), svm()] });
  const [vcpu] = vm.vcpus;
  const state = vm.vendor.current.getSystemState(vcpu!);
  // NW without CD is no state that a processor can be in.
  vm.vendor.current.setSystemState(vcpu!, { ...state, cr0: 0x2000_0010n });
  const end = vm.runSync({ instructions: 10 });
  assertEquals(end.reason, "error");
  const { exit } = vcpu!;
  assertEquals([exit.reason, exit.vendorCodeLo], [ExitReason.FAIL_ENTRY, 0xffff_ffff]);
});
