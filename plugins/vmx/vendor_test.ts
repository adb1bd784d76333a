import { assertEquals, assertStringIncludes } from "@std/assert";
import { createVmSync, ExitReason, PluginError } from "../../core/mod.ts";
import { cpu, type CpuOptions } from "../cpu/mod.ts";
import { vmx } from "./mod.ts";

Deno.test("processors without VMX, or without a part that is needed, are refused by name", () => {
  const refused = (options: CpuOptions): string => {
    try {
      createVmSync({ memory: 2 ** 21, plugins: [cpu(options), vmx()] }).close();
    } catch (error) {
      return error instanceof PluginError ? error.message : String(error);
    }
    return "accepted";
  };
  assertStringIncludes(refused({ model: "zen4" }), "the processor has no VMX");
  const without = refused({ model: "haswell", features: { unrestricted_guest: false } });
  assertStringIncludes(without, "secondary controls 80h");
  assertEquals(refused({ model: "haswell" }), "accepted");
});

Deno.test("a VMCS that the processor refuses ends the run, and says with which error", () => {
  const plugins = [cpu({ model: "sapphire-rapids" }), vmx()];
  using vm = createVmSync({ memory: 2 ** 21, plugins });
  const [vcpu] = vm.vcpus;
  const state = vm.vendor.current.getSystemState(vcpu!);
  // Paging without protection is no state that a processor can be in.
  vm.vendor.current.setSystemState(vcpu!, { ...state, cr0: 0x8000_0010n });
  const end = vm.runSync({ instructions: 10 });
  assertEquals(end.reason, "error");
  const { exit } = vcpu!;
  assertEquals([exit.reason, exit.vendorCodeLo], [ExitReason.FAIL_ENTRY, 0x8000_0021]);
});
