/** What a guest changes in its mode takes effect at once, and in full, whoever carries it out. */
import { assertEquals } from "@std/assert";
import { createVm, type Plugin } from "../core/mod.ts";
import { cpu, type CpuModel } from "../plugins/cpu/mod.ts";
import { flat } from "../plugins/flat/mod.ts";
import { metal } from "../plugins/metal/mod.ts";
import { svm } from "../plugins/svm/mod.ts";
import { vmx } from "../plugins/vmx/mod.ts";
import { code, dword } from "./silicon/code.ts";

const CODE = 0x1_0000;
const DIRECTORY = 0x2_0000;
const TABLE = 0x2_1000;
const TOUCHED = 0x3_0000;
const PRESENT_WRITABLE = 3;
const ACCESSED_DIRTY = 0x60;

const VENDORS: readonly (readonly [string, () => Plugin, CpuModel])[] = [
  ["metal", metal, "zen4"],
  ["svm", svm, "zen4"],
  ["vmx", vmx, "sapphire-rapids"],
];

for (const [name, vendor, model] of VENDORS) {
  Deno.test(`${name}: no translation from before paging was switched on is used behind it`, async () => {
    const program = code(
      [0xb8, ...dword(DIRECTORY)],
      "0f 22 d8", // mov cr3, eax
      [0xa3, ...dword(TOUCHED)], // mov [TOUCHED], eax
      "0f 20 c0 0d 00 00 00 80 0f 22 c0", // mov eax, cr0; or eax, CR0.PG; mov cr0, eax
      [0xa3, ...dword(TOUCHED)],
      "f4",
    );
    using vm = await createVm({
      memory: 2 ** 20,
      plugins: [cpu({ model }), vendor()],
      images: [
        flat(Uint8Array.from(program), { address: CODE, entry: { mode: "protected32" } }),
      ],
    });
    vm.memory.writeU32(DIRECTORY, TABLE | PRESENT_WRITABLE);
    for (let page = 0; page < 256; page++) {
      vm.memory.writeU32(TABLE + 4 * page, page << 12 | PRESENT_WRITABLE);
    }
    const { reason } = await vm.run({ instructions: 100 });
    assertEquals(reason, "halted");
    const entry = vm.memory.readU32(TABLE + 4 * (TOUCHED >> 12));
    assertEquals(entry & ACCESSED_DIRTY, ACCESSED_DIRTY);
  });
}

for (const [name, vendor, model] of VENDORS) {
  Deno.test(`${name}: what a null selector leaves is not usable in real mode either, until it is loaded`, async () => {
    const load = "31 c0 8e e0"; // xor ax, ax; mov fs, ax
    const use = "64 a0 00 00 f4"; // mov al, fs:[0]; hlt
    for (const [text, end] of [[use, "shutdown"], [load + "0f a2" + use, "halted"]] as const) {
      using vm = await createVm({
        memory: 2 ** 20,
        plugins: [cpu({ model }), vendor()],
        images: [flat(Uint8Array.from(code(text)))],
      });
      const vcpu = vm.vcpus[0]!;
      const state = vm.vendor.current.getSystemState(vcpu);
      // As a return to an outer ring leaves it, which keeps the limit. #GP has no handler.
      state.fs = { selector: 0, base: 0n, limit: 0xffff_ffff, attributes: 0 };
      state.idt = { base: 0n, limit: 0 };
      vm.vendor.current.setSystemState(vcpu, state);
      const { reason } = await vm.run({ instructions: 100 });
      assertEquals(reason, end);
    }
  });
}

for (const [name, vendor, model] of VENDORS) {
  Deno.test(`${name}: a state taken behind SYSRET has the CPL in SS`, async () => {
    const target = CODE + 0x100;
    // mov ecx, target; mov r11d, 2; sysretq
    const program = code([0xb9, ...dword(target)], "41 bb 02 00 00 00 48 0f 07");
    using vm = await createVm({
      memory: 2 ** 20,
      plugins: [cpu({ model }), vendor()],
      images: [flat(Uint8Array.from(program), { address: CODE, entry: { mode: "long64" } })],
    });
    const vcpu = vm.vcpus[0]!;
    const { current } = vm.vendor;
    const state = current.getSystemState(vcpu);
    state.efer |= 1n;
    state.star = 0x1bn << 48n;
    // As if an interrupt had come from ring 3: SS is null, and not usable.
    state.ss = { selector: 0, base: 0n, limit: 0, attributes: 0 };
    current.setSystemState(vcpu, state);
    await vm.run({ instructions: 3 });
    assertEquals(vcpu.regs.rip, BigInt(target));
    const { cs, ss } = current.getSystemState(vcpu);
    assertEquals([cs.selector, ss.selector], [0x2b, 0x23]);
    assertEquals((ss.attributes >> 5) & 3, 3);
  });
}
