/**
 * Guests that do nothing but take exceptions: time passes for them, so that a VM's limits, timers and other
 * vCPUs are not held up.
 */
import { assertEquals } from "@std/assert";
import { createVmSync, type Plugin } from "../core/mod.ts";
import { cpu, type CpuModel } from "../plugins/cpu/mod.ts";
import { flat } from "../plugins/flat/mod.ts";
import { metal } from "../plugins/metal/mod.ts";
import { svm } from "../plugins/svm/mod.ts";
import { vmx } from "../plugins/vmx/mod.ts";

const CODE = 0x1_0000;
const VENDORS: readonly (readonly [() => Plugin, CpuModel])[] = [
  [metal, "zen4"],
  [svm, "zen4"],
  [vmx, "sapphire-rapids"],
];

Deno.test("an exception handler whose first instruction raises the exception again", () => {
  // Real mode: vector 6 leads to the UD2 at CS:18h. The stack is elsewhere, and wraps around.
  const code = [
    ...[0x31, 0xc0, 0x8e, 0xd8], // xor ax, ax; mov ds, ax
    ...[0xc7, 0x06, 0x18, 0x00, 0x18, 0x00], // the offset of vector 6,
    ...[0xc7, 0x06, 0x1a, 0x00, 0x00, 0x10], // its segment
    ...[0xb8, 0x00, 0x20, 0x8e, 0xd0, 0x31, 0xe4], // mov ax, 2000h; mov ss, ax; xor sp, sp
    ...[0x90, 0x0f, 0x0b], // nop; ud2
  ];
  for (const [vendor, model] of VENDORS) {
    const entry = { mode: "real", segment: CODE >> 4 } as const;
    const image = flat(new Uint8Array(code), { address: CODE, entry });
    const plugins = [cpu({ model }), vendor()];
    using vm = createVmSync({ memory: 2 ** 21, cpus: 1, plugins, images: [image] });
    const end = vm.runSync({ instructions: 5000 });
    assertEquals([end.reason, end.instructions], ["limit", 5000], vendor.name);
  }
});
