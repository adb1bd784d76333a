/**
 * Performance counters as guests use them: RDPMC under every vendor, and the interrupt on overflow.
 */
import { assert, assertEquals } from "@std/assert";
import {
  createVm,
  ExitAction,
  exitHook,
  ExitReason,
  Gpr,
  type Plugin,
  type Vm,
} from "../core/mod.ts";
import { cpu, type CpuModel } from "../plugins/cpu/mod.ts";
import { flat } from "../plugins/flat/mod.ts";
import { lapic, LapicRegister, lapicSlot, Lvt } from "../plugins/lapic/mod.ts";
import { metal } from "../plugins/metal/mod.ts";
import { perfCounters } from "../plugins/perfctr/mod.ts";
import { svm } from "../plugins/svm/mod.ts";
import { vmx } from "../plugins/vmx/mod.ts";

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

const dword = (value: number): number[] => [0, 8, 16, 24].map((shift) => (value >>> shift) & 0xff);
/** mov ecx, msr; mov eax, value; xor edx, edx; wrmsr */
const write = (msr: number, value: number): number[] => [
  ...[0x66, 0xb9, ...dword(msr), 0x66, 0xb8, ...dword(value), 0x66, 0x31, 0xd2, 0x0f, 0x30],
];
const NOPS: number[] = new Array(10).fill(0x90);
/** mov ecx, counter; rdpmc; hlt */
const rdpmc = (counter: number): number[] => [0x66, 0xb9, ...dword(counter), 0x0f, 0x33, 0xf4];

interface Machine {
  readonly model: CpuModel;
  readonly vendor: () => Plugin;
  readonly kind: "amd" | "intel";
}

const MACHINES: { readonly [name: string]: Machine } = {
  "metal, AMD": { model: "zen4", vendor: metal, kind: "amd" },
  "metal, Intel": { model: "sapphire-rapids", vendor: metal, kind: "intel" },
  svm: { model: "zen4", vendor: svm, kind: "amd" },
  vmx: { model: "sapphire-rapids", vendor: vmx, kind: "intel" },
};

async function run({ model, vendor, kind }: Machine, code: readonly number[]): Promise<Vm> {
  const vm = await createVm({
    memory: 2 ** 20,
    plugins: [cpu({ model }), vendor(), perfCounters({ vendor: kind }), stop],
    images: [flat(new Uint8Array(code))],
  });
  await vm.run({ instructions: 200 });
  return vm;
}

const low = (vm: Vm, register: number): bigint => vm.vcpus[0]!.regs.get(register) & 0xffff_ffffn;

for (const [name, machine] of Object.entries(MACHINES)) {
  const [select, first, last] = machine.kind === "amd" ? [0xc001_0200, 0, 5] : [0x186, 0, 3];

  Deno.test(`RDPMC reads the count of instructions: ${name}`, async () => {
    using vm = await run(machine, [...write(select, 0x43_00c0), ...NOPS, ...rdpmc(first)]);
    // The WRMSR that enables it, ten NOPs, one MOV.
    assertEquals([low(vm, Gpr.RAX), low(vm, Gpr.RDX)], [12n, 0n]);
  });

  Deno.test(`RDPMC knows the last counter, and raises #GP for the next: ${name}`, async () => {
    const zeros = [0x66, 0xb8, ...dword(7)];
    using good = await run(machine, [...zeros, ...rdpmc(last)]);
    assertEquals(low(good, Gpr.RAX), 0n);
    using bad = await run(machine, [...zeros, ...rdpmc(last + 1)]);
    // The fault goes through a table of zeros; EAX is what it was, or what runs there makes of it.
    assert(bad.vcpus[0]!.regs.rip !== 0x7c00n + BigInt(zeros.length + rdpmc(0).length));
  });

  Deno.test(`an overflow interrupts through LVT_PERF: ${name}`, async () => {
    const { model, vendor, kind } = machine;
    using vm = await createVm({
      memory: 2 ** 20,
      plugins: [cpu({ model }), vendor(), lapic({ vendor: kind }), perfCounters({ vendor: kind })],
      // jmp $
      images: [flat(new Uint8Array([0xeb, 0xfe]))],
    });
    const [vcpu] = vm.vcpus;
    const apic = vm.slots.ref(lapicSlot).current.of(vcpu!);
    apic.write(LapicRegister.SVR, 0x1ff);
    apic.write(LapicRegister.LVT_PERF, 0x45);
    const requested = (): boolean => (apic.registers.get(LapicRegister.IRR + 0x20) & 0x20) !== 0;
    const counter = kind === "amd" ? 0xc001_0201 : 0xc1;
    assert(vm.msrs.write(vcpu!, counter, 0xffff_ffff_ffffn - 999n));
    assert(vm.msrs.write(vcpu!, select, 0x53_00c0n));
    await vm.run({ instructions: 900 });
    assertEquals(requested(), false);
    await vm.run({ instructions: 200 });
    assertEquals(requested(), true);
    assertEquals(vm.msrs.read(vcpu!, counter), 100n);
    const masked = (apic.registers.get(LapicRegister.LVT_PERF) & Lvt.MASK) !== 0;
    assertEquals(masked, kind === "intel");
    if (kind === "intel") {
      assertEquals(vm.msrs.read(vcpu!, 0x38e), 1n);
      assert(vm.msrs.write(vcpu!, 0x390, 1n));
      assertEquals(vm.msrs.read(vcpu!, 0x38e), 0n);
    }
  });
}

Deno.test("RDPMC with bit 30 reads Intel's fixed counters", async () => {
  // FIXED_CTR_CTRL: counter 0 at all levels; GLOBAL_CTRL: bit 32.
  const global = [
    ...[0x66, 0xb9, ...dword(0x38f), 0x66, 0x31, 0xc0, 0x66, 0xba, ...dword(1), 0x0f, 0x30],
  ];
  using vm = await run(MACHINES["metal, Intel"]!, [
    ...write(0x38d, 3),
    ...global,
    ...NOPS,
    ...rdpmc(0x4000_0000),
  ]);
  assertEquals(low(vm, Gpr.RAX), 12n);
});
