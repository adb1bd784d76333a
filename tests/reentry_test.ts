/**
 * What a hypervisor changes of a guest between an exit and the next entry counts from the next instruction on,
 * though nothing had been changed at the entries before.
 */
import { assertEquals } from "@std/assert";
import { createVm, Gpr, type Plugin, type Vcpu } from "../core/mod.ts";
import { cpu, type CpuModel } from "../plugins/cpu/mod.ts";
import { flat, type FlatEntry } from "../plugins/flat/mod.ts";
import { metal } from "../plugins/metal/mod.ts";
import { svm } from "../plugins/svm/mod.ts";
import { vmx } from "../plugins/vmx/mod.ts";
import { code, dword } from "./silicon/code.ts";

const CODE = 0x1_0000;
const DIRECTORY = 0x2_0000;
const TABLE = 0x2_1000;
const TOUCHED = 0x3_0000;
const PRESENT_WRITABLE = 3;
const USER = 4;
const RFLAGS_AC = 0x4_0000;
const CR0_PG = 0x8000_0000n;
const CR4_SMAP = 0x20_0000n;
const CS_L = 0x200;
const CS_DB = 0x400;

const VENDORS: readonly (readonly [string, () => Plugin, CpuModel])[] = [
  ["metal", metal, "zen4"],
  ["svm", svm, "zen4"],
  ["vmx", vmx, "sapphire-rapids"],
];

/** Has port 80h call `action` with the number of the access, from 1 on. */
function device(action: (vcpu: Vcpu, access: number) => void): Plugin {
  let accesses = 0;
  return {
    name: "device",
    version: "1.0.0",
    setup(ctx) {
      ctx.registerPio({
        name: "action",
        base: 0x80,
        length: 1,
        write: () => action(ctx.vm.vcpus[0]!, ++accesses),
      });
      ctx.registerPio({
        name: "end",
        base: 0xf4,
        length: 1,
        write: (_offset, _size, code) => ctx.vm.stop({ reason: "exit-code", code }),
      });
    },
  };
}

const machine = (vendor: () => Plugin, model: CpuModel, program: number[], entry: FlatEntry) => {
  return (plugin: Plugin) =>
    createVm({
      memory: 2 ** 20,
      plugins: [cpu({ model }), vendor(), plugin],
      images: [flat(Uint8Array.from(program), { address: CODE, entry })],
    });
};

for (const [name, vendor, model] of VENDORS) {
  Deno.test(`${name}: RFLAGS.AC decides on user pages from the entry on behind which it was changed`, async () => {
    const program = code(
      "e6 80", // out 80h, al
      [0xa0, ...dword(TOUCHED)], // mov al, [TOUCHED]
      "eb f7", // again
    );
    const make = machine(vendor, model, program, { mode: "protected32" });
    const LAST = 7;
    let accesses = 0;
    using vm = await make(device(({ regs }, access) => {
      accesses = access;
      if (access < LAST) return;
      regs.setPair(Gpr.RFLAGS, regs.lo(Gpr.RFLAGS) & ~RFLAGS_AC, 0);
    }));
    vm.memory.writeU32(DIRECTORY, TABLE | PRESENT_WRITABLE | USER);
    for (let page = 0; page < 256; page++) {
      const user = page << 12 === TOUCHED ? USER : 0;
      vm.memory.writeU32(TABLE + 4 * page, page << 12 | PRESENT_WRITABLE | user);
    }
    const [vcpu] = vm.vcpus;
    const state = vm.vendor.current.getSystemState(vcpu!);
    state.cr3 = BigInt(DIRECTORY);
    state.cr0 |= CR0_PG;
    state.cr4 |= CR4_SMAP;
    state.idt = { base: 0n, limit: 0 };
    vm.vendor.current.setSystemState(vcpu!, state);
    vcpu!.regs.setPair(Gpr.RFLAGS, 2 | RFLAGS_AC, 0);
    const { reason } = await vm.run({ instructions: 1000 });
    assertEquals([reason, accesses], ["shutdown", LAST]);
  });

  Deno.test(`${name}: CS decides how code is read from the entry on behind which it was changed`, async () => {
    const program = code(
      "b9 10 00 00 00 31 db", // mov ecx, 16; xor ebx, ebx
      "b8 0a 00 00 00 e6 80", // mov eax, 10; out 80h, al
      "48 ff c8", // dec rax, or dec eax twice
      "00 c3 e2 f2", // add bl, al; loop
      "88 d8 e6 f4", // mov al, bl; out F4h, al
    );
    const TURNS = [4, 5, 9, 14];
    const make = machine(vendor, model, program, { mode: "long64" });
    using vm = await make(device((vcpu, access) => {
      if (!TURNS.includes(access)) return;
      const { current } = vcpu.vm.vendor;
      const state = current.getSystemState(vcpu);
      state.cs = { ...state.cs, attributes: state.cs.attributes ^ (CS_L | CS_DB) };
      current.setSystemState(vcpu, state);
    }));
    const end = await vm.run({ instructions: 1000 });
    // In compatibility mode: the rounds 4, and 9 to 13.
    assertEquals(end.reason === "exit-code" && end.code, 9 * 16 - 6);
  });
}
