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

/** Each machine with the interpreter, and with all code compiled. */
const TIERS = Object.entries(MACHINES).flatMap(([name, machine]) =>
  ([1, 2] as const).map((tier) => [`${name}, tier ${tier}`, machine, tier] as const)
);

for (const [name, machine, tier] of TIERS) {
  Deno.test(`branches are counted, taken or not, and those that fault are not: ${name}`, async () => {
    const { model, vendor, kind } = machine;
    const amd = kind === "amd";
    const select = amd ? 0xc001_0200 : 0x186;
    const [branches, misses] = amd ? [0x43_00c2, 0x43_00c3] : [0x43_00c4, 0x43_00c5];
    const handler = 0x7f00;
    const code = new Uint8Array(0x310);
    code.set([
      // xor ax, ax; mov ss, ax; mov ds, ax; mov sp, 7000h; mov word [4 * 13], 7f00h; mov word [4 * 13 + 2], 0
      ...[0x31, 0xc0, 0x8e, 0xd0, 0x8e, 0xd8, 0xbc, 0x00, 0x70],
      ...[0xc7, 0x06, 52, 0, handler & 0xff, handler >> 8, 0xc7, 0x06, 54, 0, 0, 0],
      ...write(select + (amd ? 2 : 1), misses),
      ...write(select, branches),
      // mov cx, 100; loop $: 100
      ...[0xb9, 100, 0, 0xe2, 0xfe],
      // test ax, ax; jnz +0; jz +0: one of them is taken
      ...[0x85, 0xc0, 0x75, 0x00, 0x74, 0x00],
      // call +1; hlt; add sp, 2: CALL alone
      ...[0xe8, 1, 0, 0xf4, 0x83, 0xc4, 2],
      // jmp far [0ffffh]: the operand is beyond the limit of DS, #GP; the handler goes on behind it with IRET
      ...[0xff, 0x2e, 0xff, 0xff],
      // call +0; pop ax; add ax, 6; jmp ax: CALL, and a jump that can be predicted
      ...[0xe8, 0, 0, 0x58, 0x83, 0xc0, 6, 0xff, 0xe0],
      // IBPB, and the same again: this jump cannot
      ...write(0x49, 1),
      ...[0xe8, 0, 0, 0x58, 0x83, 0xc0, 6, 0xff, 0xe0],
      ...write(select, 0),
      ...[0xf4],
    ]);
    // add word [bp], 4 behind push bp; mov bp, sp: the return address past the faulting instruction
    code.set(
      [0x55, 0x89, 0xe5, 0x83, 0x46, 0x02, 0x04, 0x5d, 0xcf],
      handler - 0x7c00,
    );
    using vm = await createVm({
      memory: 2 ** 20,
      plugins: [cpu({ model, tier }), vendor(), perfCounters({ vendor: kind }), stop],
      images: [flat(code)],
    });
    const { reason } = await vm.run({ instructions: 5000 });
    assertEquals(reason, "stopped");
    const [vcpu] = vm.vcpus;
    const counter = amd ? 0xc001_0201 : 0xc1;
    // 100 LOOPs, JNZ, JZ, CALL, IRET, twice CALL and JMP; with AMD the exception as well.
    assertEquals(vm.msrs.read(vcpu!, counter), amd ? 109n : 108n);
    assertEquals(vm.msrs.read(vcpu!, counter + (amd ? 2 : 1)), 1n);
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
