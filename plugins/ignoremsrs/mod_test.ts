import { assertEquals } from "@std/assert";
import { createVm, ExitAction, exitHook, ExitReason, Gpr, type Plugin } from "../../core/mod.ts";
import { cpu } from "../cpu/mod.ts";
import { flat } from "../flat/mod.ts";
import { metal } from "../metal/mod.ts";
import { svm } from "../svm/mod.ts";
import { vmx } from "../vmx/mod.ts";
import { ignoreMsrs } from "./mod.ts";

/** mov ecx, 12345678h; mov eax, ebx; mov edx, 9; wrmsr; rdmsr; rdmsr; hlt */
const CODE = [
  ...[0x66, 0xb9, 0x78, 0x56, 0x34, 0x12, 0x66, 0xb8, 0x44, 0x33, 0x22, 0x11],
  ...[0x66, 0xba, 0x09, 0, 0, 0, 0x0f, 0x30, 0x0f, 0x32, 0x0f, 0x32, 0xf4],
];

const VENDORS = {
  metal: [cpu(), metal()],
  svm: [cpu(), svm()],
  vmx: [cpu({ model: "sapphire-rapids" }), vmx()],
} as const;

/** Runs until HLT or a fault's stray end; RAX and RDX then. */
async function run(plugins: readonly Plugin[]): Promise<readonly bigint[]> {
  const stop: Plugin = {
    name: "stop",
    version: "1.0.0",
    setup(ctx) {
      ctx.on(exitHook, ExitReason.HLT, (vcpu) => {
        vcpu.vm.stop({ reason: "stopped", detail: "HLT" });
        return ExitAction.COMPLETE;
      });
    },
  };
  // A real-mode #GP goes to 0:0 through an empty table, where zeros run on.
  using vm = await createVm({
    memory: 2 ** 20,
    plugins: [...plugins, stop],
    images: [flat(new Uint8Array(CODE))],
  });
  await vm.run({ instructions: 1000 });
  const { regs } = vm.vcpus[0]!;
  return [regs.get(Gpr.RAX) & 0xffff_ffffn, regs.get(Gpr.RDX) & 0xffff_ffffn];
}

for (const [name, plugins] of Object.entries(VENDORS)) {
  Deno.test(`MSRs that do not exist read as 0 under ${name}, and each is told once`, async () => {
    const said: string[] = [];
    assertEquals(await run([...plugins, ignoreMsrs({ log: (text) => said.push(text) })]), [0n, 0n]);
    assertEquals(said, [
      "vCPU 0: there is no MSR 12345678h; 00000009_11223344h, written to it, is lost",
      "vCPU 0: there is no MSR 12345678h; it reads as 0",
    ]);
    const [, high] = await run(plugins);
    assertEquals(high, 9n, "without the plugin WRMSR faults");
  });
}
