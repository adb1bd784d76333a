/**
 * The shadow of MOV SS where a hypervisor carries the instruction out in software, because its operand is a
 * device's.
 */

import { assertEquals } from "@std/assert";
import { createVmSync, ExitAction, exitHook, ExitReason, type Plugin } from "../core/mod.ts";
import { cpu, type CpuModel } from "../plugins/cpu/mod.ts";
import { flat } from "../plugins/flat/mod.ts";
import { metal } from "../plugins/metal/mod.ts";
import { svm } from "../plugins/svm/mod.ts";
import { vmx } from "../plugins/vmx/mod.ts";

const VENDORS: Readonly<Record<string, readonly [CpuModel, () => Plugin]>> = {
  metal: ["zen4", metal],
  svm: ["zen4", svm],
  vmx: ["sapphire-rapids", vmx],
};

const DEVICE = 0x8_0000;

/** A device whose every word is a selector, and HLT as the end. */
const board: Plugin = {
  name: "board",
  version: "1.0.0",
  setup(ctx) {
    ctx.registerMmio({ name: "device", base: DEVICE, length: 16, read: () => 0x1234 });
    ctx.on(exitHook, ExitReason.HLT, (vcpu) => {
      vcpu.vm.stop({ reason: "stopped", detail: "HLT" });
      return ExitAction.COMPLETE;
    });
  },
};

for (const [name, [model, vendor]] of Object.entries(VENDORS)) {
  for (const interrupts of ["disabled", "enabled"] as const) {
    Deno.test(`MOV SS from a device, interrupts ${interrupts}: ${name}`, () => {
      using vm = createVmSync({
        memory: 2 ** 19,
        plugins: [cpu({ model }), vendor(), board],
        // cli or sti; nop; mov ax, 8000h; mov ds, ax; mov ss, [0]; nop; hlt
        images: [flat(
          new Uint8Array([
            ...[interrupts === "enabled" ? 0xfb : 0xfa, 0x90],
            ...[0xb8, 0x00, 0x80, 0x8e, 0xd8, 0x8e, 0x16, 0, 0, 0x90, 0xf4],
          ]),
        )],
      });
      assertEquals(vm.runSync({ instructions: 100 }).reason, "stopped");
      const [vcpu] = vm.vcpus;
      assertEquals(vm.vendor.current.getSystemState(vcpu!).ss.selector, 0x1234);
      assertEquals(vm.vendor.current.getSystemState(vcpu!).interruptShadow, false);
    });
  }
}
